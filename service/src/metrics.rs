//! Every metric of the daemon, named here and nowhere else. Labels are constant words,
//! and names of tokens from the configuration: no key, caller or tenant names, so that the
//! number of series is bounded.

mod handles;
mod parts;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::error::Reason;
use keywright_hsm::{Kind, Observer, Op, State, Times, TokenStatus};
use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use rustix::{
    param::page_size,
    time::{ClockId, clock_gettime},
};

use handles::{JOBS, OfRpc, RPC_ITEMS, RPCS};
pub(crate) use parts::{crypto, parts, timed};

const REQUESTS: &str = "keywright_requests_total";
const ERRORS: &str = "keywright_errors_total";
const REQUEST_SECONDS: &str = "keywright_request_seconds";
const IN_FLIGHT: &str = "keywright_requests_in_flight";
const ITEMS: &str = "keywright_items_total";
const ITEM_BYTES: &str = "keywright_payload_bytes_total";
const CONNECTIONS: &str = "keywright_connections";
const HANDSHAKES: &str = "keywright_tls_handshakes_total";
const HSM_SECONDS: &str = "keywright_hsm_seconds";
const HSM_QUEUE_SECONDS: &str = "keywright_hsm_queue_seconds";
const HSM_ERRORS: &str = "keywright_hsm_errors_total";
const HSM_REJECTED: &str = "keywright_hsm_rejected_total";
const HSM_RETRIED: &str = "keywright_hsm_retried_total";
const HSM_MOVED: &str = "keywright_hsm_moved_total";
const TOKEN_STATE: &str = "keywright_hsm_token_state";
const TOKEN_LACKS: &str = "keywright_hsm_token_lacks_keys";
const HSM_UP: &str = "keywright_hsm_up";
const HSM_ORPHANS: &str = "keywright_hsm_orphan_objects";
const HSM_MISSING: &str = "keywright_hsm_missing_objects";
const AUDIT_RECORDS: &str = "keywright_audit_records_total";
const AUDIT_SECONDS: &str = "keywright_audit_commit_seconds";
const AUDIT_UP: &str = "keywright_audit_up";
const NODE_UP: &str = "keywright_node_up";
const KEYS: &str = "keywright_keys";
const ROTATION_DUE: &str = "keywright_keys_rotation_due";
const REQUEST_PART_SECONDS: &str = "keywright_request_part_seconds";
const STREAM_BATCHES: &str = "keywright_stream_batches_in_flight";
const HSM_STATE: &str = "keywright_hsm_state";
const HSM_QUEUED: &str = "keywright_hsm_queued_jobs";
const WRAPS_LEFT: &str = "keywright_wraps_left";
const WORN: &str = "keywright_keys_worn";
const DESTRUCTIONS: &str = "keywright_destructions_scheduled";
const NEXT_DESTRUCTION: &str = "keywright_destruction_next_seconds";
const RELOADS: &str = "keywright_reloads_total";
const HTTP: &str = "keywright_pki_http_requests_total";
const OCSP: &str = "keywright_ocsp_answers_total";
const CRLS: &str = "keywright_crls_total";
const ACME_REQUESTS: &str = "keywright_acme_requests_total";
const ACME_LOOKS: &str = "keywright_acme_validations_total";
/// The names every process has in Prometheus.
const CPU: &str = "process_cpu_seconds_total";
const RESIDENT: &str = "process_resident_memory_bytes";

