//! The operations, one file each. Their first line opens a permit or a grant; there is
//! no other way to a key. They speak domain words only: no wire type, no database, no
//! PKCS#11 comes in here.

pub mod acme;
mod asymmetric;
mod batch;
mod data_key;
mod decrypt;
mod encrypt;
mod forget;
pub mod job;
mod key;
mod lease;
mod leased;
mod mac;
pub mod nodes;
mod open;
pub mod pki;
mod random;
mod reencrypt;
mod rewrap;
mod seal;
mod sign;
mod verify;
mod wraps;

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use keywright_hsm::Hsm;
use tracing::{Instrument, Span, debug_span};

pub use asymmetric::{AsymmetricDecrypt, asymmetric_decrypt};
pub use batch::{Checked, Failures, Output, Strings, Verdict};
pub use data_key::{
    DataKey, DecryptDataKeys, GenerateDataKeys, Shelf, Which, decrypt_data_keys, generate_data_keys,
};
pub use decrypt::{Decrypt, Decrypted, decrypt};
pub use encrypt::{Encrypt, Sealed, encrypt};
pub use forget::{ForgetDataKeys, forget_data_keys};
pub use key::{
    CancelDestruction, ChangeState, Evidence, Explain, Explanation, ListKeys, Page, Pauses, Public,
    ScheduleDestruction, UpdateKey, VersionEvidence, cancel_destruction, change_state, create_key,
    explain, get_key, get_key_evidence, get_public_key, keep_rules, list_keys, rotate_key,
    save_last_use, schedule_destruction, update_key,
};
pub use lease::{Lease, Lent, lease_data_key};
pub use leased::Renewing;
pub use mac::{Mac, VerifyMac, mac, verify_mac};
pub use open::Envelopes;
pub use random::random;
pub use reencrypt::{Reencrypt, reencrypt};
pub use rewrap::{Rewrap, Rewrapped, rewrap};
pub use sign::{Sign, Signed, sign};
pub use verify::{Verify, verify};

use batch::each;

use crate::{
    audit::{Audit, Entry, KeyNote},
    authorities::Authorities,
    authority::AuthorityName,
    clock::{Clock, Entropy},
    config::Limits,
    envelope::Context,
    error::{Error, Kind, Result},
    key::{Key, KeyId, KeyName, KeyUse, KeyVersion, TenantId, WrapCounter},
    keyring::Keyring,
    membership::Membership,
    metrics::{self, Picture, StreamBatch, WEAR},
    policy::{
        Asking, Caller, Grant, KeyAction, Permit, ProfileAction, ProfilePermit, Proposal,
        TenantAction,
    },
    store::Store,
    trace,
};

/// Everything an operation needs, built once.
pub struct App {
    /// The token.
    pub hsm: Hsm,
    /// Key metadata on disk.
    pub store: Arc<dyn Store>,
    /// This node among the others.
    pub membership: Arc<Membership>,
    /// Keys and policies in memory.
    pub keyring: Arc<Keyring>,
    /// What the tenants are called.
    pub tenants: HashMap<TenantId, String>,
    /// Issuers and profiles in memory, and the way to certificates.
    pub authorities: Arc<Authorities>,
    /// Where CRLs lie.
    pub crl_dir: PathBuf,
    /// Where every request is accounted for.
    pub audit: Audit,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness of the operating system.
    pub entropy: Arc<dyn Entropy>,
    /// How much of everything.
    pub limits: Limits,
    /// One reservation of wraps at a time.
    pub reserving: tokio::sync::Mutex<()>,
    /// Who asks the HSM for the next data key on lease.
    pub renewing: Renewing,
    /// Places for those who watch jobs.
    pub watchers: Arc<tokio::sync::Semaphore>,
    /// Places for data keys that are lent.
    pub leases: Arc<tokio::sync::Semaphore>,
    /// What failed by itself, and is not tried again yet.
    pub pauses: Pauses,
}

impl std::fmt::Debug for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("App")
            .field("hsm", &self.hsm)
            .finish_non_exhaustive()
    }
}

impl App {
    /// Nobody is told any more that something goes on: the daemon stops.
    pub fn stay_no_longer(&self) {
        self.watchers.close();
        self.leases.close();
    }

