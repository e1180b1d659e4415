//! When to renew (RFC 9773 §4): open to everybody, as certificates are.

use super::Acme;
use crate::{
    acme::{Problem, RenewalId, Window},
    authority::{CertificateRecord, CertificateRef, CertificateState},
    key::TenantId,
};

/// The window in which a certificate should be renewed.
///
/// # Errors
/// 404 for one that is not ours, store.
pub async fn renewal_window(acme: &Acme, tenant: &str, id: &str) -> Result<Window, Problem> {
    let tenant = acme.tenant(tenant).ok_or_else(Problem::not_found)?;
    let id = RenewalId::parse(id)
        .ok_or_else(|| Problem::malformed("this is no certificate id of RFC 9773"))?;
    let record = find(acme, tenant, &id)
        .await?
        .ok_or_else(Problem::not_found)?;
    Ok(window_of(&record))
}

/// At once when it is revoked, else towards the end of its life.
#[must_use]
pub fn window_of(record: &CertificateRecord) -> Window {
    let first = &record.intended;
    match record.state {
        CertificateState::Revoked => Window::past(first.not_before_ms),
        _ => Window::of(first.not_before_ms, first.not_after_ms),
    }
}

pub(super) async fn find(
    acme: &Acme,
    tenant: TenantId,
    id: &RenewalId,
) -> Result<Option<CertificateRecord>, Problem> {
    let issuers = acme.app.authorities.issuers_of(tenant);
    let is = |ski: &[u8]| ski == id.aki;
    let issuer = issuers
        .iter()
        .find(|a| a.certificate.as_ref().is_some_and(|c| is(c.ski())));
    let Some(issuer) = issuer else {
        return Ok(None);
    };
    let name = CertificateRef {
        issuer: issuer.issuer.id,
        serial: id.serial,
    };
    let record = acme.app.store.certificate(tenant, &name).await?;
    Ok(record.filter(|r| {
        matches!(
            r.state,
            CertificateState::Issued | CertificateState::Revoked
        )
    }))
}
