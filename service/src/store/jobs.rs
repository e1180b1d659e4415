//! What the store keeps of jobs.

use async_trait::async_trait;
use keywright_hsm::KeyRef;

use super::Result;
use crate::{
    job::{Job, JobId, JobKind},
    key::{KeyId, TenantId},
};

/// Which jobs; what is `None` does not matter.
#[derive(Debug, Clone, Default)]
pub struct JobSearch {
    /// Of this key.
    pub key: Option<KeyId>,
    /// Only those that have not ended.
    pub open_only: bool,
    /// Only what comes after this one: time of its beginning, id.
    pub after: Option<(i64, JobId)>,
    /// At most so many.
    pub limit: u32,
}

/// The jobs' part of a store. All writes are durable when they return.
#[async_trait]
pub trait JobStore: Send + Sync {
    /// Stores a new job. [`StoreError::Exists`](super::StoreError) when there is an open
    /// one of this key over this subject.
    async fn add_job(&self, job: &Job) -> Result<()>;

    /// Stores everything that changes in the life of a job. `next` is the job after the
    /// change; [`StoreError::Conflict`](super::StoreError) when the stored revision is not
    /// the one before.
    async fn change_job(&self, next: &Job) -> Result<()>;

    /// A job of a tenant.
    async fn job(&self, tenant: TenantId, id: JobId) -> Result<Option<Job>>;

    /// The open job of a key over a subject.
    async fn open_job(&self, key: KeyId, subject: &str) -> Result<Option<Job>>;

    /// Jobs of a tenant, newest first.
    async fn jobs(&self, tenant: TenantId, what: &JobSearch) -> Result<Vec<Job>>;

    /// The oldest open jobs of a kind, of all tenants.
    async fn open_jobs(&self, kind: JobKind, limit: u32) -> Result<Vec<Job>>;

    /// What speaks about a key now: its open jobs, and of each subject the newest that
    /// went through everything, with those that were cancelled after it and took a step.
    async fn standing_jobs(&self, key: KeyId) -> Result<Vec<Job>>;

    /// The appliance's own key for signing; `None`: not made yet.
    async fn signer(&self) -> Result<Option<KeyRef>>;

    /// Stores that key, unless there is one. Gives the one that is stored now.
    async fn set_signer(&self, key: &KeyRef) -> Result<KeyRef>;
}
