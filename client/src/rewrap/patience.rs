//! Trying again while a server or a database is away, and being asked to stop.

use std::time::Duration;

use tokio::{sync::watch, time::Instant};

use super::{Event, Tell};
use crate::{Failure, FailureKind};

/// Somebody may ask for an end.
#[derive(Debug, Clone)]
pub struct Stop(Option<watch::Receiver<bool>>);

impl Stop {
    /// Nobody will.
    #[must_use]
    pub fn never() -> Self {
        Self(None)
    }

    /// Asked by sending `true`.
    #[must_use]
    pub fn when(asked: watch::Receiver<bool>) -> Self {
        Self(Some(asked))
    }

    /// Was it asked for?
    #[must_use]
    pub fn is_asked(&self) -> bool {
        self.0.as_ref().is_some_and(|asked| *asked.borrow())
    }

    /// Waits for it.
    pub async fn asked(&self) {
        if let Some(mut asked) = self.0.clone()
            && asked.wait_for(|a| *a).await.is_ok()
        {
            return;
        }
        std::future::pending().await
    }

    pub(super) fn failure() -> Failure {
        Failure::new(FailureKind::Stopped, "stopped, as was asked for")
    }

    /// Sleeps, unless asked to stop.
    pub(super) async fn sleep(&self, pause: Duration) -> Result<(), Failure> {
        tokio::select! {
            () = tokio::time::sleep(pause) => Ok(()),
            () = self.asked() => Err(Self::failure()),
        }
    }
}

/// How long to try.
pub(super) struct Patience<'a> {
    pub(super) limit: Duration,
    pub(super) pause: Duration,
    pub(super) tell: Tell<'a>,
    pub(super) stop: &'a Stop,
}

impl Patience<'_> {
    /// Calls until there is an answer; fails with what another try cannot mend, or when
    /// patience is at its end.
    pub(super) async fn insist<T>(
        &self,
        call: impl AsyncFn() -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let mut pause = self.pause;
        let begun = Instant::now();
        loop {
            let failure = match call().await {
                Err(failure) if failure.kind() == FailureKind::Unavailable => failure,
                answer => return answer,
            };
            if begun.elapsed() + pause > self.limit {
                let secs = self.limit.as_secs();
                return Err(failure.hint(format_args!(
                    "\ngave up after {secs} s (--patience); nothing is lost: the same command goes on where this one stopped"
                )));
            }
            (self.tell)(Event::Waiting(format!("trying again: {failure}")));
            self.stop.sleep(pause).await?;
            pause = (pause * 2).min(self.pause * 50);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    async fn tries(kind: FailureKind, limit_ms: u64, stop: &Stop) -> (u32, Failure) {
        let calls = AtomicU32::new(0);
        let patience = Patience {
            limit: Duration::from_millis(limit_ms),
            pause: Duration::from_millis(1),
            tell: &|_| (),
            stop,
        };
        let call = async || {
            calls.fetch_add(1, Ordering::Relaxed);
            Err::<(), _>(Failure::new(kind, "away"))
        };
        let failure = patience.insist(call).await.unwrap_err();
        (calls.into_inner(), failure)
    }

    #[tokio::test]
    async fn only_what_may_come_back_is_waited_for() {
        let never = Stop::never();
        let (calls, failure) = tries(FailureKind::Unavailable, 20, &never).await;
        assert!(calls > 2, "{calls}");
        assert!(failure.to_string().contains("the same command goes on"));
        assert_eq!(tries(FailureKind::Denied, 20, &never).await.0, 1);
        let (ask, asked) = watch::channel(true);
        let stop = Stop::when(asked);
        let (_, failure) = tries(FailureKind::Unavailable, 60_000, &stop).await;
        assert_eq!(failure.kind(), FailureKind::Stopped);
        drop(ask);
    }
}
