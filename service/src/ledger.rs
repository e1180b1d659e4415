//! Certificates on their way into the store, many for one flush of the disk: while one
//! group is being made durable, the next one gathers.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, oneshot};

use crate::{
    error::{Error, Reason, Result},
    store::{Store, StoreError, Write, Written},
};

type Answer = oneshot::Sender<Result<Written>>;

/// Where writes are handed in.
#[derive(Debug, Clone)]
pub struct Ledger {
    to_group: mpsc::Sender<(Write, Answer)>,
}

/// Writes of one transaction.
const GROUP: usize = 256;
/// Writes that wait; more callers than may be in flight never come together.
const QUEUE: usize = 4096;
/// Between two transactions at least while several callers are about, as the audit log does
/// it: one commit for each write would cost more than everything else.
const PACE: Duration = Duration::from_millis(4);

impl Ledger {
    /// Starts the task that writes. It ends when the last handle is gone.
    #[must_use]
    pub fn start(store: Arc<dyn Store>) -> Self {
        let (to_group, waiting) = mpsc::channel(QUEUE);
        tokio::spawn(run(store, waiting));
        Self { to_group }
    }

    /// Writes and waits until it is durable.
    ///
    /// # Errors
    /// [`Reason::StoreUnavailable`].
    pub async fn write(&self, write: Write) -> Result<Written> {
        let (answer, answered) = oneshot::channel();
        let gone = || Error::new(Reason::Stopping, "the appliance is stopping");
        self.to_group
            .send((write, answer))
            .await
            .map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}

async fn run(store: Arc<dyn Store>, mut waiting: mpsc::Receiver<(Write, Answer)>) {
    let mut group = Vec::with_capacity(GROUP);
    let mut last: Option<Instant> = None;
    while waiting.recv_many(&mut group, GROUP).await > 0 {
        let rest = last.map_or(Duration::ZERO, |last| PACE.saturating_sub(last.elapsed()));
        if !rest.is_zero() {
            tokio::time::sleep(rest).await;
            while group.len() < GROUP
                && let Ok(more) = waiting.try_recv()
            {
                group.push(more);
            }
        }
        // Who is alone never waits.
        last = (group.len() > 1).then(Instant::now);
        let (writes, answers): (Vec<Write>, Vec<Answer>) = group.drain(..).unzip();
        // A caller that left does not wait; its certificate is on record all the same.
        match store.write_certificates(&writes).await {
            Ok(written) => {
                for (answer, written) in answers.into_iter().zip(written) {
                    let _ = answer.send(Ok(written));
                }
            }
            Err(e) => {
                let text = e.to_string();
                for answer in answers {
                    let e = Error::from(StoreError::Unavailable(text.clone()));
                    let _ = answer.send(Err(e));
                }
            }
        }
    }
}
