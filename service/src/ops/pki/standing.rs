//! Certificates issued here are identities here: how they stand, from the caller's own up
//! to the one below the root.

use keywright_pki::CertificateInfo;
use sha2::{Digest, Sha256};

use super::last_ms;
use crate::{
    authority::{CertificateRecord, CertificateRef, CertificateState, Issuer, Parent},
    error::{Error, Reason, Result},
    ops::App,
    policy::Caller,
};

/// What the identity of a caller hangs on. Looked up once for each connection.
#[derive(Debug)]
pub struct Standing {
    names: Vec<CertificateRef>,
    not_after_ms: i64,
}

/// How the caller's certificate stands; `None` when nobody here issued it.
///
/// # Errors
/// [`Reason::Unauthenticated`] when it is revoked or not on record, store.
pub async fn standing(
    app: &App,
    caller: &Caller,
    certificate: &CertificateInfo,
) -> Result<Option<Standing>> {
    let Some(authority) = app.authorities.issuer_of(caller.tenant, certificate) else {
        return Ok(None);
    };
    let own = CertificateRef {
        issuer: authority.issuer.id,
        serial: certificate.serial,
    };
    let record = good(app, &authority.issuer, &own).await?;
    if <[u8; 32]>::from(Sha256::digest(&record.certificate)) != caller.certificate {
        return Err(unknown());
    }
    // Else who writes profiles could make anybody somebody else here.
    if record.intended.requested_by != caller.id.to_string() {
        return Err(Error::new(
            Reason::Unauthenticated,
            "the certificate of this connection was asked for by another identity than the one it names; ask for your own",
        ));
    }
    let mut names = vec![own];
    let mut below = authority;
    while let Parent::Issuer(parent) = &below.spec.parent {
        let Some(above) = app.authorities.issuer(caller.tenant, parent) else {
            return Err(Error::internal("an issuer without its parent"));
        };
        let name = CertificateRef {
            issuer: above.issuer.id,
            serial: below.issuer.serial,
        };
        good(app, &above.issuer, &name).await?;
        names.push(name);
        below = above;
    }
    Ok(Some(Standing {
        names,
        not_after_ms: last_ms(certificate.not_after),
    }))
}

impl Standing {
    /// Is it still as good as when the connection was made?
    ///
    /// # Errors
    /// [`Reason::Unauthenticated`].
    pub fn check(&self, app: &App, now_ms: i64) -> Result<()> {
        if self.names.iter().any(|n| app.authorities.is_revoked(n)) {
            return Err(revoked());
        }
        if self.not_after_ms < now_ms {
            return Err(Error::new(
                Reason::Unauthenticated,
                "the certificate of this connection has expired; ask for a new one",
            ));
        }
        Ok(())
    }
}

async fn good(app: &App, issuer: &Issuer, name: &CertificateRef) -> Result<CertificateRecord> {
    let record = app.store.certificate(issuer.tenant, name).await?;
    let record = record.ok_or_else(unknown)?;
    match record.state {
        CertificateState::Issued => Ok(record),
        CertificateState::Revoked => Err(revoked()),
        CertificateState::Intended | CertificateState::Failed => Err(unknown()),
    }
}

fn revoked() -> Error {
    Error::new(
        Reason::Unauthenticated,
        "the certificate of this connection, or the one of its issuer, is revoked; come with another one",
    )
}

fn unknown() -> Error {
    Error::new(
        Reason::Unauthenticated,
        "the certificate of this connection is not on record here; come with another one",
    )
}
