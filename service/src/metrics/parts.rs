//! Where the time of a request goes: waiting for an HSM worker, in the token, sealing and
//! opening, waiting for the audit record, and the rest: policies, words, waiting for a core.
//!
//! The clock of a request hangs on its task, so that no operation carries it along. Jobs
//! of one batch run side by side; what overlaps is counted once, so the parts of a request
//! never add up to more than it took.

use std::{
    cell::Cell,
    collections::BTreeMap,
    time::{Duration, Instant},
};

use keywright_hsm::Times;
use metrics::{Histogram, histogram};
use parking_lot::RwLock;

use super::REQUEST_PART_SECONDS;

tokio::task_local! {
    static CLOCK: Clock;
}

#[derive(Default)]
struct Clock {
    waited: Stretch,
    ran: Stretch,
    crypto: Cell<Duration>,
}

/// Time that is covered by stretches that may overlap.
#[derive(Default)]
struct Stretch {
    until: Cell<Option<Instant>>,
    sum: Cell<Duration>,
}

impl Stretch {
    fn cover(&self, from: Instant, to: Instant) {
        let until = self.until.get();
        let from = until.map_or(from, |until| until.max(from));
        let more = to.saturating_duration_since(from);
        self.sum.set(self.sum.get() + more);
        self.until.set(until.max(Some(to)));
    }
}

/// Where some of the time of an operation went.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Spent {
    /// Waiting for a worker of the HSM.
    pub(crate) queue: Duration,
    /// Waiting for the token.
    pub(crate) token: Duration,
    /// Sealing and opening items.
    pub(crate) crypto: Duration,
}

/// Runs the work of a request with a clock of its own.
pub(crate) async fn timed<T>(work: impl Future<Output = T>) -> (T, Spent) {
    let work = async {
        let result = work.await;
        (result, CLOCK.with(Clock::read))
    };
    CLOCK.scope(Clock::default(), work).await
}

/// Items are sealed or opened for the request this task works on.
pub(crate) fn crypto<T>(work: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let done = work();
    let took = began.elapsed();
    // What the appliance does by itself has no clock.
    let _ = CLOCK.try_with(|clock| clock.crypto.set(clock.crypto.get() + took));
    done
}

/// A job of the request this task works on was answered.
pub(super) fn answered(job: Times) {
    // What the appliance asks for itself has no clock.
    let _ = CLOCK.try_with(|clock| clock.answered(job));
}

impl Clock {
    fn answered(&self, job: Times) {
        self.ran.cover(job.started, job.ended);
        self.waited.cover(job.submitted, job.ended);
    }

    fn read(&self) -> Spent {
        let token = self.ran.sum.get();
        Spent {
            queue: self.waited.sum.get().saturating_sub(token),
            token,
            crypto: self.crypto.get(),
        }
    }
}

/// As [`PARTS`].
type Parts = [Histogram; PARTS.len()];

const PARTS: [&str; 5] = ["queue", "hsm", "crypto", "audit", "process"];

/// Looked up once for each RPC; recording then allocates nothing.
static HISTOGRAMS: RwLock<BTreeMap<&'static str, Parts>> = RwLock::new(BTreeMap::new());

/// An operation took `total`, `audit` of it for its record.
pub(crate) fn parts(rpc: &'static str, total: Duration, spent: Spent, audit: Duration) {
    let known = HISTOGRAMS.read();
    if let Some(parts) = known.get(rpc) {
        return record(parts, total, spent, audit);
    }
    drop(known);
    let new = PARTS.map(|part| histogram!(REQUEST_PART_SECONDS, "rpc" => rpc, "part" => part));
    record(&new, total, spent, audit);
    HISTOGRAMS.write().insert(rpc, new);
}

fn record(parts: &Parts, total: Duration, spent: Spent, audit: Duration) {
    let Spent {
        queue,
        token,
        crypto,
    } = spent;
    let process = total.saturating_sub(queue + token + crypto + audit);
    let times = [queue, token, crypto, audit, process];
    for (histogram, time) in parts.iter().zip(times) {
        histogram.record(time);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Submitted, started, ended, in milliseconds.
    fn read(jobs: &[(u64, u64, u64)]) -> (u128, u128) {
        let zero = Instant::now();
        let at = |ms| zero + Duration::from_millis(ms);
        let clock = Clock::default();
        for &(submitted, started, ended) in jobs {
            clock.answered(Times {
                submitted: at(submitted),
                started: at(started),
                ended: at(ended),
            });
        }
        let Spent { queue, token, .. } = clock.read();
        (queue.as_millis(), token.as_millis())
    }

    #[test]
    fn what_overlaps_is_counted_once() {
        assert_eq!(read(&[]), (0, 0));
        assert_eq!(read(&[(0, 10, 30)]), (10, 20));
        // Two workers side by side, in whatever order they are heard.
        assert_eq!(read(&[(0, 10, 30), (0, 10, 40)]), (10, 30));
        assert_eq!(read(&[(0, 10, 40), (0, 10, 30)]), (10, 30));
        // One worker, one after the other.
        assert_eq!(read(&[(0, 10, 30), (0, 30, 50)]), (10, 40));
        // Two questions, and something else in between.
        assert_eq!(read(&[(0, 10, 30), (100, 105, 110)]), (15, 25));
    }

    #[tokio::test]
    async fn the_clock_hangs_on_the_task() {
        let job = || {
            let now = Instant::now();
            Times {
                submitted: now,
                started: now + Duration::from_millis(1),
                ended: now + Duration::from_millis(3),
            }
        };
        // Nobody's: not counted, and no harm.
        answered(job());
        let ((), time) = timed(async { answered(job()) }).await;
        assert_eq!(time.queue, Duration::from_millis(1));
        assert_eq!(time.token, Duration::from_millis(2));
        let ((), time) = timed(async {}).await;
        assert_eq!(time, Spent::default());
        assert_eq!(crypto(|| 7), 7);
        let soon = Instant::now() + Duration::from_millis(2);
        let ((), time) = timed(async { crypto(|| while Instant::now() < soon {}) }).await;
        assert!(time.crypto >= Duration::from_millis(1), "{time:?}");
    }
}
