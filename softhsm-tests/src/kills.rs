//! `kill -9` again and again: the daemon at work, or just starting, on one directory.

use std::{path::Path, thread, time::Duration};

use crate::daemon::{Daemon, start_and_kill};

/// A small generator (Marsaglia's xorshift), so that a failing run can be had again.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

/// How often and when.
#[derive(Debug)]
pub struct Kills {
    /// Kills in all.
    pub count: u64,
    /// One in so many hits a start, first starts included.
    pub starts: u64,
    /// A daemon at work is left alone for at least so long, and at most `work_ms` more.
    pub least_ms: u64,
    /// See `least_ms`.
    pub work_ms: u64,
    /// The same gives the same.
    pub seed: u64,
}

impl Kills {
    /// How often an environment variable says, or `default`.
    #[must_use]
    pub fn count(variable: &str, default: u64) -> u64 {
        let said = std::env::var(variable).ok();
        said.and_then(|n| n.parse().ok()).unwrap_or(default)
    }

    /// `begin` sets to work what uses a daemon that has started, with the number of the
    /// round; `end` waits for it after the kill.
    pub fn run<W>(&self, data: &Path, begin: impl Fn(&Daemon, u64) -> W, end: impl Fn(W)) {
        let mut dice = Dice(self.seed);
        for round in 0..self.count {
            if dice.below(self.starts) == 0 {
                start_and_kill(data, Duration::from_millis(dice.below(250)));
                continue;
            }
            let daemon = Daemon::start(data);
            let work = begin(&daemon, round);
            thread::sleep(Duration::from_millis(
                self.least_ms + dice.below(self.work_ms),
            ));
            daemon.kill();
            end(work);
        }
    }
}
