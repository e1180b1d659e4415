//! Take certificates back: one, or all that carry a key nobody should trust any more.
//!
//! A compromised key is blocked before its certificates are revoked: what is being issued
//! for it meanwhile is either refused, or revoked with the rest.

use std::sync::Arc;

use keywright_pki::{CertificateInfo, Csr, Serial};

use super::{
    certificates::no_such_certificate,
    issuers::{above, stop_issuing},
};
use crate::{
    audit::Decision,
    authorities::Authority,
    authority::{
        AuthorityName, CertificateRecord, CertificateRef, CertificateState, Reason as Why,
        Revocation, Spki,
    },
    error::{Error, Reason, Result},
    key::TenantId,
    ops::{App, Call},
    policy::act,
    store::{Search, Write, Written},
};

/// Which certificate.
#[derive(Debug)]
pub enum Target {
    /// By issuer and serial.
    Named(AuthorityName, Serial),
    /// By itself, DER.
    Certificate(Vec<u8>),
}

/// What to revoke.
#[derive(Debug)]
pub struct Revoke {
    /// Which certificate.
    pub target: Target,
    /// Why.
    pub why: Why,
    /// When the key is thought to have been lost.
    pub invalidity_ms: Option<i64>,
    /// A CSR with the certificate's key, instead of the right to revoke.
    pub key_proof: Option<Vec<u8>>,
}

/// What came of it.
#[derive(Debug)]
pub struct Revoked {
    /// What is revoked now: issuer name and serial.
    pub revoked: Vec<(AuthorityName, Serial)>,
    /// The certificate was revoked before.
    pub already: bool,
}

/// Certificates of one key that are looked at in one go.
const PAGE: u32 = 500;

/// Revokes. With [`Why::KeyCompromise`] every certificate of the same key, and the key is
/// never certified again.
///
/// # Errors
/// [`Reason::CertificateNotFound`], [`Reason::CertificateState`] for one that was never
/// signed, [`Reason::CsrRefused`] for a proof that is none, permission, store.
pub async fn revoke(app: &Arc<App>, call: &mut Call, request: Revoke) -> Result<Revoked> {
    let tenant = match &request.key_proof {
        None => call.grant::<act::RevokeCertificate>(app, None)?.tenant(),
        // Who holds the key may say that it is lost; nobody else can be hurt by it.
        Some(_) => call.caller.tenant,
    };
    let (authority, record) = target(app, tenant, &request.target).await?;
    if let Some(proof) = &request.key_proof {
        check_proof(proof, &record)?;
        call.entry
            .decide(Decision::Allow, &["proof of key".to_owned()]);
    }
    carry_out(app, call, (&authority, &record), &request).await
}

/// Revokes what the caller was found to have the right to revoke.
pub(in crate::ops) async fn carry_out(
    app: &App,
    call: &mut Call,
    (authority, record): (&Authority, &CertificateRecord),
    request: &Revoke,
) -> Result<Revoked> {
    let tenant = record.intended.tenant;
    let serial = record.intended.name.serial;
    call.entry
        .detail
        .insert("issuer", authority.issuer.name.to_string());
    call.entry.detail.insert("serial", serial.to_string());
    call.entry
        .detail
        .insert("reason", request.why.code().to_string());
    if request
        .invalidity_ms
        .is_some_and(|lost| !(0..=call.now_ms).contains(&lost))
    {
        return Err(Error::field(
            Reason::InvalidArgument,
            "invalidity_unix_ms",
            "the key cannot have been lost in the future, or before 1970",
        ));
    }
    let revocation = Revocation {
        revoked_ms: call.now_ms,
        reason: request.why,
        invalidity_ms: request.invalidity_ms,
    };
    let already = record.state == CertificateState::Revoked;
    let mut revoked = Vec::new();
    if record.state == CertificateState::Failed {
        return Err(Error::new(
            Reason::CertificateState,
            "this certificate was never signed",
        ));
    }
    if revoke_one(app, &record.intended.name, revocation).await? {
        revoked.push((authority.issuer.name.clone(), serial));
    }
    if request.why == Why::KeyCompromise {
        let spki = record.intended.spki;
        app.store
            .block_key(tenant, &spki, "key compromise", call.now_ms)
            .await?;
        revoked.extend(revoke_all(app, tenant, &spki, revocation).await?);
    }
    Ok(Revoked { revoked, already })
}

