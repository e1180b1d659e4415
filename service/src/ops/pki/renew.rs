//! The same again for who holds a certificate: its names, under the newest version of its
//! profile. The proof is the TLS connection itself.
//!
//! A certificate that is revoked, expired or unknown renews nothing, and with the lineage
//! a stolen key does not outlive the revocation of its line.

use std::sync::Arc;

use keywright_pki::{Csr, KeyReuse, Serial};
use sha2::{Digest, Sha256};

use super::issue::{Issued, Wanted, identity, issue};
use crate::{
    authority::{AuthorityName, CertificateState},
    error::{Error, Reason, Result},
    ops::{App, Call},
    policy::act,
    store::Search,
};

/// What the holder sends.
#[derive(Debug)]
pub struct Renew {
    /// PKCS#10, DER.
    pub csr: Vec<u8>,
    /// Idempotency key.
    pub request_key: String,
    /// How long, in seconds; none: the profile's default.
    pub ttl: Option<u64>,
}

/// What came of it.
#[derive(Debug)]
pub struct Renewed {
    /// The new one.
    pub issued: Issued,
    /// The one it replaces: issuer name and serial.
    pub before: (AuthorityName, Serial),
}

/// Renews the certificate that the caller's connection was made with.
///
/// # Errors
/// [`Reason::CertificateNotFound`] when it was not issued here,
/// [`Reason::CertificateState`] when it is revoked or its key must change, and all of
/// [`sign_csr`](super::sign_csr).
pub async fn renew(app: &Arc<App>, call: &mut Call, request: Renew) -> Result<Renewed> {
    let tenant = call.caller.tenant;
    let csr = Csr::from_der(&request.csr)
        .map_err(|e| Error::field(Reason::CsrRefused, "csr_der", e.to_string()))?;
    let record = held(app, call).await?;
    let first = &record.intended;
    let permit = call.open_profile::<act::RenewCertificate>(app, &first.profile, None)?;
    let authority = app
        .authorities
        .issuer_by_id(tenant, first.name.issuer)
        .ok_or_else(|| Error::internal("a certificate of an unknown issuer"))?;
    if record.state != CertificateState::Issued {
        return Err(Error::new(
            Reason::CertificateState,
            "this certificate is revoked; it renews nothing",
        ));
    }
    if first.not_after_ms < call.now_ms {
        return Err(Error::new(
            Reason::CertificateState,
            "this certificate has expired; ask for a new one",
        ));
    }
    let same_key = csr.key().spki_sha256() == first.spki;
    if same_key && permit.profile().rules.key_reuse() == KeyReuse::Forbid {
        return Err(Error::field(
            Reason::CertificateState,
            "csr_der",
            "the profile asks for a new key at each renewal; make one",
        ));
    }
    let names = x509_names(&record.certificate)?;
    let mut hash = Sha256::new();
    hash.update(b"renew");
    hash.update(first.name.serial.as_bytes());
    hash.update(request.ttl.unwrap_or(0).to_be_bytes());
    hash.update(&request.csr);
    let wanted = Wanted {
        tenant,
        profile: Arc::clone(permit.profile()),
        csr,
        sans: names,
        ttl: request.ttl,
        identity: identity(&call.caller),
        requested_by: call.caller.id.to_string(),
        request_key: request.request_key,
        request_sha256: hash.finalize().into(),
        lineage: Some(first.lineage.clone()),
    };
    let before = (authority.issuer.name.clone(), first.name.serial);
    call.entry
        .detail
        .insert("renews", first.name.serial.to_string());
    let issued = issue(app, call, wanted).await?;
    Ok(Renewed { issued, before })
}

fn x509_names(der: &[u8]) -> Result<Vec<keywright_pki::San>> {
    keywright_pki::CertificateInfo::from_der(der)
        .map(|info| info.sans)
        .map_err(|e| Error::internal(format!("a certificate on record: {e}")))
}

/// The record of the certificate the connection was made with.
async fn held(app: &App, call: &Call) -> Result<crate::authority::CertificateRecord> {
    let tenant = call.caller.tenant;
    // By its own digest: the caller says nothing that could be another's.
    let what = Search {
        spki: Some(call.caller.spki),
        ends_after_ms: 0,
        limit: 1000,
        ..Search::default()
    };
    let records = app.store.search(tenant, &what).await?;
    records
        .into_iter()
        .find(|r| <[u8; 32]>::from(Sha256::digest(&r.certificate)) == call.caller.certificate)
        .ok_or_else(|| {
            Error::new(
                Reason::CertificateNotFound,
                "the certificate of this connection was not issued here; ask for one with SignCsr",
            )
        })
}
