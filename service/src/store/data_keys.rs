//! Wrapped data keys that the appliance keeps: their owner has nothing but an id.

use async_trait::async_trait;

use super::Result;
use crate::{
    envelope::{DataKeyId, Header, Kept},
    key::{KeyId, TenantId, VersionNumber},
};

/// The data keys' part of a store. All writes are durable when they return.
#[async_trait]
pub trait DataKeyStore: Send + Sync {
    /// Keeps new data keys, all or none.
    async fn keep(&self, data_keys: &[Kept]) -> Result<()>;

    /// Those of a tenant that are there, in no order.
    async fn kept(&self, tenant: TenantId, ids: &[DataKeyId]) -> Result<Vec<Kept>>;

    /// Some of a key, in the order of their ids, from behind one of them.
    async fn kept_under(
        &self,
        key: KeyId,
        after: Option<DataKeyId>,
        limit: u32,
    ) -> Result<Vec<Kept>>;

    /// How many of a key stand under each version.
    async fn kept_versions(&self, key: KeyId) -> Result<Vec<(VersionNumber, u64)>>;

    /// Exchanges headers, each where it is still the first of the two; says which were, in
    /// order.
    async fn move_kept(&self, moves: &[(Header, Header)]) -> Result<Vec<bool>>;

    /// Forgets data keys of a key for ever; says how many there were.
    async fn forget(&self, key: KeyId, ids: &[DataKeyId]) -> Result<u64>;
}
