//! Paths and what happens there. A request runs in a task of its own: a client that
//! leaves does not leave a half-made certificate behind.

use std::sync::Arc;

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{ConnectInfo, DefaultBodyLimit, Path, State},
    http::{HeaderMap, Method, Response, header},
    routing::{any, get},
};
use serde_json::{Map, Value, json};

use super::{answer::Answer, listener::ClientAddr};
use crate::{
    acme::{AcmeId, Authorization, ChallengeKind, Outcome, Problem},
    clock::rfc3339,
    error::Error,
    ops::acme::{self as ops, Acme, OrderView, Post, Visit},
};

/// A CSR of 16 KiB in base64, twice.
const MAX_BODY: usize = 64 << 10;
/// Pause before a client should look again, in seconds.
const AGAIN: &str = "2";
/// How often renewal windows are asked for (RFC 9773 §4.3).
const ARI_AGAIN: &str = "21600";

type Shared = State<Arc<Acme>>;

pub(super) fn router(acme: Arc<Acme>) -> Router {
    Router::new()
        .route("/acme/{tenant}/directory", get(directory))
        .route("/acme/{tenant}/new-nonce", get(new_nonce))
        .route("/acme/{tenant}/renewal-info/{id}", get(renewal_info))
        .route("/acme/{tenant}/{*path}", any(post))
        .fallback(nowhere)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(acme)
}

async fn nowhere(State(acme): Shared) -> Response<Body> {
    Answer::problem(&Problem::not_found()).finish(&acme, "")
}

async fn directory(State(acme): Shared, Path(tenant): Path<String>) -> Response<Body> {
    let answer = match listing(&acme, &tenant).await {
        Ok(document) => Answer::json(200, &document),
        Err(problem) => Answer::problem(&problem),
    };
    answer.finish(&acme, &tenant)
}

async fn listing(acme: &Acme, tenant: &str) -> Result<Value, Problem> {
    let id = acme.tenant(tenant).ok_or_else(Problem::not_found)?;
    let mut profiles = Map::new();
    for name in acme.app.store.acme_profiles(id).await? {
        let text = format!("profile {name} of this appliance");
        profiles.insert(name, text.into());
    }
    let url = |path: &str| acme.url(tenant, path);
    Ok(json!({
        "newNonce": url("new-nonce"),
        "newAccount": url("new-account"),
        "newOrder": url("new-order"),
        "revokeCert": url("revoke-cert"),
        "keyChange": url("key-change"),
        "renewalInfo": url("renewal-info"),
        "meta": {"externalAccountRequired": true, "profiles": profiles},
    }))
}

/// 200 for HEAD, 204 for GET (RFC 8555 §7.2).
async fn new_nonce(
    State(acme): Shared,
    Path(tenant): Path<String>,
    method: Method,
) -> Response<Body> {
    let status = if method == Method::HEAD { 200 } else { 204 };
    let answer = match acme.tenant(&tenant) {
        Some(_) => Answer::empty(status),
        None => Answer::problem(&Problem::not_found()),
    };
    answer.finish(&acme, &tenant)
}

async fn renewal_info(
    State(acme): Shared,
    Path((tenant, id)): Path<(String, String)>,
) -> Response<Body> {
    let answer = match ops::renewal_window(&acme, &tenant, &id).await {
        Ok(window) => {
            Answer::json(200, &window.document()).with(header::RETRY_AFTER, ARI_AGAIN.to_owned())
        }
        Err(problem) => Answer::problem(&problem),
    };
    answer.finish(&acme, &tenant)
}

/// Every signed request.
async fn post(
    State(acme): Shared,
    Path((tenant, path)): Path<(String, String)>,
    method: Method,
    headers: HeaderMap,
    ConnectInfo(ClientAddr(peer)): ConnectInfo<ClientAddr>,
    body: Result<Bytes, axum::extract::rejection::BytesRejection>,
) -> Response<Body> {
    let peer = peer.ip().to_string();
    let task = {
        let (acme, tenant) = (Arc::clone(&acme), tenant.clone());
        tokio::spawn(async move {
            if method != Method::POST {
                return Err(Problem::malformed("send a signed POST").with_status(405));
            }
            let kind = headers.get(header::CONTENT_TYPE).map(|v| v.as_bytes());
            if kind != Some(b"application/jose+json".as_slice()) {
                return Err(
                    Problem::malformed("the content type must be application/jose+json")
                        .with_status(415),
                );
            }
            let body = body.map_err(|_| {
                Problem::malformed(format!("a body has at most {MAX_BODY} bytes")).with_status(413)
            })?;
            let (path, body) = (path.as_str(), body.as_ref());
            let request = Post {
                tenant: &tenant,
                path,
                body,
                peer,
            };
            let visit = ops::authenticate(&acme, request).await?;
            dispatch(&acme, &visit, path).await
        })
    };
    let result = task
        .await
        .unwrap_or_else(|e| Err(Error::internal(format!("a request ended early: {e}")).into()));
    let answer = result.unwrap_or_else(|problem| {
        match problem.internal_text() {
            Some(internal) => tracing::error!(%problem, internal, "ACME request failed"),
            None => tracing::info!(%problem, "ACME request refused"),
        }
        Answer::problem(&problem)
    });
    answer.finish(&acme, &tenant)
}

