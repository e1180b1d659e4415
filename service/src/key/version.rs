//! One generation of a key's material: where it is on the token, what it may do, and
//! when it last did something.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
};

use keywright_hsm::KeyRef;

use super::{DekLease, KeyState, VersionNumber, WrapCounter};

/// One generation of key material.
#[derive(Debug, Clone)]
pub struct KeyVersion {
    /// From 1.
    pub number: VersionNumber,
    /// SP 800-57 state.
    pub state: KeyState,
    /// When its material is to be destroyed, in milliseconds since the epoch. Until then
    /// it does nothing, so that whoever still needs it finds out while it can be helped.
    pub destroy_at_ms: Option<i64>,
    /// Until when it does nothing for a try, in milliseconds since the epoch: whoever would
    /// miss it is heard, and it comes back by itself.
    pub brown_out_until_ms: Option<i64>,
    /// Where it is on the token.
    pub on_token: KeyRef,
    /// Serial of the token it was generated in.
    pub token_serial: String,
    /// Milliseconds since the epoch.
    pub created_ms: i64,
    /// How many wraps were made; shared by all pictures of the key.
    pub wraps: Arc<WrapCounter>,
    /// When it was last used; shared by all pictures of the key.
    pub used: Arc<LastUsed>,
    /// The data key that it has on lease; shared by all pictures of the key.
    pub lease: Arc<DekLease>,
}

/// When a version last protected, last processed, and was last refused to somebody who
/// wanted it. Kept in memory by the hot path, brought to the store now and then: after a
/// crash it may lag by that much.
#[derive(Debug, Default)]
pub struct LastUsed {
    protected_ms: AtomicI64,
    processed_ms: AtomicI64,
    refused_ms: AtomicI64,
    sealed_bytes: AtomicU64,
    unsaved_bytes: AtomicU64,
    unsaved: AtomicBool,
}

/// The times of a [`LastUsed`]; 0 is never.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UseTimes {
    /// Last time it protected, in milliseconds since the epoch.
    pub protected_ms: i64,
    /// Last time it processed.
    pub processed_ms: i64,
    /// Last time it was wanted for processing and its state forbade it.
    pub refused_ms: i64,
}

impl LastUsed {
    /// From what is stored.
    #[must_use]
    pub fn new(times: UseTimes, sealed_bytes: u64) -> Self {
        Self {
            protected_ms: times.protected_ms.into(),
            processed_ms: times.processed_ms.into(),
            refused_ms: times.refused_ms.into(),
            sealed_bytes: sealed_bytes.into(),
            unsaved_bytes: AtomicU64::new(0),
            unsaved: AtomicBool::new(false),
        }
    }

    /// It protected something now.
    pub fn protects(&self, now_ms: i64) {
        self.advance(&self.protected_ms, now_ms);
    }

    /// It processed something now.
    pub fn processes(&self, now_ms: i64) {
        self.advance(&self.processed_ms, now_ms);
    }

    /// Somebody wanted it for processing now and did not get it.
    pub fn refuses(&self, now_ms: i64) {
        self.advance(&self.refused_ms, now_ms);
    }

    /// It sealed so many bytes.
    pub fn seals(&self, bytes: u64) {
        self.sealed_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.unsaved_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// How many bytes it has sealed, as far as this node knows.
    #[must_use]
    pub fn sealed_bytes(&self) -> u64 {
        self.sealed_bytes.load(Ordering::Relaxed)
    }

    /// What is stored, with the uses on other nodes.
    pub fn hear(&self, stored: &Self) {
        for (own, stored) in [
            (&self.protected_ms, &stored.protected_ms),
            (&self.processed_ms, &stored.processed_ms),
            (&self.refused_ms, &stored.refused_ms),
        ] {
            own.fetch_max(stored.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        let unsaved = self.unsaved_bytes.load(Ordering::Relaxed);
        let all = stored.sealed_bytes().saturating_add(unsaved);
        self.sealed_bytes.fetch_max(all, Ordering::Relaxed);
    }

    fn advance(&self, time: &AtomicI64, now_ms: i64) {
        if time.fetch_max(now_ms, Ordering::Relaxed) < now_ms {
            self.unsaved.store(true, Ordering::Release);
        }
    }

    /// When it last protected; `None`: never.
    #[must_use]
    pub fn protected_ms(&self) -> Option<i64> {
        Some(self.protected_ms.load(Ordering::Relaxed)).filter(|ms| *ms > 0)
    }

    /// When it last processed; `None`: never.
    #[must_use]
    pub fn processed_ms(&self) -> Option<i64> {
        Some(self.processed_ms.load(Ordering::Relaxed)).filter(|ms| *ms > 0)
    }

    /// When somebody last wanted it in vain; `None`: never.
    #[must_use]
    pub fn refused_ms(&self) -> Option<i64> {
        Some(self.refused_ms.load(Ordering::Relaxed)).filter(|ms| *ms > 0)
    }

    /// All times, and the bytes since the last time, when the store has not seen them yet;
    /// from now on it has.
    #[must_use]
    pub fn take_unsaved(&self) -> Option<(UseTimes, u64)> {
        self.unsaved.swap(false, Ordering::AcqRel).then(|| {
            let times = UseTimes {
                protected_ms: self.protected_ms.load(Ordering::Relaxed),
                processed_ms: self.processed_ms.load(Ordering::Relaxed),
                refused_ms: self.refused_ms.load(Ordering::Relaxed),
            };
            (times, self.unsaved_bytes.swap(0, Ordering::Relaxed))
        })
    }

    /// The store has not seen them after all, nor these bytes.
    pub fn still_unsaved(&self, bytes: u64) {
        self.unsaved_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.unsaved.store(true, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_go_forward_and_are_saved_once() {
        let times = |protected_ms, processed_ms, refused_ms| UseTimes {
            protected_ms,
            processed_ms,
            refused_ms,
        };
        let used = LastUsed::new(times(0, 5, 0), 10);
        assert_eq!((used.protected_ms(), used.processed_ms()), (None, Some(5)));
        assert_eq!(used.take_unsaved(), None);
        used.protects(7);
        used.processes(3);
        assert_eq!(used.take_unsaved(), Some((times(7, 5, 0), 0)));
        assert_eq!(used.take_unsaved(), None);
        used.protects(7);
        assert_eq!(used.take_unsaved(), None, "nothing new");
        used.still_unsaved(3);
        assert_eq!(used.take_unsaved(), Some((times(7, 5, 0), 3)));
        used.seals(3);
        used.refuses(9);
        assert_eq!(used.take_unsaved(), Some((times(7, 5, 9), 3)));
        assert_eq!((used.refused_ms(), used.sealed_bytes()), (Some(9), 13));
    }
}
