//! One token of one module: its login, its epoch, and the recovery ladder.
//!
//! Every C call holds the gate for reading; recovery holds it for writing, so no
//! call is in flight while sessions are closed or the module is finalised (which the
//! standard leaves undefined). The *anchor* session holds the login and is used for
//! nothing else: a token logs out when its last session closes.
//!
//! The *epoch* rises with every new login. Handles are cached per epoch and dropped
//! with it, because after a re-initialisation an old number can be another key.

use std::{
    collections::HashMap,
    ffi::CString,
    path::PathBuf,
    sync::{
        Arc, Weak,
        atomic::{AtomicU8, Ordering},
    },
    time::{Duration, Instant},
};

use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Pkcs11},
    error::{Error as CkError, RvError},
    object::ObjectHandle,
    session::{Session, SessionState, UserType},
    slot::Slot,
};
use cryptoki_sys as ck;
use parking_lot::{Mutex, RwLock};
use tracing::{info, warn};

use super::{
    Quirks, TokenConfig, attack, classify, module_path, probe, quirks,
    raw::{Listed, Raw, TokenFacts},
    session::Pkcs11Token,
    template::Fit,
    turn,
};
use crate::{
    Connector, Lane, ModuleEvidence, ObjectId, Result, State, Token,
    error::{Error, Kind, Remedy},
    pin::Latch,
};

/// A session slot of one worker; recovery empties it from outside.
pub(crate) type SessionSlot = Arc<Mutex<Option<Session>>>;

/// One token of one module, shared by all workers.
pub struct Device {
    config: TokenConfig,
    path: PathBuf,
    pub(crate) raw: Raw,
    gate: RwLock<Connection>,
    sessions: Mutex<Vec<Weak<Mutex<Option<Session>>>>>,
    /// Handles of the current epoch, each proved once.
    pub(crate) handles: RwLock<HashMap<ObjectId, ObjectHandle>>,
    state: AtomicU8,
    latch: Option<Latch>,
    fit: Fit,
    evidence: ModuleEvidence,
}

/// What an epoch is made of.
pub(crate) struct Connection {
    module: Option<Pkcs11>,
    slot: Slot,
    serial: String,
    anchor: Mutex<Option<Session>>,
    epoch: u64,
    retry: Retry,
}

/// Back-off of the upper rungs, so that a dead HSM is not hammered.
struct Retry {
    not_before: Instant,
    pause: Duration,
}

const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LAST_PAUSE: Duration = Duration::from_secs(30);
/// How long recovery waits for calls in flight before it gives up on this attempt.
const GATE_WAIT: Duration = Duration::from_secs(5);

const READY: u8 = 0;
const DOWN: u8 = 1;
const BLOCKED: u8 = 2;

/// Loads the module, logs in, finds out what works and attacks throw-away keys.
///
/// # Errors
/// [`Kind::Setup`] for path, selector and PIN source, [`Kind::Blocked`] for the PIN,
/// [`Kind::Unsupported`] for a token without AES-GCM, [`Kind::Unsafe`] for one that
/// lets a key out.
pub fn open(config: TokenConfig) -> Result<Arc<Device>> {
    if config.label.is_none() && config.serial.is_none() {
        return Err(Error::new(
            Kind::Setup,
            "the token is selected by neither label nor serial",
        ));
    }
    let path = module_path(&config.module)?;
    let raw = Raw::load(&path)?;
    let _turn = turn::take(&path);
    let module = initialise(&path, config.init_reserved.as_deref())?;
    let (slot, facts) = find_token(
        &module,
        &raw,
        config.label.as_deref(),
        config.serial.as_deref(),
    )?;
    let latch = config.pin_latch.clone().map(Latch::new);
    let anchor = module
        .open_rw_session(slot)
        .map_err(|e| classify::from_cryptoki(&e))?;
    log_in(&anchor, &config, latch.as_ref(), &facts)?;

    probe::aes_gcm(&raw, &module, slot)?;
    let (fit, victim) = Fit::find(&anchor)?;
    let mut evidence = describe(&path, &module, &facts);
    evidence.not_supported = fit.not_supported();
    evidence.attacks = attack::all(&raw, &module, slot, &fit, victim, &|session| {
        log_in(session, &config, latch.as_ref(), &facts)
    })?;
    refuse_leaks(&evidence)?;
    info!(
        module = %path.display(), token = %facts.label, serial = %facts.serial,
        attacks_resisted = evidence.attacks.len(), "token ready"
    );
    Ok(Arc::new(Device {
        path,
        raw,
        gate: RwLock::new(Connection {
            module: Some(module),
            slot,
            serial: facts.serial,
            anchor: Mutex::new(Some(anchor)),
            epoch: 1,
            retry: Retry::new(),
        }),
        sessions: Mutex::new(Vec::new()),
        handles: RwLock::new(HashMap::new()),
        state: AtomicU8::new(READY),
        latch,
        fit,
        evidence,
        config,
    }))
}

