//! Jobs over the data keys that the appliance keeps: it works on them by itself, step by
//! step, under a lease like any worker. Each step is recorded before it takes effect, and
//! moves a header only where it is still the one that was read.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tracing::{debug, info, warn};

use super::{lease::everybody_knows, ms, update};
use crate::{
    audit::{Entry, Event, KeyNote},
    envelope::{DataKeyId, Kept},
    error::{Error, Kind, Reason, Result},
    job::{Census, Counts, Found, Job, JobKind, JobState, Lease, Step},
    key::{Key, VersionNumber},
    ops::{App, nodes::is_ours, open, rewrap::move_all},
};

/// Data keys of one step.
const STEP: u32 = 256;
/// For the HSM, in one step.
const PATIENCE: Duration = Duration::from_secs(30);
/// Jobs of one round.
const JOBS: u32 = 100;

/// One round over all such jobs. What fails is tried again in the next one.
pub async fn work_on_kept(app: &Arc<App>) {
    // What cannot be recorded is not done.
    if !app.audit.healthy() || !is_ours(app).await {
        return;
    }
    let jobs = match app.store.open_jobs(JobKind::Kept, JOBS).await {
        Ok(jobs) => jobs,
        Err(e) => return warn!(error = %e, "jobs over kept data keys wait"),
    };
    let now_ms = app.clock.now_ms();
    let due = |job: &Job| job.state == JobState::Open && job.not_before_ms <= now_ms;
    for job in jobs.into_iter().filter(due) {
        let id = job.id;
        match work(app, job).await {
            Ok(job) if job.open() => debug!(job = %id, "goes on later"),
            Ok(job) => info!(job = %id, moved = job.counts.moved, "job over kept data keys ended"),
            // Another node has it, or had it until it was killed; or somebody changed it.
            Err(e) if matches!(e.reason(), Reason::JobLeased | Reason::JobState) => {
                debug!(job = %id, error = ?e, "waits");
            }
            Err(e) => warn!(job = %id, error = ?e, "job over kept data keys waits"),
        }
    }
}

/// Steps until it has ended or somebody wants it otherwise.
async fn work(app: &Arc<App>, job: Job) -> Result<Job> {
    if !job.dry_run {
        everybody_knows(app, &job).await?;
    }
    let lease_ms = ms(app.limits.job_lease_ms);
    let worker = format!("keywright {}", app.membership.name());
    let mut job = update(app, job, |job| {
        let now_ms = app.clock.now_ms();
        job.leased(worker.clone(), false, now_ms, lease_ms)
            .map(Some)
    })
    .await?;
    let lease = Lease {
        job: job.id,
        number: job.lease,
    };
    while job.state == JobState::Open && !app.watchers.is_closed() {
        let began = Instant::now();
        let step = step(app, &job).await?;
        let seen = step.counts.seen;
        job = update(app, job, |job| {
            job.stepped(lease, step.clone(), app.clock.now_ms(), lease_ms)
        })
        .await?;
        // A step is never more than a second's worth.
        if let Some(rate) = job.rate.filter(|_| job.open()) {
            let worth = Duration::from_secs(1).mul_f64(seen as f64 / f64::from(rate));
            tokio::time::sleep(worth.saturating_sub(began.elapsed())).await;
        }
    }
    Ok(job)
}

/// The next data keys in the order of their ids: moved, and counted.
async fn step(app: &Arc<App>, job: &Job) -> Result<Step> {
    app.membership.must_serve()?;
    let number = job.steps + 1;
    let key = app.keyring.get(job.tenant, job.key);
    let key = key.ok_or_else(|| Error::internal("the key of a job is gone"))?;
    let limit = job.rate.map_or(STEP, |rate| rate.clamp(1, STEP));
    let after = job.cursor.as_slice().try_into().ok();
    let after = after.map(DataKeyId);
    let kept = app.store.kept_under(key.id, after, limit).await?;
    let expected = match job.steps {
        0 => Some(app.store.kept_versions(key.id).await?),
        _ => None,
    };
    let expected = expected.map(|versions| versions.iter().map(|(_, n)| n).sum());
    let fates = if job.dry_run {
        kept.iter().map(|k| looked(job, k)).collect()
    } else {
        moved(app, job, &key, &kept).await?
    };
    let (counts, census) = count(&kept, &fates);
    let last = kept.last().map(|k| k.id().0.to_vec());
    Ok(Step {
        number,
        completed: u32::try_from(kept.len()).is_ok_and(|n| n < limit),
        cursor: last.unwrap_or_else(|| job.cursor.clone()),
        counts,
        census,
        expected,
    })
}

