//! One PKCS#11 module of this process, shared by all tokens that are reached through it.
//!
//! `C_Initialize` and `C_Finalize` are of the process, not of a token. Every C call of
//! every token holds the gate for reading; who restarts the module holds it for writing,
//! so no call is in flight then (which the standard leaves undefined), and takes the
//! sessions of all tokens first: their numbers mean something else afterwards. The
//! *generation* says to the other tokens that they must log in again.
//!
//! A module is not restarted under a token that is in use, unless a *scout* has seen that
//! it would help: a module may take minutes to start while one of its HSMs is away, and
//! meanwhile none of the others would answer.

use std::{
    collections::HashMap,
    ffi::CString,
    fmt,
    path::{Path, PathBuf},
    sync::{
        Arc, Weak,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Pkcs11},
    error::{Error as CkError, RvError},
    object::ObjectHandle,
    session::Session,
    slot::Slot,
};
use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use tracing::info;

use super::{
    classify,
    raw::{Raw, initialize_args},
};
use crate::{
    Lane, ObjectId, Result, State,
    error::{Error, Kind, Remedy},
};

/// A session slot of one worker; recovery empties it from outside.
pub(crate) type SessionSlot = Arc<Mutex<Option<Session>>>;

/// How long recovery waits for calls in flight before it gives up on this attempt.
pub(super) const GATE_WAIT: Duration = Duration::from_secs(5);
/// The same while another token is in use: its calls wait behind us.
const HICCUP: Duration = Duration::from_millis(250);

/// The modules that tokens of this process are open on.
static MODULES: Mutex<Vec<Weak<Module>>> = Mutex::new(Vec::new());

/// Looks from a process of its own whether a module shows a token with this label and
/// serial: that disturbs nobody, and a module that does not come back holds nobody up.
#[derive(Clone)]
pub struct Scout(Arc<Look>);

type Look = dyn Fn(Option<&str>, Option<&str>) -> bool + Send + Sync;

impl Scout {
    /// `look`: label and serial, as far as they are known.
    #[must_use]
    pub fn new(look: impl Fn(Option<&str>, Option<&str>) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(look))
    }

    pub(super) fn sees(&self, label: Option<&str>, serial: Option<&str>) -> bool {
        (self.0)(label, serial)
    }
}

impl fmt::Debug for Scout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scout")
    }
}

pub(crate) struct Module {
    path: PathBuf,
    reserved: Option<String>,
    raw: Raw,
    gate: RwLock<Started>,
    seats: Mutex<Vec<Weak<Seat>>>,
}

/// The module between two restarts.
pub(crate) struct Started {
    cryptoki: Option<Pkcs11>,
    generation: u64,
}

/// A token's place in its module: how it is, and what must be closed before a restart.
pub(crate) struct Seat {
    state: AtomicU8,
    sessions: Mutex<Vec<Weak<Mutex<Option<Session>>>>>,
    /// Holds the login and is used for nothing else: a token logs out when its last
    /// session closes.
    pub(crate) anchor: Mutex<Option<Session>>,
    /// Handles of the current epoch, each proved once.
    pub(crate) handles: RwLock<HashMap<ObjectId, ObjectHandle>>,
}

const READY: u8 = 0;
const DOWN: u8 = 1;
const BLOCKED: u8 = 2;

impl Seat {
    fn new() -> Self {
        Self {
            // Nobody waits for a token that is being opened.
            state: AtomicU8::new(DOWN),
            sessions: Mutex::default(),
            anchor: Mutex::default(),
            handles: RwLock::default(),
        }
    }

    pub(crate) fn state(&self) -> State {
        match self.state.load(Ordering::Acquire) {
            READY => State::Ready,
            BLOCKED => State::Blocked,
            _ => State::Down,
        }
    }

    pub(super) fn set(&self, state: State) {
        let number = match state {
            State::Ready => READY,
            State::Blocked => BLOCKED,
            State::Down | State::Diverged => DOWN,
        };
        self.state.store(number, Ordering::Release);
    }

    /// One worker's slot.
    pub(super) fn slot(&self) -> SessionSlot {
        let slot = SessionSlot::default();
        let mut sessions = self.sessions.lock();
        sessions.retain(|s| s.strong_count() > 0);
        sessions.push(Arc::downgrade(&slot));
        slot
    }

    /// Everybody out. Who calls it keeps calls of this token away.
    pub(super) fn clear(&self) {
        self.handles.write().clear();
        let sessions: Vec<_> = self
            .sessions
            .lock()
            .iter()
            .filter_map(Weak::upgrade)
            .collect();
        for slot in sessions {
            slot.lock().take();
        }
        self.anchor.lock().take();
    }
}

