//! Not faster than so many items a second.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Gives out times at which items may go, one after the other.
pub(super) struct Pace {
    per_second: u32,
    free: Mutex<Instant>,
}

impl Pace {
    /// 0: as fast as it goes.
    pub(super) fn new(per_second: u32) -> Self {
        Self {
            per_second,
            free: Mutex::new(Instant::now()),
        }
    }

    /// Waits until so many may go.
    pub(super) async fn wait(&self, items: usize) {
        if self.per_second != 0 {
            tokio::time::sleep_until(self.slot(items, Instant::now())).await;
        }
    }

    /// When they may go; what comes next waits for as long as they take.
    fn slot(&self, items: usize, now: Instant) -> Instant {
        let takes = Duration::from_secs_f64(items as f64 / f64::from(self.per_second.max(1)));
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        // Time that was not used is not saved up: no rush after a pause.
        let start = now.max(*free);
        *free = start + takes;
        start
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_go_at_the_rate_and_no_rush_follows_a_pause() {
        let pace = Pace::new(100);
        let start = Instant::now() + Duration::from_secs(1);
        let at = |n, ms| {
            let now = start + Duration::from_millis(ms);
            (pace.slot(n, now) - start).as_millis()
        };
        assert_eq!(at(50, 0), 0);
        assert_eq!(at(50, 0), 500);
        assert_eq!(at(10, 700), 1_000);
        assert_eq!(at(10, 9_000), 9_000);
        assert_eq!(at(10, 9_000), 9_100);
    }
}
