//! Errors by who must act. The text names the PKCS#11 function and return value
//! for the operator; nothing secret is ever part of it.

use std::fmt;

use crate::ObjectId;

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Who must act.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The caller, later: the queue is full or the token has no session left.
    Busy,
    /// The caller: the deadline passed before the token answered.
    Late,
    /// The caller: these bytes were not made by this key with this AAD.
    Refused,
    /// The operator: the token does not show this object.
    NoSuchKey,
    /// The operator: this token cannot do that.
    Unsupported,
    /// The operator: the token shows another key under the id of this one. It is not used
    /// there.
    OtherKey,
    /// Nobody yet: a handle, session or login was lost and can be had again.
    Stale,
    /// The operator: the token cannot be reached.
    Gone,
    /// The operator: the PIN was refused or is locked; never retried by itself.
    Blocked,
    /// The operator, at start: path, label, serial, PIN source.
    Setup,
    /// The operator: the module would let a key out and is not used.
    Unsafe,
    /// The vendor or us: the token answered something it must not answer.
    Fault,
    /// The operator: the token made a signature that its public key does not verify. Use
    /// the key no more before it is known why.
    BadSignature,
}

impl Kind {
    /// A constant word for metrics and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::Late => "late",
            Self::Refused => "refused",
            Self::NoSuchKey => "no_such_key",
            Self::Unsupported => "unsupported",
            Self::OtherKey => "other_key",
            Self::Stale => "stale",
            Self::Gone => "gone",
            Self::Blocked => "blocked",
            Self::Setup => "setup",
            Self::Unsafe => "unsafe",
            Self::Fault => "fault",
            Self::BadSignature => "bad_signature",
        }
    }
}

/// What may bring the token back: the rungs of the recovery ladder, lowest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Remedy {
    /// Nothing to recover.
    None,
    /// L1: this worker opens a new session.
    Session,
    /// L2: all sessions closed, logged in again, every cached handle dropped.
    Login,
    /// L3: C_Finalize, C_Initialize, slot looked up again, then L2.
    Module,
}

/// An error of the token or of the way to it.
#[derive(Debug, Clone, thiserror::Error)]
pub struct Error {
    kind: Kind,
    remedy: Remedy,
    key: Option<ObjectId>,
    text: String,
}

impl Error {
    /// An error nothing can be recovered from by opening or logging in again.
    #[must_use]
    pub fn new(kind: Kind, text: impl Into<String>) -> Self {
        Self {
            kind,
            remedy: Remedy::None,
            key: None,
            text: text.into(),
        }
    }

    /// The same error, of one key.
    #[must_use]
    pub fn of_key(mut self, key: ObjectId) -> Self {
        self.key = Some(key);
        self
    }

    /// The same error with the rung of the ladder to start from.
    #[must_use]
    pub fn with_remedy(mut self, remedy: Remedy) -> Self {
        self.remedy = remedy;
        self
    }

    /// Who must act.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Which key it is about, where that is known.
    #[must_use]
    pub fn key(&self) -> Option<ObjectId> {
        self.key
    }

    /// Could another token that holds the same keys do it?
    pub(crate) fn is_of_this_token(&self) -> bool {
        let lost = self.remedy != Remedy::None;
        lost || matches!(
            self.kind,
            Kind::Gone
                | Kind::Stale
                | Kind::Blocked
                | Kind::Busy
                | Kind::NoSuchKey
                | Kind::OtherKey
                | Kind::Unsupported
                | Kind::Fault
        )
    }

    /// What may help.
    #[must_use]
    pub fn remedy(&self) -> Remedy {
        self.remedy
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
