//! How often an account may come: counted in windows, for a bounded number of accounts.

use std::{collections::HashMap, time::Duration};

use parking_lot::Mutex;

use crate::acme::{AcmeId, Problem, ProblemKind};

/// Accounts that are counted at one time.
const MAX_ACCOUNTS: usize = 1 << 16;

#[derive(Debug)]
pub(super) struct Rates {
    limit: u32,
    window_ms: i64,
    counted: Mutex<HashMap<AcmeId, (i64, u32)>>,
}

impl Rates {
    pub(super) fn new(limit: u32, window_ms: i64) -> Self {
        Self {
            limit,
            window_ms,
            counted: Mutex::default(),
        }
    }

    /// Counts one more.
    pub(super) fn take(&self, account: &AcmeId, now_ms: i64) -> Result<(), Problem> {
        let window = now_ms.div_euclid(self.window_ms);
        let mut counted = self.counted.lock();
        if counted.len() >= MAX_ACCOUNTS {
            counted.retain(|_, (of, _)| *of == window);
        }
        if counted.len() >= MAX_ACCOUNTS && !counted.contains_key(account) {
            return Err(self.refusal(now_ms));
        }
        let (of, count) = counted.entry(account.clone()).or_insert((window, 0));
        if *of != window {
            (*of, *count) = (window, 0);
        }
        if *count >= self.limit {
            return Err(self.refusal(now_ms));
        }
        *count += 1;
        Ok(())
    }

    fn refusal(&self, now_ms: i64) -> Problem {
        let left = self.window_ms - now_ms.rem_euclid(self.window_ms);
        Problem::new(
            ProblemKind::RateLimited,
            "this account asks too often; wait, or let the operator raise limits.acme_*",
        )
        .retry_after(Duration::from_millis(u64::try_from(left).unwrap_or(0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_account_has_its_own_count_and_windows_pass() {
        let rates = Rates::new(2, 1000);
        let id = |n| AcmeId::from_random([n; 16]);
        assert!(rates.take(&id(1), 5000).is_ok() && rates.take(&id(1), 5999).is_ok());
        let e = rates.take(&id(1), 5900).unwrap_err();
        assert_eq!(e.retry_pause(), Some(Duration::from_millis(100)));
        assert!(rates.take(&id(2), 5900).is_ok() && rates.take(&id(1), 6000).is_ok());
    }
}
