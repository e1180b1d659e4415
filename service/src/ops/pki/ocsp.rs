//! Answers to OCSP requests (RFC 6960, RFC 5019, RFC 9654).
//!
//! No permit is asked for: the status of a certificate is public. `good` is said only of
//! what is on record as issued (R8). An answer to a plain request is kept for the next one
//! until its certificate's status changes or a quarter of its life is left.

use std::{collections::HashMap, sync::Arc, time::Duration, time::Instant};

use bytes::Bytes;
use keywright_pki::{Answer, CertId, CertStatus, OcspDraft, OcspError, OcspPlan, OcspRequest};
use moka::sync::Cache;
use tokio::sync::Semaphore;
use tracing::{error, warn};

use super::{
    crl,
    responder::{self, Ready, Speaker},
    seconds, signer,
};
use crate::{
    authorities::Authority,
    authority::{AuthorityName, CertificateRef, CertificateState, IssuerId},
    error::{Error, Kind, Result},
    key::TenantId,
    metrics,
    ops::App,
};

/// Under which name responders' certificates are on record; no profile can have it.
pub(super) const OCSP: &str = "ocsp";

/// What comes in at the door.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// Whose issuer.
    pub tenant: TenantId,
    /// Which issuer.
    pub issuer: &'a AuthorityName,
    /// DER of an OCSPRequest.
    pub request: &'a [u8],
}

/// What goes out.
#[derive(Debug, Clone)]
pub struct Answered {
    /// DER of an OCSPResponse.
    pub der: Bytes,
    /// How long others may keep it; `None`: not at all.
    pub validity: Option<Validity>,
}

/// Of an answer, in Unix seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// Since when the status is known.
    pub this_update: u64,
    /// The last second at which it is to be used.
    pub next_update: u64,
}

/// The responder: keys and certificates it signs with, and answers it has given.
pub struct Ocsp {
    app: Arc<App>,
    kept: Cache<(IssuerId, Bytes), Arc<Kept>>,
    speakers: parking_lot::Mutex<HashMap<IssuerId, (Speaker, u64)>>,
    making: tokio::sync::Mutex<()>,
    signing: Semaphore,
}

struct Kept {
    answered: Answered,
    says: &'static str,
    validity: Validity,
    /// [`status_version`](crate::authorities::Authorities::status_version) before the
    /// status was read.
    version: u64,
}

/// How long it is believed that a responder is as it was found, in seconds. Also the pause
/// after a failure.
const LOOK_AGAIN: u64 = 60;

impl std::fmt::Debug for Ocsp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ocsp")
    }
}

impl Ocsp {
    /// One for the appliance.
    #[must_use]
    pub fn new(app: Arc<App>) -> Self {
        let weight = |key: &(IssuerId, Bytes), kept: &Arc<Kept>| {
            // With what the cache itself needs for an entry.
            u32::try_from(key.1.len() + kept.answered.der.len() + 256).unwrap_or(u32::MAX)
        };
        Self {
            kept: Cache::builder()
                .max_capacity(app.limits.ocsp_cache_bytes)
                .weigher(weight)
                .build(),
            speakers: parking_lot::Mutex::default(),
            making: tokio::sync::Mutex::default(),
            signing: Semaphore::new(app.limits.ocsp_signing),
            app,
        }
    }

    /// Answers, whatever came in.
    pub async fn answer(self: &Arc<Self>, question: &Question<'_>) -> Answered {
        self.try_answer(question).await.unwrap_or_else(|why| {
            let says = match why {
                OcspError::MalformedRequest => "malformed",
                OcspError::InternalError => "internal_error",
                OcspError::TryLater => "try_later",
                OcspError::Unauthorized => "unauthorized",
            };
            metrics::ocsp(says, "none");
            Answered {
                der: Bytes::copy_from_slice(&why.der()),
                validity: None,
            }
        })
    }

