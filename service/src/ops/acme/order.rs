//! Orders: make one, look at it (RFC 8555 §7.4).

use serde::Deserialize;
use serde_json::Value;

use super::{Acme, Member, Visit, recorded};
use crate::{
    acme::{
        AcmeId, Authorization, AuthorizationStatus, Order, OrderStatus, Outcome, Problem,
        ProblemKind, RenewalId, identifiers,
    },
    authority::{AuthorityName, CertificateRef},
    policy::act,
    store::StoreError,
};

/// newOrder.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NewOrder {
    identifiers: Vec<Value>,
    profile: Option<String>,
    replaces: Option<String>,
    not_before: Option<Value>,
    not_after: Option<Value>,
}

/// An order, and where it stands now.
#[derive(Debug)]
pub struct OrderView {
    /// The order.
    pub order: Order,
    /// Where it stands.
    pub status: OrderStatus,
}

/// Orders of one list.
const MAX_LISTED: u32 = 500;

/// Makes an order with an authorization for each name.
///
/// # Errors
/// [`ProblemKind::Malformed`], [`ProblemKind::InvalidProfile`],
/// [`ProblemKind::AlreadyReplaced`], identifiers, policies, audit, store.
pub async fn new_order(acme: &Acme, visit: &Visit) -> Result<OrderView, Problem> {
    let member = visit.member()?;
    let request: NewOrder = visit.read()?;
    if request.not_before.is_some() || request.not_after.is_some() {
        return Err(Problem::malformed(
            "notBefore and notAfter are not offered; the profile says how long",
        ));
    }
    let names = identifiers(&request.identifiers)?;
    let profile = profile(member, request.profile.as_deref())?;
    let peer = Some(visit.peer.clone());
    let caller = member.caller.clone();
    recorded(acme, caller, "AcmeNewOrder", peer, async |app, call| {
        let texts: Vec<String> = names.iter().map(ToString::to_string).collect();
        call.entry
            .detail
            .insert("account", member.account.id.to_string());
        call.entry.detail.insert("names", texts.join(" "));
        call.entry.detail.insert("profile", profile.to_string());
        acme.orders.take(&member.account.id, call.now_ms)?;
        // Asked again when it is issued; a client should not prove names for nothing.
        call.open_profile::<act::IssueCertificate>(app, &profile, None)?;
        let replaces = match &request.replaces {
            Some(text) => Some(replaced(acme, member, text).await?),
            None => None,
        };
        let life = i64::try_from(app.limits.acme_order_ms).unwrap_or(i64::MAX);
        let expires_ms = call.now_ms.saturating_add(life);
        let mut authorizations = Vec::with_capacity(names.len());
        for name in &names {
            let account = member.account.id.clone();
            let tokens = [acme.id()?, acme.id()?, acme.id()?];
            authorizations.push(Authorization::new(
                acme.id()?,
                account,
                (name.clone(), profile.clone()),
                tokens,
                expires_ms,
            ));
        }
        let order = Order {
            id: acme.id()?,
            account: member.account.id.clone(),
            profile,
            names,
            authorizations: authorizations.iter().map(|a| a.id.clone()).collect(),
            outcome: Outcome::Open,
            replaces,
            expires_ms,
            created_ms: call.now_ms,
        };
        call.entry.detail.insert("order", order.id.to_string());
        app.store
            .add_order(&order, &authorizations)
            .await
            .map_err(|e| match e {
                StoreError::Exists => Problem::new(
                    ProblemKind::AlreadyReplaced,
                    "another order replaces this certificate already",
                ),
                e => e.into(),
            })?;
        Ok(OrderView {
            order,
            status: OrderStatus::Pending,
        })
    })
    .await
}

/// What the client named, or the first of its key.
fn profile(member: &Member, named: Option<&str>) -> Result<AuthorityName, Problem> {
    let mut offered = member.key.profiles.iter();
    let found = match named {
        None => offered.next(),
        Some(name) => offered.find(|p| p.as_str() == name),
    };
    found.cloned().ok_or_else(|| {
        let all: Vec<&str> = member
            .key
            .profiles
            .iter()
            .map(AuthorityName::as_str)
            .collect();
        Problem::new(
            ProblemKind::InvalidProfile,
            format!("this account may use: {}", all.join(", ")),
        )
    })
}

/// The certificate that is replaced: one that this account got (RFC 9773 §5).
async fn replaced(acme: &Acme, member: &Member, text: &str) -> Result<CertificateRef, Problem> {
    let id = RenewalId::parse(text)
        .ok_or_else(|| Problem::malformed("replaces is no certificate id of RFC 9773"))?;
    let tenant = member.account.tenant;
    let certificate = super::renewal::find(acme, tenant, &id)
        .await?
        .ok_or_else(|| {
            Problem::malformed("replaces names no certificate of ours").with_status(404)
        })?
        .intended
        .name;
    match acme.app.store.order_of(&certificate).await? {
        Some(order) if order.account == member.account.id => Ok(certificate),
        _ => Err(Problem::new(
            ProblemKind::Unauthorized,
            "the certificate in replaces is not this account's",
        )),
    }
}

/// An order of the account that asks.
///
/// # Errors
/// 404, store.
pub async fn order(acme: &Acme, visit: &Visit, id: &AcmeId) -> Result<OrderView, Problem> {
    let account = &visit.member()?.account.id;
    let order = acme
        .app
        .store
        .order(account, id)
        .await?
        .ok_or_else(Problem::not_found)?;
    view(acme, order).await
}

pub(super) async fn view(acme: &Acme, order: Order) -> Result<OrderView, Problem> {
    let now_ms = acme.app.clock.now_ms();
    let mut statuses: Vec<AuthorizationStatus> = Vec::with_capacity(order.authorizations.len());
    if order.outcome == Outcome::Open {
        for id in &order.authorizations {
            let found = acme.app.store.authorization(&order.account, id).await?;
            let found = found.ok_or_else(|| {
                crate::error::Error::internal("an order without its authorization")
            })?;
            statuses.push(found.status_at(now_ms));
        }
    }
    Ok(OrderView {
        status: order.status(&statuses, now_ms),
        order,
    })
}

/// The newest orders of the account that asks.
///
/// # Errors
/// [`ProblemKind::Unauthorized`], store.
pub async fn orders(acme: &Acme, visit: &Visit, id: &AcmeId) -> Result<Vec<AcmeId>, Problem> {
    let account = &visit.member()?.account.id;
    if account != id {
        return Err(Problem::new(
            ProblemKind::Unauthorized,
            "this is another account's",
        ));
    }
    Ok(acme.app.store.orders(account, MAX_LISTED).await?)
}
