//! The jobs' table.

use async_trait::async_trait;
use keywright_hsm::KeyRef;
use sqlx::{Any, any::AnyArguments, query::Query};

use super::{SqlStore, fact, pki::one, taken, unavailable};
use crate::{
    job::{Job, JobId, JobKind},
    key::{KeyId, TenantId},
    store::{
        JobSearch, JobStore, Result, StoreError,
        row::{
            jobs::{JobRow, census_text, counts_text, signer, signer_bytes},
            signed,
        },
    },
};

const SIGNER: &str = "signer";

const JOB: &str = "SELECT id, tenant_id, key_id, kind, subject, dry_run, target, state,
    not_before_ms, rate, counts, census, expected, steps, cursor, lease, worker,
    lease_until_ms, speed_milli, stepped_ms, created_by, created_ms, ended_ms, revision
    FROM jobs WHERE ";

fn sql(condition: &str) -> sqlx::AssertSqlSafe<String> {
    // Always a constant of this file.
    sqlx::AssertSqlSafe(format!("{JOB}{condition}"))
}

/// What changes in the life of a job, as `$1` to `$14`.
fn bind_changing<'q>(
    query: Query<'q, Any, AnyArguments>,
    job: &Job,
) -> Result<Query<'q, Any, AnyArguments>> {
    Ok(query
        .bind(job.state.name().to_owned())
        .bind(counts_text(job)?)
        .bind(census_text(job)?)
        .bind(signed(job.expected))
        .bind(signed(job.steps))
        .bind(job.cursor.clone())
        .bind(signed(job.lease))
        .bind(job.worker.clone())
        .bind(job.lease_until_ms)
        .bind(signed(job.speed_milli))
        .bind(job.stepped_ms)
        .bind(job.ended_ms.unwrap_or(0))
        .bind(signed(job.revision.0))
        .bind(job.id.0.to_vec()))
}

#[async_trait]
impl JobStore for SqlStore {
    async fn add_job(&self, job: &Job) -> Result<()> {
        let query = sqlx::query(
            "INSERT INTO jobs (state, counts, census, expected, steps, cursor, lease, worker,
                 lease_until_ms, speed_milli, stepped_ms, ended_ms, revision, id, tenant_id,
                 key_id, kind, subject, dry_run, target, not_before_ms, rate, created_by,
                 created_ms)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16,
                 $17, $18, $19, $20, $21, $22, $23, $24)",
        );
        bind_changing(query, job)?
            .bind(job.tenant.0.to_vec())
            .bind(job.key.0.to_vec())
            .bind(job.kind.name().to_owned())
            .bind(job.subject.clone())
            .bind(i64::from(job.dry_run))
            .bind(i64::from(job.target.get()))
            .bind(job.not_before_ms)
            .bind(i64::from(job.rate.unwrap_or(0)))
            .bind(job.created_by.clone())
            .bind(job.created_ms)
            .execute(&self.pool.get())
            .await
            .map_err(taken)?;
        Ok(())
    }

    async fn change_job(&self, next: &Job) -> Result<()> {
        let query = sqlx::query(
            "UPDATE jobs SET state = $1, counts = $2, census = $3, expected = $4, steps = $5,
                 cursor = $6, lease = $7, worker = $8, lease_until_ms = $9, speed_milli = $10,
                 stepped_ms = $11, ended_ms = $12, revision = $13
             WHERE id = $14 AND revision = $15",
        );
        let changed = bind_changing(query, next)?
            .bind(signed(next.revision.0) - 1)
            .execute(&self.pool.get())
            .await
            .map_err(unavailable)?;
        one(changed.rows_affected())
    }

    async fn job(&self, tenant: TenantId, id: JobId) -> Result<Option<Job>> {
        let row: Option<JobRow> = sqlx::query_as(sql("tenant_id = $1 AND id = $2"))
            .bind(tenant.0.to_vec())
            .bind(id.0.to_vec())
            .fetch_optional(&self.pool.get())
            .await
            .map_err(unavailable)?;
        row.map(JobRow::job).transpose()
    }

    async fn open_job(&self, key: KeyId, subject: &str) -> Result<Option<Job>> {
        let row: Option<JobRow> =
            sqlx::query_as(sql("key_id = $1 AND subject = $2 AND ended_ms = 0"))
                .bind(key.0.to_vec())
                .bind(subject.to_owned())
                .fetch_optional(&self.pool.get())
                .await
                .map_err(unavailable)?;
        row.map(JobRow::job).transpose()
    }

    async fn jobs(&self, tenant: TenantId, what: &JobSearch) -> Result<Vec<Job>> {
        let (before_ms, before) = what.after.unwrap_or((i64::MAX, JobId([0; 16])));
        // An empty key is none, and every job has ended after -1.
        let rows: Vec<JobRow> = sqlx::query_as(sql(
            "tenant_id = $1 AND (created_ms < $2 OR (created_ms = $2 AND id < $3))
             AND (length($4) = 0 OR key_id = $4) AND ($5 = 0 OR ended_ms = 0)
             ORDER BY created_ms DESC, id DESC LIMIT $6",
        ))
        .bind(tenant.0.to_vec())
        .bind(before_ms)
        .bind(before.0.to_vec())
        .bind(what.key.map_or_else(Vec::new, |key| key.0.to_vec()))
        .bind(i64::from(what.open_only))
        .bind(i64::from(what.limit))
        .fetch_all(&self.pool.get())
        .await
        .map_err(unavailable)?;
        rows.into_iter().map(JobRow::job).collect()
    }

    async fn open_jobs(&self, kind: JobKind, limit: u32) -> Result<Vec<Job>> {
        let rows: Vec<JobRow> = sqlx::query_as(sql(
            "kind = $1 AND ended_ms = 0 ORDER BY created_ms, id LIMIT $2",
        ))
        .bind(kind.name().to_owned())
        .bind(i64::from(limit))
        .fetch_all(&self.pool.get())
        .await
        .map_err(unavailable)?;
        rows.into_iter().map(JobRow::job).collect()
    }

    async fn standing_jobs(&self, key: KeyId) -> Result<Vec<Job>> {
        let rows: Vec<JobRow> = sqlx::query_as(sql(
            "key_id = $1 AND (ended_ms = 0 OR (steps > 0 AND NOT EXISTS (
                 SELECT 1 FROM jobs AS newer WHERE newer.key_id = jobs.key_id
                 AND newer.subject = jobs.subject AND newer.state = 'completed'
                 AND newer.ended_ms > jobs.ended_ms)))
             ORDER BY created_ms DESC, id DESC",
        ))
        .bind(key.0.to_vec())
        .fetch_all(&self.pool.get())
        .await
        .map_err(unavailable)?;
        rows.into_iter().map(JobRow::job).collect()
    }

    async fn signer(&self) -> Result<Option<KeyRef>> {
        let mut tx = self.read().await?;
        let bytes = fact(&mut tx, SIGNER).await?;
        bytes.as_deref().map(signer).transpose()
    }

    async fn set_signer(&self, key: &KeyRef) -> Result<KeyRef> {
        sqlx::query("INSERT INTO facts (name, value) VALUES ($1, $2) ON CONFLICT DO NOTHING")
            .bind(SIGNER)
            .bind(signer_bytes(key))
            .execute(&self.pool.get())
            .await
            .map_err(unavailable)?;
        let stored = self.signer().await?;
        let stored = stored.ok_or_else(|| StoreError::Corrupt("signer".into()))?;
        Ok(stored)
    }
}
