//! What the store keeps of ACME: the operator's keys, accounts, orders, authorizations.

use async_trait::async_trait;

use super::Result;
use crate::{
    acme::{Account, AcmeId, AcmeKey, Authorization, Order},
    authority::CertificateRef,
    key::TenantId,
};

/// ACME's part of a store. All writes are durable when they return.
#[async_trait]
pub trait AcmeStore: Send + Sync {
    /// Stores a key of an operator.
    async fn add_acme_key(&self, key: &AcmeKey) -> Result<()>;

    /// A key of a tenant.
    async fn acme_key(&self, tenant: TenantId, kid: &AcmeId) -> Result<Option<AcmeKey>>;

    /// The profiles that keys of a tenant name, each once.
    async fn acme_profiles(&self, tenant: TenantId) -> Result<Vec<String>>;

    /// Stores an account. [`StoreError::Exists`](super::StoreError) when its key has one.
    async fn add_account(&self, account: &Account) -> Result<()>;

    /// Stores status, contacts and key of an account that is valid.
    /// [`StoreError::Conflict`](super::StoreError) when it is not,
    /// [`StoreError::Exists`](super::StoreError) when the key is another account's.
    async fn change_account(&self, next: &Account) -> Result<()>;

    /// An account of a tenant.
    async fn account(&self, tenant: TenantId, id: &AcmeId) -> Result<Option<Account>>;

    /// The account of a key.
    async fn account_by_key(&self, tenant: TenantId, thumbprint: &str) -> Result<Option<Account>>;

    /// Stores an order and its authorizations, all or nothing.
    /// [`StoreError::Exists`](super::StoreError) when another order that may still come
    /// to something, or did, replaces the same certificate.
    async fn add_order(&self, order: &Order, authorizations: &[Authorization]) -> Result<()>;

    /// Stores the outcome of an order that is open.
    /// [`StoreError::Conflict`](super::StoreError) when it is not.
    async fn decide_order(&self, next: &Order) -> Result<()>;

    /// An order of an account.
    async fn order(&self, account: &AcmeId, id: &AcmeId) -> Result<Option<Order>>;

    /// The newest orders of an account, at most so many.
    async fn orders(&self, account: &AcmeId, limit: u32) -> Result<Vec<AcmeId>>;

    /// The order that a certificate came from.
    async fn order_of(&self, certificate: &CertificateRef) -> Result<Option<Order>>;

    /// Stores status and challenges of an authorization.
    /// [`StoreError::Conflict`](super::StoreError) when its revision is not the one before.
    async fn change_authorization(&self, next: &Authorization) -> Result<()>;

    /// An authorization of an account.
    async fn authorization(&self, account: &AcmeId, id: &AcmeId) -> Result<Option<Authorization>>;

    /// Has the account a valid authorization for this name (as [`San`](keywright_pki::San)
    /// writes it) that has not expired?
    async fn has_control(&self, account: &AcmeId, name: &str, now_ms: i64) -> Result<bool>;
}
