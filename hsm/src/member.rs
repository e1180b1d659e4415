//! One token of a group: the queue in front of it, the workers behind, and the keys it was
//! found not to hold.
//!
//! PKCS#11 calls block, cannot be cancelled and belong to one session, so a thread is a
//! session and async code only ever waits on a channel. When the queue is full the caller
//! hears so at once; nothing piles up behind a slow token.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use parking_lot::Mutex;
use tokio::{
    sync::oneshot,
    time::{Instant as Moment, timeout_at},
};
use tracing::{Span, debug_span, error, info, warn};

use crate::{
    KeyRef, Lane, ObjectId, Observer, Op, Opened, Options, Result, State, Times, Token,
    error::{Error, Kind, Remedy},
    watched::{Counted, Watched},
    workers::{Job, Workers},
};

/// How often a caller looks whether the token still does anything.
const LOOK: Duration = Duration::from_millis(250);

pub(crate) struct Member {
    index: usize,
    options: Options,
    work: Sender<Job>,
    admin: Sender<Job>,
    /// The other ends, until the workers have them.
    jobs: Mutex<Option<[Receiver<Job>; 2]>>,
    pub(crate) workers: Workers,
    pub(crate) watched: Arc<Watched>,
    lacks: Mutex<HashMap<ObjectId, Lack>>,
}

/// A key that the token does not show, or shows another in the place of.
struct Lack {
    other: bool,
    /// It may have been copied there by then.
    ask_again: Instant,
}

impl Member {
    pub(crate) fn new(
        index: usize,
        name: String,
        options: Options,
        observer: Arc<dyn Observer>,
    ) -> Self {
        let (work, work_rx) = bounded(options.queue_jobs.max(1));
        let (admin, admin_rx) = bounded(options.queue_jobs.max(1));
        Self {
            index,
            options,
            work,
            admin,
            jobs: Mutex::new(Some([work_rx, admin_rx])),
            workers: Workers::default(),
            watched: Arc::new(Watched::new(name, observer)),
            lacks: Mutex::default(),
        }
    }

    /// The token is there: its threads begin.
    pub(crate) fn begin(&self, opened: Opened) -> Result<()> {
        let Opened { connector, workers } = opened;
        let tokens: Result<Vec<_>> = (0..workers.max(1))
            .map(|_| connector.connect(Lane::Work))
            .collect();
        let (tokens, serial) = (tokens?, connector.connect(Lane::Admin)?);
        let Some([work, admin]) = self.jobs.lock().take() else {
            return Err(Error::new(Kind::Fault, "the token was begun before"));
        };
        for (n, token) in tokens.into_iter().enumerate() {
            let name = format!("hsm-{}-{n}", self.index);
            self.workers.work(&name, token, work.clone())?;
        }
        let name = format!("hsm-{}-admin", self.index);
        self.watched.found(connector, workers.max(1));
        let (every, watched) = (self.options.check_every, Arc::clone(&self.watched));
        self.workers
            .administer(&name, serial, admin, every, watched)
    }

    pub(crate) fn name(&self) -> &str {
        self.watched.name()
    }

    /// May jobs go there now?
    pub(crate) fn serves(&self) -> bool {
        self.watched.state() == State::Ready
    }

    /// Can it be asked, whatever it holds?
    pub(crate) fn is_reachable(&self) -> bool {
        self.watched.reachable() == State::Ready && !self.watched.load.silent()
    }

    pub(crate) fn queued(&self) -> usize {
        self.work.len() + self.admin.len()
    }

    /// Also the health check at once, which says whether it holds the key.
    pub(crate) fn watch(&self, canary: KeyRef, seen: bool) {
        self.watched.watch(canary, seen);
        let watched = Arc::clone(&self.watched);
        // A full queue, or no token: the next health check does it.
        let _ = self
            .admin
            .try_send(Box::new(move |token| watched.check(token)));
    }

    /// Was it found not to hold this key, lately?
    pub(crate) fn lacks(&self, key: ObjectId) -> bool {
        let now = Instant::now();
        self.lacks
            .lock()
            .get(&key)
            .is_some_and(|l| now < l.ask_again)
    }

    /// What an answer says about the keys it holds.
    pub(crate) fn learn(&self, e: &Error) {
        let other = match e.kind() {
            Kind::NoSuchKey => false,
            Kind::OtherKey => true,
            _ => return,
        };
        let Some(key) = e.key() else { return };
        let ask_again = Instant::now() + self.options.check_every;
        let before = self.lacks.lock().insert(key, Lack { other, ask_again });
        if before.is_some_and(|l| l.other == other) {
            return;
        }
        let token = self.name();
        if other {
            error!(token, %key, error = %e, "the copies of a key diverge: this token holds another key under its id, and is not used for it");
        } else {
            info!(token, %key, "this token does not hold the key (yet); others do its work");
        }
    }

    /// The keys were used there: they are there.
    pub(crate) fn holds(&self, keys: impl Iterator<Item = ObjectId>) {
        let mut lacks = self.lacks.lock();
        if !lacks.is_empty() {
            keys.for_each(|key| {
                lacks.remove(&key);
            });
        }
    }

