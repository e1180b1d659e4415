//! The signer of an issuer's OCSP answers: a key of its own in the HSM, and a certificate
//! that only this issuer gives it, by the same way as any other: linted, on record,
//! signed, checked, recorded (RFC 6960 §4.2.2.2, R9).
//!
//! The key stays; the certificate is renewed at half of its life. When it was revoked or
//! its key blocked there is a new one. No permit is asked for: the ceremony was approved
//! with OCSP in it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use keywright_hsm::{KeyRef, KeySpec};
use keywright_pki::{
    Attribute, CertificateInfo, Draft, KeyReuse, Kind, OcspResponder, Plan, Serial, Subject,
    SubjectKey, Urls,
};
use sha2::{Digest, Sha256};
use tracing::{info, warn};

use super::{issue, last_ms, lineage, ocsp::OCSP, seconds};
use crate::{
    audit::{Entry, Event},
    authorities::Authority,
    authority::{AuthorityName, Ceremony, CertificateRef, CertificateState, Intended, Responder},
    error::{Error, Reason, Result},
    key::{KeyId, KeyName, KeyUse, VersionNumber},
    ops::{
        App,
        key::generate::{Wanted, generate},
    },
    store::{Write, Written},
};

/// Who answers for an issuer.
#[derive(Debug, Clone)]
pub(super) enum Speaker {
    /// Nobody: its ceremony says nothing of OCSP.
    Nobody,
    /// Nobody now.
    Away,
    /// This one.
    Ready(Arc<Ready>),
}

/// A signer with a certificate in force.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) responder: OcspResponder,
    pub(super) key: KeyRef,
}

/// ub-common-name (RFC 5280 appendix A.1).
const MAX_COMMON_NAME: usize = 64;
const DAY_SECONDS: u64 = 24 * 60 * 60;
/// Who asks may have a clock that is late.
const BACKDATE_SECONDS: u64 = 5 * 60;

/// The responder of an issuer: the one on record, renewed where it is time, or a new one.
///
/// # Errors
/// Why there is none: lint, HSM, store, audit log.
pub(super) async fn find(app: &App, authority: &Authority) -> Result<Speaker> {
    let spec = &authority.spec;
    if spec.urls(0).ocsp.is_none() {
        return Ok(Speaker::Nobody);
    }
    let now = seconds(app.clock.now_ms());
    let stored = app.store.responder(authority.issuer.id).await?;
    let old = match &stored {
        Some(stored) => in_force(app, authority, stored, now).await?,
        None => None,
    };
    if let Some(old) = &old {
        let responder = &old.responder;
        let half = responder.not_before() + (responder.not_after() - responder.not_before()) / 2;
        if now < half {
            return Ok(Speaker::Ready(Arc::clone(old)));
        }
    }
    match (renewed(app, authority, spec, stored).await, old) {
        (Ok(ready), _) => Ok(Speaker::Ready(Arc::new(ready))),
        (Err(e), Some(old)) => {
            warn!(issuer = %authority.issuer.name, error = ?e, "the OCSP responder's certificate was not renewed; the old one is used on");
            Ok(Speaker::Ready(old))
        }
        (Err(e), None) => Err(e),
    }
}

/// What is on record, if its certificate is in force and not revoked.
async fn in_force(
    app: &App,
    authority: &Authority,
    stored: &Responder,
    now: u64,
) -> Result<Option<Arc<Ready>>> {
    let Some(issuer) = &authority.certificate else {
        return Ok(None);
    };
    // Not yet made, or of an issuer that has another certificate now.
    let Ok(responder) = OcspResponder::from_der(&stored.certificate, issuer) else {
        return Ok(None);
    };
    let info = CertificateInfo::from_der(&stored.certificate)
        .map_err(|e| Error::internal(format!("OCSP responder on record: {e}")))?;
    let name = CertificateRef {
        issuer: authority.issuer.id,
        serial: info.serial,
    };
    let record = app
        .store
        .certificate(authority.issuer.tenant, &name)
        .await?;
    let good = record.is_some_and(|r| r.state == CertificateState::Issued);
    let lasts = responder.not_before() <= now && now < responder.not_after();
    Ok((good && lasts).then(|| {
        Arc::new(Ready {
            responder,
            key: stored.key.clone(),
        })
    }))
}

/// A new certificate for the key on record; a new key where there is none, or where it
/// must not be certified any more.
async fn renewed(
    app: &App,
    authority: &Authority,
    spec: &Ceremony,
    stored: Option<Responder>,
) -> Result<Ready> {
    if let Some(stored) = stored {
        match certify(app, authority, spec, stored).await {
            Err(e) if e.reason() == Reason::KeyBlocked => {}
            done => return done,
        }
    }
    let made = new_key(app, authority).await?;
    certify(app, authority, spec, made).await
}

/// On record before it has a certificate: no object is ever unknown.
async fn new_key(app: &App, authority: &Authority) -> Result<Responder> {
    let issuer = &authority.issuer;
    let mut id = [0; 16];
    app.entropy.fill(&mut id)?;
    let name = KeyName::parse(&format!("authority/{}/ocsp", issuer.name))
        .map_err(|e| Error::internal(e.to_string()))?;
    let wanted = Wanted {
        tenant: issuer.tenant,
        key: KeyId(id),
        name: &name,
        spec: key_spec(issuer.key.spec),
        number: VersionNumber::FIRST,
    };
    let deadline = Instant::now() + Duration::from_millis(app.limits.request_ms);
    let made = generate(app, deadline, &wanted).await?;
    let responder = Responder {
        issuer: issuer.id,
        key: made.on_token,
        token_serial: made.token_serial,
        certificate: Vec::new(),
        created_ms: made.created_ms,
    };
    app.store.set_responder(&responder).await?;
    Ok(responder)
}