/// Puts a sentence beside each name.
pub fn describe() {
    describe_counter!(REQUESTS, "Requests by RPC and outcome (a gRPC status code)");
    describe_counter!(
        ERRORS,
        "Failed operations by RPC and reason (the word in ErrorInfo)"
    );
    describe_histogram!(REQUEST_SECONDS, "Time from arrival to reply, by RPC");
    describe_histogram!(
        REQUEST_PART_SECONDS,
        "Where the time of an operation went, by RPC and part: queue, hsm, crypto, audit, process"
    );
    describe_gauge!(IN_FLIGHT, "Requests at work");
    describe_gauge!(
        STREAM_BATCHES,
        "Batches of streams read and not answered yet"
    );
    describe_counter!(ITEMS, "Items of batches by RPC and result");
    describe_counter!(ITEM_BYTES, "Payload bytes taken in, by RPC");
    describe_gauge!(CONNECTIONS, "Open connections");
    describe_counter!(HANDSHAKES, "TLS handshakes by result");
    describe_histogram!(HSM_SECONDS, "Time of a job in the HSM, by operation");
    describe_histogram!(
        HSM_QUEUE_SECONDS,
        "Time a job waited for an HSM worker, by operation"
    );
    describe_counter!(HSM_ERRORS, "Failed HSM jobs by operation and kind");
    describe_counter!(
        HSM_REJECTED,
        "HSM jobs turned away because the queue was full"
    );
    describe_counter!(HSM_RETRIED, "HSM jobs repeated after a recovery");
    describe_gauge!(HSM_UP, "1 when the HSM can be used");
    describe_gauge!(
        HSM_ORPHANS,
        "Objects on the token that belong to no key, found at start"
    );
    describe_gauge!(
        HSM_MISSING,
        "Key versions whose object the token did not show at start"
    );
    describe_counter!(AUDIT_RECORDS, "Audit records made durable");
    describe_histogram!(
        AUDIT_SECONDS,
        "Time to write and sync one group of audit records"
    );
    describe_gauge!(AUDIT_UP, "1 when audit records can be written");
    describe_gauge!(NODE_UP, "1 unless this node has lost touch with the others");
    describe_gauge!(KEYS, "Keys in the store");
    describe_gauge!(
        ROTATION_DUE,
        "Keys whose primary version has wrapped 2^30 times or more"
    );
    describe_gauge!(HSM_QUEUED, "HSM jobs that wait for a worker");
    describe_gauge!(
        WRAPS_LEFT,
        "Wraps left for the primary version that has fewest left"
    );
    describe_gauge!(
        WORN,
        "Keys whose primary version has used this share of its wraps, or more"
    );
    describe_gauge!(DESTRUCTIONS, "Key versions scheduled for destruction");
    describe_gauge!(
        NEXT_DESTRUCTION,
        "Seconds until the next scheduled destruction; NaN when there is none"
    );
    describe_process();
    describe_tokens();
    describe_public();
    describe_acme();
    from_zero();
}

/// The process itself.
fn describe_process() {
    describe_counter!(RELOADS, "Reloads of certificates and policies by result");
    describe_gauge!(CPU, "CPU time of the process, user and system, in seconds");
    describe_gauge!(RESIDENT, "Resident memory of the process");
}

/// Several tokens that hold the same keys.
fn describe_tokens() {
    describe_gauge!(
        HSM_STATE,
        "1 for the state the HSM is in: ready when one of its tokens is"
    );
    describe_counter!(
        HSM_MOVED,
        "HSM jobs that went on to another token, by operation"
    );
    describe_gauge!(TOKEN_STATE, "1 for the state each token is in");
    describe_gauge!(
        TOKEN_LACKS,
        "Keys wanted of a token that it does not show, or shows others in the place of"
    );
}

/// The public door of the PKI.
fn describe_public() {
    describe_counter!(
        HTTP,
        "Requests at the public HTTP door, by what was asked for and outcome"
    );
    describe_counter!(
        CRLS,
        "Times that the lists of an issuer were made or taken from another node, by outcome"
    );
    describe_counter!(
        OCSP,
        "OCSP answers by what they say and where they came from"
    );
}

fn describe_acme() {
    describe_counter!(
        ACME_REQUESTS,
        "ACME requests that change something, by operation and outcome (ok or an ACME problem)"
    );
    describe_counter!(
        ACME_LOOKS,
        "Hosts looked at for ACME by challenge and outcome (ok or an ACME problem)"
    );
}

/// A counter that is not there cannot be told from one that never counted, and its first
/// event would be no increase.
fn from_zero() {
    for op in Op::ALL {
        counter!(HSM_REJECTED, "op" => op.name()).increment(0);
        counter!(HSM_RETRIED, "op" => op.name()).increment(0);
        counter!(HSM_MOVED, "op" => op.name()).increment(0);
    }
    for part in ["certificates", "policies", "pin"] {
        for result in ["ok", "failed"] {
            counter!(RELOADS, "part" => part, "result" => result).increment(0);
        }
    }
    for outcome in ["ok", "not_modified", "not_found", "refused", "failed"] {
        counter!(HTTP, "kind" => "crl", "outcome" => outcome).increment(0);
    }
    for outcome in ["ok", "failed"] {
        counter!(CRLS, "outcome" => outcome).increment(0);
    }
    for source in ["cache", "hsm"] {
        counter!(OCSP, "answer" => "good", "source" => source).increment(0);
    }
    counter!(AUDIT_RECORDS).increment(0);
    counter!(ACME_REQUESTS, "rpc" => "AcmeFinalize", "outcome" => "ok").increment(0);
    counter!(ACME_LOOKS, "challenge" => "http-01", "outcome" => "ok").increment(0);
    for gauge in [IN_FLIGHT, STREAM_BATCHES, CONNECTIONS] {
        gauge!(gauge).increment(0.0);
    }
}

