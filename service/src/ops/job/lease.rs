//! Take the right to work on a job, or keep it.

use super::{Named, found, ms, update, worker_of};
use crate::{
    error::{Error, Reason, Result},
    job::{Job, JobId, JobKind, Lease},
    ops::{App, Call},
    policy::act,
};

/// Who wants to work.
#[derive(Debug)]
pub struct LeaseJob {
    /// On which job.
    pub id: JobId,
    /// What the worker calls itself.
    pub worker: String,
    /// The lease to be renewed; `None`: a new one.
    pub lease: Option<Lease>,
    /// Take it also from a worker that has it.
    pub take_over: bool,
}

/// A lease.
#[derive(Debug)]
pub struct Leased {
    /// The job, and where to go on.
    pub named: Named,
    /// The right.
    pub lease: Lease,
}

/// Takes or renews a lease.
///
/// # Errors
/// [`Reason::JobState`] when the job waits, is paused or has ended, [`Reason::JobLeased`]
/// when somebody else has it, [`Reason::JobLeaseLost`] when somebody else took it,
/// permission, store.
pub async fn lease_job(app: &App, call: &mut Call, request: LeaseJob) -> Result<Leased> {
    let (job, permit) = found::<act::RunJob>(app, call, request.id).await?;
    let (now_ms, lease_ms) = (call.now_ms, ms(app.limits.job_lease_ms));
    let worker = worker_of(call, &request.worker);
    if job.kind == JobKind::Kept {
        let text = "the appliance works on this job by itself; watch it";
        return Err(Error::new(Reason::JobState, text));
    }
    let job = match request.lease {
        Some(lease) => {
            belongs(lease, request.id)?;
            update(app, job, |job| {
                job.renewed(lease, now_ms, lease_ms).map(Some)
            })
            .await?
        }
        None => {
            everybody_knows(app, &job).await?;
            update(app, job, |job| {
                job.leased(worker.clone(), request.take_over, now_ms, lease_ms)
                    .map(Some)
            })
            .await?
        }
    };
    let lease = Lease {
        job: job.id,
        number: job.lease,
    };
    call.entry.detail.insert("lease", job.lease.to_string());
    Ok(Leased {
        named: Named::new(job, permit.key()),
        lease,
    })
}

/// A scan begins when every node protects by the primary version, or what an old one still
/// protects would not be found.
pub(super) async fn everybody_knows(app: &App, job: &Job) -> Result<()> {
    let nodes = app.store.unaware(job.key).await?;
    if nodes.is_empty() || job.dry_run {
        return Ok(());
    }
    Err(Error::new(
        Reason::JobState,
        format!(
            "the job waits until these nodes have heard which version is primary, or are gone: {}; try again in a few seconds",
            nodes.join(", ")
        ),
    ))
}

/// A lease, and with it a checkpoint, is of one job.
pub(super) fn belongs(lease: Lease, job: JobId) -> Result<()> {
    if lease.job == job {
        return Ok(());
    }
    Err(Error::field(
        Reason::InvalidArgument,
        "lease",
        format!("this lease is of job {}, not of {job}", lease.job),
    ))
}
