//! What is on record about certificates.

use std::sync::Arc;

use super::issue::chain;
use crate::{
    authorities::Authority,
    authority::{AuthorityName, CertificateRecord, CertificateRef, CertificateState},
    error::{Error, Reason, Result},
    ops::{App, Call},
    policy::act,
    store::Search,
};
use keywright_pki::Serial;

/// Which certificates; what is `None` does not matter.
#[derive(Debug, Default)]
pub struct Find {
    /// A name in it.
    pub name: Option<String>,
    /// SHA-256 of its SubjectPublicKeyInfo.
    pub spki: Option<[u8; 32]>,
    /// Its profile.
    pub profile: Option<AuthorityName>,
    /// Its issuer.
    pub issuer: Option<AuthorityName>,
    /// Where it stands.
    pub state: Option<CertificateState>,
    /// It ends after; none: now.
    pub ends_after_ms: Option<i64>,
    /// It ends before.
    pub ends_before_ms: Option<i64>,
    /// From the page before.
    pub after: Option<(i64, CertificateRef)>,
    /// At most so many.
    pub limit: u32,
}

/// A certificate and who signed it.
#[derive(Debug)]
pub struct Found {
    /// What is on record.
    pub record: CertificateRecord,
    /// Who signed.
    pub authority: Arc<Authority>,
}

/// A page of certificates, by their end.
#[derive(Debug)]
pub struct Certificates {
    /// In order.
    pub found: Vec<Found>,
    /// There are more after the last.
    pub more: bool,
}

/// One certificate, and what is above it without the root.
///
/// # Errors
/// [`Reason::CertificateNotFound`], permission, store.
pub async fn get_certificate(
    app: &App,
    call: &mut Call,
    issuer: &AuthorityName,
    serial: Serial,
) -> Result<(Found, Vec<Vec<u8>>)> {
    let grant = call.grant::<act::GetCertificate>(app, None)?;
    let tenant = grant.tenant();
    let authority = app
        .authorities
        .issuer(tenant, issuer)
        .ok_or_else(no_such_certificate)?;
    let name = CertificateRef {
        issuer: authority.issuer.id,
        serial,
    };
    let record = app.store.certificate(tenant, &name).await?;
    let record = record.ok_or_else(no_such_certificate)?;
    let above = chain(&authority);
    Ok((Found { record, authority }, above))
}

/// Certificates of the caller's tenant.
///
/// # Errors
/// [`Reason::IssuerNotFound`], permission, store.
pub async fn search(app: &App, call: &mut Call, find: Find) -> Result<Certificates> {
    let grant = call.grant::<act::GetCertificate>(app, None)?;
    let tenant = grant.tenant();
    let issuer = match &find.issuer {
        None => None,
        Some(name) => {
            let found = app.authorities.issuer(tenant, name);
            Some(
                found
                    .ok_or_else(|| super::no_such_issuer(name.as_str()))?
                    .issuer
                    .id,
            )
        }
    };
    let what = Search {
        name: find.name,
        spki: find.spki,
        profile: find.profile,
        issuer,
        state: find.state,
        ends_after_ms: find.ends_after_ms.unwrap_or(call.now_ms),
        ends_before_ms: find.ends_before_ms,
        after: find.after,
        limit: find.limit + 1,
    };
    let mut records = app.store.search(tenant, &what).await?;
    let more = records.len() > find.limit as usize;
    records.truncate(find.limit as usize);
    let found = records
        .into_iter()
        .map(|record| {
            let id = record.intended.name.issuer;
            let authority = app.authorities.issuer_by_id(tenant, id);
            let authority = authority
                .ok_or_else(|| Error::internal(format!("certificate of unknown issuer {id}")))?;
            Ok(Found { record, authority })
        })
        .collect::<Result<_>>()?;
    Ok(Certificates { found, more })
}

pub(super) fn no_such_certificate() -> Error {
    Error::new(
        Reason::CertificateNotFound,
        "there is no such certificate here",
    )
}
