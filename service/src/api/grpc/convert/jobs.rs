//! Jobs: wire words to domain words and back.

use bytes::Bytes;
use keywright_pki::spki_to_pem;
use keywright_proto::v1 as proto;

use super::{key_name, keys::page_size, optional_key};
use crate::{
    error::{Error, Reason, Result},
    job::{Census, Counts, Found, Job, JobChange, JobId, JobKind, JobState, Lease, Step},
    key::VersionNumber,
    ops::job::{self, Named},
};

fn wrong(field: &'static str, text: impl Into<String>) -> Error {
    Error::field(Reason::InvalidArgument, field, text)
}

pub(in super::super) fn job_id(text: &str) -> Result<JobId> {
    JobId::parse(text).ok_or_else(|| wrong("id", "a job has an id of 32 hexadecimal digits"))
}

fn lease(text: &str) -> Result<Lease> {
    Lease::parse(text).ok_or_else(|| wrong("lease", "not a lease of ours"))
}

/// For people to read: printable, on one line.
fn words(field: &'static str, text: String, most: usize) -> Result<String> {
    let length = text.chars().count();
    if length > most {
        return Err(wrong(field, format!("{length} characters; at most {most}")));
    }
    if text.chars().any(char::is_control) {
        return Err(wrong(field, "control characters are not allowed"));
    }
    Ok(text)
}

pub(in super::super) fn create_job(request: proto::CreateJobRequest) -> Result<job::CreateJob> {
    let kind = match proto::JobKind::try_from(request.kind) {
        Ok(proto::JobKind::Table) => JobKind::Table,
        Ok(proto::JobKind::Files) => JobKind::Files,
        Ok(proto::JobKind::Lines) => JobKind::Lines,
        Ok(proto::JobKind::Kept) => JobKind::Kept,
        Ok(proto::JobKind::Unspecified) | Err(_) => {
            return Err(wrong("kind", "choose table, files, lines or kept"));
        }
    };
    let subject = match (kind, request.subject.is_empty()) {
        (JobKind::Kept, true) => Job::KEPT.to_owned(),
        (JobKind::Kept, false) => {
            let text = "leave it empty: there is one place where data keys are kept";
            return Err(wrong("subject", text));
        }
        (_, true) => return Err(wrong("subject", "say what the job goes over")),
        (_, false) if request.subject == Job::KEPT => {
            return Err(wrong("subject", "this is the name of our own place"));
        }
        (_, false) => words("subject", request.subject, Job::MAX_SUBJECT)?,
    };
    Ok(job::CreateJob {
        key: key_name("key", &request.key)?,
        kind,
        subject,
        dry_run: request.dry_run,
        rate: Some(request.rate_per_second).filter(|rate| *rate != 0),
    })
}

pub(in super::super) fn list_jobs(request: &proto::ListJobsRequest) -> Result<job::ListJobs> {
    let after = match request.page_token.as_str() {
        "" => None,
        token => Some(after(token).ok_or_else(|| wrong("page_token", "not a token of ours"))?),
    };
    Ok(job::ListJobs {
        key: optional_key(&request.key)?,
        open_only: request.open_only,
        after,
        limit: page_size(request.page_size)?,
    })
}

fn after(token: &str) -> Option<(i64, JobId)> {
    let (began, id) = token.split_once('.')?;
    Some((began.parse().ok()?, JobId::parse(id)?))
}

pub(in super::super) fn job_page(page: job::JobPage, now_ms: i64) -> proto::ListJobsResponse {
    let next = page.next.map(|(began, id)| format!("{began}.{id}"));
    proto::ListJobsResponse {
        jobs: page.jobs.iter().map(|named| job(named, now_ms)).collect(),
        next_page_token: next.unwrap_or_default(),
    }
}

pub(in super::super) fn job_change(change: i32) -> Result<JobChange> {
    match proto::JobChange::try_from(change) {
        Ok(proto::JobChange::Pause) => Ok(JobChange::Pause),
        Ok(proto::JobChange::Resume) => Ok(JobChange::Resume),
        Ok(proto::JobChange::Cancel) => Ok(JobChange::Cancel),
        Ok(proto::JobChange::Unspecified) | Err(_) => {
            Err(wrong("change", "choose pause, resume or cancel"))
        }
    }
}

pub(in super::super) fn lease_job(request: proto::LeaseJobRequest) -> Result<job::LeaseJob> {
    Ok(job::LeaseJob {
        id: job_id(&request.id)?,
        worker: words("worker", request.worker, Job::MAX_WORKER)?,
        lease: match request.lease.as_str() {
            "" => None,
            text => Some(lease(text)?),
        },
        take_over: request.take_over,
    })
}

