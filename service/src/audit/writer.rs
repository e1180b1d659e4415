//! Group commit: one thread takes whatever waits, writes it as one block, syncs once,
//! and only then lets the replies go. What comes meanwhile is the next group: to wait for
//! more of them than a sync takes was measured, and only made callers wait
//! (`docs/performance.md`).

use std::{sync::Arc, thread, time::Duration};

use parking_lot::Mutex;
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot},
};
use tracing::error;

use super::{Entry, Log, log::Append};
use crate::{
    clock::Clock,
    error::{Error, Reason, Result},
    metrics,
    store::{Anchor, LogId},
};

/// The way into the audit log; clones are the same log.
#[derive(Clone, Debug)]
pub struct Audit {
    queue: mpsc::Sender<Waiting>,
    status: Arc<Mutex<Status>>,
    wait: Duration,
    log: LogId,
}

struct Waiting {
    /// None: somebody wants to know whether the writer still answers.
    entry: Option<Entry>,
    done: oneshot::Sender<Result<(), ()>>,
}

#[derive(Debug)]
struct Status {
    head: Anchor,
    healthy: bool,
}

/// Records that may wait for the disk.
const QUEUE: usize = 16 << 10;
/// Records of one sync.
const GROUP: usize = 4096;

impl Audit {
    /// Starts the writer. `wait`: longest time for one record.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(log: Log, clock: Arc<dyn Clock>, wait: Duration) -> Result<Self> {
        let (queue, waiting) = mpsc::channel(QUEUE);
        let status = Arc::new(Mutex::new(Status {
            head: log.head(),
            healthy: true,
        }));
        let shared = Arc::clone(&status);
        let id = log.id();
        let herald = Herald::start(&Handle::current());
        thread::Builder::new()
            .name("audit".into())
            .spawn(move || write(log, waiting, clock.as_ref(), &shared, &herald))
            .map_err(|e| Error::internal(format!("no thread for the audit log: {e}")))?;
        Ok(Self {
            queue,
            status,
            wait,
            log: id,
        })
    }

    /// Writes a record and waits until it is durable.
    ///
    /// # Errors
    /// [`Reason::AuditUnavailable`]: there is no record, so there must be no answer.
    pub async fn record(&self, entry: Entry) -> Result<()> {
        match self.pass(Some(entry), self.wait).await {
            Some(Ok(())) => Ok(()),
            Some(Err(())) | None => Err(unavailable()),
        }
    }

    /// Does the writer answer, be it that the disk is full? One that hangs in a write
    /// does not.
    pub async fn answers(&self, patience: Duration) -> bool {
        self.pass(None, patience).await.is_some()
    }

    async fn pass(&self, entry: Option<Entry>, patience: Duration) -> Option<Result<(), ()>> {
        let (done, durable) = oneshot::channel();
        let waiting = Waiting { entry, done };
        self.queue.send_timeout(waiting, patience).await.ok()?;
        tokio::time::timeout(patience, durable).await.ok()?.ok()
    }

    /// Could the last record be written?
    #[must_use]
    pub fn healthy(&self) -> bool {
        self.status.lock().healthy
    }

    /// Which log this is.
    #[must_use]
    pub fn log(&self) -> LogId {
        self.log
    }

    /// Number and hash of the last durable record.
    #[must_use]
    pub fn head(&self) -> Anchor {
        self.status.lock().head
    }
}

fn unavailable() -> Error {
    Error::new(
        Reason::AuditUnavailable,
        "the audit log cannot be written, so nothing is answered; the operator has been told",
    )
    .retry_after(Duration::from_secs(2))
}

fn write(
    mut log: Log,
    mut waiting: mpsc::Receiver<Waiting>,
    clock: &dyn Clock,
    status: &Mutex<Status>,
    herald: &Herald,
) {
    let mut group = Vec::with_capacity(GROUP);
    // After a failed sync nobody knows what is on the disk: everything is refused
    // until the daemon is started again and has read the log.
    let mut fatal = false;
    while waiting.blocking_recv_many(&mut group, GROUP) > 0 {
        let entries: Vec<&Entry> = group.iter().filter_map(|w| w.entry.as_ref()).collect();
        let result = if fatal {
            Err(())
        } else if entries.is_empty() {
            Ok(())
        } else {
            commit(&mut log, &entries, clock, &mut fatal)
        };
        if !entries.is_empty() {
            let mut status = status.lock();
            status.healthy = result.is_ok();
            status.head = log.head();
        }
        herald.tell(group.drain(..).map(|w| w.done).collect(), result);
    }
}

