//! Begin a job over one place where envelopes of a key lie.

use super::{Named, ms};
use crate::{
    config::Limits,
    error::{Error, Reason, Result},
    job::{Census, Counts, Job, JobId, JobKind, JobState},
    key::{Key, KeyName, KeyUse, Revision},
    ops::{App, Call},
    policy::act,
    store::StoreError,
};

/// What to begin.
#[derive(Debug)]
pub struct CreateJob {
    /// Of which key.
    pub key: KeyName,
    /// What it goes over.
    pub kind: JobKind,
    /// Where.
    pub subject: String,
    /// Only look.
    pub dry_run: bool,
    /// Items a second; `None`: no limit.
    pub rate: Option<u32>,
}

/// Begins a job. It goes to the version that is primary now.
///
/// # Errors
/// [`Reason::JobExists`] when there is one over the same subject, [`Reason::KeyUse`] for a
/// key that does not encrypt, permission, store.
pub async fn create_job(app: &App, call: &mut Call, request: CreateJob) -> Result<Named> {
    let permit = call.open::<act::CreateJob>(app, &request.key)?;
    let key = permit.key();
    let target = key.to_protect(KeyUse::Encrypt)?.get().number;
    call.note(key, Some(target.get()));
    let mut id = JobId([0; 16]);
    app.entropy
        .fill(&mut id.0)
        .map_err(|e| Error::internal(e.to_string()))?;
    let job = Job {
        id,
        tenant: key.tenant,
        key: key.id,
        kind: request.kind,
        subject: request.subject,
        dry_run: request.dry_run,
        target,
        state: JobState::Open,
        not_before_ms: if request.dry_run {
            call.now_ms
        } else {
            quiet_from(key, call.now_ms, ms(window_ms(key, &app.limits)))
        },
        rate: request.rate,
        counts: Counts::default(),
        census: Census::default(),
        expected: 0,
        steps: 0,
        cursor: Vec::new(),
        lease: 0,
        worker: String::new(),
        lease_until_ms: 0,
        speed_milli: 0,
        stepped_ms: call.now_ms,
        created_by: call.caller.id.to_string(),
        created_ms: call.now_ms,
        ended_ms: None,
        revision: Revision(1),
    };
    call.entry.detail.insert("job", id.to_string());
    call.entry.detail.insert("subject", job.subject.clone());
    match app.store.add_job(&job).await {
        Ok(()) => Ok(Named::new(job, key)),
        Err(StoreError::Exists) => {
            let open = app.store.open_job(key.id, &job.subject).await?;
            let which = open.map_or_else(String::new, |j| format!(" ({})", j.id));
            Err(Error::new(
                Reason::JobExists,
                format!(
                    "there is an open job of this key over this subject{which}; work on it, or cancel it"
                ),
            ))
        }
        Err(e) => Err(e.into()),
    }
}

/// How long what an older version protects may be on its way: who seals for itself learns
/// of a rotation by the next sign of life, or by its missing.
fn window_ms(key: &Key, limits: &Limits) -> u64 {
    let learns_ms = key.rules.lease_seconds.map(|_| limits.lease_silence_ms());
    limits.job_window_ms + learns_ms.unwrap_or(0)
}

/// When everything that was protected under a version before the primary one is in its
/// place: the window begins when the primary one became it.
fn quiet_from(key: &Key, now_ms: i64, window_ms: i64) -> i64 {
    let Some(primary) = key.version(key.primary.get()) else {
        return now_ms;
    };
    let older = key.versions().filter(|v| v.number < primary.number);
    if older.count() == 0 {
        return now_ms;
    }
    now_ms.max(key.promoted_ms.saturating_add(window_ms))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{
        KeyState, VersionNumber,
        tests::{key, version},
    };

    #[test]
    fn a_job_waits_for_those_who_seal_for_themselves() {
        let limits = Limits {
            job_window_ms: 7,
            lease_sign_ms: 1_000,
            ..Limits::default()
        };
        let mut key = key("a");
        assert_eq!(window_ms(&key, &limits), 7);
        key.rules.lease_seconds = Some(60);
        assert_eq!(window_ms(&key, &limits), 3_007);
    }

    #[test]
    fn a_job_waits_until_what_is_under_way_has_arrived() {
        let one = key("a");
        assert_eq!(quiet_from(&one, 5_000, 1_000), 5_000, "nothing is older");
        let mut second = version(2, KeyState::Active);
        second.created_ms = 4_500;
        let two = one.rotated(second);
        assert_eq!(two.primary, VersionNumber::new(2).unwrap());
        assert_eq!(quiet_from(&two, 5_000, 1_000), 5_500);
        assert_eq!(quiet_from(&two, 9_000, 1_000), 9_000);
    }
}