impl Module {
    /// The module behind a path that was checked (`module_path`), initialised.
    pub(super) fn of(path: &Path, reserved: Option<&str>) -> Result<Arc<Self>> {
        let mut modules = MODULES.lock();
        modules.retain(|m| m.strong_count() > 0);
        let mut known = modules.iter().filter_map(Weak::upgrade);
        if let Some(module) = known.find(|m| m.path == path) {
            if module.reserved.as_deref() != reserved {
                let text = format!("{} runs with another init_reserved", path.display());
                return Err(Error::new(Kind::Setup, text));
            }
            module.gate.write().start(path, reserved)?;
            return Ok(module);
        }
        let mut started = Started {
            cryptoki: None,
            generation: 0,
        };
        let raw = Raw::load(path)?;
        started.start(path, reserved)?;
        let module = Arc::new(Self {
            path: path.to_owned(),
            reserved: reserved.map(str::to_owned),
            raw,
            gate: RwLock::new(started),
            seats: Mutex::default(),
        });
        modules.push(Arc::downgrade(&module));
        Ok(module)
    }

    pub(crate) fn raw(&self) -> &Raw {
        &self.raw
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// For every C call. Never twice in one thread: a restart may wait in between.
    pub(super) fn enter(&self) -> RwLockReadGuard<'_, Started> {
        self.gate.read()
    }

    /// A place for one more token.
    pub(super) fn seat(&self) -> Arc<Seat> {
        let seat = Arc::new(Seat::new());
        self.seats.lock().push(Arc::downgrade(&seat));
        seat
    }

    /// Finalises and initialises, with the sessions of all tokens closed. `Ok(false)`:
    /// not now, because another token is in use and `would_help` does not say so.
    pub(super) fn restart(&self, by: &Seat, would_help: impl FnOnce() -> bool) -> Result<bool> {
        let in_use = self.gate.read().cryptoki.is_some() && self.others_in_use(by);
        if in_use && !would_help() {
            return Ok(false);
        }
        let patience = if in_use { HICCUP } else { GATE_WAIT };
        let mut started = self
            .gate
            .try_write_for(patience)
            .ok_or_else(never_returns)?;
        for seat in self.seats.lock().iter().filter_map(Weak::upgrade) {
            seat.clear();
        }
        started.finalize();
        started.start(&self.path, self.reserved.as_deref())?;
        info!(module = %self.path.display(), in_use, "the PKCS#11 module was started anew");
        Ok(true)
    }

    /// The token is closed for good; with the last one the module is.
    pub(super) fn leave(&self, seat: &Arc<Seat>) {
        let Some(mut started) = self.gate.try_write_for(GATE_WAIT) else {
            return;
        };
        seat.clear();
        let mut seats = self.seats.lock();
        seats.retain(|s| s.upgrade().is_some_and(|other| !Arc::ptr_eq(&other, seat)));
        if seats.is_empty() {
            started.finalize();
        }
    }

    fn others_in_use(&self, than: &Seat) -> bool {
        let seats = self.seats.lock();
        let mut others = seats.iter().filter_map(Weak::upgrade);
        others.any(|s| !std::ptr::eq(&raw const *s, than) && s.state() == State::Ready)
    }
}

impl Started {
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    pub(super) fn cryptoki(&self) -> Result<&Pkcs11> {
        self.cryptoki.as_ref().ok_or_else(|| {
            Error::new(Kind::Gone, "the PKCS#11 module is finalised").with_remedy(Remedy::Module)
        })
    }

    pub(super) fn open(&self, slot: Slot, lane: Lane) -> Result<Session> {
        let module = self.cryptoki()?;
        let session = match lane {
            Lane::Work => module.open_ro_session(slot),
            Lane::Admin => module.open_rw_session(slot),
        };
        session.map_err(|e| classify::from_cryptoki(&e))
    }

    fn start(&mut self, path: &Path, reserved: Option<&str>) -> Result<()> {
        if self.cryptoki.is_none() {
            self.cryptoki = Some(initialise(path, reserved)?);
        }
        Ok(())
    }

    fn finalize(&mut self) {
        self.generation += 1;
        if let Some(old) = self.cryptoki.take() {
            // A module that is already dead may say so; it is initialised anew, or the
            // process ends next.
            let _ = old.finalize();
        }
    }
}

pub(super) fn never_returns() -> Error {
    Error::new(Kind::Gone, "a call into the PKCS#11 module does not return")
}

pub(super) fn initialise(path: &Path, reserved: Option<&str>) -> Result<Pkcs11> {
    let module = Pkcs11::new(path).map_err(|e| {
        Error::new(
            Kind::Setup,
            format!("{} is not a PKCS#11 module: {e}", path.display()),
        )
    })?;
    let reserved = reserved
        .map(CString::new)
        .transpose()
        .map_err(|_| Error::new(Kind::Setup, "init_reserved holds a NUL byte"))?;
    let flags = CInitializeFlags::OS_LOCKING_OK;
    let args = match &reserved {
        None => CInitializeArgs::new(flags),
        Some(text) => initialize_args(flags, text),
    };
    match module.initialize(args) {
        Ok(()) | Err(CkError::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => Ok(module),
        Err(CkError::Pkcs11(RvError::CantLock, _)) => Err(Error::new(
            Kind::Unsupported,
            "this module cannot be used from several threads (CKR_CANT_LOCK)",
        )),
        Err(e) => Err(Error::new(
            Kind::Setup,
            format!(
                "{} does not start: {}; check the module's own configuration (for SoftHSM: SOFTHSM2_CONF)",
                path.display(),
                classify::from_cryptoki(&e)
            ),
        )),
    }
}
