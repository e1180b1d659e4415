//! A data key that seals more than one envelope: where a rule of the key allows it, for so
//! many seconds and envelopes. Each envelope has a salt of its own, so
//! no two of them have the same item key (`docs/envelope.md`).

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use keywright_hsm::{Dek, WrappedDek};

/// The data key that a version has on lease within this process, if it has one. Reading it
/// takes no lock.
#[derive(Default)]
pub struct DekLease(ArcSwapOption<LeasedDek>);

/// A data key, its wrapped form, and how much of it is left. Cleared when the lease and the
/// last request that seals under it have ended.
pub struct LeasedDek {
    /// The data key.
    pub dek: Dek,
    /// As in the headers of its envelopes.
    pub wrapped: WrappedDek,
    made: Instant,
    envelopes: u32,
    left: AtomicU32,
}

/// What a lease has to give.
#[derive(Debug)]
pub enum Taken {
    /// One envelope more. `low`: it is time to ask for the next data key, and nobody waits.
    Dek {
        /// To seal it under.
        leased: Arc<LeasedDek>,
        /// Little is left.
        low: bool,
    },
    /// There is none, or it has ended.
    Ended,
}

impl DekLease {
    /// Takes one envelope of the data key, when that is no older than `life`.
    #[must_use]
    pub fn take(&self, now: Instant, life: Duration) -> Taken {
        let Some(leased) = self.0.load_full() else {
            return Taken::Ended;
        };
        let age = now.saturating_duration_since(leased.made);
        let one_less = |left: u32| left.checked_sub(1);
        let before = leased
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less);
        match before {
            Ok(left) if age < life => Taken::Dek {
                low: age >= life / 4 * 3 || left <= leased.envelopes / 4,
                leased,
            },
            _ => Taken::Ended,
        }
    }

    /// Another data key from now on, made at `made`, for so many envelopes.
    pub fn begin(&self, dek: Dek, wrapped: WrappedDek, made: Instant, envelopes: u32) {
        self.0.store(Some(Arc::new(LeasedDek {
            dek,
            wrapped,
            made,
            envelopes,
            left: AtomicU32::new(envelopes),
        })));
    }

    /// When the data key was made; `None`: there is none.
    #[must_use]
    pub fn made(&self) -> Option<Instant> {
        self.0.load().as_ref().map(|leased| leased.made)
    }

    /// Nothing is sealed under it any more.
    pub fn end(&self) {
        self.0.store(None);
    }
}

impl fmt::Debug for DekLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DekLease(..)")
    }
}

impl fmt::Debug for LeasedDek {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LeasedDek(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFE: Duration = Duration::from_secs(8);

    fn begun(at: Instant) -> DekLease {
        let lease = DekLease::default();
        lease.begin(Dek::take(&mut [7; 32]), WrappedDek([1; 60]), at, 100);
        lease
    }

    fn low(taken: &Taken) -> Option<bool> {
        match taken {
            Taken::Dek { low, .. } => Some(*low),
            Taken::Ended => None,
        }
    }

    #[test]
    fn it_ends_by_time() {
        let at = Instant::now();
        let lease = begun(at);
        let after = |seconds| low(&lease.take(at + Duration::from_secs(seconds), LIFE));
        assert_eq!(after(0), Some(false));
        assert_eq!(after(5), Some(false));
        assert_eq!(after(6), Some(true));
        assert_eq!(after(8), None);
        // A shorter rule holds for a data key that was made under a longer one.
        let shorter = lease.take(at + Duration::from_secs(2), Duration::from_secs(2));
        assert_eq!(low(&shorter), None);
    }

    #[test]
    fn it_ends_by_number() {
        let at = Instant::now();
        let lease = begun(at);
        let all: Vec<_> = (0..=100).map(|_| low(&lease.take(at, LIFE))).collect();
        let count = |what| all.iter().filter(|t| **t == what).count();
        assert_eq!(count(Some(false)), 75);
        assert_eq!(count(Some(true)), 25);
        assert_eq!(count(None), 1);
        assert_eq!(all.last(), Some(&None), "and stays ended");
        assert_eq!(low(&lease.take(at, LIFE)), None);
    }

    #[test]
    fn it_ends_when_it_is_told_to() {
        let at = Instant::now();
        let lease = begun(at);
        assert_eq!(lease.made(), Some(at));
        lease.end();
        assert_eq!(low(&lease.take(at, LIFE)), None);
        assert_eq!(lease.made(), None);
        assert_eq!(format!("{lease:?}"), "DekLease(..)");
    }
}
