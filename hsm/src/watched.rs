//! How one token is, as its serial lane and its workers see it: there or not, with the key
//! that is watched or without it, at work or silent.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::RwLock;
use tracing::{debug, error};

use crate::{
    Connector, KeyRef, Observer, Op, Result, State, Token,
    error::{Error, Kind, Remedy},
};

/// A call that takes longer is not waited for where another token can do it.
pub(crate) const SILENT: Duration = Duration::from_secs(3);

/// One token.
pub(crate) struct Watched {
    name: String,
    pub(crate) observer: Arc<dyn Observer>,
    connector: OnceLock<Arc<dyn Connector>>,
    /// Why it is not there yet: the PIN was refused.
    refused: AtomicU8,
    canary: RwLock<Option<KeyRef>>,
    holds: AtomicU8,
    pub(crate) load: Load,
}

/// Does the token hold the key that is watched?
const HOLDS: u8 = 0;
const NOT_SEEN: u8 = 1;
const HOLDS_NOT: u8 = 2;

impl Watched {
    pub(crate) fn new(name: String, observer: Arc<dyn Observer>) -> Self {
        Self {
            name,
            observer,
            connector: OnceLock::new(),
            refused: AtomicU8::new(0),
            canary: RwLock::new(None),
            holds: AtomicU8::new(HOLDS),
            load: Load::new(),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// None: the token is not there yet.
    pub(crate) fn connector(&self) -> Option<&Arc<dyn Connector>> {
        self.connector.get()
    }

    pub(crate) fn found(&self, connector: Arc<dyn Connector>, workers: usize) {
        self.load.workers.store(workers, Ordering::Release);
        if self.canary.read().is_some() {
            self.holds.store(NOT_SEEN, Ordering::Release);
        }
        let _ = self.connector.set(connector);
    }

    pub(crate) fn not_found(&self, why: &Error) {
        let refused = u8::from(why.kind() == Kind::Blocked);
        self.refused.store(refused, Ordering::Release);
    }

    /// The key the health check uses from now on. A token that was not seen to hold it is
    /// not used.
    pub(crate) fn watch(&self, canary: KeyRef, seen: bool) {
        *self.canary.write() = Some(canary);
        self.holds
            .store(if seen { HOLDS } else { NOT_SEEN }, Ordering::Release);
    }

    pub(crate) fn canary(&self) -> Option<KeyRef> {
        self.canary.read().clone()
    }

    /// The token itself, whatever it holds and however long it takes.
    pub(crate) fn reachable(&self) -> State {
        match self.connector.get() {
            Some(connector) => connector.state(),
            None if self.refused.load(Ordering::Acquire) != 0 => State::Blocked,
            None => State::Down,
        }
    }

    pub(crate) fn state(&self) -> State {
        match self.reachable() {
            State::Ready if self.load.silent() => State::Down,
            State::Ready => match self.holds.load(Ordering::Acquire) {
                HOLDS => State::Ready,
                NOT_SEEN => State::Down,
                _ => State::Diverged,
            },
            lost => lost,
        }
    }

    pub(crate) fn check(&self, token: &mut dyn Token) {
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
        if canary.is_some() {
            self.seen(&result);
        }
        if let Err(e) = result {
            debug!(token = self.name, error = %e, "health check of the token failed");
        }
    }

    /// A token that is away says nothing about what it holds.
    fn seen(&self, result: &Result<()>) {
        let holds = match result {
            Ok(()) => HOLDS,
            Err(e) if matches!(e.kind(), Kind::NoSuchKey | Kind::OtherKey) => {
                if self.holds.load(Ordering::Acquire) != HOLDS_NOT {
                    error!(token = self.name, error = %e, "this token does not hold the appliance's own key, so it is no copy of the others, or a damaged one; it is not used");
                }
                HOLDS_NOT
            }
            Err(_) => return,
        };
        self.holds.store(holds, Ordering::Release);
    }
}

/// Jobs of the workers: how many there are, and when something was last done.
pub(crate) struct Load {
    born: Instant,
    workers: AtomicUsize,
    jobs: AtomicUsize,
    running: AtomicUsize,
    moved_ms: AtomicU64,
}

impl Load {
    fn new() -> Self {
        Self {
            born: Instant::now(),
            workers: AtomicUsize::new(1),
            jobs: AtomicUsize::new(0),
            running: AtomicUsize::new(0),
            moved_ms: AtomicU64::new(0),
        }
    }

    /// Queued and running.
    pub(crate) fn jobs(&self) -> usize {
        self.jobs.load(Ordering::Acquire)
    }

    /// Every worker is at a job, and none has done anything for too long.
    pub(crate) fn silent(&self) -> bool {
        let all = self.running.load(Ordering::Acquire) >= self.workers.load(Ordering::Acquire);
        all && self
            .now_ms()
            .saturating_sub(self.moved_ms.load(Ordering::Acquire))
            > SILENT.as_millis() as u64
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Something was done.
    pub(crate) fn moved(&self) {
        self.moved_ms.store(self.now_ms(), Ordering::Release);
    }
}

/// One job of a worker, from when it is queued until it is done or dropped.
pub(crate) struct Counted {
    of: Arc<Watched>,
    running: bool,
}

impl Counted {
    pub(crate) fn new(of: &Arc<Watched>) -> Self {
        of.load.jobs.fetch_add(1, Ordering::AcqRel);
        Self {
            of: Arc::clone(of),
            running: false,
        }
    }

    pub(crate) fn begins(&mut self) {
        self.running = true;
        self.of.load.moved();
        self.of.load.running.fetch_add(1, Ordering::AcqRel);
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if self.running {
            self.of.load.moved();
            self.of.load.running.fetch_sub(1, Ordering::AcqRel);
        }
        self.of.load.jobs.fetch_sub(1, Ordering::AcqRel);
    }
}
