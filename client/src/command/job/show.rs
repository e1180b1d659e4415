//! Jobs as tables and as JSON.

use keywright_client::{
    Failure,
    proto::{Job, JobKind, JobState},
};
use serde_json::{Value, json};

use crate::{
    args::Output,
    command::key::{table, time},
    output::{self, print},
};

pub(super) fn show(job: &Job, output: Output) -> Result<(), Failure> {
    match output {
        Output::Json => output::json(&job_json(job)),
        Output::Table => print(&format!("{}\n{}", facts(job), job_tables(job))),
    }
}

pub(super) fn list(jobs: &[Job], output: Output) -> Result<(), Failure> {
    if output == Output::Json {
        return output::json(&Value::Array(jobs.iter().map(job_json).collect()));
    }
    let mut rows = table(&[
        "id", "key", "state", "subject", "to", "seen", "left", "created",
    ]);
    for job in jobs {
        let counts = job.counts.unwrap_or_default();
        rows.add_row([
            job.id.chars().take(8).collect(),
            job.key.clone(),
            state(job),
            job.subject.clone(),
            job.target_version.to_string(),
            of(counts.seen, job.expected),
            counts.left.to_string(),
            time(job.created_unix_ms),
        ]);
    }
    print(&format!("{rows}\n"))
}

fn of(seen: u64, expected: u64) -> String {
    match expected {
        0 => seen.to_string(),
        n => format!("{seen} of about {n}"),
    }
}

pub(super) fn state(job: &Job) -> String {
    let state = match job.state() {
        JobState::Unspecified => "unknown",
        JobState::Waiting => "waiting",
        JobState::Open => "open",
        JobState::Paused => "paused",
        JobState::Cancelled => "cancelled",
        JobState::Completed => "completed",
    };
    match job.dry_run {
        true => format!("{state} (dry run)"),
        false => state.to_owned(),
    }
}

fn kind(job: &Job) -> &'static str {
    match job.kind() {
        JobKind::Unspecified => "unknown",
        JobKind::Table => "table",
        JobKind::Files => "files",
        JobKind::Lines => "lines",
        JobKind::Kept => "kept",
    }
}

fn facts(job: &Job) -> String {
    let mut lines = vec![
        format!("job      {}", job.id),
        format!("key      {}, to version {}", job.key, job.target_version),
        format!("subject  {} ({})", job.subject, kind(job)),
        format!("state    {}", state(job)),
        format!(
            "begun    {} by {}",
            time(job.created_unix_ms),
            job.created_by
        ),
    ];
    if job.state() == JobState::Waiting {
        lines.push(format!("not before {}", time(job.not_before_unix_ms)));
    }
    if job.lease_until_unix_ms != 0 {
        let until = time(job.lease_until_unix_ms);
        lines.push(format!("worker   {}, lease until {until}", job.worker));
    }
    if job.ended_unix_ms != 0 {
        lines.push(format!("ended    {}", time(job.ended_unix_ms)));
    } else if job.items_per_second > 0.0 {
        lines.push(format!(
            "rate     {:.0} a second, about {} s to go",
            job.items_per_second, job.eta_seconds
        ));
    }
    lines.join("\n")
}

/// Counts and census.
pub(in crate::command) fn job_tables(job: &Job) -> String {
    let c = job.counts.unwrap_or_default();
    let mut counts = table(&[
        "seen",
        "moved",
        "current",
        "empty",
        "foreign",
        "other key",
        "left",
    ]);
    let row = [
        of(
            c.seen,
            if job.ended_unix_ms == 0 {
                job.expected
            } else {
                0
            },
        ),
        c.moved.to_string(),
        c.current.to_string(),
        c.empty.to_string(),
        c.foreign.to_string(),
        c.other_key.to_string(),
        c.left.to_string(),
    ];
    counts.add_row(row);
    if job.census.is_empty() {
        return format!("{counts}\n");
    }
    let mut census = table(&["version", "found", "still under it"]);
    for version in &job.census {
        let row = [u64::from(version.version), version.found, version.left];
        census.add_row(row.map(|n| n.to_string()));
    }
    format!("{counts}\n{census}\n")
}

fn time_json(unix_ms: i64) -> Option<String> {
    (unix_ms != 0).then(|| time(unix_ms))
}

pub(in crate::command) fn job_json(job: &Job) -> Value {
    let c = job.counts.unwrap_or_default();
    let census = job.census.iter();
    let census: Vec<Value> = census
        .map(|v| json!({ "version": v.version, "found": v.found, "left": v.left }))
        .collect();
    json!({
        "id": job.id,
        "key": job.key,
        "kind": kind(job),
        "subject": job.subject,
        "dry_run": job.dry_run,
        "target_version": job.target_version,
        "state": job.state().as_str_name().trim_start_matches("JOB_STATE_").to_lowercase(),
        "not_before": time_json(job.not_before_unix_ms),
        "counts": {
            "seen": c.seen,
            "moved": c.moved,
            "current": c.current,
            "empty": c.empty,
            "foreign": c.foreign,
            "other_key": c.other_key,
            "left": c.left,
        },
        "census": census,
        "expected": (job.expected != 0).then_some(job.expected),
        "rate_per_second": (job.rate_per_second != 0).then_some(job.rate_per_second),
        "steps": job.steps,
        "worker": job.worker,
        "lease_until": time_json(job.lease_until_unix_ms),
        "created_by": job.created_by,
        "created": time_json(job.created_unix_ms),
        "ended": time_json(job.ended_unix_ms),
        "revision": job.revision,
        "items_per_second": (job.items_per_second > 0.0).then_some(job.items_per_second),
        "eta_seconds": (job.eta_seconds != 0).then_some(job.eta_seconds),
    })
}
