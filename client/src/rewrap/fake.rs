//! A server with one job and a place in memory, for tests: every call can be where the
//! worker is killed, or where it fails once, before it has an effect or after.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use tokio::sync::Notify;

use super::{Entry, Page, Place, Server, Value, Written, sort::version};
use crate::{
    Failure, FailureKind,
    proto::{self, Job, JobState},
};

pub(super) const KEY_ID: [u8; 16] = [7; 16];

/// A header of our key.
pub(super) fn header(row: u32, version: u32) -> Bytes {
    let mut h = vec![1, 1, 1, 0];
    h.extend(KEY_ID);
    h.extend(row.to_be_bytes());
    h.extend([0; 44]);
    h.extend([1, 0, 0, 0]);
    h.extend(version.to_be_bytes());
    h.extend([version as u8; 60]);
    h.into()
}

/// What happens at a moment of the script.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Blow {
    Kill,
    Fail,
}

/// Server and place at once.
pub(super) struct World {
    pub(super) rows: Mutex<BTreeMap<u32, Option<Bytes>>>,
    pub(super) jobs: Mutex<Vec<Job>>,
    pub(super) cursor: Mutex<Bytes>,
    /// The newest lease; empty: nobody has it.
    pub(super) lease: Mutex<String>,
    pub(super) leases: AtomicU32,
    pub(super) primary: AtomicU32,
    /// Steps that took effect, with where they went.
    pub(super) steps: Mutex<Vec<(u64, Bytes)>>,
    /// Moments so far, and at which something happens.
    pub(super) moment: AtomicU64,
    pub(super) at: Mutex<Option<(u64, Blow)>>,
    pub(super) killed: Notify,
    /// Done right after a page was read, once for each row named.
    pub(super) meddle: Mutex<Vec<(u32, Option<Bytes>)>>,
    /// What a row answers that cannot be moved.
    pub(super) bad: Option<u32>,
    /// Answers of a node that is behind.
    pub(super) behind: AtomicU32,
    /// A change that somebody makes with the next checkpoint.
    pub(super) change: Mutex<Option<JobState>>,
    pub(super) whole: AtomicBool,
}

impl World {
    /// So many rows under version 1; the primary version is 3.
    pub(super) fn new(rows: u32) -> Self {
        Self {
            rows: Mutex::new((0..rows).map(|i| (i, Some(header(i, 1)))).collect()),
            jobs: Mutex::default(),
            cursor: Mutex::default(),
            lease: Mutex::default(),
            leases: AtomicU32::new(0),
            primary: AtomicU32::new(3),
            steps: Mutex::default(),
            moment: AtomicU64::new(0),
            at: Mutex::default(),
            killed: Notify::new(),
            meddle: Mutex::default(),
            bad: None,
            behind: AtomicU32::new(0),
            change: Mutex::default(),
            whole: AtomicBool::new(false),
        }
    }

