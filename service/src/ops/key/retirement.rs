//! The gate before the end of a version: nothing is destroyed that somebody still needs.
//!
//! Three witnesses are heard: when the version was last used, or wanted in vain, what jobs
//! found under it, and which data keys the appliance keeps under it. A compromised version
//! is spared them: nobody can use it anyway.

use crate::{
    clock::rfc3339,
    error::{Error, Reason, Result},
    job::{Job, Need},
    key::{Key, KeyState, VersionNumber},
};

/// Jobs named in one answer.
const NAMED: usize = 10;

/// What stands in the store about the versions of a key.
#[derive(Debug, Default)]
pub(super) struct Standing {
    /// Jobs that speak about it now.
    pub(super) jobs: Vec<Job>,
    /// Kept data keys under each version.
    pub(super) kept: Vec<(VersionNumber, u64)>,
}

/// Refuses a version that is still needed.
///
/// # Errors
/// [`Reason::KeyVersionInUse`], with everything that speaks against it.
pub(super) fn check(
    key: &Key,
    number: VersionNumber,
    standing: &Standing,
    now_ms: i64,
    quiet_ms: i64,
) -> Result<()> {
    let Some(version) = key.version(number.get()) else {
        return Ok(());
    };
    if version.state == KeyState::Compromised {
        return Ok(());
    }
    let mut against = Vec::new();
    for (what, last_ms) in [
        ("protected", version.used.protected_ms()),
        ("was used to open or verify", version.used.processed_ms()),
        ("was wanted in vain", version.used.refused_ms()),
    ] {
        // Also what was used after the question was asked was used now.
        let last_ms = last_ms.map(|last| last.min(now_ms));
        if let Some(last) = last_ms.filter(|last| now_ms < last.saturating_add(quiet_ms)) {
            let until = rfc3339(last.saturating_add(quiet_ms));
            against.push(format!(
                "it last {what} at {}, and must be quiet until {until}",
                rfc3339(last)
            ));
        }
    }
    let kept = standing.kept.iter().find(|(version, _)| *version == number);
    if let Some((_, kept)) = kept {
        against.push(format!(
            "{kept} data keys that are kept here stand under it; move them: keywright rewrap kept \
             --key {}",
            key.name
        ));
    }
    let mut jobs_against = Vec::new();
    for job in &standing.jobs {
        let why = match job.needs(number) {
            None => continue,
            Some(Need::Unfinished) => "has not gone through everything".to_owned(),
            Some(Need::Cancelled) => {
                "was cancelled after it had found some of it; run it again".to_owned()
            }
            Some(Need::Left(left)) => format!("left {left} under it; see to them and run it again"),
            Some(Need::MovedHere(moved)) => {
                format!("moved {moved} to it or above; run it again, to the version of now")
            }
            Some(Need::Unknown(left)) => {
                format!("left {left} whose version it could not read; see to them and run it again")
            }
        };
        jobs_against.push(format!("job {} over {} {why}", job.id, job.subject));
    }
    let more = jobs_against.len().saturating_sub(NAMED);
    against.extend(jobs_against.into_iter().take(NAMED));
    if more > 0 {
        against.push(format!("and {more} jobs more"));
    }
    if against.is_empty() {
        return Ok(());
    }
    Err(Error::new(
        Reason::KeyVersionInUse,
        format!(
            "version {number} of this key is still needed: {}",
            against.join("; ")
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        job::{
            JobChange, Lease,
            tests::{job, step},
        },
        key::tests::{key, version},
    };

    fn said(key: &Key, jobs: &[Job], now_ms: i64) -> String {
        let standing = Standing {
            jobs: jobs.to_vec(),
            kept: Vec::new(),
        };
        check(key, VersionNumber::FIRST, &standing, now_ms, 1_000)
            .map_or_else(|e| e.text().to_owned(), |()| String::new())
    }

    #[test]
    fn a_version_is_quiet_before_it_goes() {
        let two = key("a").rotated(version(2, KeyState::Active));
        assert_eq!(said(&two, &[], 0), "");
        let used = &two.version(1).unwrap().used;
        used.protects(10);
        assert!(said(&two, &[], 1_009).contains("it last protected"));
        assert_eq!(said(&two, &[], 1_010), "");
        used.processes(20);
        assert!(said(&two, &[], 1_019).contains("open or verify"));
        used.refuses(30);
        assert!(said(&two, &[], 1_029).contains("wanted in vain"));
        let at_once = check(&two, VersionNumber::FIRST, &Standing::default(), 29, 0);
        assert!(
            at_once.is_ok(),
            "a use after the question, and no time of quiet"
        );
        assert_eq!(said(&two, &[], 1_030), "");
        let (lost, _) = two.moved(Some(1), KeyState::Compromised).unwrap();
        assert_eq!(said(&lost, &[job()], 30), "", "of no use to anybody");
    }

    #[test]
    fn jobs_are_heard() {
        let two = key("a").rotated(version(2, KeyState::Active));
        let open = job();
        assert!(said(&two, std::slice::from_ref(&open), 9_000).contains("has not gone through"));
        let lease = Lease {
            job: open.id,
            number: 1,
        };
        let open = open.leased("w".into(), false, 1_000, 100).unwrap();
        let mut last = step(1, 1, 3);
        last.completed = true;
        let ended = open.stepped(lease, last, 1_001, 100).unwrap().unwrap();
        assert!(said(&two, &[ended], 9_000).contains("left 3 under it"));
        let some = open.stepped(lease, step(1, 1, 0), 1_001, 100);
        let cancelled = some.unwrap().unwrap().changed(JobChange::Cancel, 1_002);
        assert!(said(&two, &[cancelled.unwrap()], 9_000).contains("was cancelled"));
        let mut last = step(1, 4, 0);
        last.completed = true;
        let clean = open.stepped(lease, last, 1_001, 100).unwrap().unwrap();
        assert_eq!(said(&two, &[clean], 9_000), "");
    }
}