/// Blocks a key that was seen where it should not be, and revokes what carries it.
///
/// # Errors
/// Permission, store.
pub async fn block_key(
    app: &Arc<App>,
    call: &mut Call,
    spki: Spki,
    why: &str,
) -> Result<Vec<(AuthorityName, Serial)>> {
    let grant = call.grant::<act::BlockKey>(app, None)?;
    let tenant = grant.tenant();
    call.entry.detail.insert("spki_sha256", hex::encode(spki));
    call.entry.detail.insert("why", why.to_owned());
    app.store.block_key(tenant, &spki, why, call.now_ms).await?;
    let revocation = Revocation {
        revoked_ms: call.now_ms,
        reason: Why::KeyCompromise,
        invalidity_ms: None,
    };
    revoke_all(app, tenant, &spki, revocation).await
}

/// Everything that carries the key, also what is being signed just now.
async fn revoke_all(
    app: &App,
    tenant: TenantId,
    spki: &Spki,
    revocation: Revocation,
) -> Result<Vec<(AuthorityName, Serial)>> {
    let mut revoked = Vec::new();
    let mut what = Search {
        spki: Some(*spki),
        ends_after_ms: revocation.revoked_ms,
        limit: PAGE,
        ..Search::default()
    };
    loop {
        let records = app.store.search(tenant, &what).await?;
        for record in &records {
            let name = &record.intended.name;
            if record.state != CertificateState::Failed && revoke_one(app, name, revocation).await?
            {
                let authority = app.authorities.issuer_by_id(tenant, name.issuer);
                revoked.extend(authority.map(|a| (a.issuer.name.clone(), name.serial)));
            }
        }
        match records.last() {
            Some(last) if records.len() == PAGE as usize => {
                let end = last.intended.not_after_ms;
                what.after = Some((end, last.intended.name.clone()));
            }
            _ => return Ok(revoked),
        }
    }
}

/// True when it was good until now, or revoked for a lesser reason.
async fn revoke_one(app: &App, name: &CertificateRef, revocation: Revocation) -> Result<bool> {
    let write = Write::Revoke {
        name: name.clone(),
        revocation,
    };
    let done = app.authorities.ledger().write(write).await? == Written::Done;
    if done {
        app.authorities.revoked(name);
        // Of many nodes each hears of it with the next epoch, this one too; only one makes
        // lists.
        if !app.store.is_shared() {
            app.authorities.crl_is_due(name.issuer);
        }
        stop_authority(app, name).await;
    }
    Ok(done)
}

/// An authority whose certificate is revoked issues nothing any more, nor do those below
/// it. They go on to say what is revoked.
async fn stop_authority(app: &App, name: &CertificateRef) {
    let all = app.authorities.all_issuers();
    let is_it = |a: &&Arc<Authority>| {
        let above = above(app, a).unwrap_or_else(|| Arc::clone(a));
        a.issuer.serial == name.serial && above.issuer.id == name.issuer
    };
    let Some(revoked) = all.iter().find(is_it) else {
        return;
    };
    for authority in &all {
        let mut at = Some(Arc::clone(authority));
        while let Some(one) = at {
            if one.issuer.id == revoked.issuer.id {
                let why = format!("the certificate of {} is revoked", revoked.issuer.name);
                stop_issuing(app, authority, &why).await;
                break;
            }
            at = above(app, &one);
        }
    }
}

pub(in crate::ops) async fn target(
    app: &App,
    tenant: TenantId,
    target: &Target,
) -> Result<(Arc<Authority>, CertificateRecord)> {
    let (authority, serial) = match target {
        Target::Named(issuer, serial) => (app.authorities.issuer(tenant, issuer), *serial),
        Target::Certificate(der) => {
            let info = CertificateInfo::from_der(der).map_err(|e| {
                Error::field(Reason::InvalidArgument, "certificate_der", e.to_string())
            })?;
            (app.authorities.issuer_of(tenant, &info), info.serial)
        }
    };
    let authority = authority.ok_or_else(no_such_certificate)?;
    let name = CertificateRef {
        issuer: authority.issuer.id,
        serial,
    };
    let record = app.store.certificate(tenant, &name).await?;
    let record = record.ok_or_else(no_such_certificate)?;
    // Somebody else's certificate with the same names is not ours.
    if let Target::Certificate(der) = target
        && record.certificate != *der
    {
        return Err(no_such_certificate());
    }
    Ok((authority, record))
}

/// The CSR is signed with the certificate's key and says what it is for, so that no CSR
/// made for another reason can be used.
fn check_proof(proof: &[u8], record: &CertificateRecord) -> Result<()> {
    let refused = |text: String| Error::field(Reason::CsrRefused, "key_proof_csr_der", text);
    let csr = Csr::from_der(proof).map_err(|e| refused(e.to_string()))?;
    if csr.key().spki_sha256() != record.intended.spki {
        return Err(refused("it is of another key than the certificate".into()));
    }
    let says = format!("keywright revoke {}", record.intended.name.serial);
    if csr.common_name() != Some(says.as_str()) {
        return Err(refused(format!("its common name must be {says:?}")));
    }
    Ok(())
}
