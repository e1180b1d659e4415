//! Who wants to know how long the token took. The service counts; this crate only
//! tells.

use std::time::{Duration, Instant};

use crate::Kind;

/// What a worker did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    /// A fresh DEK, wrapped.
    Mint,
    /// Wrapped DEKs opened.
    Unwrap,
    /// Wrapped DEKs moved to another key version and checked.
    Rewrap,
    /// Digests or messages signed.
    Sign,
    /// Messages authenticated.
    Mac,
    /// RSA-OAEP ciphertexts opened.
    Decrypt,
    /// Random bytes.
    Random,
    /// A key generated, read back, checked.
    Generate,
    /// A key destroyed.
    Destroy,
    /// Attributes read back.
    Describe,
    /// Objects listed.
    List,
    /// A data object put in place of older ones.
    Put,
    /// Health check.
    Check,
}

impl Op {
    /// Every operation.
    pub const ALL: [Self; 13] = [
        Self::Mint,
        Self::Unwrap,
        Self::Rewrap,
        Self::Sign,
        Self::Mac,
        Self::Decrypt,
        Self::Random,
        Self::Generate,
        Self::Destroy,
        Self::Describe,
        Self::List,
        Self::Put,
        Self::Check,
    ];

    /// A constant word for metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Mint => "mint",
            Self::Unwrap => "unwrap",
            Self::Rewrap => "rewrap",
            Self::Sign => "sign",
            Self::Mac => "mac",
            Self::Decrypt => "decrypt",
            Self::Random => "random",
            Self::Generate => "generate",
            Self::Destroy => "destroy",
            Self::Describe => "describe",
            Self::List => "list",
            Self::Put => "put",
            Self::Check => "check",
        }
    }

    /// May the operation be done a second time after the token was lost under it?
    /// A second generate would leave a key nobody asked for.
    #[must_use]
    pub fn repeatable(self) -> bool {
        match self {
            Self::Mint
            | Self::Unwrap
            | Self::Rewrap
            | Self::Sign
            | Self::Mac
            | Self::Decrypt
            | Self::Random
            | Self::Describe
            | Self::List
            | Self::Put
            | Self::Check => true,
            Self::Generate | Self::Destroy => false,
        }
    }
}

/// When things happened to one job. Jobs of one batch overlap, so durations alone would
/// add up to more than the time that passed.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// It was put into the queue.
    pub submitted: Instant,
    /// A worker took it.
    pub started: Instant,
    /// The worker was done with it.
    pub ended: Instant,
}

/// Told about every job; must not block.
pub trait Observer: Send + Sync {
    /// From the worker's thread. `queued`: from submission to start. `ran`: in the token, retry included.
    fn done(&self, op: Op, queued: Duration, ran: Duration, failed: Option<Kind>);
    /// A job was turned away because the queue was full.
    fn rejected(&self, op: Op);
    /// A job was repeated after a recovery.
    fn retried(&self, op: Op);
    /// A job, or some items of it, went on to another token.
    fn moved(&self, _: Op) {}
    /// A job was answered, or given up; called in the task that waited for it, so that
    /// whose it was need not be carried along.
    fn answered(&self, _: Times) {}
}

/// Tells nobody.
#[derive(Debug, Clone, Copy)]
pub struct Silent;

impl Observer for Silent {
    fn done(&self, _: Op, _: Duration, _: Duration, _: Option<Kind>) {}
    fn rejected(&self, _: Op) {}
    fn retried(&self, _: Op) {}
}