    async fn try_answer(self: &Arc<Self>, q: &Question<'_>) -> Result<Answered, OcspError> {
        let request = OcspRequest::from_der(q.request).map_err(|_| OcspError::MalformedRequest)?;
        let found = self.app.authorities.issuer(q.tenant, q.issuer);
        let authority = found.ok_or(OcspError::Unauthorized)?;
        let certificate = authority.certificate.as_ref();
        let certificate = certificate.ok_or(OcspError::Unauthorized)?;
        // An operator, or an alarm, has stopped it; or it may be revoked on another node.
        if !authority.issuer.usage.crl || !self.app.membership.serves() {
            return Err(OcspError::TryLater);
        }
        let now = seconds(self.app.clock.now_ms());
        let plain = plain(&request);
        let kept = plain.and_then(|id| self.kept(&authority, id, now));
        if let Some(kept) = kept.as_ref().filter(|kept| kept.is_fresh(now)) {
            metrics::ocsp(kept.says, "cache");
            return Ok(kept.answered.clone());
        }
        if !request.cert_ids.iter().all(|id| id.is_of(certificate)) {
            return Err(OcspError::Unauthorized);
        }
        let signed = self.sign(&authority, request, now).await;
        match (signed, kept) {
            (Ok(kept), _) => {
                metrics::ocsp(kept.says, "hsm");
                Ok(kept.answered.clone())
            }
            // It is old, and still true and in force.
            (Err(OcspError::TryLater | OcspError::InternalError), Some(kept)) => {
                metrics::ocsp(kept.says, "cache");
                Ok(kept.answered.clone())
            }
            (Err(e), _) => Err(e),
        }
    }

    /// What was answered before, if it is still true and in force.
    fn kept(&self, authority: &Authority, id: &CertId, now: u64) -> Option<Arc<Kept>> {
        let version = self.app.authorities.status_version(&id.serial()?);
        let key = (authority.issuer.id, Bytes::copy_from_slice(id.as_der()));
        let kept = self.kept.get(&key)?;
        let holds = kept.version == version
            && (kept.validity.this_update..kept.validity.next_update).contains(&now);
        holds.then_some(kept)
    }

    async fn sign(
        self: &Arc<Self>,
        authority: &Arc<Authority>,
        request: OcspRequest,
        now: u64,
    ) -> Result<Arc<Kept>, OcspError> {
        let _slot = self
            .signing
            .try_acquire()
            .map_err(|_| OcspError::TryLater)?;
        let ready = match self.speaker(authority, now).await {
            Speaker::Ready(ready) => ready,
            Speaker::Nobody => return Err(OcspError::Unauthorized),
            Speaker::Away => return Err(OcspError::TryLater),
        };
        self.signed(authority, &ready, request).await.map_err(|e| {
            warn!(issuer = %authority.issuer.name, error = ?e, "no OCSP answer");
            match e.reason().kind() {
                Kind::Busy | Kind::Late | Kind::Unavailable => OcspError::TryLater,
                _ => OcspError::InternalError,
            }
        })
    }

    async fn signed(
        &self,
        authority: &Authority,
        ready: &Ready,
        request: OcspRequest,
    ) -> Result<Arc<Kept>> {
        let app = &*self.app;
        let plain = plain(&request).cloned();
        let serial = plain.as_ref().and_then(CertId::serial);
        // Before the statuses are read: a change in between makes this answer stale.
        let version = serial.map_or(0, |serial| app.authorities.status_version(&serial));
        let now = seconds(app.authorities.signing_time(app.clock.now_ms())?);
        let mut answers = Vec::with_capacity(request.cert_ids.len());
        for cert_id in request.cert_ids {
            let status = status(app, authority, &cert_id, now).await?;
            answers.push(Answer { cert_id, status });
        }
        let says = says(&answers);
        let life = app.limits.ocsp_life_ms / 1000;
        let validity = Validity {
            this_update: now,
            // Inclusive, as in a CRL (R7).
            next_update: (now + life - 1).min(ready.responder.not_after()),
        };
        let plan = OcspPlan {
            produced_at: now,
            this_update: validity.this_update,
            next_update: validity.next_update,
            answers,
            nonce: request.nonce,
        };
        let unsigned = OcspDraft::new(plan, &ready.responder)
            .lint(now)
            .map_err(|e| Error::internal(format!("an OCSP answer breaks a rule: {e}")))?;
        let deadline = Instant::now() + Duration::from_millis(app.limits.request_ms);
        let response = signer::sign(app, &ready.key, unsigned, deadline)
            .await
            .map_err(signer::NotSigned::error)?;
        // What is unknown may be issued in the next moment.
        let keep = plain.filter(|_| says != "unknown");
        let kept = Arc::new(Kept {
            answered: Answered {
                der: Bytes::copy_from_slice(response.der()),
                validity: keep.as_ref().map(|_| validity),
            },
            says,
            validity,
            version,
        });
        if let Some(id) = keep {
            let key = (authority.issuer.id, Bytes::copy_from_slice(id.as_der()));
            self.kept.insert(key, Arc::clone(&kept));
        }
        Ok(kept)
    }

