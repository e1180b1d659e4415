//! Where key metadata lives. It holds no key material: names, states, CKA_IDs, proofs
//! and counters. The encrypt and decrypt paths do not touch it.
//!
//! Changes go by compare-and-swap on the [`Revision`](crate::key::Revision) of a key,
//! so that two nodes, or two requests, cannot overwrite each other.

mod acme;
mod anchor;
#[cfg(test)]
mod conformance;
mod data_keys;
mod jobs;
mod nodes;
mod pki;
mod postgres;
mod row;
mod seal;
#[cfg(test)]
#[path = "../../tests/common/postgres.rs"]
pub(crate) mod server;
mod sql;
mod sqlite;

use async_trait::async_trait;
use keywright_hsm::{KeyRef, ObjectId, WrappedDek};

pub use acme::AcmeStore;
pub use anchor::{Anchor, Anchors, LogId};
pub use data_keys::DataKeyStore;
pub use jobs::{JobSearch, JobStore};
pub use nodes::{Known, News, NodeId, NodeStore, Promoted};
pub use pki::{Authorities, KeyStanding, PkiStore, Revoked, Search, Write, Written};
pub use postgres::{PostgresStore, PostgresUrl};
pub use seal::Sealer;
pub use sql::{Counted, SqlStore, TransferError, compare, copy};
pub use sqlite::SqliteStore;

use crate::{
    error::{Error, Reason},
    key::{Key, KeyId, KeyName, KeyVersion, TenantId, UseTimes, VersionNumber},
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
    /// When.
    pub times: UseTimes,
    /// Bytes it has sealed since the last time.
    pub more_bytes: u64,
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
    /// The key that rows are sealed with, under the appliance's own key.
    pub rows_key: Option<WrappedDek>,
    /// How far the audit logs were.
    pub anchors: Anchors,
    /// All changes up to here are in it.
    pub known: Known,
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
    /// Others changed the same at the same time, again and again.
    #[error("others kept changing the same in the store; try again")]
    Contended,
    /// Written by a release we do not know.
    #[error(
        "the store was written by a newer Keywright (migration {0}); start that release, or restore a backup made by this one"
    )]
    Newer(i64),
    /// A row that carries no seal of ours.
    #[error(
        "the stored row of {0} is not as this appliance wrote it: somebody else changed the database. Restore a backup of it, or look at the row and accept the store as it is: keywrightd recover-store"
    )]
    Edited(String),
    /// It was further before.
    #[error(
        "the database is at change {0}, and was at {1}: it was restored or rolled back. Stop all nodes; then start them on a newer one, or accept what is lost: keywrightd recover-store"
    )]
    Older(u64, u64),
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
            StoreError::Contended
            | StoreError::Newer(_)
            | StoreError::Edited(_)
            | StoreError::Older(..)
            | StoreError::Corrupt(_)
            | StoreError::Unavailable(_) => Self::new(
                Reason::StoreUnavailable,
                "the store cannot be used now; the operator has been told",
            )
            .because(e.to_string()),
        }
    }
}

/// The rows that carry a seal, as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedState {
    /// Those that somebody else wrote.
    pub others: Vec<String>,
    /// SHA-256 over all of them.
    pub digest: [u8; 32],
}

/// Result of the store.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// A store of key metadata. All writes are durable when they return.
#[async_trait]
pub trait Store: PkiStore + AcmeStore + JobStore + NodeStore + DataKeyStore {
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

    /// Stores a new version, which is not primary yet, and clears its intent, all or
    /// nothing. `next` is the key after the change; [`StoreError::Conflict`] when the
    /// stored revision is not the one before.
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

    /// From now on rows are sealed, and rows that are read must be.
    fn seal_with(&self, sealer: Sealer);

    /// Seals all rows as they are, and names those that were not sealed so before. With a
    /// key it is stored as that which rows are sealed with, all or nothing;
    /// [`StoreError::Exists`] when there is one.
    async fn seal_all(&self, sealer: &Sealer, key: Option<&WrappedDek>) -> Result<Vec<String>>;

    /// As [`seal_all`](Self::seal_all), if the rows are in that state;
    /// [`StoreError::Conflict`] when they are not.
    async fn seal_state(
        &self,
        sealer: &Sealer,
        key: Option<&WrappedDek>,
        state: [u8; 32],
    ) -> Result<Vec<String>>;

    /// What [`seal_all`](Self::seal_all) would name, and in which state the rows are. Changes
    /// nothing.
    async fn sealed_state(&self, sealer: Option<&Sealer>) -> Result<SealedState>;

    /// Everything into the one file that is backed up; no call follows.
    async fn close(&self) -> Result<()>;

    /// Moves the anchor of an audit log forward.
    async fn set_anchor(&self, log: LogId, anchor: Anchor) -> Result<()>;
}
