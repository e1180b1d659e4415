//! The threads that own a session each: they take jobs from a queue until they are
//! told to end. The serial lane looks after the token between its jobs.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, select};
use parking_lot::{Mutex, RwLock};
use tracing::{debug, error, info, warn};

use crate::{
    Connector, KeyRef, Observer, Op, Result, State, Token,
    error::{Error, Kind, Remedy},
};

/// What a worker does with its token.
pub(crate) type Job = Box<dyn FnOnce(&mut dyn Token) + Send>;

/// While the token is down, recovery is tried this often (the rungs above have a
/// back-off of their own).
const DOWN_CHECK: Duration = Duration::from_millis(500);
/// How long the end waits for a job that is at the token: a wedged module never
/// comes back.
const END_WAIT: Duration = Duration::from_secs(5);

/// The token as the serial lane looks after it.
pub(crate) struct Watched {
    pub(crate) connector: Arc<dyn Connector>,
    pub(crate) observer: Arc<dyn Observer>,
    canary: RwLock<Option<KeyRef>>,
}

impl Watched {
    pub(crate) fn new(connector: Arc<dyn Connector>, observer: Arc<dyn Observer>) -> Self {
        Self {
            connector,
            observer,
            canary: RwLock::new(None),
        }
    }

    pub(crate) fn watch(&self, canary: KeyRef) {
        *self.canary.write() = Some(canary);
    }

    pub(crate) fn canary(&self) -> Option<KeyRef> {
        self.canary.read().clone()
    }

    fn check(&self, token: &mut dyn Token) {
        let canary = self.canary();
        let started = Instant::now();
        let mut result = token.check(canary.as_ref());
        if let Err(lost) = &result
            && lost.remedy() != Remedy::None
        {
            result = token
                .recover(lost)
                .and_then(|()| token.check(canary.as_ref()));
        }
        let failed = result.as_ref().err().map(Error::kind);
        self.observer
            .done(Op::Check, Duration::ZERO, started.elapsed(), failed);
        if let Err(e) = result {
            debug!(error = %e, "health check of the token failed");
        }
    }
}

/// The threads of one token.
pub(crate) struct Workers {
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Dropped to end them.
    running: Mutex<Option<Sender<()>>>,
    ended: Receiver<()>,
    /// One end for each of them, and one for who may start more.
    busy: Mutex<Option<Sender<()>>>,
    idle: Receiver<()>,
}

impl Default for Workers {
    fn default() -> Self {
        let (running, ended) = bounded(0);
        let (busy, idle) = bounded(0);
        Self {
            threads: Mutex::default(),
            running: Mutex::new(Some(running)),
            ended,
            busy: Mutex::new(Some(busy)),
            idle,
        }
    }
}

impl Workers {
    /// One that serves `jobs`.
    pub(crate) fn work(
        &mut self,
        name: &str,
        mut token: Box<dyn Token>,
        jobs: Receiver<Job>,
    ) -> Result<()> {
        let ended = self.ended.clone();
        self.spawn(name, move || {
            loop {
                select! {
                    recv(ended) -> _ => return,
                    recv(jobs) -> job => match job {
                        Ok(job) => run_job(token.as_mut(), job),
                        Err(_) => return,
                    },
                }
            }
        })
    }

    /// The serial lane: generation and listing, and between them the health check.
    pub(crate) fn administer(
        &mut self,
        mut token: Box<dyn Token>,
        jobs: Receiver<Job>,
        every: Duration,
        watched: Arc<Watched>,
    ) -> Result<()> {
        let ended = self.ended.clone();
        self.spawn("hsm-admin", move || {
            let (mut was, mut checked) = (State::Ready, Instant::now());
            loop {
                let now = watched.connector.state();
                let pause = match (was, now) {
                    (State::Ready, State::Ready) => every,
                    _ => DOWN_CHECK.min(every),
                };
                // However often somebody has a job here.
                let due = checked + pause;
                select! {
                    recv(ended) -> _ => return,
                    recv(jobs) -> job => match job {
                        Ok(job) => run_job(token.as_mut(), job),
                        Err(_) => return,
                    },
                    // A job of another lane may find the token lost meanwhile.
                    default(due.saturating_duration_since(Instant::now()).min(DOWN_CHECK)) => {}
                }
                if Instant::now() < due {
                    continue;
                }
                watched.check(token.as_mut());
                checked = Instant::now();
                let now = watched.connector.state();
                if now != was {
                    info!(from = ?was, to = ?now, "token state changed");
                }
                was = now;
            }
        })
    }

    /// Ends the threads and waits for them, [`END_WAIT`] at most.
    pub(crate) fn end(&self) {
        drop(self.running.lock().take());
        drop(self.busy.lock().take());
        let threads = std::mem::take(&mut *self.threads.lock());
        // The last handle may be dropped by a job: a thread cannot wait for itself.
        let own = threads
            .iter()
            .any(|t| t.thread().id() == thread::current().id());
        if own || threads.is_empty() {
            return;
        }
        if self.idle.recv_timeout(END_WAIT) == Err(RecvTimeoutError::Timeout) {
            warn!("a worker does not come back from the token; it is not waited for");
            return;
        }
        for thread in threads {
            if thread.join().is_err() {
                error!("an HSM worker panicked");
            }
        }
    }

    fn spawn(&mut self, name: &str, body: impl FnOnce() + Send + 'static) -> Result<()> {
        let busy = self.busy.get_mut().clone();
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                body();
                drop(busy);
            })
            .map_err(|e| Error::new(Kind::Setup, format!("no thread for the HSM: {e}")))?;
        self.threads.get_mut().push(thread);
        Ok(())
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.end();
    }
}

fn run_job(token: &mut dyn Token, job: Job) {
    // A panic must not take the worker along; the caller sees a dropped reply.
    if catch_unwind(AssertUnwindSafe(|| job(token))).is_err() {
        error!("an HSM job panicked");
    }
}
