//! `keywright job …`.

mod report;
mod show;
mod watch;

use keywright_client::{
    Client, Failure, FailureKind,
    proto::{self, CreateJobRequest, JobChange},
};
pub(super) use report::verify;
pub(super) use show::{job_json, job_tables};
pub(super) use watch::watch;

use crate::args::{
    Output,
    job::{Job, Which},
};

pub(crate) async fn run(client: &Client, command: Job, output: Output) -> Result<(), Failure> {
    match command {
        Job::Create {
            key,
            kind,
            subject,
            dry_run,
            rate,
        } => {
            let request = CreateJobRequest {
                key,
                kind: kind.wire().into(),
                subject,
                dry_run,
                rate_per_second: rate.unwrap_or(0),
            };
            show::show(&client.create_job(request).await?, output)
        }
        Job::List { key, open } => show::list(&client.list_jobs(&key, open).await?, output),
        Job::Show(which) => show::show(&find(client, &which).await?, output),
        Job::Watch(which) => {
            let job = find(client, &which).await?;
            watch(client, job, output).await.map(drop)
        }
        Job::Pause(which) => change(client, &which, JobChange::Pause, output).await,
        Job::Resume(which) => change(client, &which, JobChange::Resume, output).await,
        Job::Cancel(which) => change(client, &which, JobChange::Cancel, output).await,
        Job::Report { which, output_file } => {
            let job = find(client, &which).await?;
            report::write(client, &job, output_file.as_deref(), output).await
        }
        Job::VerifyReport { report, public_key } => report::verify(&report, &public_key, output),
    }
}

async fn change(
    client: &Client,
    which: &Which,
    change: JobChange,
    output: Output,
) -> Result<(), Failure> {
    let id = find(client, which).await?.id;
    show::show(&client.change_job(&id, change).await?, output)
}

/// Digits of an id.
const DIGITS: usize = 32;
/// Fewer digits could mean another job tomorrow.
const FEWEST: usize = 6;

/// The job with this id, or the only one whose id begins like this.
async fn find(client: &Client, which: &Which) -> Result<proto::Job, Failure> {
    let id = digits(&which.id)?;
    if id.len() == DIGITS {
        return client.job(&id).await;
    }
    only(client.list_jobs("", false).await?, &id)
}

fn digits(id: &str) -> Result<String, Failure> {
    let fits = (FEWEST..=DIGITS).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_hexdigit());
    match fits {
        true => Ok(id.to_ascii_lowercase()),
        false => Err(Failure::new(
            FailureKind::Usage,
            format!("{id:?} is no id of a job: 32 hexadecimal digits, or the first 6 or more"),
        )),
    }
}

fn only(jobs: Vec<proto::Job>, begins: &str) -> Result<proto::Job, Failure> {
    let mut found = jobs.into_iter().filter(|j| j.id.starts_with(begins));
    match (found.next(), found.next()) {
        (Some(job), None) => Ok(job),
        (Some(_), Some(_)) => Err(Failure::new(
            FailureKind::Usage,
            format!("several jobs begin with {begins}; give more digits (keywright job list)"),
        )),
        (None, _) => Err(Failure::new(
            FailureKind::NotFound,
            format!("no job begins with {begins}, or none you may see (keywright job list)"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_id_means_one_job_or_none() {
        let job = |id: &str| proto::Job {
            id: id.into(),
            ..Default::default()
        };
        let jobs = || vec![job("abcdef01"), job("abcdef02"), job("123456ff")];
        assert_eq!(only(jobs(), "123456").unwrap().id, "123456ff");
        assert_eq!(
            only(jobs(), "abcdef").unwrap_err().kind(),
            FailureKind::Usage
        );
        assert_eq!(
            only(jobs(), "999999").unwrap_err().kind(),
            FailureKind::NotFound
        );
        assert_eq!(digits("ABCDEF").unwrap(), "abcdef");
        assert!(digits("abcde").is_err() && digits("abcdeg").is_err());
        assert!(digits(&"a".repeat(33)).is_err());
    }
}