    /// How everything is now, for who watches it.
    #[must_use]
    pub fn picture(&self) -> Picture {
        let now_ms = self.clock.now_ms();
        let mut picture = Picture {
            hsm: self.hsm.state(),
            tokens: self.hsm.tokens(),
            hsm_queued: self.hsm.queued_jobs(),
            audit: self.audit.healthy(),
            node: self.membership.serves(),
            keys: self.keyring.len(),
            rotation_due: self.keyring.rotation_due(now_ms),
            wraps_left: WrapCounter::REFUSE_AT,
            worn: [0; WEAR.len()],
            destructions: 0,
            next_destruction_ms: None,
        };
        for key in self.keyring.all() {
            let primary = key.version(key.primary.get());
            if let Some(primary) = primary.filter(|v| v.state.may_protect()) {
                let limit = key.rules.refuse_at();
                let left = wraps_left(&primary.wraps, limit);
                picture.wraps_left = picture.wraps_left.min(left);
                for ((percent, _), worn) in WEAR.iter().zip(&mut picture.worn) {
                    *worn += usize::from((limit - left) * 100 >= limit * percent);
                }
            }
            for at_ms in key.versions().filter_map(|v| v.destroy_at_ms) {
                picture.destructions += 1;
                let next = picture.next_destruction_ms.get_or_insert(at_ms - now_ms);
                *next = (at_ms - now_ms).min(*next);
            }
        }
        picture
    }
}

/// What is left of our block, and the whole blocks the store would still give.
fn wraps_left(wraps: &WrapCounter, limit: u64) -> u64 {
    let blocks = limit.saturating_sub(wraps.reserved()) / WrapCounter::BLOCK;
    limit.min(wraps.left() + blocks * WrapCounter::BLOCK)
}

/// One request: who asks, until when, and what is written down about it.
#[derive(Debug)]
pub struct Call {
    /// Who asks.
    pub caller: Arc<Caller>,
    /// When the answer is too late.
    pub deadline: Instant,
    /// What is written down.
    pub entry: Entry,
    /// When it arrived, in milliseconds since the epoch.
    pub now_ms: i64,
    context: Option<Context>,
    rpc: &'static str,
    began: Instant,
    /// Of a batch on a stream; a request alone has its guard's.
    span: Span,
    batch: Option<StreamBatch>,
}

impl Call {
    /// A request that begins now. `entry` knows request id and peer already.
    #[must_use]
    pub fn new(
        caller: Arc<Caller>,
        rpc: &'static str,
        deadline: Instant,
        now_ms: i64,
        entry: Entry,
    ) -> Self {
        let entry = Entry {
            caller: Some(caller.id.to_string()),
            certificate: Some(hex::encode(caller.certificate)),
            tenant: Some(caller.tenant_name.to_string()),
            action: rpc.to_owned(),
            ..entry
        };
        Self {
            caller,
            deadline,
            entry,
            now_ms,
            context: None,
            rpc,
            began: Instant::now(),
            span: Span::none(),
            batch: None,
        }
    }

    /// One of many on a stream, within `span`.
    #[must_use]
    pub fn on_stream(self, span: Span) -> Self {
        let batch = Some(StreamBatch::new());
        Self {
            span,
            batch,
            ..self
        }
    }

    /// The context that came along: policies may look at it. Before a permit is opened.
    fn bind(&mut self, context: &Context) {
        self.entry.context_pairs = context.pairs().len();
        self.context = Some(context.clone());
    }

    /// Who asks, and where what comes of it is written down.
    fn asks(&mut self) -> (Asking<'_>, &mut Entry) {
        let asking = Asking {
            caller: &self.caller,
            now_ms: self.now_ms,
            context: self.context.as_ref(),
        };
        (asking, &mut self.entry)
    }

    /// [`Keyring::open`] for whoever calls.
    fn open<A: KeyAction>(&mut self, app: &App, name: &KeyName) -> Result<Permit<A>> {
        let (asking, entry) = self.asks();
        app.keyring.open(&asking, name, entry)
    }

    /// [`Keyring::open_id`] for whoever calls.
    fn open_id<A: KeyAction>(&mut self, app: &App, id: KeyId) -> Result<Permit<A>> {
        let (asking, entry) = self.asks();
        app.keyring.open_id(&asking, id, entry)
    }

    /// [`Keyring::grant`] for whoever calls.
    fn grant<A: TenantAction>(
        &mut self,
        app: &App,
        proposal: Option<&Proposal>,
    ) -> Result<Grant<A>> {
        let (asking, entry) = self.asks();
        app.keyring.grant(&asking, proposal, entry)
    }

    /// Finds a profile for one action: the look-up is the authorisation.
    fn open_profile<A: ProfileAction>(
        &mut self,
        app: &App,
        name: &AuthorityName,
        version: Option<u32>,
    ) -> Result<ProfilePermit<A>> {
        let found = app.authorities.profile(self.caller.tenant, name, version);
        let (asking, entry) = self.asks();
        app.keyring.permit_profile(&asking, found.as_ref(), entry)
    }

    /// A version is about to protect something.
    fn protects(&mut self, key: &Key, version: &KeyVersion) {
        version.used.protects(self.now_ms);
        self.note(key, Some(version.number.get()));
    }

