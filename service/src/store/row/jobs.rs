//! Rows of the jobs' table.

use std::collections::BTreeMap;

use keywright_hsm::{Curve, KeyProof, KeyRef, KeySpec, ObjectId};
use sqlx::{FromRow, Row, any::AnyRow};

use super::{StoreError, corrupt, id, number, unsigned};
use crate::{
    job::{Census, Found, Job, JobId, JobKind, JobState},
    key::{KeyId, Revision, TenantId},
    store::Result,
};

rows! {
    struct JobRow {
        id: Vec<u8>,
        tenant_id: Vec<u8>,
        key_id: Vec<u8>,
        kind: String,
        subject: String,
        dry_run: i64,
        target: i64,
        state: String,
        not_before_ms: i64,
        rate: i64,
        counts: String,
        census: String,
        expected: i64,
        steps: i64,
        cursor: Vec<u8>,
        lease: i64,
        worker: String,
        lease_until_ms: i64,
        speed_milli: i64,
        stepped_ms: i64,
        created_by: String,
        created_ms: i64,
        ended_ms: i64,
        revision: i64,
    }
}

pub(in crate::store) fn counts_text(job: &Job) -> Result<String> {
    serde_json::to_string(&job.counts).map_err(|e| StoreError::Corrupt(e.to_string()))
}

pub(in crate::store) fn census_text(job: &Job) -> Result<String> {
    let versions: BTreeMap<u32, Found> = job
        .census
        .versions()
        .map(|(number, found)| (number.get(), found))
        .collect();
    serde_json::to_string(&versions).map_err(|e| StoreError::Corrupt(e.to_string()))
}

fn census(text: &str) -> Result<Census> {
    let versions: BTreeMap<u32, Found> =
        serde_json::from_str(text).map_err(|_| corrupt("census"))?;
    let versions: Vec<_> = versions
        .into_iter()
        .map(|(n, found)| Ok((number(i64::from(n))?, found)))
        .collect::<Result<_>>()?;
    Ok(Census::new(versions))
}

impl JobRow {
    pub(in crate::store) fn job(self) -> Result<Job> {
        Ok(Job {
            id: JobId(id(self.id, "job id")?),
            tenant: TenantId(id(self.tenant_id, "tenant id")?),
            key: KeyId(id(self.key_id, "key id")?),
            kind: JobKind::parse(&self.kind).ok_or_else(|| corrupt("job kind"))?,
            subject: self.subject,
            dry_run: self.dry_run != 0,
            target: number(self.target)?,
            state: JobState::parse(&self.state).ok_or_else(|| corrupt("job state"))?,
            not_before_ms: self.not_before_ms,
            rate: Some(u32::try_from(self.rate).map_err(|_| corrupt("job rate"))?)
                .filter(|rate| *rate != 0),
            counts: serde_json::from_str(&self.counts).map_err(|_| corrupt("job counts"))?,
            census: census(&self.census)?,
            expected: unsigned(self.expected)?,
            steps: unsigned(self.steps)?,
            cursor: self.cursor,
            lease: unsigned(self.lease)?,
            worker: self.worker,
            lease_until_ms: self.lease_until_ms,
            speed_milli: unsigned(self.speed_milli)?,
            stepped_ms: self.stepped_ms,
            created_by: self.created_by,
            created_ms: self.created_ms,
            ended_ms: Some(self.ended_ms).filter(|ms| *ms != 0),
            revision: Revision(unsigned(self.revision)?),
        })
    }
}

const SIGNER: KeySpec = KeySpec::Ec(Curve::P256);

/// `object id 16 | proof`.
pub(in crate::store) fn signer_bytes(key: &KeyRef) -> Vec<u8> {
    [key.object.0.as_slice(), &key.proof.to_bytes()].concat()
}

pub(in crate::store) fn signer(bytes: &[u8]) -> Result<KeyRef> {
    let (object, proof) = bytes.split_first_chunk().ok_or_else(|| corrupt("signer"))?;
    Ok(KeyRef {
        object: ObjectId(*object),
        spec: SIGNER,
        proof: KeyProof::from_bytes(SIGNER, proof).ok_or_else(|| corrupt("signer"))?,
    })
}