    /// Keys that it does not show, and keys that it shows others in the place of.
    pub(crate) fn lacking(&self) -> (usize, usize) {
        let lacks = self.lacks.lock();
        let other = lacks.values().filter(|l| l.other).count();
        (lacks.len() - other, other)
    }

    /// One job of the serial lane.
    pub(crate) async fn admin<T: Send + 'static>(
        &self,
        op: Op,
        deadline: Instant,
        run: impl FnMut(&mut dyn Token) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.call(Lane::Admin, op, deadline, || false, run).await
    }

    /// One job in the queue of a lane, and its answer. `leave`: another token would do it,
    /// so one that does nothing any more is not waited for.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        lane: Lane,
        op: Op,
        deadline: Instant,
        leave: impl Fn() -> bool,
        run: impl FnMut(&mut dyn Token) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        if self.watched.connector().is_none() {
            let text = format!("the token {} is not there", self.name());
            return Err(Error::new(Kind::Gone, text));
        }
        let (reply, answer) = oneshot::channel();
        let submitted = Instant::now();
        let job = self.job(lane, op, deadline, submitted, reply, run);
        let queue = match lane {
            Lane::Work => &self.work,
            Lane::Admin => &self.admin,
        };
        queue.try_send(job).map_err(|e| match e {
            TrySendError::Full(_) => {
                self.watched.observer.rejected(op);
                Error::new(Kind::Busy, "the queue in front of the HSM is full")
            }
            TrySendError::Disconnected(_) => Error::new(Kind::Gone, "the HSM workers are stopped"),
        })?;
        let done = self.wait(lane, deadline, answer, leave).await;
        let Done {
            result,
            started,
            ended,
        } = done.unwrap_or_else(|e| Done {
            result: Err(e),
            started: submitted,
            ended: Instant::now(),
        });
        self.watched.observer.answered(Times {
            submitted,
            started,
            ended,
        });
        result
    }

    fn job<T: Send + 'static>(
        &self,
        lane: Lane,
        op: Op,
        deadline: Instant,
        submitted: Instant,
        reply: oneshot::Sender<Done<T>>,
        mut run: impl FnMut(&mut dyn Token) -> Result<T> + Send + 'static,
    ) -> Job {
        let observer = Arc::clone(&self.watched.observer);
        let mut counted = (lane == Lane::Work).then(|| Counted::new(&self.watched));
        // What is logged by the worker belongs to the request; `waiting` ends when the
        // job starts.
        let (request, waiting) = (Span::current(), debug_span!("hsm queue", op = op.name()));
        Box::new(move |token| {
            let started = Instant::now();
            let queued = started.duration_since(submitted);
            drop(waiting);
            // Nobody waits any more: do not spend the token on it.
            if reply.is_closed() || started >= deadline {
                observer.done(op, queued, Duration::ZERO, Some(Kind::Late));
                let _ = reply.send(Done {
                    result: Err(late()),
                    started,
                    ended: started,
                });
                return;
            }
            if let Some(counted) = &mut counted {
                counted.begins();
            }
            let result = request.in_scope(|| {
                let _job = debug_span!("hsm job", op = op.name()).entered();
                attempt(token, op, deadline, &mut run, observer.as_ref())
            });
            drop(request);
            drop(counted);
            let ended = Instant::now();
            let failed = result.as_ref().err().map(Error::kind);
            observer.done(op, queued, ended.duration_since(started), failed);
            let _ = reply.send(Done {
                result,
                started,
                ended,
            });
        })
    }

    async fn wait<T>(
        &self,
        lane: Lane,
        deadline: Instant,
        mut answer: oneshot::Receiver<Done<T>>,
        leave: impl Fn() -> bool,
    ) -> Result<Done<T>> {
        loop {
            let look = deadline.min(Instant::now() + LOOK);
            match timeout_at(Moment::from_std(look), &mut answer).await {
                Ok(Ok(done)) => return Ok(done),
                // Nobody knows how far it came: the token is what did not answer.
                Ok(Err(_)) => {
                    return Err(Error::new(Kind::Fault, "the HSM worker dropped the job"));
                }
                Err(_) if Instant::now() >= deadline => return Err(late()),
                Err(_) if lane == Lane::Work && self.watched.load.silent() && leave() => {
                    warn!(
                        token = self.name(),
                        "no call into this token returns; its jobs go to another"
                    );
                    return Err(Error::new(Kind::Gone, "no call into the token returns"));
                }
                Err(_) => {}
            }
        }
    }
}

/// A job that was done, and when.
struct Done<T> {
    result: Result<T>,
    started: Instant,
    ended: Instant,
}

fn late() -> Error {
    Error::new(Kind::Late, "the deadline passed before the HSM answered")
}

fn attempt<T>(
    token: &mut dyn Token,
    op: Op,
    deadline: Instant,
    run: &mut impl FnMut(&mut dyn Token) -> Result<T>,
    observer: &dyn Observer,
) -> Result<T> {
    let lost = match run(token) {
        Err(e) if e.remedy() != Remedy::None => e,
        settled => return settled,
    };
    warn!(op = op.name(), error = %lost, "the token was lost under an operation");
    token.recover(&lost)?;
    if !op.repeatable() || Instant::now() >= deadline {
        return Err(lost);
    }
    observer.retried(op);
    run(token)
}
