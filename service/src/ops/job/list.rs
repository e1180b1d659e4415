//! Read about jobs, page by page.

use std::collections::HashMap;

use super::Named;
use crate::{
    audit::Entry,
    error::Result,
    job::JobId,
    key::{KeyId, KeyName},
    ops::{App, Call},
    policy::act,
    store::JobSearch,
};

/// Which jobs.
#[derive(Debug)]
pub struct ListJobs {
    /// Of this key.
    pub key: Option<KeyName>,
    /// Only those that have not ended.
    pub open_only: bool,
    /// Last job of the page before: when it began, its id.
    pub after: Option<(i64, JobId)>,
    /// Most jobs of a page.
    pub limit: u32,
}

/// A page of jobs, newest first.
#[derive(Debug)]
pub struct JobPage {
    /// In order; those the caller may not see are left out.
    pub jobs: Vec<Named>,
    /// Where the next page begins.
    pub next: Option<(i64, JobId)>,
}

/// The jobs the caller may see.
///
/// # Errors
/// Permission, store.
pub async fn list_jobs(app: &App, call: &mut Call, request: ListJobs) -> Result<JobPage> {
    let key = match &request.key {
        Some(name) => {
            let permit = call.open::<act::GetJob>(app, name)?;
            call.note(permit.key(), None);
            Some(permit.key().id)
        }
        None => {
            call.grant::<act::ListKeys>(app, None)?;
            None
        }
    };
    let search = JobSearch {
        key,
        open_only: request.open_only,
        after: request.after,
        limit: request.limit.saturating_add(1),
    };
    let mut all = app.store.jobs(call.caller.tenant, &search).await?;
    let limit = usize::try_from(request.limit).unwrap_or(usize::MAX);
    let more = all.len() > limit;
    all.truncate(limit);
    let last = all.last().map(|job| (job.created_ms, job.id));
    let mut names: HashMap<KeyId, Option<KeyName>> = HashMap::new();
    let mut jobs = Vec::new();
    for job in all {
        let name = names
            .entry(job.key)
            .or_insert_with(|| visible(app, call, job.key));
        if let Some(key) = name.clone() {
            jobs.push(Named { job, key });
        }
    }
    call.entry.items_ok = jobs.len();
    Ok(JobPage {
        jobs,
        next: last.filter(|_| more),
    })
}

/// The name of a key whose jobs the caller may see. What may not be seen is left out and
/// is no denial of the whole.
fn visible(app: &App, call: &mut Call, key: KeyId) -> Option<KeyName> {
    let (asking, _) = call.asks();
    let permit = app
        .keyring
        .open_id::<act::GetJob>(&asking, key, &mut Entry::default());
    permit.ok().map(|permit| permit.key().name.clone())
}
