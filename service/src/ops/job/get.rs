//! Read about a job, once or for as long as it goes on.

use super::{Named, found};
use crate::{
    error::{Error, Reason, Result},
    job::{Job, JobId},
    ops::{App, Call},
    policy::act,
};

/// The job as it is now.
///
/// # Errors
/// [`Reason::JobNotFound`], permission, store.
pub async fn get_job(app: &App, call: &mut Call, id: JobId) -> Result<Named> {
    let (job, permit) = found::<act::GetJob>(app, call, id).await?;
    Ok(Named::new(job, permit.key()))
}

/// The same for somebody who stays: the right to look again while it goes on.
///
/// # Errors
/// As for [`get_job`], and [`Reason::Busy`] when too many watch.
pub async fn watch_job(
    app: &App,
    call: &mut Call,
    id: JobId,
) -> Result<(Named, tokio::sync::OwnedSemaphorePermit)> {
    let (job, permit) = found::<act::GetJob>(app, call, id).await?;
    let place = std::sync::Arc::clone(&app.watchers).try_acquire_owned();
    let place = place.map_err(|_| {
        Error::new(
            Reason::Busy,
            "too many jobs are watched at once; ask for the job now and then instead",
        )
    })?;
    Ok((Named::new(job, permit.key()), place))
}

/// How a job that is watched is by now.
///
/// # Errors
/// Store, [`Reason::Stopping`].
pub async fn look_again(app: &App, seen: &Job) -> Result<Job> {
    if app.watchers.is_closed() {
        return Err(Error::new(Reason::Stopping, "the server is stopping"));
    }
    let job = app.store.job(seen.tenant, seen.id).await?;
    job.ok_or_else(|| Error::internal("a job is gone"))
}