type Told = (Vec<oneshot::Sender<Result<(), ()>>>, Result<(), ()>);

/// A task that tells a group how it went. To wake one task from here and the others from
/// that one costs much less than to wake all of them from outside of the runtime.
struct Herald(mpsc::UnboundedSender<Told>);

impl Herald {
    fn start(runtime: &Handle) -> Self {
        let (tell, mut told) = mpsc::unbounded_channel::<Told>();
        runtime.spawn(async move {
            while let Some((group, result)) = told.recv().await {
                tell_all(group, result);
            }
        });
        Self(tell)
    }

    fn tell(&self, group: Vec<oneshot::Sender<Result<(), ()>>>, result: Result<(), ()>) {
        // The runtime has ended: whoever still waits is told from here.
        if let Err(untold) = self.0.send((group, result)) {
            let (group, result) = untold.0;
            tell_all(group, result);
        }
    }
}

fn tell_all(group: Vec<oneshot::Sender<Result<(), ()>>>, result: Result<(), ()>) {
    for done in group {
        // The caller may have gone; the record stays.
        let _ = done.send(result);
    }
}

fn commit(
    log: &mut Log,
    entries: &[&Entry],
    clock: &dyn Clock,
    fatal: &mut bool,
) -> Result<(), ()> {
    let timer = metrics::audit_timer(entries.len());
    match log.append(entries, clock.now_ms()) {
        Ok(()) => {
            timer.done();
            Ok(())
        }
        Err(Append::Full(e)) => {
            error!(error = %e, "the audit log cannot be written; nothing is answered until it can");
            Err(())
        }
        Err(Append::Fatal(e)) => {
            error!(error = %e, "the audit log failed; nothing is answered until the daemon is started again");
            *fatal = true;
            Err(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock::System, store::Anchors};

    fn start(dir: &std::path::Path) -> Audit {
        let log = Log::open(dir, 1 << 20, &Anchors::new()).unwrap().log;
        Audit::start(log, Arc::new(System), Duration::from_secs(5)).unwrap()
    }

    fn entry() -> Entry {
        Entry {
            action: "test".into(),
            outcome: "OK",
            ..Entry::default()
        }
    }

    #[tokio::test]
    async fn many_records_at_once_are_all_there_and_chained() {
        let dir = tempfile::tempdir().unwrap();
        let audit = start(dir.path());
        let tasks: Vec<_> = (0..500)
            .map(|_| {
                let audit = audit.clone();
                tokio::spawn(async move { audit.record(entry()).await })
            })
            .collect();
        for task in tasks {
            task.await.unwrap().unwrap();
        }
        assert_eq!(audit.head().seq, 500);
        drop(audit);
        assert_eq!(
            Log::open(dir.path(), 1 << 20, &Anchors::new())
                .unwrap()
                .log
                .head()
                .seq,
            500
        );
    }

    /// RLIMIT_FSIZE would end the whole test process, so the disk that is full is played
    /// by a segment that may not grow: its folder is gone when it must roll.
    #[tokio::test]
    async fn no_record_no_answer() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("audit");
        let log = Log::open(&folder, 1, &Anchors::new()).unwrap().log;
        let audit = Audit::start(log, Arc::new(System), Duration::from_secs(5)).unwrap();
        audit.record(entry()).await.unwrap();
        std::fs::rename(&folder, dir.path().join("away")).unwrap();
        let e = audit.record(entry()).await.unwrap_err();
        assert_eq!(e.reason(), Reason::AuditUnavailable);
        assert!(!audit.healthy());
        // It answers all the same, which neither writes nor heals anything.
        assert!(audit.answers(Duration::from_secs(5)).await);
        assert!(!audit.healthy());
        // The way back is free, and the chain has no gap.
        std::fs::rename(dir.path().join("away"), &folder).unwrap();
        audit.record(entry()).await.unwrap();
        assert!(audit.healthy());
        assert_eq!(audit.head().seq, 2);
        drop(audit);
        assert_eq!(
            Log::open(&folder, 1, &Anchors::new())
                .unwrap()
                .log
                .head()
                .seq,
            2
        );
    }
}