async fn dispatch(acme: &Arc<Acme>, visit: &Visit, path: &str) -> Result<Answer, Problem> {
    let mut parts = path.split('/');
    let place = (parts.next(), parts.next(), parts.next(), parts.next());
    let id = |text: &str| AcmeId::parse(text).ok_or_else(Problem::not_found);
    let url = |path: String| acme.url(&visit.tenant, &path);
    let account = |a: crate::acme::Account, status| {
        let own = url(format!("acct/{}", a.id));
        Answer::json(status, &a.document(&format!("{own}/orders"))).at(own)
    };
    match place {
        (Some("new-account"), None, ..) => {
            let found = ops::new_account(acme, visit).await?;
            Ok(account(found.account, if found.new { 201 } else { 200 }))
        }
        (Some("acct"), Some(of), None, _) => Ok(account(
            ops::update_account(acme, visit, &id(of)?).await?,
            200,
        )),
        (Some("acct"), Some(of), Some("orders"), None) => {
            let ids = ops::orders(acme, visit, &id(of)?).await?;
            let urls: Vec<String> = ids.iter().map(|i| url(format!("order/{i}"))).collect();
            Ok(Answer::json(200, &json!({"orders": urls})))
        }
        (Some("key-change"), None, ..) => Ok(account(ops::change_key(acme, visit).await?, 200)),
        (Some("new-order"), None, ..) => {
            Ok(order(acme, visit, 201, &ops::new_order(acme, visit).await?))
        }
        (Some("order"), Some(of), None, _) => Ok(order(
            acme,
            visit,
            200,
            &ops::order(acme, visit, &id(of)?).await?,
        )),
        (Some("order"), Some(of), Some("finalize"), None) => Ok(order(
            acme,
            visit,
            200,
            &ops::finalize(acme, visit, &id(of)?).await?,
        )),
        (Some("authz"), Some(of), None, _) => {
            let found = if visit.only_reads() {
                ops::authorization(acme, visit, &id(of)?).await?
            } else {
                ops::deactivate_authorization(acme, visit, &id(of)?).await?
            };
            Ok(authorization(acme, visit, &found))
        }
        (Some("chall"), Some(of), Some(kind), None) => {
            let kind = ChallengeKind::parse(kind).ok_or_else(Problem::not_found)?;
            let (authz, challenge) = ops::answer(acme, visit, &id(of)?, kind).await?;
            let own = url(format!("chall/{}/{}", authz.id, kind.name()));
            Ok(Answer::json(200, &challenge.document(&own))
                .up(&url(format!("authz/{}", authz.id)))
                .with(header::RETRY_AFTER, AGAIN.to_owned()))
        }
        (Some("cert"), Some(of), None, _) => Ok(Answer::chain(
            &ops::certificate(acme, visit, &id(of)?).await?,
        )),
        (Some("revoke-cert"), None, ..) => {
            ops::revoke(acme, visit).await?;
            Ok(Answer::empty(200))
        }
        _ => Err(Problem::not_found()),
    }
}

fn authorization(acme: &Acme, visit: &Visit, found: &Authorization) -> Answer {
    let url = |kind: ChallengeKind| {
        acme.url(
            &visit.tenant,
            &format!("chall/{}/{}", found.id, kind.name()),
        )
    };
    let document = found.document(acme.app.clock.now_ms(), url);
    Answer::json(200, &document).with(header::RETRY_AFTER, AGAIN.to_owned())
}

/// RFC 8555 §7.1.3. The Location comes with every one of them: some clients have no other
/// way to find the order again.
fn order(acme: &Acme, visit: &Visit, status: u16, view: &OrderView) -> Answer {
    let OrderView { order, status: is } = view;
    let own = acme.url(&visit.tenant, &format!("order/{}", order.id));
    let authorizations: Vec<String> = order
        .authorizations
        .iter()
        .map(|id| acme.url(&visit.tenant, &format!("authz/{id}")))
        .collect();
    let mut document = json!({
        "status": is.name(),
        "expires": rfc3339(order.expires_ms),
        "identifiers": order.identifiers_json(),
        "profile": order.profile.as_str(),
        "authorizations": authorizations,
        "finalize": format!("{own}/finalize"),
    });
    if let Some(map) = document.as_object_mut() {
        match &order.outcome {
            Outcome::Issued(_) => {
                let url = acme.url(&visit.tenant, &format!("cert/{}", order.id));
                map.insert("certificate".into(), url.into());
            }
            Outcome::Failed(why) => {
                let problem = Problem::new(crate::acme::ProblemKind::RejectedIdentifier, why);
                map.insert("error".into(), problem.document());
            }
            Outcome::Open => {}
        }
    }
    Answer::json(status, &document).at(own)
}
