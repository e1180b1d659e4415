//! The lease of a job: whoever has it works on the job.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    Event, Order, cursor,
    patience::{Patience, Stop},
    server::Server,
};
use crate::{
    Failure, FailureKind,
    proto::{Job, JobState, LeaseJobRequest, LeaseJobResponse},
};

/// No state of a job is asked for less often than this.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// A lease we have.
pub(super) struct Held {
    pub(super) job: Job,
    pub(super) lease: String,
    /// What we call ourselves.
    worker: String,
    /// Where to go on.
    pub(super) after: Option<String>,
    /// A third of its time is over: renew it.
    pub(super) renew_at: Instant,
}

impl Held {
    /// It was given, or renewed, for so long.
    pub(super) fn renewed(&mut self, lease_ms: u64) {
        self.renew_at = Instant::now() + Duration::from_millis(lease_ms.max(3) / 3);
    }
}

/// Says how a job stands that cannot be worked on.
pub(super) fn stands(job: &Job) -> Option<Failure> {
    let text = match job.state() {
        JobState::Paused => format!(
            "job {} is paused; resume it (keywright job resume {}), then the same command goes on where it stands",
            job.id, job.id
        ),
        JobState::Cancelled => format!(
            "job {} was cancelled; what was moved stays moved, and the same command begins a new job",
            job.id
        ),
        _ => return None,
    };
    Some(Failure::new(FailureKind::State, text))
}

/// What this worker calls itself: host, process, and a number that no other worker has, so
/// that it knows its own lease again.
fn worker() -> Result<String, Failure> {
    let mut number = [0; 4];
    getrandom::fill(&mut number)
        .map_err(|e| Failure::new(FailureKind::Other, format!("no random bytes: {e}")))?;
    let host: String = super::host().chars().take(90).collect();
    let process = std::process::id();
    Ok(format!("{host} {process} {}", hex::encode(number)))
}

/// Waits until the job may be worked on and takes its lease; none: somebody else has
/// completed it.
pub(super) async fn take<S: Server>(
    server: &S,
    mut job: Job,
    order: &Order,
    place: &str,
    patience: &Patience<'_>,
) -> Result<Result<Held, Job>, Failure> {
    let worker = worker()?;
    // An answer that got lost may have given it to us.
    let mut ours = false;
    loop {
        match job.state() {
            JobState::Completed => return Ok(Err(job)),
            JobState::Waiting => {
                let why =
                    "data protected under the old version may still be on their way to their place";
                wait(job.not_before_unix_ms, why, patience).await?;
                job = patience.insist(async || server.job(&job.id).await).await?;
                continue;
            }
            _ => {}
        }
        if let Some(failure) = stands(&job) {
            return Err(failure);
        }
        let request = LeaseJobRequest {
            id: job.id.clone(),
            worker: worker.clone(),
            lease: String::new(),
            take_over: order.take_over || ours,
        };
        let call = async || server.lease(request.clone()).await;
        let refused = match patience.insist(call).await {
            Ok(response) => return held(response, worker, place).map(Ok),
            Err(failure) if failure.kind() == FailureKind::State => failure,
            Err(failure) => return Err(failure),
        };
        let before = job.state;
        job = patience.insist(async || server.job(&job.id).await).await?;
        if refused.reason() == Some("JOB_LEASED") && !ours && job.worker.ends_with(&worker) {
            ours = true;
        } else if refused.reason() == Some("JOB_LEASED") {
            let who = format!(
                "{} works on it; it goes on when that one ends, or at once with --take-over",
                job.worker
            );
            wait(job.lease_until_unix_ms, &who, patience).await?;
        } else if job.state == before {
            return Err(refused);
        }
    }
}

fn held(response: LeaseJobResponse, worker: String, place: &str) -> Result<Held, Failure> {
    let job = response.job.ok_or_else(Failure::nonsense)?;
    let after = cursor::decode(place, &response.cursor)?;
    let mut held = Held {
        job,
        lease: response.lease,
        worker,
        after,
        renew_at: Instant::now(),
    };
    held.renewed(response.lease_ms);
    Ok(held)
}

/// Waits for a moment of the server's clock, but not long without asking again: it may
/// come sooner, and clocks differ.
async fn wait(until_unix_ms: i64, why: &str, patience: &Patience<'_>) -> Result<(), Failure> {
    let now = jiff::Timestamp::now().as_millisecond();
    let left = u64::try_from(until_unix_ms.saturating_sub(now)).unwrap_or(0);
    let text = format!("waiting {} s: {why}", left.div_ceil(1_000));
    (patience.tell)(Event::Waiting(text));
    let left = Duration::from_millis(left).clamp(patience.pause, LONGEST_WAIT);
    patience.stop.sleep(left).await
}

/// Renews the lease while a page takes long.
pub(super) async fn renew<S: Server>(
    server: &S,
    held: &mut Held,
    patience: &Patience<'_>,
) -> Result<(), Failure> {
    let request = LeaseJobRequest {
        id: held.job.id.clone(),
        worker: held.worker.clone(),
        lease: held.lease.clone(),
        take_over: false,
    };
    let call = async || server.lease(request.clone()).await;
    let response = patience
        .insist(call)
        .await
        .map_err(|e| lost(e, &held.job))?;
    if !response.lease.is_empty() {
        held.lease = response.lease;
    }
    held.job = response.job.ok_or_else(Failure::nonsense)?;
    held.renewed(response.lease_ms);
    Ok(())
}

/// In words for the worker that lost its lease.
pub(super) fn lost(failure: Failure, job: &Job) -> Failure {
    match failure.reason() {
        Some("JOB_LEASE_LOST" | "JOB_LEASED") => failure.reworded(format!(
            "another worker took job {} over; this one stops, and nothing is lost (keywright job show {} says who works on it)",
            job.id, job.id
        )),
        _ => failure,
    }
}

/// Asked to stop: how to go on.
pub(super) fn stopped(job: &Job) -> Failure {
    let done = job.counts.unwrap_or_default().seen;
    Stop::failure().reworded(format!(
        "stopped; job {} stands behind {done} entries, and the same command goes on there",
        job.id
    ))
}