pub(in super::super) fn checkpoint(request: proto::CheckpointJobRequest) -> Result<job::Told> {
    if request.cursor.len() > Job::MAX_CURSOR_BYTES {
        return Err(wrong(
            "cursor",
            format!(
                "{} bytes; at most {}",
                request.cursor.len(),
                Job::MAX_CURSOR_BYTES
            ),
        ));
    }
    let counts = request.counts.unwrap_or_default();
    Ok(job::Told {
        id: job_id(&request.id)?,
        lease: lease(&request.lease)?,
        step: Step {
            number: request.step,
            cursor: request.cursor.to_vec(),
            counts: Counts {
                seen: counts.seen,
                moved: counts.moved,
                current: counts.current,
                empty: counts.empty,
                foreign: counts.foreign,
                other_key: counts.other_key,
                left: counts.left,
            },
            census: census(&request.census)?,
            expected: Some(request.expected).filter(|n| *n != 0),
            completed: request.completed,
        },
    })
}

fn census(versions: &[proto::VersionCount]) -> Result<Census> {
    if versions.len() > Census::MAX_VERSIONS {
        return Err(wrong(
            "census",
            format!(
                "{} versions; at most {}",
                versions.len(),
                Census::MAX_VERSIONS
            ),
        ));
    }
    let one = |v: &proto::VersionCount| {
        let number = VersionNumber::new(v.version);
        let number = number.ok_or_else(|| wrong("census", "versions begin at 1"))?;
        let (found, left) = (v.found, v.left);
        Ok((number, Found { found, left }))
    };
    Ok(Census::new(
        versions.iter().map(one).collect::<Result<Vec<_>>>()?,
    ))
}

pub(in super::super) fn job(named: &Named, now_ms: i64) -> proto::Job {
    let Named { job, key } = named;
    let kind = match job.kind {
        JobKind::Table => proto::JobKind::Table,
        JobKind::Files => proto::JobKind::Files,
        JobKind::Lines => proto::JobKind::Lines,
        JobKind::Kept => proto::JobKind::Kept,
    };
    let Counts {
        seen,
        moved,
        current,
        empty,
        foreign,
        other_key,
        left,
    } = job.counts;
    let version = |(number, found): (VersionNumber, Found)| proto::VersionCount {
        version: number.get(),
        found: found.found,
        left: found.left,
    };
    let (items_per_second, eta_seconds) = pace(job, now_ms);
    proto::Job {
        id: job.id.to_string(),
        key: key.to_string(),
        kind: kind.into(),
        subject: job.subject.clone(),
        dry_run: job.dry_run,
        target_version: job.target.get(),
        state: state(job, now_ms).into(),
        not_before_unix_ms: job.not_before_ms,
        counts: Some(proto::JobCounts {
            seen,
            moved,
            current,
            empty,
            foreign,
            other_key,
            left,
        }),
        census: job.census.versions().map(version).collect(),
        expected: job.expected,
        rate_per_second: job.rate.unwrap_or(0),
        steps: job.steps,
        worker: job.worker.clone(),
        lease_until_unix_ms: job.lease_until_ms,
        created_by: job.created_by.clone(),
        created_unix_ms: job.created_ms,
        ended_unix_ms: job.ended_ms.unwrap_or(0),
        revision: job.revision.0,
        items_per_second,
        eta_seconds,
    }
}

fn state(job: &Job, now_ms: i64) -> proto::JobState {
    match job.state {
        JobState::Open if now_ms < job.not_before_ms => proto::JobState::Waiting,
        JobState::Open => proto::JobState::Open,
        JobState::Paused => proto::JobState::Paused,
        JobState::Cancelled => proto::JobState::Cancelled,
        JobState::Completed => proto::JobState::Completed,
    }
}

/// Items a second, and seconds to the end. Of a job that nobody works on now, neither.
fn pace(job: &Job, now_ms: i64) -> (f64, u64) {
    let worked_on = job.state == JobState::Open && now_ms < job.lease_until_ms;
    if !worked_on || job.speed_milli == 0 {
        return (0.0, 0);
    }
    let left = job.expected.saturating_sub(job.counts.seen);
    #[expect(clippy::cast_precision_loss, reason = "for people, and far below 2^52")]
    let per_second = job.speed_milli as f64 / 1000.0;
    (
        per_second,
        left.saturating_mul(1000).div_ceil(job.speed_milli),
    )
}

pub(in super::super) fn report(report: job::Report) -> proto::GetJobReportResponse {
    proto::GetJobReportResponse {
        report: Bytes::from(report.text),
        signature: Bytes::from(report.signature),
        public_key_pem: spki_to_pem(report.public_key.spki()),
    }
}
