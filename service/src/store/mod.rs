//! Where key metadata lives. It holds no key material: names, states, CKA_IDs, proofs
//! and counters. The encrypt and decrypt paths do not touch it.
//!
//! Changes go by compare-and-swap on the [`Revision`](crate::key::Revision) of a key,
//! so that two nodes, or two requests, cannot overwrite each other.

mod acme;
#[cfg(test)]
mod conformance;
mod pki;
mod row;
mod sqlite;

use async_trait::async_trait;
use keywright_hsm::{KeyRef, ObjectId};

pub use acme::AcmeStore;
pub use pki::{Authorities, KeyStanding, PkiStore, Revoked, Search, Write, Written};
pub use sqlite::SqliteStore;

use crate::{
    error::{Error, Reason},
    key::{Key, KeyId, KeyName, KeyVersion, TenantId, VersionNumber},
};

/// A tenant's permanent id and its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    /// Enters every envelope; never changes.
    pub id: TenantId,
    /// As in the configuration.
    pub name: String,
}

/// What is about to be generated in the HSM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intent {
    /// CKA_ID it will have.
    pub object: ObjectId,
    /// Whose key.
    pub tenant: TenantId,
    /// Which key.
    pub key: KeyId,
    /// Its name, for the report.
    pub name: KeyName,
    /// Which version.
    pub number: VersionNumber,
    /// Milliseconds since the epoch.
    pub created_ms: i64,
}

/// When a version was last used; 0 is never.
#[derive(Debug, Clone, Copy)]
pub struct Use {
    /// Of which key.
    pub key: KeyId,
    /// Which version.
    pub number: VersionNumber,
    /// Last time it protected, in milliseconds since the epoch.
    pub protected_ms: i64,
    /// Last time it processed.
    pub processed_ms: i64,
}

/// Up to which audit record the store has seen the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Anchor {
    /// Sequence number of the record.
    pub seq: u64,
    /// Hash of its line.
    pub hash: [u8; 32],
}

/// Everything, read at start.
#[derive(Debug, Default)]
pub struct Contents {
    /// All tenants.
    pub tenants: Vec<Tenant>,
    /// All keys with their versions.
    pub keys: Vec<Key>,
    /// Generations that were begun and not finished.
    pub intents: Vec<Intent>,
    /// The appliance's own key on the token.
    pub canary: Option<KeyRef>,
    /// How far the audit log was.
    pub anchor: Option<Anchor>,
}

/// Why the store did not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The name or id is taken.
    #[error("exists already")]
    Exists,
    /// Somebody else changed the row in between.
    #[error("changed in between")]
    Conflict,
    /// Written by a release we do not know.
    #[error(
        "the store was written by a newer Keywright (migration {0}); start that release, or restore a backup made by this one"
    )]
    Newer(i64),
    /// A row that we would never have written.
    #[error("a stored row cannot be read: {0}")]
    Corrupt(String),
    /// Database or disk.
    #[error("the store cannot be used: {0}")]
    Unavailable(String),
}

impl From<StoreError> for Error {
    fn from(e: StoreError) -> Self {
        match e {
            StoreError::Exists => Self::new(Reason::KeyExists, "a key of this name exists already"),
            StoreError::Conflict => Self::new(
                Reason::Conflict,
                "the key was changed in between; read it and try again",
            ),
            StoreError::Newer(_) | StoreError::Corrupt(_) | StoreError::Unavailable(_) => {
                Self::new(
                    Reason::StoreUnavailable,
                    "the store cannot be used now; the operator has been told",
                )
                .because(e.to_string())
            }
        }
    }
}

/// Result of the store.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// A store of key metadata. All writes are durable when they return.
#[async_trait]
pub trait Store: PkiStore + AcmeStore {
    /// Reads everything.
    async fn load(&self) -> Result<Contents>;

    /// Stores a tenant. [`StoreError::Exists`] when name or id is taken.
    async fn add_tenant(&self, tenant: &Tenant) -> Result<()>;

    /// Remembers what is about to be generated.
    async fn begin(&self, intent: &Intent) -> Result<()>;

    /// Forgets an intent whose generation certainly made nothing.
    async fn abandon(&self, object: ObjectId) -> Result<()>;

    /// Stores a new key with its first version and clears that version's intent, all
    /// or nothing. [`StoreError::Exists`] when the name is taken.
    async fn create_key(&self, key: &Key) -> Result<()>;

    /// Stores a new version, makes it primary and clears its intent, all or nothing.
    /// `next` is the key after the change; [`StoreError::Conflict`] when the stored
    /// revision is not the one before.
    async fn add_version(&self, next: &Key, version: &KeyVersion) -> Result<()>;

    /// Stores labels, rules, minimum version, and state and time of destruction of each
    /// version, all or nothing. `next` is the key after the change;
    /// [`StoreError::Conflict`] as for `add_version`.
    async fn change_key(&self, next: &Key) -> Result<()>;

    /// Stores when versions were last used.
    async fn set_last_used(&self, uses: &[Use]) -> Result<()>;

    /// Reserves `block` more wraps for a version and returns the new total; `None` when
    /// that would pass `limit`.
    async fn reserve_wraps(
        &self,
        key: KeyId,
        number: VersionNumber,
        block: u64,
        limit: u64,
    ) -> Result<Option<u64>>;

    /// Stores the appliance's own key, once.
    async fn set_canary(&self, key: &KeyRef) -> Result<()>;

    /// Everything into the one file that is backed up; no call follows.
    async fn close(&self) -> Result<()>;

    /// Moves the audit anchor forward.
    async fn set_anchor(&self, anchor: Anchor) -> Result<()>;
}
