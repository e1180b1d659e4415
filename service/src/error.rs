//! What went wrong, for whom, and what the caller may read about it.
//!
//! The text goes to the caller: lower case, no full stop, no secret, a next step
//! where there is one. The internal text goes to the log only. [`Reason`] is a stable
//! word for machines; its [`Kind`] decides the status code in one table
//! (`api/grpc/status`).

use std::{fmt, time::Duration};

use keywright_hsm as hsm;

use crate::key::{KeyState, Unusable};

/// Result of the service.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Who must act, as coarse as a status code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The caller sent something that can never work.
    InvalidArgument,
    /// The message is longer than the server reads.
    TooLong,
    /// The caller has no identity here.
    Unauthenticated,
    /// The caller may not.
    Denied,
    /// Not there, or not for this caller.
    NotFound,
    /// Already there.
    Exists,
    /// The state of the key forbids it; an operator can change that.
    StateForbids,
    /// Somebody else changed it in between; read and try again.
    Conflict,
    /// Too much at once; try again later.
    Busy,
    /// Something below is down; try again later, tell the operator.
    Unavailable,
    /// The token behind cannot do this.
    Unsupported,
    /// The deadline passed.
    Late,
    /// Our fault or the token's.
    Internal,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $kind:ident;)*) => {
        /// A stable word for what happened: `reason` of `google.rpc.ErrorInfo`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Reason { $($(#[$doc])* $variant,)* }

        impl Reason {
            /// Every reason.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The stable word.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Who must act.
            #[must_use]
            pub fn kind(self) -> Kind {
                match self { $(Self::$variant => Kind::$kind,)* }
            }
        }
    };
}

reasons! {
    /// A field is missing, contradictory or out of range.
    InvalidArgument = "INVALID_ARGUMENT", InvalidArgument;
    /// No items.
    BatchEmpty = "BATCH_EMPTY", InvalidArgument;
    /// Too many items or too many bytes.
    BatchTooLarge = "BATCH_TOO_LARGE", InvalidArgument;
    /// The CRC32C that came along is not that of the bytes that came along.
    ChecksumMismatch = "CHECKSUM_MISMATCH", InvalidArgument;
    /// The whole message is longer than the server reads.
    MessageTooLarge = "MESSAGE_TOO_LARGE", TooLong;
    /// One item or its AAD is too large.
    ItemTooLarge = "ITEM_TOO_LARGE", InvalidArgument;
    /// Not an envelope of ours.
    EnvelopeMalformed = "ENVELOPE_MALFORMED", InvalidArgument;
    /// Other key, context, AAD or tenant, or changed bytes: one answer for all.
    DecryptionFailed = "DECRYPTION_FAILED", InvalidArgument;
    /// No client certificate, or one that names nobody here.
    Unauthenticated = "UNAUTHENTICATED", Unauthenticated;
    /// A policy says no.
    PermissionDenied = "PERMISSION_DENIED", Denied;
    /// No such key, or the caller may not see it.
    KeyNotFound = "KEY_NOT_FOUND", NotFound;
    /// The name is taken.
    KeyExists = "KEY_EXISTS", Exists;
    /// No such version of the key here.
    KeyVersionNotFound = "KEY_VERSION_NOT_FOUND", StateForbids;
    /// The state of the version forbids it.
    KeyState = "KEY_STATE", StateForbids;
    /// The key is for another use.
    KeyUse = "KEY_USE", StateForbids;
    /// No such kept data key, or the caller may not use it.
    DataKeyNotFound = "DATA_KEY_NOT_FOUND", NotFound;
    /// The key lends no data keys.
    LeaseForbidden = "LEASE_FORBIDDEN", StateForbids;
    /// The version has wrapped as often as it may.
    KeyWornOut = "KEY_WORN_OUT", StateForbids;
    /// Somebody else changed the key.
    Conflict = "CONFLICT", Conflict;
    /// Too many requests, or too many waiting for the HSM.
    Busy = "BUSY", Busy;
    /// The HSM cannot be reached.
    HsmUnavailable = "HSM_UNAVAILABLE", Unavailable;
    /// The audit log cannot be written; nothing is answered without it.
    AuditUnavailable = "AUDIT_UNAVAILABLE", Unavailable;
    /// The store cannot be reached.
    StoreUnavailable = "STORE_UNAVAILABLE", Unavailable;
    /// This node has lost touch with the others; they answer.
    NodeFenced = "NODE_FENCED", Unavailable;
    /// The daemon is stopping.
    Stopping = "STOPPING", Unavailable;
    /// The token cannot do what the algorithm needs.
    TokenCannot = "TOKEN_CANNOT", Unsupported;
    /// A certificate request that is malformed, unsigned or has a weak key.
    CsrRefused = "CSR_REFUSED", InvalidArgument;
    /// A profile or a ceremony that does not say what it must.
    TextRefused = "TEXT_REFUSED", InvalidArgument;
    /// A name, a time or a key that the profile does not give to this caller.
    ProfileRefused = "PROFILE_REFUSED", Denied;
    /// A key that is never certified.
    KeyBlocked = "KEY_BLOCKED", StateForbids;
    /// No such profile, or the caller may not use it.
    ProfileNotFound = "PROFILE_NOT_FOUND", NotFound;
    /// No such issuer or ceremony.
    IssuerNotFound = "ISSUER_NOT_FOUND", NotFound;
    /// No such certificate.
    CertificateNotFound = "CERTIFICATE_NOT_FOUND", NotFound;
    /// The name of an issuer, or the version of a profile, is taken.
    AuthorityExists = "AUTHORITY_EXISTS", Exists;
    /// The same idempotency key came with another request.
    RequestKeyReused = "REQUEST_KEY_REUSED", Exists;
    /// The issuer does not sign now; an operator can change that.
    IssuerState = "ISSUER_STATE", StateForbids;
    /// The state of the certificate forbids it.
    CertificateState = "CERTIFICATE_STATE", StateForbids;
    /// What would be signed breaks a rule.
    LintRefused = "LINT_REFUSED", StateForbids;
    /// No such job, or the caller may not see it.
    JobNotFound = "JOB_NOT_FOUND", NotFound;
    /// There is an open job over the same subject.
    JobExists = "JOB_EXISTS", Exists;
    /// The job waits, is paused or has ended.
    JobState = "JOB_STATE", StateForbids;
    /// Somebody else works on the job.
    JobLeased = "JOB_LEASED", StateForbids;
    /// Somebody else took the job over.
    JobLeaseLost = "JOB_LEASE_LOST", Conflict;
    /// The version of a key is still needed: jobs or uses say so.
    KeyVersionInUse = "KEY_VERSION_IN_USE", StateForbids;
    /// The clock stands before what was signed last.
    ClockSteppedBack = "CLOCK_STEPPED_BACK", Unavailable;
    /// The deadline passed.
    DeadlineExceeded = "DEADLINE_EXCEEDED", Late;
    /// Our fault or the token's; the log knows more.
    Internal = "INTERNAL", Internal;
}

