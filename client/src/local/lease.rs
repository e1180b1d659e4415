//! One lent data key, for as long as the server lets us have it.

use std::{
    fmt,
    sync::{
        Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard, Weak,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use tokio::{task::AbortHandle, time::timeout};
use tonic::Streaming;

use super::{
    Plain,
    envelope::{DataKey, Envelope},
    sealed,
};
use crate::{Attempts, Client, Failure, FailureKind, Sealed, proto, repeat};

/// A lease and the task that listens for signs of life.
pub(super) struct Lease {
    /// None: over.
    held: RwLock<Option<Held>>,
    asked: Moment,
    life: Duration,
    silence: Duration,
    envelopes_left: AtomicU32,
    terms: proto::DataKeyLease,
    listener: OnceLock<AbortHandle>,
}

struct Held {
    key: DataKey,
    heard: Moment,
}

/// A point in time by two clocks: one is never stepped, the other also goes on while the
/// machine is suspended.
#[derive(Clone, Copy)]
struct Moment {
    steady: Instant,
    wall: SystemTime,
}

impl Moment {
    #[expect(clippy::disallowed_methods, reason = "only how much of it has passed")]
    fn now() -> Self {
        Self {
            steady: Instant::now(),
            wall: SystemTime::now(),
        }
    }

    /// The longer of the two.
    fn elapsed(self) -> Duration {
        let wall = self.wall.elapsed().unwrap_or_default();
        self.steady.elapsed().max(wall)
    }
}

impl Lease {
    /// Asks the server for one.
    pub(super) async fn ask(client: &Client, key: &str) -> Result<Arc<Self>, Failure> {
        let request = proto::LeaseDataKeyRequest { key: key.into() };
        // Its time runs from before the question: the server's clock is not asked.
        let asked = Moment::now();
        let call = async || client.crypto().lease_data_key(request.clone()).await;
        let mut signs = repeat(Attempts::default(), call).await?;
        let first = signs.message().await?.and_then(|m| m.lease);
        let lease = Arc::new(Self::new(asked, first.ok_or_else(Failure::nonsense)?)?);
        let listener = tokio::spawn(listen(signs, Arc::downgrade(&lease), lease.silence));
        let _ = lease.listener.set(listener.abort_handle());
        Ok(lease)
    }

    fn new(asked: Moment, terms: proto::DataKeyLease) -> Result<Self, Failure> {
        let key = DataKey::new(&terms).ok_or_else(Failure::nonsense)?;
        let ms = |ms: u32| Duration::from_millis(ms.into());
        Ok(Self {
            held: RwLock::new(Some(Held {
                key,
                heard: Moment::now(),
            })),
            asked,
            life: ms(terms.lifetime_ms),
            silence: ms(terms.silence_ms),
            envelopes_left: AtomicU32::new(terms.max_envelopes),
            terms: proto::DataKeyLease {
                plaintext: Bytes::new(),
                ..terms
            },
            listener: OnceLock::new(),
        })
    }

    /// May something be sealed under it now?
    pub(super) fn goes_on(&self) -> bool {
        !self.is_used_up() && self.in_time(&self.held())
    }

    /// Has it sealed as often as it may?
    pub(super) fn is_used_up(&self) -> bool {
        self.envelopes_left.load(Ordering::Relaxed) == 0
    }

    /// Seals a batch; None when the lease is over.
    pub(super) fn seal(
        &self,
        context: &[u8; 32],
        items: &[Plain<'_>],
    ) -> Result<Option<Sealed>, Failure> {
        self.check(items)?;
        let guard = self.held();
        let Some(held) = guard.as_ref().filter(|_| self.in_time(&guard)) else {
            return Ok(None);
        };
        let one_less = |n: u32| n.checked_sub(1);
        let counted =
            self.envelopes_left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less);
        if counted.is_err() {
            return Ok(None);
        }
        let mut envelope: Envelope = held.key.envelope(context)?;
        let items = items.iter().map(|i| envelope.seal(i.aad, i.plaintext));
        let items = items.collect::<Result<Vec<Bytes>, Failure>>()?;
        // This process may have stood still meanwhile; then nothing of it goes out.
        if !self.in_time(&guard) {
            return Ok(None);
        }
        Ok(Some(sealed(
            envelope.header(),
            items,
            self.terms.key_version,
        )))
    }

    /// What the server would not read back is not sealed.
    fn check(&self, items: &[Plain<'_>]) -> Result<(), Failure> {
        let bytes: usize = items.iter().map(|i| i.plaintext.len()).sum();
        let longest = |of: fn(&Plain<'_>) -> usize| items.iter().map(of).max().unwrap_or(0);
        let terms = &self.terms;
        for (what, n, limit) in [
            ("items", items.len(), terms.max_items),
            ("bytes", bytes, terms.max_envelope_bytes),
            (
                "bytes in one item",
                longest(|i| i.plaintext.len()),
                terms.max_item_bytes,
            ),
            (
                "bytes of AAD",
                longest(|i| i.aad.len()),
                terms.max_aad_bytes,
            ),
        ] {
            if n > limit as usize {
                let text = format!("{n} {what}; the server reads at most {limit}");
                return Err(Failure::new(FailureKind::Data, text));
            }
        }
        if items.is_empty() {
            return Err(Failure::new(FailureKind::Data, "nothing to seal"));
        }
        Ok(())
    }

    fn in_time(&self, held: &Option<Held>) -> bool {
        held.as_ref().is_some_and(|held| {
            self.asked.elapsed() < self.life && held.heard.elapsed() < self.silence
        })
    }

    fn held(&self) -> RwLockReadGuard<'_, Option<Held>> {
        self.held.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// A sign of life; false: it came too late.
    fn heard(&self) -> bool {
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        let in_time = self.in_time(&held);
        match held.as_mut() {
            Some(held) if in_time => held.heard = Moment::now(),
            _ => *held = None,
        }
        in_time
    }

    /// Clears the data key.
    fn end(&self) {
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        *held = None;
    }
}

/// Hears signs of life until the server ends it, is silent, or the time is over.
async fn listen(
    mut signs: Streaming<proto::LeaseDataKeyResponse>,
    lease: Weak<Lease>,
    silence: Duration,
) {
    loop {
        let Some(left) = lease
            .upgrade()
            .map(|l| l.life.saturating_sub(l.asked.elapsed()))
        else {
            return;
        };
        let heard = timeout(left.min(silence), signs.message()).await;
        let Some(lease) = lease.upgrade() else {
            return;
        };
        if !matches!(heard, Ok(Ok(Some(_)))) || !lease.heard() {
            lease.end();
            return;
        }
    }
}

/// Leases that end as soon as they begin.
pub(super) fn over() -> Failure {
    Failure::new(
        FailureKind::Unavailable,
        "the lease of the data key ended before it could be used; is this machine very busy, or its clock unsteady?",
    )
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(listener) = self.listener.get() {
            listener.abort();
        }
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(change: impl FnOnce(&mut proto::DataKeyLease)) -> Lease {
        let mut terms = proto::DataKeyLease {
            plaintext: vec![7; 32].into(),
            wrapped: vec![1; 68].into(),
            key_id: vec![2; 16].into(),
            tenant_id: vec![3; 16].into(),
            key_version: 4,
            lifetime_ms: 60_000,
            silence_ms: 60_000,
            max_envelopes: 2,
            max_items: 2,
            max_item_bytes: 5,
            max_aad_bytes: 3,
            max_envelope_bytes: 8,
        };
        change(&mut terms);
        Lease::new(Moment::now(), terms).unwrap()
    }

    fn seal(lease: &Lease, plaintexts: &[&[u8]]) -> Result<Option<Sealed>, Failure> {
        let items: Vec<Plain<'_>> = plaintexts.iter().map(|p| (*p).into()).collect();
        lease.seal(&[0; 32], &items)
    }

    #[test]
    fn a_lease_ends_by_number() {
        let lease = lease(|_| ());
        assert_eq!(seal(&lease, &[b"x"]).unwrap().unwrap().key_version, 4);
        assert!(lease.goes_on());
        assert!(seal(&lease, &[b"x"]).unwrap().is_some());
        assert!(!lease.goes_on());
        assert!(seal(&lease, &[b"x"]).unwrap().is_none());
    }

    #[test]
    fn a_lease_ends_by_time_and_by_silence() {
        for change in [
            |t: &mut proto::DataKeyLease| t.lifetime_ms = 0,
            |t: &mut proto::DataKeyLease| t.silence_ms = 0,
        ] {
            let lease = lease(change);
            assert!(!lease.goes_on());
            assert!(seal(&lease, &[b"x"]).unwrap().is_none());
            // A sign of life that comes too late wakes nothing up, it clears the key.
            assert!(!lease.heard() && lease.held().is_none());
        }
        let lease = lease(|_| ());
        assert!(lease.heard() && lease.goes_on());
        lease.end();
        assert!(!lease.goes_on() && !lease.heard());
    }

    #[test]
    fn a_suspended_machine_has_no_lease_when_it_wakes_up() {
        let mut lease = lease(|t| t.lifetime_ms = 30_000);
        // The steady clock stood still, the other one did not.
        lease.asked.wall -= Duration::from_secs(31);
        assert!(!lease.goes_on());
        assert!(seal(&lease, &[b"x"]).unwrap().is_none());
    }

    #[test]
    fn what_the_server_would_not_read_is_not_sealed() {
        let lease = lease(|_| ());
        let too_much: [&[&[u8]]; 4] =
            [&[], &[b"1", b"2", b"3"], &[b"123456"], &[b"12345", b"1234"]];
        for plaintexts in too_much {
            let failure = seal(&lease, plaintexts).unwrap_err();
            assert_eq!(failure.kind(), FailureKind::Data);
        }
        let long_aad = Plain {
            aad: b"1234",
            plaintext: b"",
        };
        assert!(lease.seal(&[0; 32], &[long_aad]).is_err());
        // None of them was counted.
        assert!(seal(&lease, &[b"12345", b"123"]).unwrap().is_some());
        assert!(lease.goes_on());
    }

    #[test]
    fn nothing_shows_the_key() {
        let shown = format!("{:?}", lease(|_| ()));
        assert_eq!(shown, "Lease { .. }");
    }
}