    async fn moment(&self) -> Result<(), Failure> {
        // Others come between.
        tokio::task::yield_now().await;
        let now = self.moment.fetch_add(1, Ordering::Relaxed);
        let blow = *self.at.lock().unwrap();
        match blow {
            Some((at, Blow::Kill)) if at == now => {
                self.killed.notify_one();
                std::future::pending().await
            }
            Some((at, Blow::Fail)) if at == now => {
                Err(Failure::new(FailureKind::Unavailable, "away"))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn job_now(&self) -> Job {
        self.jobs.lock().unwrap().last().cloned().unwrap()
    }

    fn refuse(reason: &str) -> Failure {
        Failure::new(FailureKind::State, reason).because(reason)
    }

    /// Between a moment before and a moment after.
    async fn effect<T>(&self, act: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
        self.moment().await?;
        let answer = act();
        self.moment().await?;
        answer
    }
}

impl Server for World {
    async fn key(&self, name: &str) -> Result<proto::Key, Failure> {
        let key = proto::Key {
            name: name.into(),
            id: KEY_ID.to_vec().into(),
            primary_version: self.primary.load(Ordering::Relaxed),
            ..Default::default()
        };
        self.effect(|| Ok(key)).await
    }

    async fn open_job(&self, _key: &str, subject: &str) -> Result<Option<Job>, Failure> {
        let open = |j: &&Job| j.ended_unix_ms == 0 && j.subject == subject;
        self.effect(|| Ok(self.jobs.lock().unwrap().iter().find(open).cloned()))
            .await
    }

    async fn create(&self, request: proto::CreateJobRequest) -> Result<Job, Failure> {
        self.effect(|| {
            let mut jobs = self.jobs.lock().unwrap();
            if jobs.iter().any(|j| j.ended_unix_ms == 0) {
                return Err(Self::refuse("JOB_EXISTS"));
            }
            *self.cursor.lock().unwrap() = Bytes::new();
            let id = format!("{:032x}", jobs.len());
            jobs.push(Job {
                id,
                key: request.key,
                subject: request.subject,
                dry_run: request.dry_run,
                rate_per_second: request.rate_per_second,
                target_version: self.primary.load(Ordering::Relaxed),
                state: JobState::Open.into(),
                counts: Some(proto::JobCounts::default()),
                ..Default::default()
            });
            Ok(jobs.last().cloned().unwrap())
        })
        .await
    }

    async fn job(&self, _id: &str) -> Result<Job, Failure> {
        self.effect(|| Ok(self.job_now())).await
    }

    async fn lease(
        &self,
        request: proto::LeaseJobRequest,
    ) -> Result<proto::LeaseJobResponse, Failure> {
        self.effect(|| {
            let mut lease = self.lease.lock().unwrap();
            if request.lease.is_empty() && !lease.is_empty() && !request.take_over {
                return Err(Self::refuse("JOB_LEASED"));
            }
            if !request.lease.is_empty() && request.lease != *lease {
                return Err(Self::refuse("JOB_LEASE_LOST"));
            }
            if request.lease.is_empty() {
                *lease = format!("lease {}", self.leases.fetch_add(1, Ordering::Relaxed));
                let mut jobs = self.jobs.lock().unwrap();
                jobs.last_mut().unwrap().worker = format!("spiffe://x/y {}", request.worker);
            }
            Ok(proto::LeaseJobResponse {
                job: Some(self.job_now()),
                lease: lease.clone(),
                cursor: self.cursor.lock().unwrap().clone(),
                lease_ms: 60_000,
            })
        })
        .await
    }

    async fn checkpoint(
        &self,
        request: proto::CheckpointJobRequest,
    ) -> Result<proto::CheckpointJobResponse, Failure> {
        self.effect(|| {
            let mut jobs = self.jobs.lock().unwrap();
            let job = jobs.last_mut().unwrap();
            if request.lease != *self.lease.lock().unwrap() {
                return Err(Self::refuse("JOB_LEASE_LOST"));
            }
            if request.step == job.steps + 1 {
                job.steps = request.step;
                let more = request.counts.unwrap();
                job.counts = Some(super::tally::sum(&job.counts.unwrap(), &more));
                *self.cursor.lock().unwrap() = request.cursor.clone();
                let mut steps = self.steps.lock().unwrap();
                steps.push((request.step, request.cursor));
                if request.completed {
                    job.state = JobState::Completed.into();
                    job.ended_unix_ms = 1;
                }
                if let Some(state) = self.change.lock().unwrap().take() {
                    job.state = state.into();
                }
            } else if request.step != job.steps {
                return Err(Self::refuse("JOB_STEP"));
            }
            Ok(proto::CheckpointJobResponse {
                job: Some(job.clone()),
                lease_ms: 60_000,
            })
        })
        .await
    }

    async fn rewrap(
        &self,
        _key: &str,
        headers: Vec<Bytes>,
    ) -> Result<proto::RewrapResponse, Failure> {
        self.effect(|| {
            let mut answer = proto::RewrapResponse::default();
            let late = self.behind.load(Ordering::Relaxed);
            self.behind.store(late.saturating_sub(1), Ordering::Relaxed);
            let to = self.primary.load(Ordering::Relaxed) - u32::from(late > 0);
            for (index, old) in headers.iter().enumerate() {
                let row = u32::from_be_bytes(old[20..24].try_into().unwrap());
                if Some(row) == self.bad {
                    answer.errors.push(proto::ItemError {
                        index: index as u32,
                        code: tonic::Code::FailedPrecondition.into(),
                        reason: "KEY_VERSION_SUSPENDED".into(),
                        message: "version 1 is suspended".into(),
                    });
                    answer.envelopes.push(Bytes::new());
                } else {
                    answer.envelopes.push(header(row, to));
                }
            }
            match answer.errors.first() {
                // As a server does when all items fail alike.
                Some(error) if answer.errors.len() == headers.len() => Err(Failure::item(error)),
                _ => Ok(answer),
            }
        })
        .await
    }
}

fn entry(row: u32, value: Option<&Option<Bytes>>) -> Option<Entry> {
    Some(Entry {
        name: row.to_string(),
        value: match value? {
            None => Value::Empty,
            Some(bytes) if bytes.len() < 136 => Value::Foreign,
            Some(bytes) => Value::Envelope(bytes.clone()),
        },
    })
}

impl Place for World {
    type Own = Vec<u32>;

    fn kind(&self) -> proto::JobKind {
        proto::JobKind::Table
    }

    fn subject(&self) -> String {
        "memory".into()
    }

    fn order(&self) -> String {
        "memory by row".into()
    }

    fn goes_on(&self) -> bool {
        !self.whole.load(Ordering::Relaxed)
    }

    async fn expected(&self) -> Result<u64, Failure> {
        Ok(self.rows.lock().unwrap().len() as u64)
    }

    async fn read(
        &self,
        after: Option<&str>,
        most: usize,
    ) -> Result<Option<Page<Vec<u32>>>, Failure> {
        self.effect(|| {
            let from = after.map_or(0, |a| a.parse::<u32>().unwrap() + 1);
            let mut rows = self.rows.lock().unwrap();
            let part: Vec<_> = rows.range(from..).take(most).collect();
            let own: Vec<u32> = part.iter().map(|(i, _)| **i).collect();
            let entries = part.iter().filter_map(|(i, v)| entry(**i, Some(*v)));
            let entries: Vec<Entry> = entries.collect();
            let mut meddle = self.meddle.lock().unwrap();
            while let Some(at) = meddle.iter().position(|(row, _)| own.contains(row)) {
                let (row, value) = meddle.remove(at);
                rows.insert(row, value);
            }
            let after = own.last().map(u32::to_string);
            Ok(after.map(|after| Page {
                entries,
                after,
                own,
            }))
        })
        .await
    }

    async fn write(
        &self,
        page: &Page<Vec<u32>>,
        new: &[(usize, Bytes)],
    ) -> Result<Written, Failure> {
        self.effect(|| {
            let mut written = Written::default();
            let mut rows = self.rows.lock().unwrap();
            for (i, header) in new {
                let now = rows.get_mut(&page.own[*i]).unwrap();
                match (&now, &page.entries[*i].value) {
                    (Some(now_bytes), Value::Envelope(old)) if now_bytes == old => {
                        assert!(version(header) >= version(old), "never back");
                        *now = Some(header.clone());
                    }
                    _ => written.lost.push(*i),
                }
            }
            Ok(written)
        })
        .await
    }

    async fn again(
        &self,
        page: &Page<Vec<u32>>,
        which: &[usize],
    ) -> Result<Page<Vec<u32>>, Failure> {
        self.effect(|| {
            let rows = self.rows.lock().unwrap();
            let own: Vec<u32> = which.iter().map(|i| page.own[*i]).collect();
            let entries = own.iter().filter_map(|i| entry(*i, rows.get(i)));
            Ok(Page {
                entries: entries.collect(),
                after: page.after.clone(),
                own: own.clone(),
            })
        })
        .await
    }
}
