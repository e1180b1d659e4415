//! Every metric of the daemon, named here and nowhere else. Labels are constant words:
//! no key, caller or tenant names, so that the number of series is bounded.

use std::time::{Duration, Instant};

use crate::error::Reason;
use keywright_hsm::{Kind, Observer, Op, State};
use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

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
const HSM_UP: &str = "keywright_hsm_up";
const HSM_ORPHANS: &str = "keywright_hsm_orphan_objects";
const HSM_MISSING: &str = "keywright_hsm_missing_objects";
const AUDIT_RECORDS: &str = "keywright_audit_records_total";
const AUDIT_SECONDS: &str = "keywright_audit_commit_seconds";
const AUDIT_UP: &str = "keywright_audit_up";
const KEYS: &str = "keywright_keys";
const ROTATION_DUE: &str = "keywright_keys_rotation_due";
const RELOADS: &str = "keywright_reloads_total";

/// Puts a sentence beside each name.
pub fn describe() {
    describe_counter!(REQUESTS, "Requests by RPC and outcome (a gRPC status code)");
    describe_counter!(
        ERRORS,
        "Failed operations by RPC and reason (the word in ErrorInfo)"
    );
    describe_histogram!(REQUEST_SECONDS, "Time from arrival to reply, by RPC");
    describe_gauge!(IN_FLIGHT, "Requests at work");
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
    describe_gauge!(KEYS, "Keys in the store");
    describe_gauge!(
        ROTATION_DUE,
        "Keys whose primary version has wrapped 2^30 times or more"
    );
    describe_counter!(RELOADS, "Reloads of certificates and policies by result");
}

/// A request began; give it back to [`RequestTimer::done`].
#[must_use]
pub fn request_timer(rpc: &'static str) -> RequestTimer {
    gauge!(IN_FLIGHT).increment(1.0);
    RequestTimer {
        rpc,
        start: Instant::now(),
    }
}

/// Counts a request when it ends, however it ends.
#[derive(Debug)]
pub struct RequestTimer {
    rpc: &'static str,
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
        counter!(REQUESTS, "rpc" => self.rpc, "outcome" => outcome).increment(1);
        histogram!(REQUEST_SECONDS, "rpc" => self.rpc).record(self.start.elapsed());
    }
}

impl Drop for RequestTimer {
    fn drop(&mut self) {
        gauge!(IN_FLIGHT).decrement(1.0);
    }
}

/// An operation failed.
pub fn failed(rpc: &'static str, reason: Reason) {
    counter!(ERRORS, "rpc" => rpc, "reason" => reason.name()).increment(1);
}

/// Items of one batch.
pub fn items(rpc: &'static str, ok: usize, failed: usize, bytes: usize) {
    counter!(ITEMS, "rpc" => rpc, "result" => "ok").increment(ok as u64);
    if failed > 0 {
        counter!(ITEMS, "rpc" => rpc, "result" => "failed").increment(failed as u64);
    }
    counter!(ITEM_BYTES, "rpc" => rpc).increment(bytes as u64);
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

/// Gauges that are read when somebody asks.
pub fn refresh(hsm: State, audit: bool, keys: usize, rotation_due: usize) {
    gauge!(HSM_UP).set(if hsm == State::Ready { 1.0 } else { 0.0 });
    gauge!(AUDIT_UP).set(if audit { 1.0 } else { 0.0 });
    gauge!(KEYS).set(keys as f64);
    gauge!(ROTATION_DUE).set(rotation_due as f64);
}

/// Certificates and policies were read again.
pub fn reload(part: &'static str, result: &'static str) {
    counter!(RELOADS, "part" => part, "result" => result).increment(1);
}

/// Counts what the HSM workers do.
#[derive(Debug, Clone, Copy)]
pub struct HsmMetrics;

impl Observer for HsmMetrics {
    fn done(&self, op: Op, queued: Duration, ran: Duration, failed: Option<Kind>) {
        histogram!(HSM_QUEUE_SECONDS, "op" => op.name()).record(queued);
        histogram!(HSM_SECONDS, "op" => op.name()).record(ran);
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
}