/// An error with its two texts.
#[derive(Clone)]
pub struct Error {
    reason: Reason,
    text: String,
    field: Option<&'static str>,
    internal: Option<String>,
    retry_after: Option<Duration>,
}

impl Error {
    /// An error with the caller's text.
    #[must_use]
    pub fn new(reason: Reason, text: impl Into<String>) -> Self {
        Self {
            reason,
            text: text.into(),
            field: None,
            internal: None,
            retry_after: None,
        }
    }

    /// A field of the request is wrong.
    #[must_use]
    pub fn field(reason: Reason, field: &'static str, text: impl Into<String>) -> Self {
        Self {
            field: Some(field),
            ..Self::new(reason, text)
        }
    }

    /// Our fault; the caller learns nothing but the request id.
    #[must_use]
    pub fn internal(text: impl Into<String>) -> Self {
        Self {
            internal: Some(text.into()),
            ..Self::new(
                Reason::Internal,
                "internal error; the log names this request",
            )
        }
    }

    /// For the log only.
    #[must_use]
    pub fn because(mut self, internal: impl Into<String>) -> Self {
        self.internal = Some(internal.into());
        self
    }

    /// A good time to try again.
    #[must_use]
    pub fn retry_after(mut self, pause: Duration) -> Self {
        self.retry_after = Some(pause);
        self
    }

    /// The one answer for a missing key and for one the caller may not see.
    #[must_use]
    pub fn no_such_key() -> Self {
        Self::new(Reason::KeyNotFound, "no such key, or you may not use it")
    }

    /// The one answer for every cryptographic failure.
    #[must_use]
    pub fn refused() -> Self {
        Self::new(
            Reason::DecryptionFailed,
            "decryption failed: key, context, AAD and ciphertext do not belong together",
        )
    }

    /// The message is longer than `limit` bytes.
    #[must_use]
    pub fn too_long(limit: usize) -> Self {
        Self::new(
            Reason::MessageTooLarge,
            format!(
                "the message has more than the {limit} bytes the server reads; send smaller \
                 batches, or let the operator raise limits.message_bytes"
            ),
        )
    }

