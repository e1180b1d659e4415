//! Pause, resume or cancel a job.

use super::{Named, found, update};
use crate::{
    error::Result,
    job::{JobChange, JobId},
    ops::{App, Call},
    policy::act,
};

/// Changes where a job stands. Its worker hears of it with its next checkpoint.
///
/// # Errors
/// [`JobState`](crate::error::Reason::JobState) when it has ended or is so already,
/// permission, store.
pub async fn change_job(app: &App, call: &mut Call, id: JobId, change: JobChange) -> Result<Named> {
    let (job, permit) = found::<act::ChangeJob>(app, call, id).await?;
    let now_ms = call.now_ms;
    let job = update(app, job, |job| job.changed(change, now_ms).map(Some)).await?;
    call.entry
        .detail
        .insert("job_state", job.state.name().to_owned());
    Ok(Named::new(job, permit.key()))
}
