//! How many DEKs a key version has wrapped. Random-IV AES-GCM must stop well below
//! 2^32 uses of one key (SP 800-38D §8.3), also over crashes and restores.
//!
//! The store reserves blocks ahead; memory counts within them. After a crash the rest
//! of a block counts as used, so the number runs ahead of the truth, never behind.

use std::sync::atomic::{AtomicU64, Ordering};

/// Wraps made under one version. Shared by all pictures of the key.
#[derive(Debug)]
pub struct WrapCounter {
    used: AtomicU64,
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
    /// Wraps reserved at a time.
    pub const BLOCK: u64 = 1 << 16;
    /// Rotate from here on (`docs/envelope.md`, limits).
    pub const ROTATE_AT: u64 = 1 << 30;
    /// Refuse from here on.
    pub const REFUSE_AT: u64 = (1 << 32) - (1 << 16);

    /// From the stored number: everything reserved before counts as used.
    #[must_use]
    pub fn new(reserved: u64) -> Self {
        Self {
            used: AtomicU64::new(reserved),
            reserved: AtomicU64::new(reserved),
        }
    }

    /// Counts `n` wraps that are about to be made.
    pub fn take(&self, n: u64) -> Take {
        let reserved = self.reserved.load(Ordering::Acquire);
        let taken = self
            .used
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |used| {
                used.checked_add(n).filter(|next| *next <= reserved)
            });
        match taken {
            Ok(before) => Take::Taken {
                low: reserved - before < Self::BLOCK / 2,
            },
            Err(_) => Take::Empty,
        }
    }

    /// What the next reservation asks the store for: from, to. `None`: refused for
    /// good, the version must be rotated.
    #[must_use]
    pub fn next_block(&self) -> Option<(u64, u64)> {
        let from = self.reserved.load(Ordering::Acquire);
        let to = from.checked_add(Self::BLOCK)?.min(Self::REFUSE_AT);
        (to > from).then_some((from, to))
    }

    /// The store has durably reserved up to `to`.
    pub fn grant(&self, to: u64) {
        self.reserved.fetch_max(to, Ordering::AcqRel);
    }

    /// Upper bound of the wraps made.
    #[must_use]
    pub fn reserved(&self) -> u64 {
        self.reserved.load(Ordering::Acquire)
    }

    /// Wraps left before the version refuses.
    #[must_use]
    pub fn left(&self) -> u64 {
        Self::REFUSE_AT.saturating_sub(self.used.load(Ordering::Acquire))
    }

    /// Should the version be rotated?
    #[must_use]
    pub fn rotation_due(&self) -> bool {
        self.used.load(Ordering::Acquire) >= Self::ROTATE_AT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_wrapped_before_it_is_reserved() {
        let counter = WrapCounter::new(0);
        assert_eq!(counter.take(1), Take::Empty);
        assert_eq!(counter.next_block(), Some((0, WrapCounter::BLOCK)));
        counter.grant(WrapCounter::BLOCK);
        assert_eq!(counter.take(1), Take::Taken { low: false });
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
    fn a_restart_counts_the_rest_of_the_block_as_used() {
        let counter = WrapCounter::new(WrapCounter::BLOCK);
        assert_eq!(counter.take(1), Take::Empty);
        assert_eq!(counter.reserved(), WrapCounter::BLOCK);
    }

    #[test]
    fn the_limits_hold_to_the_last_wrap() {
        let counter = WrapCounter::new(WrapCounter::ROTATE_AT - 1);
        counter.grant(WrapCounter::ROTATE_AT + 1);
        assert!(!counter.rotation_due());
        counter.take(1);
        assert!(counter.rotation_due());

        let counter = WrapCounter::new(WrapCounter::REFUSE_AT - 1);
        assert_eq!(
            counter.next_block(),
            Some((WrapCounter::REFUSE_AT - 1, WrapCounter::REFUSE_AT))
        );
        counter.grant(WrapCounter::REFUSE_AT);
        assert_eq!(counter.take(1), Take::Taken { low: true });
        assert_eq!(counter.take(1), Take::Empty);
        assert_eq!(counter.next_block(), None, "2^32 - 2^16 is the end");
        assert_eq!(counter.left(), 0);
    }

    #[test]
    fn many_threads_never_take_more_than_was_granted() {
        let counter = WrapCounter::new(0);
        counter.grant(10_000);
        let taken: usize = std::thread::scope(|s| {
            let threads: Vec<_> = (0..4)
                .map(|_| s.spawn(|| (0..5000).filter(|_| counter.take(1) != Take::Empty).count()))
                .collect();
            threads.into_iter().map(|t| t.join().unwrap()).sum()
        });
        assert_eq!(taken, 10_000);
    }
}
