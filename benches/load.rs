//! A closed loop of callers, and what it shows.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

/// How long, how often and how many at once.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Whose median counts.
    pub rounds: usize,
    /// Of one round.
    pub window: Duration,
    /// Requests in flight.
    pub in_flight: usize,
}

impl Plan {
    /// With `--test` among the arguments only what shows that it runs.
    #[must_use]
    pub fn of(args: &[String], in_flight: usize) -> Self {
        let (rounds, millis) = if args.iter().any(|a| a == "--test") {
            (1, 100)
        } else {
            (9, 400)
        };
        Self {
            rounds,
            window: Duration::from_millis(millis),
            in_flight,
        }
    }
}

/// One round.
#[derive(Debug)]
pub struct Measured {
    /// Requests per second.
    pub per_second: f64,
    /// Requests in all.
    pub requests: f64,
    /// Milliseconds of each request, in rising order.
    pub millis: Vec<f64>,
}

impl Measured {
    /// The time that this share of the requests did not exceed, in milliseconds.
    #[must_use]
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a benchmark"
    )]
    pub fn percentile(&self, share: f64) -> f64 {
        let last = self.millis.len().saturating_sub(1);
        self.millis[(last as f64 * share) as usize]
    }
}

/// Callers that ask again as soon as they are answered, for one window.
///
/// # Panics
/// When a caller does.
#[allow(clippy::cast_precision_loss, reason = "a benchmark")]
pub async fn drive<F: Future<Output = ()> + Send + 'static>(
    plan: Plan,
    call: impl Fn() -> F + Send + Sync + 'static,
) -> Measured {
    let (call, times) = (Arc::new(call), Arc::new(Mutex::new(Vec::new())));
    let start = Instant::now();
    let end = start + plan.window;
    let callers: Vec<_> = (0..plan.in_flight)
        .map(|_| {
            let (call, times) = (Arc::clone(&call), Arc::clone(&times));
            tokio::spawn(async move {
                let mut own = Vec::new();
                while Instant::now() < end {
                    let asked = Instant::now();
                    call().await;
                    own.push(asked.elapsed().as_secs_f64() * 1e3);
                }
                times.lock().unwrap().extend(own);
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    let elapsed = start.elapsed().as_secs_f64();
    let mut millis = std::mem::take(&mut *times.lock().unwrap());
    millis.sort_by(f64::total_cmp);
    let requests = millis.len() as f64;
    Measured {
        per_second: requests / elapsed,
        requests,
        millis,
    }
}

/// Of the middle one.
#[must_use]
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
