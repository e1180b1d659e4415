//! One token of one module: its login, its epoch, and the recovery ladder.
//!
//! Every C call holds the token's gate for reading, and behind it the module's
//! (`module`), always in this order; recovery holds it for writing, so no call is in
//! flight while sessions are closed. The *anchor* session holds the login.
//!
//! The *epoch* rises with every new login. Handles are cached per epoch and dropped
//! with it, because after a re-initialisation an old number can be another key.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use cryptoki::{
    context::Pkcs11,
    error::{Error as CkError, RvError},
    session::{Session, SessionState, UserType},
    slot::Slot,
};
use cryptoki_sys as ck;
use parking_lot::RwLock;
use tracing::{info, warn};

use super::{
    Quirks, TokenConfig, attack, classify,
    module::{GATE_WAIT, Module, Seat, SessionSlot, Started, initialise, never_returns},
    module_path, probe, quirks,
    raw::{Listed, Raw, TokenFacts},
    session::Pkcs11Token,
    template::Fit,
    turn,
};
use crate::{
    Connector, Lane, ModuleEvidence, Result, State, Token,
    error::{Error, Kind, Remedy},
    pin::Latch,
};

/// One token of one module, shared by all workers.
pub struct Device {
    config: TokenConfig,
    module: Arc<Module>,
    seat: Arc<Seat>,
    gate: RwLock<Connection>,
    latch: Option<Latch>,
    fit: Fit,
    evidence: ModuleEvidence,
}

/// What an epoch is made of.
pub(crate) struct Connection {
    slot: Slot,
    serial: String,
    /// Of the module, when this epoch began.
    generation: u64,
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
    let _turn = turn::take(&path);
    let module = Module::of(&path, config.init_reserved.as_deref())?;
    let seat = module.seat();
    let latch = config.pin_latch.clone().map(Latch::new);
    if !shows(&module, &config) {
        // What came since the module started is shown by some only after a restart.
        let _ = module.restart(&seat, || config.is_there(None))?;
    }
    let started = module.enter();
    let cryptoki = started.cryptoki()?;
    let (label, serial) = (config.label.as_deref(), config.serial.as_deref());
    let (slot, facts) = find_token(cryptoki, module.raw(), label, serial)?;
    let anchor = started.open(slot, Lane::Admin)?;
    log_in(&anchor, &config, latch.as_ref(), &facts)?;

    probe::aes_gcm(module.raw(), cryptoki, slot)?;
    let (fit, victim) = Fit::find(&anchor)?;
    let mut evidence = describe(&path, cryptoki, &facts);
    evidence.not_supported = fit.not_supported();
    evidence.attacks = attack::all(module.raw(), cryptoki, slot, &fit, victim, &|session| {
        log_in(session, &config, latch.as_ref(), &facts)
    })?;
    refuse_leaks(&evidence)?;
    info!(
        module = %path.display(), token = %facts.label, serial = %facts.serial,
        attacks_resisted = evidence.attacks.len(), "token ready"
    );
    *seat.anchor.lock() = Some(anchor);
    seat.set(State::Ready);
    let connection = Connection {
        slot,
        serial: facts.serial,
        generation: started.generation(),
        epoch: 1,
        retry: Retry::new(),
    };
    drop(started);
    Ok(Arc::new(Device {
        module,
        seat,
        gate: RwLock::new(connection),
        latch,
        fit,
        evidence,
        config,
    }))
}

fn shows(module: &Module, config: &TokenConfig) -> bool {
    let started = module.enter();
    let (label, serial) = (config.label.as_deref(), config.serial.as_deref());
    let cryptoki = started.cryptoki();
    !cryptoki.is_ok_and(|c| {
        find_token(c, module.raw(), label, serial).is_err_and(|e| e.kind() == Kind::Gone)
    })
}