/// What became of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Moved,
    Current,
    Left,
    /// Forgotten, or moved by somebody else, in between.
    Gone,
}

fn looked(job: &Job, kept: &Kept) -> Fate {
    if kept.header.key_version() >= job.target.get() {
        Fate::Current
    } else {
        Fate::Left
    }
}

async fn moved(app: &Arc<App>, job: &Job, key: &Arc<Key>, kept: &[Kept]) -> Result<Vec<Fate>> {
    let found = kept
        .iter()
        .map(|k| open::Found::of(Arc::clone(key), k.header));
    let deadline = Instant::now() + PATIENCE;
    let headers = move_all(app, found.collect(), deadline, app.clock.now_ms()).await;
    // Nothing is called left that only has to wait.
    let waits = |e: &&Error| {
        matches!(
            e.reason().kind(),
            Kind::Busy | Kind::Late | Kind::Unavailable
        )
    };
    let errors = || headers.iter().filter_map(|h| h.as_ref().err());
    if let Some(e) = errors().find(waits) {
        return Err(e.clone());
    }
    record(app, job, key, kept.len(), errors().count()).await?;
    // Again, now that the HSM has taken its time.
    app.membership.must_serve()?;
    let moves: Vec<_> = kept
        .iter()
        .zip(&headers)
        .filter_map(|(k, to)| match to {
            Ok((to, true)) => Some((k.header, *to)),
            _ => None,
        })
        .collect();
    let mut done = app.store.move_kept(&moves).await?.into_iter();
    let fate = |header: &Result<_>| match header {
        Ok((_, true)) if done.next() == Some(true) => Fate::Moved,
        Ok((_, true)) => Fate::Gone,
        Ok((_, false)) => Fate::Current,
        Err(_) => Fate::Left,
    };
    Ok(headers.iter().map(fate).collect())
}

async fn record(app: &App, job: &Job, key: &Key, seen: usize, failed: usize) -> Result<()> {
    let mut entry = Entry::event(Event::MovingKept {
        job: job.id.to_string(),
        step: job.steps + 1,
    });
    entry.tenant = app.tenants.get(&key.tenant).cloned();
    entry.note(KeyNote {
        name: key.name.to_string(),
        id: key.id.to_string(),
        version: Some(key.primary.get()),
    });
    entry.items_ok = seen - failed;
    entry.items_failed = failed;
    app.audit.record(entry).await
}

fn count(kept: &[Kept], fates: &[Fate]) -> (Counts, Census) {
    let (mut counts, mut census) = (Counts::default(), Census::default());
    for (kept, fate) in kept.iter().zip(fates) {
        counts.seen += 1;
        let (count, left) = match fate {
            Fate::Moved => (&mut counts.moved, 0),
            Fate::Current => (&mut counts.current, 1),
            Fate::Left => (&mut counts.left, 1),
            Fate::Gone => {
                counts.empty += 1;
                continue;
            }
        };
        *count += 1;
        let version = VersionNumber::new(kept.header.key_version());
        let found = version.map(|v| (v, Found { found: 1, left }));
        census.add(&Census::new(found));
    }
    (counts, census)
}

#[cfg(test)]
mod tests {
    use keywright_hsm::WrappedDek;

    use super::*;
    use crate::{
        envelope::{Header, Kind},
        job::tests::job,
    };

    fn kept(version: u32) -> Kept {
        let (job, version) = (job(), VersionNumber::new(version).unwrap());
        let wrapped = WrappedDek([1; 60]);
        Kept {
            tenant: job.tenant,
            header: Header::assemble(Kind::DataKey, job.key, [1; 16], [1; 32], version, &wrapped),
            created_ms: 0,
        }
    }

    #[test]
    fn counts_and_census_of_a_step_fit_each_other() {
        let all = [kept(1), kept(1), kept(1), kept(2), kept(1)];
        let fates = [
            Fate::Moved,
            Fate::Left,
            Fate::Gone,
            Fate::Current,
            Fate::Moved,
        ];
        let (counts, census) = count(&all, &fates);
        assert_eq!(counts.sum(), Some(5));
        assert!(counts.fit(&census));
        let of = |n| census.of(VersionNumber::new(n).unwrap());
        assert_eq!(of(1), Found { found: 3, left: 1 });
        assert_eq!(of(2), Found { found: 1, left: 1 });
    }

    #[test]
    fn a_job_that_only_looks_leaves_what_is_old() {
        assert_eq!(looked(&job(), &kept(1)), Fate::Left);
        assert_eq!(looked(&job(), &kept(2)), Fate::Current);
        assert_eq!(looked(&job(), &kept(3)), Fate::Current);
    }
}
