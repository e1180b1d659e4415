//! One step of a job is done.

use super::{Named, found, lease::belongs, ms, update};
use crate::{
    error::Result,
    job::{JobId, Lease, Step},
    ops::{App, Call},
    policy::act,
};

/// What a worker tells.
#[derive(Debug)]
pub struct Told {
    /// Of which job.
    pub id: JobId,
    /// By whose right.
    pub lease: Lease,
    /// What was done.
    pub step: Step,
}

/// Counts a step, once, and renews the lease. A job that has ended counts nothing any more
/// and answers with how it ended.
///
/// # Errors
/// [`JobLeaseLost`](crate::error::Reason::JobLeaseLost) when somebody else took the job,
/// [`Conflict`](crate::error::Reason::Conflict) when the step is not the next one,
/// permission, store.
pub async fn checkpoint_job(app: &App, call: &mut Call, told: Told) -> Result<Named> {
    let (job, permit) = found::<act::RunJob>(app, call, told.id).await?;
    let Told { lease, step, .. } = told;
    belongs(lease, job.id)?;
    call.entry.detail.insert("step", step.number.to_string());
    let (now_ms, lease_ms) = (call.now_ms, ms(app.limits.job_lease_ms));
    let job = update(app, job, |job| {
        job.stepped(lease, step.clone(), now_ms, lease_ms)
    })
    .await?;
    if !job.open() {
        call.entry
            .detail
            .insert("job_state", job.state.name().to_owned());
    }
    Ok(Named::new(job, permit.key()))
}
