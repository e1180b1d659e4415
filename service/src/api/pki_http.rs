//! The public door of the PKI: CRLs, certificates of issuers and OCSP, for whoever checks
//! a certificate. Plain HTTP on purpose (RFC 5280 §8): who checks one certificate cannot
//! check another one first. Everything here is signed and public; nobody is asked who he
//! is, and nothing is changed from here.
//!
//! Names of issuers belong to a tenant, so every path begins with one, and so does
//! `urls.base` of a ceremony: `http://pki.example.com/TENANT`.

mod cached;
mod ocsp;
mod serve;

use std::{collections::HashMap, sync::Arc};

use axum::{
    Router,
    extract::{DefaultBodyLimit, Path, Request, State},
    http::{HeaderMap, StatusCode},
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use bytes::Bytes;
use keywright_pki::{OcspRequest, certificate_to_pem};
use sha2::{Digest, Sha256};
use tracing::warn;

pub use serve::serve_http;

use super::Tenants;
use crate::{
    authorities::Authority,
    authority::AuthorityName,
    key::TenantId,
    metrics,
    ops::{
        App,
        pki::{Lists, Ocsp},
    },
};
use cached::Document;

#[derive(Clone)]
struct Door {
    app: Arc<App>,
    lists: Arc<Lists>,
    ocsp: Arc<Ocsp>,
    tenants: Arc<HashMap<Arc<str>, TenantId>>,
}

/// What was asked for; a label of the metrics.
#[derive(Clone, Copy)]
struct Kind(&'static str);

/// The certificate of an issuer does not change under its name.
const CERTIFICATE_MAX_AGE: u64 = 24 * 60 * 60;

/// The routes of the door.
pub fn pki_routes(app: &Arc<App>, tenants: &Tenants) -> Router {
    let door = Door {
        app: Arc::clone(app),
        lists: Arc::new(Lists::new(Arc::clone(app))),
        ocsp: Arc::new(Ocsp::new(Arc::clone(app))),
        tenants: Arc::new(tenants.by_name().collect()),
    };
    Router::new()
        .route("/{tenant}/{file}", get(of_issuer))
        .route("/{tenant}/{issuer}/{file}", get(below_issuer))
        .route("/{tenant}/ocsp/{issuer}", post(ocsp::by_post))
        .route("/{tenant}/ocsp/{issuer}/{*request}", get(ocsp::by_get))
        .fallback(|| async { not_found() })
        .layer(DefaultBodyLimit::max(OcspRequest::MAX_LEN))
        .layer(from_fn(counted))
        .with_state(door)
}

impl Door {
    /// An issuer with a certificate, and whose it is.
    fn issuer(&self, tenant: &str, name: &str) -> Option<Arc<Authority>> {
        let tenant = *self.tenants.get(tenant)?;
        let name = AuthorityName::parse(name).ok()?;
        let authority = self.app.authorities.issuer(tenant, &name)?;
        authority.certificate.is_some().then_some(authority)
    }

    /// Seconds from now to a time in milliseconds; 0 when it is past.
    fn seconds_to(&self, ms: i64) -> u64 {
        u64::try_from((ms - self.app.clock.now_ms()) / 1000).unwrap_or(0)
    }
}

/// `ISSUER.crl` and `ISSUER.cer`.
async fn of_issuer(
    State(door): State<Door>,
    Path((tenant, file)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    let Some((name, kind)) = file.rsplit_once('.') else {
        return not_found();
    };
    let Some(authority) = door.issuer(&tenant, name) else {
        return not_found();
    };
    match kind {
        "crl" => crl(&door, &authority, 0, &headers).await,
        "cer" => {
            let der = Bytes::copy_from_slice(&authority.issuer.certificate);
            let kind = ("certificate", "application/pkix-cert");
            fixed(&authority, kind, der, &headers)
        }
        _ => not_found(),
    }
}

/// `ISSUER/SHARD.crl` and `ISSUER/chain.pem`.
async fn below_issuer(
    State(door): State<Door>,
    Path((tenant, name, file)): Path<(String, String, String)>,
    headers: HeaderMap,
) -> Response {
    let Some(authority) = door.issuer(&tenant, &name) else {
        return not_found();
    };
    if file == "chain.pem" {
        let chain = door.lists.chain(&authority);
        if chain.is_empty() {
            // A root: who trusts it has it.
            return not_found();
        }
        let pem: String = chain.iter().map(|der| certificate_to_pem(der)).collect();
        let kind = ("chain", "application/pem-certificate-chain");
        return fixed(&authority, kind, pem.into(), &headers);
    }
    match file.strip_suffix(".crl").and_then(shard) {
        Some(shard) => crl(&door, &authority, shard, &headers).await,
        None => not_found(),
    }
}

/// From 1, and written in one way only.
fn shard(text: &str) -> Option<u32> {
    let number: u32 = text.parse().ok()?;
    (number > 0 && number.to_string() == text).then_some(number)
}

async fn crl(door: &Door, authority: &Authority, shard: u32, headers: &HeaderMap) -> Response {
    let kind = Kind("crl");
    let Some(record) = door.lists.record(authority, shard) else {
        return marked(kind, not_found());
    };
    let every = i64::try_from(door.app.limits.crl_every_ms).unwrap_or(i64::MAX);
    let next = record.this_update_ms.saturating_add(every);
    let document = Document {
        content_type: "application/pkix-crl",
        sha256: record.sha256,
        modified_ms: record.this_update_ms,
        max_age: door.seconds_to(next.min(record.next_update_ms)),
        expires: None,
    };
    if document.is_known(headers) {
        return marked(kind, document.not_modified());
    }
    let response = match door.lists.bytes(authority, &record).await {
        Ok(der) => document.respond(der),
        Err(e) => {
            warn!(issuer = %authority.issuer.name, shard, error = ?e, "a CRL cannot be served");
            let text = "the list is not there now; try again\n";
            (
                StatusCode::SERVICE_UNAVAILABLE,
                [("retry-after", "5")],
                text,
            )
                .into_response()
        }
    };
    marked(kind, response)
}

/// What belongs to an issuer for its whole life.
fn fixed(
    authority: &Authority,
    (kind, content_type): (&'static str, &'static str),
    bytes: Bytes,
    headers: &HeaderMap,
) -> Response {
    let document = Document {
        content_type,
        sha256: Sha256::digest(&bytes).into(),
        modified_ms: authority.issuer.created_ms,
        max_age: CERTIFICATE_MAX_AGE,
        expires: None,
    };
    let response = if document.is_known(headers) {
        document.not_modified()
    } else {
        document.respond(bytes)
    };
    marked(Kind(kind), response)
}

fn not_found() -> Response {
    let text = "there is nothing here; the paths are TENANT/ISSUER.crl, TENANT/ISSUER/SHARD.crl, TENANT/ISSUER.cer, TENANT/ISSUER/chain.pem and TENANT/ocsp/ISSUER\n";
    (StatusCode::NOT_FOUND, text).into_response()
}

fn marked(kind: Kind, mut response: Response) -> Response {
    response.extensions_mut().insert(kind);
    response
}

/// Counts what went out.
async fn counted(request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    let kind = response.extensions().get::<Kind>();
    let outcome = match response.status() {
        StatusCode::NOT_MODIFIED => "not_modified",
        StatusCode::NOT_FOUND => "not_found",
        status if status.is_success() => "ok",
        status if status.is_client_error() => "refused",
        _ => "failed",
    };
    metrics::pki_http(kind.map_or("other", |kind| kind.0), outcome);
    response
}