    /// Who speaks for an issuer. What was begun for it runs to its end even if nobody
    /// waits for it any more; after a failure there is a pause.
    async fn speaker(self: &Arc<Self>, authority: &Arc<Authority>, now: u64) -> Speaker {
        let id = authority.issuer.id;
        if let Some(known) = self.known(id, now) {
            return known;
        }
        let (this, authority) = (Arc::clone(self), Arc::clone(authority));
        let made = tokio::spawn(async move {
            let _one = this.making.lock().await;
            if let Some(known) = this.known(id, now) {
                return known;
            }
            let found = responder::find(&this.app, &authority).await;
            let speaker = found.unwrap_or_else(|e| {
                error!(issuer = %authority.issuer.name, error = ?e, "nobody can sign OCSP answers; it is tried again in a minute");
                Speaker::Away
            });
            let entry = (speaker.clone(), now + LOOK_AGAIN);
            this.speakers.lock().insert(id, entry);
            speaker
        });
        made.await.unwrap_or(Speaker::Away)
    }

    fn known(&self, id: IssuerId, now: u64) -> Option<Speaker> {
        let speakers = self.speakers.lock();
        let (speaker, until) = speakers.get(&id)?;
        (now < *until).then(|| speaker.clone())
    }
}

impl Kept {
    /// More than a quarter of its life is left.
    fn is_fresh(&self, now: u64) -> bool {
        let Validity {
            this_update,
            next_update,
        } = self.validity;
        next_update.saturating_sub(now) > (next_update - this_update) / 4
    }
}

/// One certificate and no nonce: the answer fits the next one who asks.
fn plain(request: &OcspRequest) -> Option<&CertId> {
    match (&request.cert_ids[..], &request.nonce) {
        ([id], None) => Some(id),
        _ => None,
    }
}

/// What the store says of a certificate.
async fn status(app: &App, authority: &Authority, id: &CertId, now: u64) -> Result<CertStatus> {
    let Some(serial) = id.serial() else {
        return Ok(CertStatus::Unknown);
    };
    let name = CertificateRef {
        issuer: authority.issuer.id,
        serial,
    };
    let record = app
        .store
        .certificate(authority.issuer.tenant, &name)
        .await?;
    Ok(match record {
        Some(record) => match (record.state, record.revocation) {
            (CertificateState::Issued, _) => CertStatus::Good,
            (CertificateState::Revoked, Some(revocation)) => CertStatus::Revoked {
                at: seconds(revocation.revoked_ms).min(now),
                reason: crl::reason(revocation.reason),
            },
            // Begun or failed: nobody has it.
            _ => CertStatus::Unknown,
        },
        None => CertStatus::Unknown,
    })
}

/// A constant word for metrics.
fn says(answers: &[Answer]) -> &'static str {
    match answers {
        [one] => match one.status {
            CertStatus::Good => "good",
            CertStatus::Revoked { .. } => "revoked",
            CertStatus::Unknown => "unknown",
        },
        _ => "mixed",
    }
}