/// Of the issuer's own kind, which who verifies its certificates knows; RSA no larger than
/// needed.
fn key_spec(issuer: KeySpec) -> KeySpec {
    let smaller = KeySpec::parse("rsa-3072", Some(KeyUse::Sign));
    match (issuer.name(), smaller) {
        ("rsa-4096", Some(smaller)) => smaller,
        _ => issuer,
    }
}

async fn certify(
    app: &App,
    authority: &Authority,
    spec: &Ceremony,
    responder: Responder,
) -> Result<Ready> {
    let issuer = &authority.issuer;
    let Some(certificate) = &authority.certificate else {
        return Err(Error::internal(
            "an issuer without a certificate was chosen",
        ));
    };
    let now_ms = app.authorities.signing_time(app.clock.now_ms())?;
    let plan = plan(app, authority, spec, &responder.key, now_ms)?;
    let refused = |text: String| Error::new(Reason::LintRefused, text);
    let unsigned = Draft::new(plan.clone(), certificate)
        .map_err(|e| refused(e.to_string()))?
        .lint(seconds(now_ms))
        .map_err(|e| refused(e.to_string()))?;
    let name = CertificateRef {
        issuer: issuer.id,
        serial: plan.serial,
    };
    let intended = Intended {
        tenant: issuer.tenant,
        profile: AuthorityName::parse(OCSP).map_err(Error::internal)?,
        profile_version: 0,
        tbs: unsigned.tbs().to_vec(),
        spki: plan.key.spki_sha256(),
        names: vec![format!("{}/ocsp", issuer.name)],
        not_before_ms: i64::try_from(plan.not_before).unwrap_or(0) * 1000,
        not_after_ms: last_ms(plan.not_after),
        shard: 0,
        requested_by: String::from("keywrightd"),
        request_key: String::new(),
        request_sha256: Sha256::digest(unsigned.tbs()).into(),
        lineage: lineage(&name),
        created_ms: now_ms,
        name: name.clone(),
    };
    let begin = Write::Begin {
        intended: Box::new(intended.clone()),
        requests_since_ms: 0,
        // The key stays and its certificate is renewed.
        reuse: KeyReuse::ForbidAfterRevocation,
    };
    match app.authorities.ledger().write(begin).await? {
        Written::Done => {}
        Written::Blocked => {
            let text = "the OCSP responder's key is blocked";
            return Err(Error::new(Reason::KeyBlocked, text));
        }
        _ => return Err(Error::internal("a random serial number was taken already")),
    }
    let deadline = Instant::now() + Duration::from_millis(app.limits.request_ms);
    let issued = issue::finish(app, deadline, authority, intended, unsigned).await?;
    let der = issued.record.certificate;
    let read = OcspResponder::from_der(&der, certificate)
        .map_err(|e| Error::internal(format!("OCSP responder just made: {e}")))?;
    record(app, authority, &name).await?;
    let key = responder.key.clone();
    app.store
        .set_responder(&Responder {
            certificate: der,
            ..responder
        })
        .await?;
    info!(issuer = %issuer.name, serial = %name.serial, "OCSP responder certified");
    Ok(Ready {
        responder: read,
        key,
    })
}

/// Every field of its certificate. It ends with its issuer's at the latest.
fn plan(
    app: &App,
    authority: &Authority,
    spec: &Ceremony,
    key: &KeyRef,
    now_ms: i64,
) -> Result<Plan> {
    let Some(certificate) = &authority.certificate else {
        return Err(Error::internal(
            "an issuer without a certificate was chosen",
        ));
    };
    let mut random = [0; Serial::RANDOM_LEN];
    app.entropy.fill(&mut random)?;
    let spki = key.public().map_or(&[][..], |key| key.spki());
    let subject: String = format!("OCSP {}", authority.issuer.name)
        .chars()
        .take(MAX_COMMON_NAME)
        .collect();
    let not_before = seconds(now_ms)
        .saturating_sub(BACKDATE_SECONDS)
        .max(certificate.not_before());
    let life = u64::from(app.limits.ocsp_responder_days) * DAY_SECONDS;
    Ok(Plan {
        serial: Serial::from_random(random),
        subject: Subject::new(&[(Attribute::CommonName, &subject)])
            .map_err(|e| Error::internal(e.to_string()))?,
        key: SubjectKey::from_spki(spki)
            .map_err(|e| Error::internal(format!("the token's new key: {e}")))?,
        sans: Vec::new(),
        not_before,
        not_after: (not_before + life - 1).min(certificate.not_after()),
        kind: Kind::OcspResponder,
        // No place of revocation: nobody is to ask about who answers (nocheck).
        urls: Urls {
            ca_issuers: spec.urls(0).ca_issuers,
            ..Urls::default()
        },
        ski: true,
    })
}

async fn record(app: &App, authority: &Authority, name: &CertificateRef) -> Result<()> {
    let detail = [
        ("issuer", authority.issuer.name.to_string()),
        ("serial", name.serial.to_string()),
    ];
    app.audit
        .record(Entry {
            detail: detail.into_iter().collect(),
            ..Entry::event(Event::ResponderIssued)
        })
        .await
}
