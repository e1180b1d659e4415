//! The threads that own a session each: they take jobs from a queue until they are
//! told to end. The serial lane looks after the token between its jobs.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, select};
use parking_lot::Mutex;
use tracing::{error, info, warn};

use crate::{
    Result, State, Token,
    error::{Error, Kind},
    watched::Watched,
};

/// What a worker does with its token.
pub(crate) type Job = Box<dyn FnOnce(&mut dyn Token) + Send>;

/// While the token is down, recovery is tried this often (the rungs above have a
/// back-off of their own).
const DOWN_CHECK: Duration = Duration::from_millis(500);
/// Pauses between looks for a token that is not there.
const FIRST_ASK: Duration = Duration::from_millis(500);
const LAST_ASK: Duration = Duration::from_secs(30);
/// How long the end waits for a job that is at the token: a wedged module never
/// comes back.
const END_WAIT: Duration = Duration::from_secs(5);

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
        &self,
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
        &self,
        name: &str,
        mut token: Box<dyn Token>,
        jobs: Receiver<Job>,
        every: Duration,
        watched: Arc<Watched>,
    ) -> Result<()> {
        let ended = self.ended.clone();
        self.spawn(name, move || {
            let (mut was, mut checked) = (State::Ready, Instant::now());
            loop {
                let now = watched.state();
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
                let now = watched.state();
                if now != was {
                    info!(token = watched.name(), from = ?was, to = ?now, "token state changed");
                }
                was = now;
            }
        })
    }

    /// One that asks now and then, until it is told that it is enough or to end.
    pub(crate) fn keep_asking(
        &self,
        name: &str,
        mut ask: impl FnMut() -> bool + Send + 'static,
    ) -> Result<()> {
        let ended = self.ended.clone();
        self.spawn(name, move || {
            let mut pause = FIRST_ASK;
            loop {
                select! {
                    recv(ended) -> _ => return,
                    default(pause) => {}
                }
                if ask() {
                    return;
                }
                pause = (pause * 2).min(LAST_ASK);
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

    fn spawn(&self, name: &str, body: impl FnOnce() + Send + 'static) -> Result<()> {
        let Some(busy) = self.busy.lock().clone() else {
            return Err(Error::new(Kind::Gone, "the HSM workers are stopped"));
        };
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                body();
                drop(busy);
            })
            .map_err(|e| Error::new(Kind::Setup, format!("no thread for the HSM: {e}")))?;
        self.threads.lock().push(thread);
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
