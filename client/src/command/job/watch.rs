//! Follows a job until it has ended.

use keywright_client::{
    Client, Failure, FailureKind,
    proto::{Job, JobState},
};

use super::show;
use crate::{
    args::Output,
    command::rewrap::{fit, items_bar},
    output::print,
};

/// How often a stream that broke is opened again before that is a failure.
const TRIES: u32 = 10;

/// Gives the job as it ended.
pub(in crate::command) async fn watch(
    client: &Client,
    mut job: Job,
    output: Output,
) -> Result<Job, Failure> {
    let bar = items_bar(job.expected);
    let mut tries = 0;
    let mut said = None;
    while job.ended_unix_ms == 0 {
        let mut stream = client.watch_job(&job.id).await?;
        let broken = loop {
            match stream.message().await {
                Ok(Some(now)) => job = now.job.unwrap_or(job),
                Ok(None) => break None,
                Err(status) => break Some(Failure::from(status)),
            }
            tries = 0;
            if said == Some(job.revision) {
                continue;
            }
            said = Some(job.revision);
            if output == Output::Json {
                print(&format!("{}\n", show::job_json(&job)))?;
            }
            let seen = job.counts.unwrap_or_default().seen;
            fit(&bar, job.expected);
            bar.set_position(seen);
            let state = show::state(&job);
            bar.set_message(match job.eta_seconds {
                0 => state,
                left => format!(
                    "{state}, {:.0} a second, {left} s to go",
                    job.items_per_second
                ),
            });
        };
        match broken {
            Some(failure) if failure.kind() != FailureKind::Unavailable || tries == TRIES => {
                bar.finish_and_clear();
                return Err(failure);
            }
            _ => {}
        }
        if job.ended_unix_ms == 0 {
            tries += 1;
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
            job = client.job(&job.id).await?;
        }
    }
    bar.finish_and_clear();
    if output == Output::Table {
        show::show(&job, output)?;
    } else if said != Some(job.revision) {
        print(&format!("{}\n", show::job_json(&job)))?;
    }
    match job.state() {
        JobState::Cancelled => Err(Failure::new(
            FailureKind::State,
            format!("job {} was cancelled", job.id),
        )),
        _ => Ok(job),
    }
}