    /// The stable word.
    #[must_use]
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// For the caller.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The field of the request, where one is to blame.
    #[must_use]
    pub fn blamed_field(&self) -> Option<&'static str> {
        self.field
    }

    /// For the log.
    #[must_use]
    pub fn internal_text(&self) -> Option<&str> {
        self.internal.as_deref()
    }

    /// When to try again, where that helps.
    #[must_use]
    pub fn retry_pause(&self) -> Option<Duration> {
        self.retry_after
    }

    /// Do these two say the same to the caller?
    #[must_use]
    pub fn same_answer(&self, other: &Self) -> bool {
        self.reason == other.reason && self.text == other.text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason.name(), self.text)?;
        match &self.internal {
            Some(internal) => write!(f, " ({internal})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

impl From<hsm::Error> for Error {
    fn from(e: hsm::Error) -> Self {
        const SOON: Duration = Duration::from_millis(50);
        const LATER: Duration = Duration::from_secs(2);
        let internal = e.to_string();
        match e.kind() {
            hsm::Kind::Busy => Self::new(
                Reason::Busy,
                "the HSM has more work than it can take; try again",
            )
            .retry_after(SOON),
            hsm::Kind::Late => Self::new(
                Reason::DeadlineExceeded,
                "the deadline passed before the HSM answered",
            ),
            hsm::Kind::Refused => Self::refused(),
            hsm::Kind::Gone | hsm::Kind::Stale | hsm::Kind::Blocked | hsm::Kind::NoSuchKey => {
                Self::new(
                    Reason::HsmUnavailable,
                    "the HSM cannot be used now; the operator has been told",
                )
                .retry_after(LATER)
            }
            // Our own words, with the mechanism named: it is for the caller to choose
            // another algorithm, or for the operator to buy another token.
            hsm::Kind::Unsupported => Self::new(Reason::TokenCannot, internal.clone()),
            hsm::Kind::Setup
            | hsm::Kind::Unsafe
            | hsm::Kind::OtherKey
            | hsm::Kind::Fault
            | hsm::Kind::BadSignature => {
                return Self::internal(internal);
            }
        }
        .because(internal)
    }
}

impl From<Unusable> for Error {
    fn from(why: Unusable) -> Self {
        match why {
            Unusable::NoSuchVersion(n) => Self::new(
                Reason::KeyVersionNotFound,
                format!("this key has no version {n} here"),
            ),
            Unusable::Move { number, from, to } => Self::new(
                Reason::KeyState,
                format!(
                    "version {number} of this key is {}, it cannot become {}",
                    from.name(),
                    to.name()
                ),
            ),
            Unusable::Use { is, wanted } => Self::new(
                Reason::KeyUse,
                format!("the key is for {}, not for {}", is.name(), wanted.name()),
            ),
            Unusable::Scheduled(n, at) => Self::new(
                Reason::KeyState,
                format!(
                    "version {n} of this key is scheduled for destruction on {}; who needs it must have that cancelled",
                    crate::clock::rfc3339(at)
                ),
            ),
            Unusable::BrownOut(n, until) => Self::new(
                Reason::KeyState,
                format!(
                    "version {n} of this key does nothing until {}, to see who still needs it; who does must have it cancelled, and rewrap",
                    crate::clock::rfc3339(until)
                ),
            ),
            Unusable::NotScheduled(n) => Self::new(
                Reason::KeyState,
                format!("version {n} of this key is not scheduled for destruction"),
            ),
            Unusable::NoneScheduled => Self::new(
                Reason::KeyState,
                "no version of this key is scheduled for destruction; there is nothing to cancel",
            ),
            Unusable::NoneMay(to) => Self::new(Reason::KeyState, none_may(to)),
            Unusable::InUse(n) => Self::new(
                Reason::KeyState,
                format!(
                    "version {n} of this key is active, and nothing in use is destroyed; deactivate or suspend it first"
                ),
            ),
            Unusable::BelowMinimum(n, minimum) => Self::new(
                Reason::KeyState,
                format!(
                    "version {n} of this key is below its minimum version {minimum}; an operator can lower that"
                ),
            ),
            Unusable::State(n, state) => Self::new(
                Reason::KeyState,
                format!("version {n} of this key is {}", state.name()),
            ),
        }
    }
}

/// The states a version would have to be in.
fn none_may(to: KeyState) -> &'static str {
    match to {
        KeyState::Active | KeyState::PreActivation => {
            "no version of this key is suspended or deactivated; there is nothing to resume"
        }
        KeyState::Suspended => {
            "no version of this key is active or deactivated; there is nothing to suspend"
        }
        KeyState::Deactivated => {
            "no version of this key is active or suspended; there is nothing to deactivate"
        }
        KeyState::Compromised => "every version of this key is compromised or destroyed already",
        KeyState::Destroyed => "every version of this key is destroyed already",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_unique_and_upper_case() {
        let mut names: Vec<_> = Reason::ALL.iter().map(|r| r.name()).collect();
        assert!(
            names
                .iter()
                .all(|n| n.bytes().all(|b| b.is_ascii_uppercase() || b == b'_'))
        );
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Reason::ALL.len());
    }

    #[test]
    fn a_caller_never_reads_what_the_token_said() {
        for kind in [
            hsm::Kind::Gone,
            hsm::Kind::Fault,
            hsm::Kind::OtherKey,
            hsm::Kind::Blocked,
            hsm::Kind::Refused,
        ] {
            let e = Error::from(hsm::Error::new(kind, "CKR_SECRET at /pin"));
            assert!(!e.text().contains("CKR"), "{}", e.text());
            assert!(
                kind == hsm::Kind::Refused || e.internal_text().unwrap().contains("CKR_SECRET")
            );
        }
    }
}
