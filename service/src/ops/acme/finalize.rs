//! The CSR for an order, and the certificate that comes of it (RFC 8555 §7.4, §7.4.2).

use keywright_pki::Csr;
use serde::Deserialize;

use super::{
    Acme, Member, Visit,
    order::{OrderView, order, view},
    recorded,
};
use crate::{
    acme::{AcmeId, Order, OrderStatus, Outcome, Problem, ProblemKind, decode64},
    error::Reason,
    ops::pki::{self, SignCsr},
    store::StoreError,
};

#[derive(Deserialize)]
struct Finalize {
    csr: String,
}

fn bad_csr(text: impl Into<String>) -> Problem {
    Problem::new(ProblemKind::BadCsr, text)
}

/// Issues the certificate of an order that is ready. The order is the idempotency key: the
/// same CSR again, also after a crash, is answered with the same certificate.
///
/// # Errors
/// [`ProblemKind::OrderNotReady`], [`ProblemKind::BadCsr`], and all that issuing answers.
pub async fn finalize(acme: &Acme, visit: &Visit, id: &AcmeId) -> Result<OrderView, Problem> {
    let member = visit.member()?;
    let request: Finalize = visit.read()?;
    let asked = order(acme, visit, id).await?;
    match asked.status {
        OrderStatus::Valid => return Ok(asked),
        OrderStatus::Ready => {}
        OrderStatus::Pending | OrderStatus::Invalid => {
            return Err(Problem::new(
                ProblemKind::OrderNotReady,
                format!("the order is {}", asked.status.name()),
            ));
        }
    }
    let csr = decode64(&request.csr).ok_or_else(|| bad_csr("csr is not base64url"))?;
    check(member, &asked.order, &csr)?;
    let peer = Some(visit.peer.clone());
    let caller = member.caller.clone();
    recorded(acme, caller, "AcmeFinalize", peer, async |app, call| {
        let order = asked.order;
        call.entry
            .detail
            .insert("account", member.account.id.to_string());
        call.entry.detail.insert("order", order.id.to_string());
        let texts: Vec<String> = order.names.iter().map(ToString::to_string).collect();
        call.entry.detail.insert("names", texts.join(" "));
        let sign = SignCsr {
            profile: order.profile.clone(),
            version: None,
            csr,
            ttl: None,
            sans: order.names.clone(),
            request_key: order.id.to_string(),
        };
        let requested_by = format!("acme:{}", member.account.id);
        let signed = Box::pin(pki::sign_csr_as(app, call, sign, requested_by));
        let outcome = match signed.await {
            Ok(issued) => Outcome::Issued(issued.record.intended.name),
            // The profile will not give these names with another CSR either.
            Err(e) if e.reason() == Reason::ProfileRefused => {
                let failed = Order {
                    outcome: Outcome::Failed(e.text().to_owned()),
                    ..order
                };
                app.store.decide_order(&failed).await?;
                return Err(e.into());
            }
            Err(e) => return Err(e.into()),
        };
        let next = Order { outcome, ..order };
        match app.store.decide_order(&next).await {
            // Somebody was quicker with the same CSR, and so with the same certificate.
            Ok(()) | Err(StoreError::Conflict) => {}
            Err(e) => return Err(e.into()),
        }
        view(acme, next).await
    })
    .await
}

/// The CSR is readable, for exactly the order's names, and of another key than the
/// account's (RFC 8555 §11.1).
fn check(member: &Member, order: &Order, der: &[u8]) -> Result<(), Problem> {
    let csr = Csr::from_der(der).map_err(|e| bad_csr(e.to_string()))?;
    if !order.matches(csr.names(), csr.common_name()) {
        return Err(bad_csr(
            "the CSR does not ask for exactly the names of the order",
        ));
    }
    if csr.key().spki_sha256() == member.account.key.spki_sha256() {
        return Err(bad_csr(
            "the CSR is for the account's own key; make another",
        ));
    }
    Ok(())
}

/// The certificate of an order and what is above it, without the root: DER each.
///
/// # Errors
/// 404 while there is none, store.
pub async fn certificate(acme: &Acme, visit: &Visit, id: &AcmeId) -> Result<Vec<Vec<u8>>, Problem> {
    let member = visit.member()?;
    let order = acme.app.store.order(&member.account.id, id).await?;
    let Some(Outcome::Issued(name)) = order.map(|o| o.outcome) else {
        return Err(Problem::not_found());
    };
    let tenant = member.account.tenant;
    let record = acme.app.store.certificate(tenant, &name).await?;
    let record = record.ok_or_else(Problem::not_found)?;
    let authority = acme.app.authorities.issuer_by_id(tenant, name.issuer);
    let mut all = vec![record.certificate];
    all.extend(authority.as_deref().map(pki::chain).unwrap_or_default());
    Ok(all)
}
