//! `keywright rewrap`: one file, or `table | files | lines | kept`: jobs over a place, until
//! everything in it is under the primary version.

mod show;

use std::{
    fs,
    io::{self, BufRead, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use keywright_client::{
    Client, Failure, FailureKind, Settings,
    proto::{CreateJobRequest, Job, JobKind},
    rewrap::{self, Column, Event, Files, Place, Table, Text, TextFormat, Whole},
};
use serde_json::json;
use show::Screen;
pub(super) use show::{fit, items_bar};

use super::{
    data,
    job::{job_json, job_tables, watch},
};
use crate::{
    args::{
        Output,
        rewrap::{Everything, Format, Kept, Lines, Rewrap, Work},
    },
    output::{self, Sink, print},
};

pub(crate) async fn run(what: Rewrap, server: &Settings, output: Output) -> Result<(), Failure> {
    match what.everything {
        None => {
            let job = data::Job::open(&what.data, false)?;
            let client = Client::connect(server).await?;
            job.rewrap(&client, what.key.as_deref(), output).await
        }
        Some(place) => everything(&Client::connect(server).await?, &place, output).await,
    }
}

/// Jobs of one command, each because the key was rotated during the one before.
const IN_A_ROW: u32 = 8;

async fn everything(client: &Client, place: &Everything, output: Output) -> Result<(), Failure> {
    match place {
        Everything::Table(t) => {
            let column = Column {
                url: &t.postgres,
                table: &t.table,
                column: &t.column,
                key_column: t.key_column.as_deref(),
                dry_run: t.work.dry_run,
                workers: t.work.workers as usize,
            };
            let open = async |_| Table::open(&column).await;
            Box::pin(jobs(client, &t.work, output, open)).await
        }
        Everything::Files(f) => {
            let open = async |_| Files::open(&f.dir);
            Box::pin(jobs(client, &f.work, output, open)).await
        }
        Everything::Lines(l) => {
            let open = async |number| text(l, number);
            Box::pin(jobs(client, &l.work, output, open)).await
        }
        Everything::Kept(k) => {
            let job = kept(client, k).await?;
            let job = Box::pin(watch(client, job, output)).await?;
            left(
                &job,
                "could not be moved; `keywright key show` says which versions may not process",
            )
        }
    }
}

/// The job over kept data keys: a new one, or the open one.
async fn kept(client: &Client, k: &Kept) -> Result<Job, Failure> {
    let request = CreateJobRequest {
        key: k.key.clone(),
        kind: JobKind::Kept.into(),
        dry_run: k.dry_run,
        rate_per_second: k.rate.unwrap_or(0),
        ..Default::default()
    };
    let refused = match client.create_job(request).await {
        Err(e) if e.reason() == Some("JOB_EXISTS") => e,
        made => return made,
    };
    let open = client.list_jobs(&k.key, true).await?;
    let same = |job: &Job| job.kind() == JobKind::Kept && job.dry_run == k.dry_run;
    open.into_iter().find(same).ok_or(refused)
}

/// The file; after the first job what that one wrote.
fn text(l: &Lines, number: u32) -> Result<Text<impl BufRead, Copy>, Failure> {
    let from = match &l.output_file {
        Some(written) if number > 0 => written,
        _ => &l.input_file,
    };
    let seen = Seen::of(from)?;
    // The job is about what was given, whichever of its jobs this is.
    let given = &l.input_file;
    let name = fs::canonicalize(given).map_err(|e| Failure::io(given.display(), &e))?;
    if !name.is_file() {
        let text = format!("{} is no file", given.display());
        return Err(Failure::new(FailureKind::Usage, text));
    }
    let input = output::buffered(output::input(Some(from))?.0);
    let sink = match l.work.dry_run {
        true => None,
        false => Some(Copy {
            sink: Sink::open(l.output_file.as_deref(), false)?,
            from: from.clone(),
            seen,
        }),
    };
    let format = match l.format {
        Format::Jsonl => TextFormat::JsonLines,
        Format::Csv => TextFormat::Csv,
    };
    let name = name.to_string_lossy();
    Text::open(format, &name, &l.column, input, sink)
}

/// What tells one state of a file from another.
#[derive(Debug, PartialEq, Eq)]
struct Seen([i64; 5], u64);

impl Seen {
    fn of(path: &Path) -> Result<Self, Failure> {
        let m = fs::metadata(path).map_err(|e| Failure::io(path.display(), &e))?;
        let times = [m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec()];
        let [a, b, c, d] = times;
        Ok(Self([a, b, c, d, m.size().cast_signed()], m.ino()))
    }
}

/// The output, which is of the input as it was.
struct Copy {
    sink: Sink,
    from: PathBuf,
    seen: Seen,
}

impl Write for Copy {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.sink.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}

impl Whole for Copy {
    fn appear(self) -> Result<(), Failure> {
        // In its place it would take away what somebody wrote meanwhile.
        if Seen::of(&self.from)? != self.seen {
            let text = format!(
                "{} was changed while it was worked on; nothing was written, and the same command begins again",
                self.from.display()
            );
            return Err(Failure::new(FailureKind::State, text));
        }
        self.sink.finish()
    }
}

/// One job after the other, as long as the key is rotated meanwhile. `open` is told which
/// one it is for.
async fn jobs<P: Place>(
    client: &Client,
    work: &Work,
    output: Output,
    open: impl AsyncFn(u32) -> Result<P, Failure>,
) -> Result<(), Failure> {
    let order = work.order();
    let stop = output::stop_on_signal();
    let mut number = 0;
    loop {
        let place = open(number).await?;
        let screen = Screen::new();
        let tell = |event: Event<'_>| screen.tell(event);
        let ran = Box::pin(rewrap::run(client, &place, &order, &tell, &stop)).await;
        let (seen_here, time) = screen.end();
        let job = ran?;
        report(&job, time.as_secs_f64(), seen_here, output)?;
        let primary = client.key(&work.key).await?.primary_version;
        if primary > job.target_version && !work.once && !work.dry_run {
            anstream::eprintln!(
                "{} was rotated meanwhile: going on from version {} to {primary}",
                work.key,
                job.target_version
            );
            number += 1;
            if number < IN_A_ROW {
                continue;
            }
            let text = format!(
                "{} was rotated during each of {IN_A_ROW} jobs in a row; this goes on for ever while a job takes longer than the key stays as it is. See its rules: keywright key rotation-status {}",
                work.key, work.key
            );
            return Err(Failure::new(FailureKind::Left, text).because("LEFT_UNDER_OLD_VERSION"));
        }
        return left(
            &job,
            "could not be moved; the first of them are named above, and the same command tries again",
        );
    }
}

/// What the job came to, on standard output.
fn report(job: &Job, seconds: f64, seen_here: u64, output: Output) -> Result<(), Failure> {
    let rate = seen_here as f64 / seconds.max(0.001);
    if output == Output::Json {
        let mut value = job_json(job);
        if let Some(map) = value.as_object_mut() {
            map.insert("seconds".into(), json!(seconds));
            map.insert("seen_by_this_worker".into(), json!(seen_here));
        }
        return output::json(&value);
    }
    print(&format!(
        "{}{seen_here} entries in {seconds:.1} s, {rate:.0} a second\n",
        job_tables(job)
    ))
}

/// Exit code 9 when something is left.
fn left(job: &Job, why: &str) -> Result<(), Failure> {
    let counts = job.counts.unwrap_or_default();
    if counts.left == 0 {
        return Ok(());
    }
    let what = if job.dry_run {
        "would be moved; the same command without --dry-run does it"
    } else {
        why
    };
    let text = format!(
        "{} of {} are left under an old version: they {what}",
        counts.left, counts.seen
    );
    Err(Failure::new(FailureKind::Left, text).because("LEFT_UNDER_OLD_VERSION"))
}

#[cfg(test)]
mod tests {
    use keywright_client::proto::JobCounts;

    use super::*;

    #[test]
    fn the_exit_code_says_whether_something_is_left() {
        let mut job = Job {
            counts: Some(JobCounts {
                seen: 3,
                moved: 3,
                ..Default::default()
            }),
            ..Default::default()
        };
        assert!(left(&job, "").is_ok());
        job.counts = Some(JobCounts {
            seen: 3,
            left: 2,
            ..Default::default()
        });
        assert_eq!(left(&job, "").unwrap_err().exit_code(), 9);
    }

    #[test]
    fn a_file_that_changed_meanwhile_keeps_its_change() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("cards.jsonl");
        let rewrite = || {
            fs::write(&file, "old\n").unwrap();
            let mut copy = Copy {
                sink: Sink::open(Some(&file), false).unwrap(),
                from: file.clone(),
                seen: Seen::of(&file).unwrap(),
            };
            copy.write_all(b"new\n").unwrap();
            copy
        };
        rewrite().appear().unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"new\n");
        let copy = rewrite();
        let mut other = fs::File::options().append(true).open(&file).unwrap();
        other.write_all(b"more\n").unwrap();
        let refused = copy.appear().unwrap_err();
        assert!(refused.to_string().contains("was changed"), "{refused}");
        assert_eq!(fs::read(&file).unwrap(), b"old\nmore\n");
    }
}
