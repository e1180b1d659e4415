//! How far the store has seen each audit log: whoever removes records must change both.

use std::{collections::BTreeMap, fmt};

/// Up to which audit record the store has seen a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Anchor {
    /// Sequence number of the record.
    pub seq: u64,
    /// Hash of its line.
    pub hash: [u8; 32],
}

/// One audit log: each node that shares a store writes its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogId(pub [u8; 16]);

impl LogId {
    /// The log that the appliance began with.
    pub const FIRST: Self = Self([0; 16]);
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// The anchor of each log.
pub type Anchors = BTreeMap<LogId, Anchor>;
