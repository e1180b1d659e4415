//! Jobs: what all operations on them have in common.
//!
//! Jobs stand in the store and nowhere else, so that every node sees the same. A change
//! goes by compare-and-swap on the revision; who is too late looks again.

mod change;
mod checkpoint;
mod create;
mod get;
mod kept;
mod lease;
mod list;
mod report;

pub use change::change_job;
pub use checkpoint::{Told, checkpoint_job};
pub use create::{CreateJob, create_job};
pub use get::{get_job, look_again, watch_job};
pub use kept::work_on_kept;
pub use lease::{LeaseJob, Leased, lease_job};
pub use list::{JobPage, ListJobs, list_jobs};
pub use report::{Report, get_job_report};

use super::{App, Call};
use crate::{
    clock::rfc3339,
    error::{Error, Reason, Result},
    job::{Job, JobId, JobState, NotNow},
    key::{Key, KeyName},
    policy::{KeyAction, Permit},
    store::StoreError,
};

/// A job and the name of its key.
#[derive(Debug, Clone)]
pub struct Named {
    /// The job.
    pub job: Job,
    /// What its key is called.
    pub key: KeyName,
}

impl Named {
    fn new(job: Job, key: &Key) -> Self {
        Self {
            job,
            key: key.name.clone(),
        }
    }
}

/// A job, and a permit for its key: the look-up is the authorisation.
async fn found<A: KeyAction>(app: &App, call: &mut Call, id: JobId) -> Result<(Job, Permit<A>)> {
    call.entry.detail.insert("job", id.to_string());
    let no_such = || Error::new(Reason::JobNotFound, "no such job, or you may not see it");
    let tenant = call.caller.tenant;
    let Some(job) = app.store.job(tenant, id).await? else {
        return Err(no_such());
    };
    let permit = call.open_id::<A>(app, job.key).map_err(|e| {
        if e.reason() == Reason::KeyNotFound {
            no_such()
        } else {
            e
        }
    })?;
    call.note(permit.key(), None);
    Ok((job, permit))
}

/// How often a change looks again: workers of one job do not come in crowds.
const LOOKS: usize = 8;

/// Stores the next picture of a job; `None` leaves it as it is.
async fn update(
    app: &App,
    mut job: Job,
    next: impl Fn(&Job) -> Result<Option<Job>, NotNow>,
) -> Result<Job> {
    let (tenant, id) = (job.tenant, job.id);
    for _ in 0..LOOKS {
        let Some(changed) = next(&job)? else {
            return Ok(job);
        };
        match app.store.change_job(&changed).await {
            Ok(()) => return Ok(changed),
            Err(StoreError::Conflict) => {}
            Err(e) => return Err(e.into()),
        }
        let again = app.store.job(tenant, id).await?;
        job = again.ok_or_else(|| Error::internal("a job is gone"))?;
    }
    Err(StoreError::Conflict.into())
}

impl From<NotNow> for Error {
    fn from(why: NotNow) -> Self {
        match why {
            NotNow::Waits(until) => Self::new(
                Reason::JobState,
                format!(
                    "the job waits until {}: what was protected under an old version may still be on its way",
                    rfc3339(until)
                ),
            ),
            NotNow::State(state) => {
                let text = match state {
                    JobState::Open => "the job is open already",
                    JobState::Paused => "the job is paused; resume it first",
                    JobState::Cancelled => "the job was cancelled; begin another one",
                    JobState::Completed => "the job is completed; begin another one",
                };
                Self::new(Reason::JobState, text)
            }
            NotNow::Leased(worker, until) => Self::new(
                Reason::JobLeased,
                format!(
                    "{worker} works on this job, at least until {}; wait, or take it over",
                    rfc3339(until)
                ),
            ),
            NotNow::LeaseLost(worker) => Self::new(
                Reason::JobLeaseLost,
                format!("{worker} took this job over; what this lease reports does not count"),
            ),
            NotNow::Step(told, next) => Self::field(
                Reason::Conflict,
                "step",
                format!("step {told} is not the next one of this job, which is {next}"),
            ),
            NotNow::Sum => Self::field(
                Reason::InvalidArgument,
                "counts",
                "seen is not the sum of the rest, or the census does not fit the counts",
            ),
        }
    }
}

/// Who works: the identity, and at the end what the worker calls itself, by which it knows
/// its own lease after an answer got lost.
fn worker_of(call: &Call, name: &str) -> String {
    if name.is_empty() {
        call.caller.id.to_string()
    } else {
        format!("{} {name}", call.caller.id)
    }
}

/// Time as the store has it.
fn ms(limit: u64) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}