impl Device {
    /// What is known about this kind of token.
    #[must_use]
    pub fn quirks(&self) -> Quirks {
        quirks::of(&self.evidence.token_manufacturer)
    }

    pub(crate) fn fit(&self) -> &Fit {
        &self.fit
    }

    /// The mechanisms the token lists now; none when it does not answer.
    pub(crate) fn listed(&self, connection: &Connection) -> Vec<Listed> {
        self.raw.mechanisms(connection.slot).unwrap_or_default()
    }

    /// Runs `call` with the worker's session, opening it first where needed.
    pub(crate) fn with_session<T>(
        &self,
        lane: Lane,
        slot: &SessionSlot,
        call: impl FnOnce(&Connection, &Session) -> Result<T>,
    ) -> Result<T> {
        let connection = self.gate.read();
        match self.state() {
            State::Ready => {}
            State::Down => {
                return Err(Error::new(
                    Kind::Gone,
                    "the HSM cannot be reached; reconnecting by itself",
                ));
            }
            State::Blocked => return Err(blocked(&self.config)),
        }
        let mut held = slot.lock();
        let session = match held.take() {
            Some(session) => session,
            None => connection.open(lane)?,
        };
        let result = call(&connection, &session);
        *held = Some(session);
        result
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.gate.read().epoch
    }

    /// Does the token answer at all?
    pub(crate) fn facts(&self, connection: &Connection) -> Result<TokenFacts> {
        self.raw.token_facts(connection.slot).map_err(|rv| {
            let what = classify::from_number(rv).map_or_else(String::new, classify::name);
            Error::new(Kind::Gone, format!("C_GetTokenInfo answered {what}"))
                .with_remedy(Remedy::Module)
        })
    }

    /// L2: everybody out, log in again, new epoch. Nothing happens when another
    /// worker was quicker.
    pub(crate) fn log_in_again(&self, seen: u64) -> Result<()> {
        self.reconnect(seen, false)
    }

    /// L3: the module is finalised and initialised, then L2.
    pub(crate) fn restart_module(&self, seen: u64) -> Result<()> {
        self.reconnect(seen, true)
    }

    fn reconnect(&self, seen: u64, restart: bool) -> Result<()> {
        let mut connection = self.gate.try_write_for(GATE_WAIT).ok_or_else(|| {
            Error::new(Kind::Gone, "a call into the PKCS#11 module does not return")
        })?;
        if connection.epoch != seen {
            return Ok(());
        }
        if Instant::now() < connection.retry.not_before {
            return Err(Error::new(
                Kind::Gone,
                "the HSM cannot be reached; the next attempt waits for its turn",
            ));
        }
        self.close_sessions(&connection);
        let result = self
            .connect_anew(&mut connection, restart)
            .map_err(|e| match e.kind() {
                Kind::Blocked => e,
                // What would be a mistake of the set-up at start is a lost token now.
                _ => Error::new(Kind::Gone, e.to_string()).with_remedy(Remedy::Module),
            });
        match &result {
            Ok(()) => {
                connection.retry = Retry::new();
                connection.epoch += 1;
                self.state.store(READY, Ordering::Release);
                info!(
                    epoch = connection.epoch,
                    restart, "logged in to the token again"
                );
            }
            Err(e) => {
                connection.retry.later();
                let state = if e.kind() == Kind::Blocked {
                    BLOCKED
                } else {
                    DOWN
                };
                self.state.store(state, Ordering::Release);
                warn!(error = %e, restart, "the token is not back");
            }
        }
        result
    }

    fn close_sessions(&self, connection: &Connection) {
        self.handles.write().clear();
        let mut sessions = self.sessions.lock();
        sessions.retain(|s| s.strong_count() > 0);
        for slot in sessions.iter().filter_map(Weak::upgrade) {
            slot.lock().take();
        }
        connection.anchor.lock().take();
    }

