//! A wrapped data key that the appliance keeps.

use std::fmt;

use super::Header;
use crate::key::{TenantId, hex_id};

/// Id of a kept data key: the salt of its header.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DataKeyId(pub [u8; 16]);
hex_id!(DataKeyId);

/// A data key that is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// Whose.
    pub tenant: TenantId,
    /// Its wrapped form, which names key, version and id.
    pub header: Header,
    /// When it was made, in milliseconds since the epoch.
    pub created_ms: i64,
}

impl Kept {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> DataKeyId {
        DataKeyId(self.header.salt())
    }
}