    /// [`Key::to_process`]; remembers that somebody wanted what the state forbids.
    fn to_process<'a>(&self, key: &'a Key, wanted: KeyUse, number: u32) -> Result<&'a KeyVersion> {
        let process = key.to_process(wanted, number);
        if let (Err(_), Some(version)) = (&process, key.version(number)) {
            version.used.refuses(self.now_ms);
        }
        Ok(process?.get())
    }

    /// Notes the key and the version that was used.
    fn note(&mut self, key: &Key, version: Option<u32>) {
        self.entry.note(KeyNote {
            name: key.name.to_string(),
            id: key.id.to_string(),
            version,
        });
    }

    /// Notes a batch, and fails with it when all of it failed alike.
    fn batch(&mut self, inputs: &Strings, output: &Output) -> Result<()> {
        let failed = output.failures.len();
        self.items(inputs.len() - failed, failed, inputs.total_bytes());
        output.failures.unless_all_alike(inputs.len())
    }

    /// Notes how a check went.
    fn verdicts(&mut self, inputs: &Strings, verdicts: &[Verdict]) {
        let valid = verdicts.iter().filter(|v| v.version.is_some()).count();
        self.items(valid, verdicts.len() - valid, inputs.total_bytes());
    }

    /// Notes how the items of a batch went.
    fn items(&mut self, ok: usize, failed: usize, bytes: usize) {
        self.entry.items_ok = ok;
        self.entry.items_failed = failed;
        self.entry.bytes = bytes;
        metrics::items(self.rpc, ok, failed, bytes);
    }
}

/// Runs an operation and writes its record, whatever came of it. Without a durable
/// record there is no answer, also not a bad one.
///
/// # Errors
/// What the operation answered, or [`Reason::AuditUnavailable`](crate::error::Reason).
pub async fn accounted<T>(
    app: &Arc<App>,
    call: Call,
    run: impl AsyncFnOnce(&Arc<App>, &mut Call) -> Result<T>,
) -> Result<T> {
    let span = call.span.clone();
    account(app, call, run).instrument(span).await
}

async fn account<T>(
    app: &Arc<App>,
    mut call: Call,
    run: impl AsyncFnOnce(&Arc<App>, &mut Call) -> Result<T>,
) -> Result<T> {
    let (result, spent) = metrics::timed(run(app, &mut call)).await;
    // It may have waited, for the HSM or because all of this stood still, until others have
    // changed what it was allowed by.
    let result = result.and_then(|done| app.membership.must_serve().map(|()| done));
    let Call {
        mut entry,
        began,
        rpc,
        span,
        batch,
        ..
    } = call;
    entry.finish(result.as_ref().map(drop).map_err(Error::reason));
    let worked = began.elapsed();
    entry.duration_us = micros(worked);
    trace::outcome(&span, entry.outcome);
    if let Err(e) = &result {
        metrics::failed(rpc, e.reason());
        log(e, &entry.request_id);
    }
    let recorded = app.audit.record(entry).instrument(debug_span!("audit"));
    let recorded = recorded.await;
    let total = began.elapsed();
    metrics::parts(rpc, total, spent, total.saturating_sub(worked));
    drop(batch);
    recorded?;
    result
}

/// What the caller does not read. What is the caller's to mend wakes no operator.
fn log(e: &Error, request_id: &str) {
    let Some(internal) = e.internal_text() else {
        return;
    };
    let reason = e.reason().name();
    match e.reason().kind() {
        Kind::Internal | Kind::Unavailable => {
            tracing::error!(request_id, reason, internal, "request failed");
        }
        Kind::Busy | Kind::Late | Kind::Unsupported => {
            tracing::warn!(request_id, reason, internal, "request failed");
        }
        Kind::InvalidArgument
        | Kind::TooLong
        | Kind::Unauthenticated
        | Kind::Denied
        | Kind::NotFound
        | Kind::Exists
        | Kind::StateForbids
        | Kind::Conflict => tracing::info!(request_id, reason, internal, "request refused"),
    }
}

pub(crate) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::io;

    use keywright_hsm as hsm;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<parking_lot::Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn only_what_an_operator_can_mend_is_an_error_in_the_log() {
        let logged = |kind| {
            let lines = Lines::default();
            let writer = lines.clone();
            let subscriber = tracing_subscriber::fmt()
                .with_ansi(false)
                .with_writer(move || writer.clone())
                .finish();
            let e = Error::from(hsm::Error::new(kind, "what the token said"));
            tracing::subscriber::with_default(subscriber, || log(&e, "r1"));
            String::from_utf8(lines.0.lock().clone()).unwrap()
        };
        for (kind, level) in [
            (hsm::Kind::Refused, " INFO "),
            (hsm::Kind::Busy, " WARN "),
            (hsm::Kind::Gone, "ERROR "),
            (hsm::Kind::Fault, "ERROR "),
        ] {
            let line = logged(kind);
            assert!(line.contains(level), "{line}");
            assert!(line.contains("what the token said"), "{line}");
        }
    }
}
