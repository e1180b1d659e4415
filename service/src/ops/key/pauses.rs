//! How long the appliance waits before it tries again by itself what failed for a key: each
//! try is recorded before it is made, and an HSM that is away for a night must not fill the
//! log.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use crate::key::KeyId;

/// After the first failure; twice as long after each further one.
const FIRST_MS: i64 = 10_000;
/// Never longer.
const LONGEST_MS: i64 = 60 * 60 * 1000;

/// Keys that failed: how often in a row, and when they are tried again.
#[derive(Debug, Default)]
pub struct Pauses(Mutex<BTreeMap<KeyId, (u32, i64)>>);

impl Pauses {
    /// Is it time?
    pub(super) fn is_over(&self, key: KeyId, now_ms: i64) -> bool {
        let failed = self.0.lock();
        failed.get(&key).is_none_or(|(_, until)| *until <= now_ms)
    }

    /// It went well, or not.
    pub(super) fn tried(&self, key: KeyId, well: bool, now_ms: i64) {
        let mut failed = self.0.lock();
        if well {
            failed.remove(&key);
            return;
        }
        let (times, until) = failed.entry(key).or_default();
        let pause = FIRST_MS << (*times).min(16);
        *times = times.saturating_add(1);
        *until = now_ms.saturating_add(pause.min(LONGEST_MS));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_grows_up_to_an_hour_and_ends_with_success() {
        let (pauses, key) = (Pauses::default(), KeyId([1; 16]));
        let mut now_ms = 0;
        for seconds in [10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600, 3600] {
            assert!(pauses.is_over(key, now_ms) && pauses.is_over(KeyId([2; 16]), 0));
            pauses.tried(key, false, now_ms);
            now_ms += seconds * 1000;
            assert!(!pauses.is_over(key, now_ms - 1));
        }
        pauses.tried(key, true, now_ms);
        assert!(pauses.is_over(key, 0));
    }
}
