//! Nodes that serve at the same time: who is there, how far each has read, and what is new.
//!
//! The rules are those of `docs/models/rotation.pml`. Every change that nodes must know
//! makes the epoch grow, in its own transaction; a node that has read up to an epoch and
//! serves by it acknowledges it. Leases end by the database's clock, which is one.

use std::{fmt, time::Duration};

use async_trait::async_trait;

use super::{Authorities, LogId, Result};
use crate::{
    authority::CertificateRef,
    key::{Key, KeyId, VersionNumber, hex_id},
};

/// One life of one process.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub [u8; 16]);
hex_id!(NodeId);

/// How far somebody has read. 0 is "nothing yet".
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Known {
    /// Every change up to this one.
    pub epoch: u64,
}

/// What changed since.
#[derive(Debug)]
pub struct News {
    /// Who takes this in knows all up to here.
    pub known: Known,
    /// Keys that changed, as they are now.
    pub keys: Vec<Key>,
    /// All issuers, profiles and CRLs; `None`: they are as they were.
    pub authorities: Option<Authorities>,
    /// Certificates that were revoked, or for a worse reason than before.
    pub revoked: Vec<CertificateRef>,
}

/// What came of a promotion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Promoted {
    /// The version is primary.
    Done,
    /// These have not acknowledged yet that the version exists.
    Waits(Vec<String>),
}

/// The nodes' part of a store. All writes are durable when they return.
#[async_trait]
pub trait NodeStore: Send + Sync {
    /// May other nodes serve from the same store? Else there are no leases and no epochs
    /// to acknowledge: one node knows what it did.
    fn is_shared(&self) -> bool;

    /// Takes a lease for somebody who knows nothing yet: nothing is promoted until it has
    /// read everything, or its lease has ended. Those who left long ago are forgotten.
    /// Another node that writes the same audit log has a lease: nothing is done, and that
    /// node is named.
    async fn join(
        &self,
        node: NodeId,
        name: &str,
        log: LogId,
        lease: Duration,
    ) -> Result<Option<String>>;

    /// The newest epoch.
    async fn epoch(&self) -> Result<u64>;

    /// Renews the lease of a node that serves by what it knows. False: the lease has ended,
    /// and the node has to join again.
    async fn renew(&self, node: NodeId, known: Known, lease: Duration) -> Result<bool>;

    /// Uses other connections from now on: the ones there are may hang.
    fn connect_anew(&self);

    /// Gives the lease back.
    async fn leave(&self, node: NodeId) -> Result<()>;

    /// What changed since, and the use of each version as it is stored.
    async fn news(&self, since: Known) -> Result<News>;

    /// One key as it is stored; `None`: there is none of this id.
    async fn key(&self, id: KeyId) -> Result<Option<Key>>;

    /// Makes a version primary and active, as soon as every node with a lease but `node`,
    /// which asks, has acknowledged it. `next` is the key after the change;
    /// [`StoreError::Conflict`](super::StoreError) when the stored revision is not the one
    /// before.
    async fn promote(&self, node: NodeId, next: &Key, number: VersionNumber) -> Result<Promoted>;

    /// Names of nodes with a lease that may still take an older version of a key for the
    /// primary one.
    async fn unaware(&self, id: KeyId) -> Result<Vec<String>>;

    /// Names of nodes with a lease, but `node`, that do not know the last change of a key yet.
    async fn behind(&self, node: NodeId, id: KeyId) -> Result<Vec<String>>;

    /// Is this node the one that does what one does for all: of those with a lease the one
    /// with the smallest id?
    async fn is_first(&self, node: NodeId) -> Result<bool>;
}
