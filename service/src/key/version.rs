//! One generation of a key's material: where it is on the token, what it may do, and
//! when it last did something.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicI64, Ordering},
};

use keywright_hsm::KeyRef;

use super::{KeyState, VersionNumber, WrapCounter};

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
}

/// When a version last protected and last processed. Kept in memory by the hot path,
/// brought to the store now and then: after a crash it may lag by that much.
#[derive(Debug, Default)]
pub struct LastUsed {
    protected_ms: AtomicI64,
    processed_ms: AtomicI64,
    unsaved: AtomicBool,
}

impl LastUsed {
    /// From the stored times; 0 is never.
    #[must_use]
    pub fn new(protected_ms: i64, processed_ms: i64) -> Self {
        Self {
            protected_ms: protected_ms.into(),
            processed_ms: processed_ms.into(),
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

    /// Both times when the store has not seen them yet; from now on it has.
    #[must_use]
    pub fn take_unsaved(&self) -> Option<(i64, i64)> {
        self.unsaved.swap(false, Ordering::AcqRel).then(|| {
            (
                self.protected_ms.load(Ordering::Relaxed),
                self.processed_ms.load(Ordering::Relaxed),
            )
        })
    }

    /// The store has not seen them after all.
    pub fn still_unsaved(&self) {
        self.unsaved.store(true, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_go_forward_and_are_saved_once() {
        let used = LastUsed::new(0, 5);
        assert_eq!((used.protected_ms(), used.processed_ms()), (None, Some(5)));
        assert_eq!(used.take_unsaved(), None);
        used.protects(7);
        used.processes(3);
        assert_eq!(used.take_unsaved(), Some((7, 5)));
        assert_eq!(used.take_unsaved(), None);
        used.protects(7);
        assert_eq!(used.take_unsaved(), None, "nothing new");
        used.still_unsaved();
        assert_eq!(used.take_unsaved(), Some((7, 5)));
    }
}