    fn connect_anew(&self, connection: &mut Connection, restart: bool) -> Result<()> {
        if restart || connection.module.is_none() {
            if let Some(old) = connection.module.take() {
                // A module that is already dead may say so; it is initialised anew.
                let _ = old.finalize();
            }
            connection.module = Some(initialise(
                &self.path,
                self.config.init_reserved.as_deref(),
            )?);
        }
        let Some(module) = connection.module.as_ref() else {
            return Err(Error::new(Kind::Fault, "the PKCS#11 module is not loaded"));
        };
        let _turn = turn::take(&self.path);
        // By serial now, whatever it was selected by: it must be the same token.
        let (slot, facts) = find_token(module, &self.raw, None, Some(&connection.serial))?;
        let anchor = module
            .open_rw_session(slot)
            .map_err(|e| classify::from_cryptoki(&e))?;
        log_in(&anchor, &self.config, self.latch.as_ref(), &facts)?;
        connection.slot = slot;
        *connection.anchor.lock() = Some(anchor);
        Ok(())
    }
}

impl Connector for Arc<Device> {
    fn connect(&self, lane: Lane) -> Result<Box<dyn Token>> {
        let slot: SessionSlot = Arc::new(Mutex::new(None));
        self.sessions.lock().push(Arc::downgrade(&slot));
        Ok(Box::new(Pkcs11Token::new(Arc::clone(self), lane, slot)))
    }

    fn state(&self) -> State {
        Device::state(self)
    }

    fn evidence(&self) -> ModuleEvidence {
        self.evidence.clone()
    }

    fn new_pin(&self) -> Result<()> {
        if Device::state(self) == State::Ready {
            return Ok(());
        }
        let seen = {
            let mut connection = self.gate.write();
            connection.retry = Retry::new();
            connection.epoch
        };
        self.restart_module(seen)
    }

    fn close(&self) {
        let Some(mut connection) = self.gate.try_write_for(GATE_WAIT) else {
            return;
        };
        self.close_sessions(&connection);
        self.state.store(DOWN, Ordering::Release);
        connection.retry.not_before = Instant::now() + Duration::from_secs(3600);
        if let Some(module) = connection.module.take() {
            // The process ends next; there is nobody left to tell.
            let _ = module.finalize();
        }
    }
}

impl Device {
    pub(crate) fn state(&self) -> State {
        match self.state.load(Ordering::Acquire) {
            READY => State::Ready,
            BLOCKED => State::Blocked,
            _ => State::Down,
        }
    }
}

impl Connection {
    pub(crate) fn open(&self, lane: Lane) -> Result<Session> {
        let module = self
            .module
            .as_ref()
            .ok_or_else(|| Error::new(Kind::Gone, "the PKCS#11 module is finalised"))?;
        let session = match lane {
            Lane::Work => module.open_ro_session(self.slot),
            Lane::Admin => module.open_rw_session(self.slot),
        };
        session.map_err(|e| classify::from_cryptoki(&e))
    }
}

impl Retry {
    fn new() -> Self {
        Self {
            not_before: Instant::now(),
            pause: FIRST_PAUSE,
        }
    }

    fn later(&mut self) {
        self.not_before = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(LAST_PAUSE);
    }
}

/// Is the session still logged in? A logout on any session logs out all of them.
pub(crate) fn logged_in(session: &Session) -> bool {
    session.get_session_info().is_ok_and(|i| {
        matches!(
            i.session_state(),
            SessionState::RoUser | SessionState::RwUser
        )
    })
}