/// An ACME request was answered. Both words are constants.
pub fn acme(rpc: &'static str, outcome: &'static str) {
    counter!(ACME_REQUESTS, "rpc" => rpc, "outcome" => outcome).increment(1);
}

/// A host was looked at. Both words are constants.
pub fn acme_look(challenge: &'static str, outcome: &'static str) {
    counter!(ACME_LOOKS, "challenge" => challenge, "outcome" => outcome).increment(1);
}

/// A request began; give it back to [`RequestTimer::done`].
#[must_use]
pub fn request_timer(rpc: &'static str) -> RequestTimer {
    let handles = RPCS.of(rpc);
    handles.in_flight.increment(1.0);
    RequestTimer {
        rpc,
        handles,
        start: Instant::now(),
    }
}

/// Counts a request when it ends, however it ends.
pub struct RequestTimer {
    rpc: &'static str,
    handles: Arc<OfRpc>,
    start: Instant,
}

impl RequestTimer {
    /// Since the request began.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// How it ended.
    pub fn done(&self, outcome: &'static str) {
        match outcome {
            "OK" => self.handles.ok.increment(1),
            failed => counter!(REQUESTS, "rpc" => self.rpc, "outcome" => failed).increment(1),
        }
        self.handles.seconds.record(self.start.elapsed());
    }
}

impl Drop for RequestTimer {
    fn drop(&mut self) {
        self.handles.in_flight.decrement(1.0);
    }
}

/// An operation failed.
pub fn failed(rpc: &'static str, reason: Reason) {
    counter!(ERRORS, "rpc" => rpc, "reason" => reason.name()).increment(1);
}

/// A request at the public HTTP door was answered.
pub fn pki_http(kind: &'static str, outcome: &'static str) {
    counter!(HTTP, "kind" => kind, "outcome" => outcome).increment(1);
}

/// The lists of an issuer were made or taken, or could not be.
pub fn crl(made: bool) {
    let outcome = if made { "ok" } else { "failed" };
    counter!(CRLS, "outcome" => outcome).increment(1);
}

/// An OCSP answer went out.
pub fn ocsp(answer: &'static str, source: &'static str) {
    counter!(OCSP, "answer" => answer, "source" => source).increment(1);
}

/// Items of one batch.
pub fn items(rpc: &'static str, ok: usize, failed: usize, bytes: usize) {
    let handles = RPC_ITEMS.of(rpc);
    handles.ok.increment(ok as u64);
    if failed > 0 {
        counter!(ITEMS, "rpc" => rpc, "result" => "failed").increment(failed as u64);
    }
    handles.bytes.increment(bytes as u64);
}

/// A TLS handshake ended.
pub fn handshake(result: &'static str) {
    counter!(HANDSHAKES, "result" => result).increment(1);
}

/// An open connection, for as long as it lives.
#[derive(Debug)]
pub struct OpenConnection(());

impl OpenConnection {
    /// One more.
    #[must_use]
    pub fn new() -> Self {
        gauge!(CONNECTIONS).increment(1.0);
        Self(())
    }
}

impl Default for OpenConnection {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        gauge!(CONNECTIONS).decrement(1.0);
    }
}

/// A group of audit records is about to be written.
#[must_use]
pub fn audit_timer(records: usize) -> AuditTimer {
    AuditTimer {
        records,
        start: Instant::now(),
    }
}

/// Counts a group when it is durable.
#[derive(Debug)]
pub struct AuditTimer {
    records: usize,
    start: Instant,
}

impl AuditTimer {
    /// The group is durable.
    pub fn done(self) {
        counter!(AUDIT_RECORDS).increment(self.records as u64);
        histogram!(AUDIT_SECONDS).record(self.start.elapsed());
    }
}

/// What was found on the token at start.
pub fn token_census(orphans: usize, missing: usize) {
    gauge!(HSM_ORPHANS).set(orphans as f64);
    gauge!(HSM_MISSING).set(missing as f64);
}

/// How the appliance is at one moment.
#[derive(Debug)]
pub struct Picture {
    /// The token.
    pub hsm: State,
    /// Each of the tokens.
    pub tokens: Vec<TokenStatus>,
    /// Jobs that wait for a worker.
    pub hsm_queued: usize,
    /// Can records be written?
    pub audit: bool,
    /// This node has not lost touch with the others.
    pub node: bool,
    /// Keys there are.
    pub keys: usize,
    /// Keys to rotate.
    pub rotation_due: usize,
    /// Wraps left for the primary version that has fewest left.
    pub wraps_left: u64,
    /// Keys whose primary version has used that share of its wraps; see [`WEAR`].
    pub worn: [usize; WEAR.len()],
    /// Versions scheduled for destruction.
    pub destructions: usize,
    /// Milliseconds until the first of them; negative when it is overdue.
    pub next_destruction_ms: Option<i64>,
}