/// Does the module show such a token to a process that starts it anew? For a process of
/// its own: nobody else may use the module in it.
///
/// # Errors
/// As for [`open`], up to the login.
pub fn is_there(config: &TokenConfig) -> Result<bool> {
    let path = module_path(&config.module)?;
    let raw = Raw::load(&path)?;
    let module = initialise(&path, config.init_reserved.as_deref())?;
    let (label, serial) = (config.label.as_deref(), config.serial.as_deref());
    let found = find_token(&module, &raw, label, serial).is_ok();
    let _ = module.finalize();
    Ok(found)
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

    pub(crate) fn raw(&self) -> &Raw {
        self.module.raw()
    }

    pub(crate) fn seat(&self) -> &Seat {
        &self.seat
    }

    /// The mechanisms the token lists now; none when it does not answer.
    pub(crate) fn listed(&self, connection: &Connection) -> Vec<Listed> {
        self.raw().mechanisms(connection.slot).unwrap_or_default()
    }

    /// Runs `call` with the worker's session, opening it first where needed.
    pub(crate) fn with_session<T>(
        &self,
        lane: Lane,
        slot: &SessionSlot,
        call: impl FnOnce(&Connection, &Session) -> Result<T>,
    ) -> Result<T> {
        let connection = self.gate.read();
        match self.seat.state() {
            State::Ready => {}
            State::Blocked => return Err(blocked(&self.config)),
            State::Down | State::Diverged => {
                return Err(Error::new(
                    Kind::Gone,
                    "the HSM cannot be reached; reconnecting by itself",
                ));
            }
        }
        let started = self.module.enter();
        connection.of(&started)?;
        let mut held = slot.lock();
        let session = match held.take() {
            Some(session) => session,
            None => started.open(connection.slot, lane)?,
        };
        let result = call(&connection, &session);
        *held = Some(session);
        result
    }

    /// L1, and the end of a worker.
    pub(crate) fn drop_session(&self, slot: &SessionSlot) {
        let _started = self.module.enter();
        slot.lock().take();
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.gate.read().epoch
    }

    /// Does the token answer at all?
    pub(crate) fn facts(&self, connection: &Connection) -> Result<TokenFacts> {
        self.raw().token_facts(connection.slot).map_err(|rv| {
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

    /// L3: the module is finalised and initialised, then L2. Where another token of the
    /// module is in use: L2 alone, unless a restart is known to help.
    pub(crate) fn restart_module(&self, seen: u64) -> Result<()> {
        self.reconnect(seen, true)
    }

    fn reconnect(&self, seen: u64, restart: bool) -> Result<()> {
        let mut connection = self
            .gate
            .try_write_for(GATE_WAIT)
            .ok_or_else(never_returns)?;
        if connection.epoch != seen {
            return Ok(());
        }
        if Instant::now() < connection.retry.not_before {
            return Err(Error::new(
                Kind::Gone,
                "the HSM cannot be reached; the next attempt waits for its turn",
            ));
        }
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
                self.seat.set(State::Ready);
                info!(
                    token = %self.evidence.token_label, epoch = connection.epoch,
                    restart, "logged in to the token again"
                );
            }
            Err(e) => {
                connection.retry.later();
                self.seat.set(match e.kind() {
                    Kind::Blocked => State::Blocked,
                    _ => State::Down,
                });
                warn!(token = %self.evidence.token_label, error = %e, restart, "the token is not back");
            }
        }
        result
    }

    fn connect_anew(&self, connection: &mut Connection, restart: bool) -> Result<()> {
        // Before a restart already: what a module reads while another process logs in may
        // show no token at all, and stays so until the next restart.
        let _turn = turn::take(self.module.path());
        let dead = self.module.enter().cryptoki().is_err();
        if restart || dead {
            let serial = &connection.serial;
            // If it may not be restarted now, logging in may be enough.
            let _ = self
                .module
                .restart(&self.seat, || self.config.is_there(Some(serial)))?;
        }
        let started = self.module.enter();
        self.seat.clear();
        // By serial now, whatever it was selected by: it must be the same token.
        let (raw, serial) = (self.raw(), Some(connection.serial.as_str()));
        let (slot, facts) = find_token(started.cryptoki()?, raw, None, serial)?;
        let anchor = started.open(slot, Lane::Admin)?;
        log_in(&anchor, &self.config, self.latch.as_ref(), &facts)?;
        connection.slot = slot;
        connection.generation = started.generation();
        *self.seat.anchor.lock() = Some(anchor);
        Ok(())
    }
}

impl Connector for Arc<Device> {
    fn connect(&self, lane: Lane) -> Result<Box<dyn Token>> {
        let slot = self.seat.slot();
        Ok(Box::new(Pkcs11Token::new(Arc::clone(self), lane, slot)))
    }

    fn state(&self) -> State {
        self.seat.state()
    }

    fn evidence(&self) -> ModuleEvidence {
        self.evidence.clone()
    }

    fn new_pin(&self) -> Result<()> {
        if self.seat.state() == State::Ready {
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
        self.seat.set(State::Down);
        connection.retry.not_before = Instant::now() + Duration::from_secs(3600);
        self.module.leave(&self.seat);
    }
}

impl Connection {
    /// Is this still the module that the token logged in to?
    fn of(&self, started: &Started) -> Result<()> {
        if self.generation == started.generation() {
            return Ok(());
        }
        let text = "the PKCS#11 module was started anew for another of its tokens";
        Err(Error::new(Kind::Stale, text).with_remedy(Remedy::Login))
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

fn describe(path: &Path, module: &Pkcs11, facts: &TokenFacts) -> ModuleEvidence {
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
