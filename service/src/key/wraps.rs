//! How many DEKs a key version has wrapped. Random-IV AES-GCM must stop well below
//! 2^32 uses of one key (SP 800-38D §8.3), also over crashes, restores and many nodes.
//!
//! The store hands out blocks; memory counts within its block. After a crash the rest
//! of a block is lost, so the stored number runs ahead of the truth, never behind.

use std::sync::atomic::{AtomicU64, Ordering};

/// Wraps of one version, as this process may make them. Shared by all pictures of the
/// key.
#[derive(Debug)]
pub struct WrapCounter {
    left: AtomicU64,
    reserved: AtomicU64,
}

/// What [`WrapCounter::take`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Take {
    /// Go ahead. `low`: less than half a block is left; reserve the next one soon.
    Taken {
        /// Reserve ahead.
        low: bool,
    },
    /// The block is used up; reserve the next one first.
    Empty,
}

impl WrapCounter {
    /// Wraps reserved at a time; more than one request ever needs.
    pub const BLOCK: u64 = 1 << 16;
    /// Rotate from here on (`docs/envelope.md`, limits).
    pub const ROTATE_AT: u64 = 1 << 30;
    /// Refuse from here on. A whole number of blocks.
    pub const REFUSE_AT: u64 = (1 << 32) - (1 << 16);

    /// From the stored number: nothing of it is ours to use.
    #[must_use]
    pub fn new(reserved: u64) -> Self {
        Self {
            left: AtomicU64::new(0),
            reserved: AtomicU64::new(reserved),
        }
    }

    /// Counts `n` wraps that are about to be made.
    pub fn take(&self, n: u64) -> Take {
        let taken = self
            .left
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| {
                left.checked_sub(n)
            });
        match taken {
            Ok(before) => Take::Taken {
                low: before < Self::BLOCK / 2,
            },
            Err(_) => Take::Empty,
        }
    }

    /// The store has durably reserved a block for us; `reserved` is its new number.
    pub fn grant(&self, reserved: u64) {
        self.reserved.fetch_max(reserved, Ordering::AcqRel);
        self.left.fetch_add(Self::BLOCK, Ordering::AcqRel);
    }

    /// Others have reserved as well: the stored number is at least this.
    pub fn hear(&self, reserved: u64) {
        self.reserved.fetch_max(reserved, Ordering::AcqRel);
    }

    /// Wraps left of our block.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.left.load(Ordering::Acquire)
    }

    /// Upper bound of the wraps made by anybody, as far as we know.
    #[must_use]
    pub fn reserved(&self) -> u64 {
        self.reserved.load(Ordering::Acquire)
    }

    /// Upper bound of the wraps made so far: what was reserved, without what is left of
    /// our own block.
    #[must_use]
    pub fn used_at_most(&self) -> u64 {
        self.reserved().saturating_sub(self.left())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_wrapped_before_it_is_reserved() {
        let counter = WrapCounter::new(0);
        assert_eq!(counter.take(1), Take::Empty);
        counter.grant(WrapCounter::BLOCK);
        assert_eq!(counter.take(1), Take::Taken { low: false });
        assert_eq!(counter.take(WrapCounter::BLOCK), Take::Empty);
        assert_eq!(
            counter.take(WrapCounter::BLOCK - 1),
            Take::Taken { low: false }
        );
        assert_eq!(counter.take(1), Take::Empty);
    }

    #[test]
    fn a_half_used_block_is_low() {
        let counter = WrapCounter::new(0);
        counter.grant(WrapCounter::BLOCK);
        counter.take(WrapCounter::BLOCK / 2 + 1);
        assert_eq!(counter.take(1), Take::Taken { low: true });
    }

    #[test]
    fn a_restart_uses_nothing_of_the_old_block() {
        let counter = WrapCounter::new(WrapCounter::BLOCK);
        assert_eq!(counter.take(1), Take::Empty);
        assert_eq!(counter.reserved(), WrapCounter::BLOCK);
    }

    #[test]
    fn rotation_is_due_past_two_to_the_thirty() {
        let due = |n| {
            let mut version = crate::key::tests::version(1, crate::key::KeyState::Active);
            version.wraps = WrapCounter::new(n).into();
            crate::key::Rules::default()
                .rotation_due(&version, 0, 0)
                .is_some()
        };
        assert!(!due(WrapCounter::ROTATE_AT - 1));
        assert!(due(WrapCounter::ROTATE_AT));
        assert_eq!(WrapCounter::REFUSE_AT % WrapCounter::BLOCK, 0);
    }

    #[test]
    fn many_threads_never_take_more_than_was_granted() {
        let counter = WrapCounter::new(0);
        counter.grant(WrapCounter::BLOCK);
        let take = || {
            (0..20_000)
                .filter(|_| counter.take(1) != Take::Empty)
                .count()
        };
        let taken: usize = std::thread::scope(|s| {
            let threads: Vec<_> = (0..4).map(|_| s.spawn(take)).collect();
            threads.into_iter().map(|t| t.join().unwrap()).sum()
        });
        assert_eq!(taken as u64, WrapCounter::BLOCK);
    }
}