/// Percent of the wraps a version may make, and their names.
pub const WEAR: [(u64, &str); 3] = [(50, "50"), (90, "90"), (100, "100")];

/// Gauges that are read when somebody asks.
pub fn refresh(picture: &Picture) {
    refresh_process();
    let one = |so: bool| if so { 1.0 } else { 0.0 };
    gauge!(HSM_UP).set(one(picture.hsm == State::Ready));
    for state in State::ALL {
        gauge!(HSM_STATE, "state" => state.name()).set(one(picture.hsm == state));
    }
    picture.tokens.iter().for_each(refresh_token);
    gauge!(HSM_QUEUED).set(picture.hsm_queued as f64);
    gauge!(AUDIT_UP).set(one(picture.audit));
    gauge!(NODE_UP).set(one(picture.node));
    gauge!(KEYS).set(picture.keys as f64);
    gauge!(ROTATION_DUE).set(picture.rotation_due as f64);
    gauge!(WRAPS_LEFT).set(picture.wraps_left as f64);
    for ((_, name), keys) in WEAR.iter().zip(picture.worn) {
        gauge!(WORN, "percent" => *name).set(keys as f64);
    }
    gauge!(DESTRUCTIONS).set(picture.destructions as f64);
    let next = picture.next_destruction_ms.map(|ms| ms as f64 / 1000.0);
    gauge!(NEXT_DESTRUCTION).set(next.unwrap_or(f64::NAN));
}

fn refresh_process() {
    // A gauge, because the counters here are whole numbers; it only rises.
    let cpu = clock_gettime(ClockId::ProcessCPUTime);
    gauge!(CPU).set(cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9);
    // Size and resident, in pages; where there is no procfs there is no such gauge.
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|n| n.parse::<f64>().ok());
    if let Some(pages) = pages {
        gauge!(RESIDENT).set(pages * page_size() as f64);
    }
}

fn refresh_token(token: &TokenStatus) {
    let TokenStatus {
        name,
        state: is,
        missing,
        diverged,
    } = token;
    for state in State::ALL {
        let one = if *is == state { 1.0 } else { 0.0 };
        gauge!(TOKEN_STATE, "token" => name.clone(), "state" => state.name()).set(one);
    }
    for (why, keys) in [("missing", missing), ("diverged", diverged)] {
        gauge!(TOKEN_LACKS, "token" => name.clone(), "why" => why).set(*keys as f64);
    }
}

/// A batch of a stream, from when it is read until it is answered.
#[derive(Debug)]
pub struct StreamBatch(());

impl StreamBatch {
    /// One more.
    #[must_use]
    pub fn new() -> Self {
        gauge!(STREAM_BATCHES).increment(1.0);
        Self(())
    }
}

impl Default for StreamBatch {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for StreamBatch {
    fn drop(&mut self) {
        gauge!(STREAM_BATCHES).decrement(1.0);
    }
}

/// Certificates and policies were read again.
pub fn reload(part: &'static str, result: &'static str) {
    counter!(RELOADS, "part" => part, "result" => result).increment(1);
}

/// Jobs of requests the HSM workers have done. Whoever sees it grow knows that they live.
static HSM_JOBS: AtomicU64 = AtomicU64::new(0);

/// How many jobs the HSM workers have done.
#[must_use]
pub fn hsm_jobs() -> u64 {
    HSM_JOBS.load(Ordering::Relaxed)
}

/// Counts what the HSM workers do.
#[derive(Debug, Clone, Copy)]
pub struct HsmMetrics;

impl Observer for HsmMetrics {
    fn done(&self, op: Op, queued: Duration, ran: Duration, failed: Option<Kind>) {
        // The serial lane looks after the token by itself and lives on its own.
        if !matches!(
            op,
            Op::Check | Op::Generate | Op::Destroy | Op::Describe | Op::List | Op::Put
        ) {
            HSM_JOBS.fetch_add(1, Ordering::Relaxed);
        }
        let job = JOBS.of(op.name());
        job.queued.record(queued);
        job.ran.record(ran);
        if let Some(kind) = failed {
            counter!(HSM_ERRORS, "op" => op.name(), "kind" => kind.name()).increment(1);
        }
    }

    fn rejected(&self, op: Op) {
        counter!(HSM_REJECTED, "op" => op.name()).increment(1);
    }

    fn retried(&self, op: Op) {
        counter!(HSM_RETRIED, "op" => op.name()).increment(1);
    }

    fn moved(&self, op: Op) {
        counter!(HSM_MOVED, "op" => op.name()).increment(1);
    }

    fn answered(&self, job: Times) {
        parts::answered(job);
    }
}