pub(super) fn initialise(path: &std::path::Path, reserved: Option<&str>) -> Result<Pkcs11> {
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
        Some(text) => super::raw::initialize_args(flags, text),
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

pub(super) fn find_token(
    module: &Pkcs11,
    raw: &Raw,
    label: Option<&str>,
    serial: Option<&str>,
) -> Result<(Slot, TokenFacts)> {
    let slots = module
        .get_slots_with_token()
        .map_err(|e| classify::from_cryptoki(&e).with_remedy(Remedy::Module))?;
    let tokens: Vec<(Slot, TokenFacts)> = slots
        .into_iter()
        .filter_map(|slot| raw.token_facts(slot).ok().map(|facts| (slot, facts)))
        .filter(|(_, facts)| facts.flags & ck::CKF_TOKEN_INITIALIZED != 0)
        .collect();
    let wanted = |facts: &TokenFacts| {
        label.is_none_or(|l| l == facts.label) && serial.is_none_or(|s| s == facts.serial)
    };
    let shown = match (label, serial) {
        (Some(l), Some(s)) => format!("label {l:?} and serial {s:?}"),
        (Some(l), None) => format!("label {l:?}"),
        (None, s) => format!("serial {:?}", s.unwrap_or_default()),
    };
    let mut matching = tokens.iter().filter(|(_, facts)| wanted(facts));
    match (matching.next(), matching.next()) {
        (Some(one), None) => Ok(one.clone()),
        (Some(_), Some(_)) => Err(Error::new(
            Kind::Setup,
            format!("several tokens have {shown}; select one by its serial"),
        )),
        (None, _) => {
            let seen: Vec<String> = tokens
                .iter()
                .map(|(_, f)| format!("label {:?} serial {:?}", f.label, f.serial))
                .collect();
            let seen = if seen.is_empty() {
                "none".into()
            } else {
                seen.join(", ")
            };
            Err(Error::new(
                Kind::Gone,
                format!("no initialised token with {shown}; the module shows: {seen}"),
            )
            .with_remedy(Remedy::Module))
        }
    }
}

fn log_in(
    anchor: &Session,
    config: &TokenConfig,
    latch: Option<&Latch>,
    facts: &TokenFacts,
) -> Result<()> {
    let pin = config.pin.read()?;
    if latch.is_some_and(|l| l.holds(&pin)) {
        return Err(blocked(config));
    }
    let refuse = |why: &str| {
        Error::new(
            Kind::Blocked,
            format!(
                "token {:?}: {why}; log in by hand with the vendor's tool first",
                facts.label
            ),
        )
    };
    if facts.flags & ck::CKF_USER_PIN_LOCKED != 0 {
        return Err(refuse("the user PIN is locked"));
    }
    if facts.flags & ck::CKF_USER_PIN_FINAL_TRY != 0 {
        return Err(refuse(
            "one wrong PIN more locks it, so nothing is tried by itself",
        ));
    }
    if facts.flags & ck::CKF_USER_PIN_COUNT_LOW != 0 {
        warn!(token = %facts.label, "a wrong PIN was entered since the last login");
    }
    match anchor.login(UserType::User, Some(pin.secret())) {
        Ok(()) | Err(CkError::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => {
            if let Some(latch) = latch {
                latch.clear();
            }
            Ok(())
        }
        Err(e) => {
            let e = classify::from_cryptoki(&e);
            if e.kind() != Kind::Blocked {
                return Err(e);
            }
            if let Some(latch) = latch {
                latch.set(&pin)?;
            }
            Err(Error::new(
                Kind::Blocked,
                format!(
                    "token {:?} refused the PIN from {} ({e}); it is not tried again until the PIN changes",
                    facts.label, config.pin
                ),
            ))
        }
    }
}

fn blocked(config: &TokenConfig) -> Error {
    Error::new(
        Kind::Blocked,
        format!(
            "the token refused the PIN from {} before; it was not tried again. Put the right PIN there, then restart or send SIGHUP",
            config.pin
        ),
    )
}

fn describe(path: &std::path::Path, module: &Pkcs11, facts: &TokenFacts) -> ModuleEvidence {
    let info = module.get_library_info().ok();
    ModuleEvidence {
        module_path: path.display().to_string(),
        module_description: info
            .as_ref()
            .map_or_else(String::new, |i| i.library_description().to_owned()),
        module_version: info.map_or_else(String::new, |i| i.library_version().to_string()),
        token_label: facts.label.clone(),
        token_serial: facts.serial.clone(),
        token_model: facts.model.clone(),
        token_manufacturer: facts.manufacturer.clone(),
        token_firmware: facts.firmware.clone(),
        not_supported: Vec::new(),
        attacks: Vec::new(),
    }
}

fn refuse_leaks(evidence: &ModuleEvidence) -> Result<()> {
    let leaks: Vec<String> = evidence
        .attacks
        .iter()
        .filter(|a| !a.resisted)
        .map(|a| format!("  {} {}: {}", a.id, a.attempt, a.outcome))
        .collect();
    if leaks.is_empty() {
        return Ok(());
    }
    Err(Error::new(
        Kind::Unsafe,
        format!(
            "{} is not used, because it lets keys out:\n{}",
            evidence.module_path,
            leaks.join("\n")
        ),
    ))
}
