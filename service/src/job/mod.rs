//! Jobs: moving everything of a key off its old versions, in one place of the caller's.
//! Pure data, no I/O.
//!
//! The work is done by a worker outside; a [`Job`] is what makes it end. As a
//! [`Key`](crate::key::Key) it is an immutable picture: a change makes the next one, or says
//! why there is none. The rules are those of `docs/models/rotation.pml`.

mod counts;

use std::fmt;

use crate::key::{KeyId, Revision, TenantId, VersionNumber, hex_id};

pub use counts::{Census, Counts, Found};

/// Permanent id of a job.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobId(pub [u8; 16]);
hex_id!(JobId);

impl JobId {
    /// From 32 hexadecimal digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        hex::decode(text).ok()?.try_into().ok().map(Self)
    }
}

/// A type whose values have names in the store and in reports.
macro_rules! named {
    ($(#[$doc:meta])* $kind:ident { $($(#[$each:meta])* $value:ident = $name:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $kind { $($(#[$each])* $value,)* }

        impl $kind {
            /// As in the store and in reports.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$value => $name,)* }
            }

            /// The inverse of `name`.
            #[must_use]
            pub fn parse(text: &str) -> Option<Self> {
                match text { $($name => Some(Self::$value),)* _ => None }
            }
        }
    };
}

named! {
    /// What a job goes over.
    JobKind {
        /// A column of a database table.
        Table = "table",
        /// Files in a directory.
        Files = "files",
        /// A column of a text file.
        Lines = "lines",
        /// The data keys that the appliance keeps; it works on this job by itself.
        Kept = "kept",
    }
}

named! {
    /// Where a job stands.
    JobState {
        /// May be worked on, once its time has come.
        Open = "open",
        /// Not for now.
        Paused = "paused",
        /// Ended early.
        Cancelled = "cancelled",
        /// Went through everything.
        Completed = "completed",
    }
}

/// What somebody wants of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobChange {
    /// Stop for now.
    Pause,
    /// Go on.
    Resume,
    /// Stop for good.
    Cancel,
}

/// The right to work on a job. Its number rises each time the job is taken, and never
/// starts again in the life of a job: what an older number reports does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// Of which job.
    pub job: JobId,
    /// From 1.
    pub number: u64,
}

impl fmt::Display for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.job, self.number)
    }
}

impl Lease {
    /// The inverse of `Display`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (job, number) = text.split_once('.')?;
        Some(Self {
            job: JobId::parse(job)?,
            number: number.parse().ok().filter(|n| *n > 0)?,
        })
    }
}

/// A step that was done.
#[derive(Debug, Clone)]
pub struct Step {
    /// One more than the steps before.
    pub number: u64,
    /// Where the next one begins, in the worker's words.
    pub cursor: Vec<u8>,
    /// What was found in it.
    pub counts: Counts,
    /// The same by version.
    pub census: Census,
    /// How many there are in all; `None`: as before.
    pub expected: Option<u64>,
    /// It was the last one.
    pub completed: bool,
}

/// Why a job cannot do what was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotNow {
    /// Not before this time, in milliseconds since the epoch.
    Waits(i64),
    /// It is in this state.
    State(JobState),
    /// Somebody else works on it, until then.
    Leased(String, i64),
    /// Somebody else took the lease since.
    LeaseLost(String),
    /// This step is not the next one, which would be the other one.
    Step(u64, u64),
    /// The counts of a step are not those of its census, or their sum is wrong.
    Sum,
}

/// A picture of a job.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// Permanent.
    pub id: JobId,
    /// Whose.
    pub tenant: TenantId,
    /// About which key.
    pub key: KeyId,
    /// What it goes over.
    pub kind: JobKind,
    /// Where, in the words of its creator.
    pub subject: String,
    /// Only looks.
    pub dry_run: bool,
    /// Where everything is to be, or above. It stands here, and not in a worker's idea of
    /// what is primary: that may be old.
    pub target: VersionNumber,
    /// Where it stands.
    pub state: JobState,
    /// What was protected under an older version is where it belongs by then, in
    /// milliseconds since the epoch.
    pub not_before_ms: i64,
    /// Items a second; `None`: no limit.
    pub rate: Option<u32>,
    /// What was found so far.
    pub counts: Counts,
    /// By the version it was found under.
    pub census: Census,
    /// How many there are in all, as far as somebody knows.
    pub expected: u64,
    /// Steps that took effect.
    pub steps: u64,
    /// Where the next one begins.
    pub cursor: Vec<u8>,
    /// Number of the newest lease; 0 before the first.
    pub lease: u64,
    /// Who has or had it.
    pub worker: String,
    /// Until when; 0: nobody has it.
    pub lease_until_ms: i64,
    /// Items seen in a second lately, in thousandths.
    pub speed_milli: u64,
    /// When the last step was told, or the lease taken.
    pub stepped_ms: i64,
    /// Who began it.
    pub created_by: String,
    /// When.
    pub created_ms: i64,
    /// When it ended; `None`: it has not.
    pub ended_ms: Option<i64>,
    /// Rises with every change.
    pub revision: Revision,
}

impl Job {
    /// The subject of a job over the data keys that the appliance keeps.
    pub const KEPT: &'static str = "data keys kept by the appliance";
    /// Longest subject, in characters.
    pub const MAX_SUBJECT: usize = 255;
    /// Longest name of a worker, in characters.
    pub const MAX_WORKER: usize = 128;
    /// Longest cursor.
    pub const MAX_CURSOR_BYTES: usize = 1024;

    /// Is it still to be worked on, now or later?
    #[must_use]
    pub fn open(&self) -> bool {
        self.ended_ms.is_none()
    }

    fn next_picture(&self) -> Self {
        let mut next = self.clone();
        next.revision = Revision(self.revision.0 + 1);
        next
    }

    fn workable(&self, now_ms: i64) -> Result<(), NotNow> {
        match self.state {
            JobState::Open if now_ms < self.not_before_ms => Err(NotNow::Waits(self.not_before_ms)),
            JobState::Open => Ok(()),
            other => Err(NotNow::State(other)),
        }
    }

    /// The next picture: somebody has a new lease.
    ///
    /// # Errors
    /// [`NotNow`]: its time has not come, it is not open, or somebody else has it and
    /// `take_over` is not said.
    pub fn leased(
        &self,
        worker: String,
        take_over: bool,
        now_ms: i64,
        lease_ms: i64,
    ) -> Result<Self, NotNow> {
        self.workable(now_ms)?;
        if now_ms < self.lease_until_ms && !take_over {
            return Err(NotNow::Leased(self.worker.clone(), self.lease_until_ms));
        }
        let mut next = self.next_picture();
        next.lease += 1;
        next.worker = worker;
        next.lease_until_ms = now_ms + lease_ms;
        next.stepped_ms = now_ms;
        Ok(next)
    }

    /// The next picture: the newest lease lasts longer.
    ///
    /// # Errors
    /// [`NotNow`]: somebody else took it, or the job is not open.
    pub fn renewed(&self, lease: Lease, now_ms: i64, lease_ms: i64) -> Result<Self, NotNow> {
        self.newest(lease)?;
        self.workable(now_ms)?;
        let mut next = self.next_picture();
        next.lease_until_ms = now_ms + lease_ms;
        Ok(next)
    }

    fn newest(&self, lease: Lease) -> Result<(), NotNow> {
        if lease.job == self.id && lease.number == self.lease {
            Ok(())
        } else {
            Err(NotNow::LeaseLost(self.worker.clone()))
        }
    }

    /// The next picture: one more step is done. `None`: it was told before, or the job has
    /// ended and nothing counts any more. A job that is paused takes the step that was under
    /// way.
    ///
    /// # Errors
    /// [`NotNow`]: somebody else took the lease, the step is not the next one, or its
    /// counts contradict each other.
    pub fn stepped(
        &self,
        lease: Lease,
        step: Step,
        now_ms: i64,
        lease_ms: i64,
    ) -> Result<Option<Self>, NotNow> {
        if step.counts.sum() != Some(step.counts.seen) || !step.counts.fit(&step.census) {
            return Err(NotNow::Sum);
        }
        self.newest(lease)?;
        if self.ended_ms.is_some() {
            return Ok(None);
        }
        if step.number == self.steps && step.cursor == self.cursor {
            return Ok(None);
        }
        if step.number != self.steps + 1 {
            return Err(NotNow::Step(step.number, self.steps + 1));
        }
        let mut next = self.next_picture();
        next.steps = step.number;
        next.cursor = step.cursor;
        next.counts.add(&step.counts);
        next.census.add(&step.census);
        if next.census.versions().count() > Census::MAX_VERSIONS {
            return Err(NotNow::Sum);
        }
        next.expected = step.expected.unwrap_or(self.expected);
        next.speed_milli = self.speed(step.counts.seen, now_ms);
        next.stepped_ms = now_ms;
        next.lease_until_ms = now_ms + lease_ms;
        if step.completed {
            next.end(JobState::Completed, now_ms);
        }
        Ok(Some(next))
    }

    /// Half of it is the last step: quick to follow, and not nervous.
    fn speed(&self, seen: u64, now_ms: i64) -> u64 {
        let passed_ms = u64::try_from(now_ms - self.stepped_ms).unwrap_or(0).max(1);
        let last = seen.saturating_mul(1_000_000) / passed_ms;
        match self.speed_milli {
            0 => last,
            before => u64::midpoint(before, last),
        }
    }

    fn end(&mut self, state: JobState, now_ms: i64) {
        self.state = state;
        self.ended_ms = Some(now_ms);
        self.lease_until_ms = 0;
    }

    /// The next picture after somebody's wish.
    ///
    /// # Errors
    /// [`NotNow::State`] when it has ended, or is so already.
    pub fn changed(&self, change: JobChange, now_ms: i64) -> Result<Self, NotNow> {
        let mut next = self.next_picture();
        match (change, self.state) {
            (JobChange::Pause, JobState::Open) => next.state = JobState::Paused,
            (JobChange::Resume, JobState::Paused) => next.state = JobState::Open,
            (JobChange::Cancel, JobState::Open | JobState::Paused) => {
                next.end(JobState::Cancelled, now_ms);
            }
            (_, state) => return Err(NotNow::State(state)),
        }
        Ok(next)
    }

    /// Why this job, one that speaks about its subject now, shows that a version is still
    /// needed. Also its own target is, and what is above it, when later versions have
    /// followed: there is what it moved.
    #[must_use]
    pub fn needs(&self, version: VersionNumber) -> Option<Need> {
        let found = self.census.of(version);
        let old = version < self.target;
        // Still under some version, but nobody could say which.
        let unknown = self.counts.unknown(&self.census);
        match self.state {
            JobState::Open | JobState::Paused if !self.dry_run && old => Some(Need::Unfinished),
            JobState::Cancelled if found.found > 0 => Some(Need::Cancelled),
            _ if found.left > 0 => Some(Need::Left(found.left)),
            _ if !old && self.counts.moved > 0 => Some(Need::MovedHere(self.counts.moved)),
            _ if old && unknown > 0 => Some(Need::Unknown(unknown)),
            _ => None,
        }
    }
}

/// What a job says of a version that is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// It has not gone through everything.
    Unfinished,
    /// It found some of this version and was cancelled.
    Cancelled,
    /// So many were left under it.
    Left(u64),
    /// It moved so many to its target, or to a version above.
    MovedHere(u64),
    /// It left so many whose version could not be read.
    Unknown(u64),
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn job() -> Job {
        Job {
            id: JobId([5; 16]),
            tenant: TenantId([7; 16]),
            key: KeyId([1; 16]),
            kind: JobKind::Table,
            subject: "postgres://db/shop/public.cards.pan".into(),
            dry_run: false,
            target: VersionNumber::new(2).unwrap(),
            state: JobState::Open,
            not_before_ms: 1_000,
            rate: None,
            counts: Counts::default(),
            census: Census::default(),
            expected: 0,
            steps: 0,
            cursor: Vec::new(),
            lease: 0,
            worker: String::new(),
            lease_until_ms: 0,
            speed_milli: 0,
            stepped_ms: 0,
            created_by: "spiffe://a/b".into(),
            created_ms: 500,
            ended_ms: None,
            revision: Revision(1),
        }
    }

    fn lease(number: u64) -> Lease {
        let job = job().id;
        Lease { job, number }
    }

    pub(crate) fn step(number: u64, moved: u64, left: u64) -> Step {
        let one = VersionNumber::FIRST;
        let found = moved + left;
        Step {
            number,
            cursor: number.to_be_bytes().to_vec(),
            counts: Counts {
                seen: found,
                moved,
                left,
                ..Counts::default()
            },
            census: Census::new([(one, Found { found, left })]),
            expected: Some(100),
            completed: false,
        }
    }

    #[test]
    fn nobody_works_before_its_time_and_one_at_a_time() {
        let job = job();
        let take = |j: &Job, over, now| j.leased("w".into(), over, now, 100);
        assert_eq!(take(&job, true, 999), Err(NotNow::Waits(1_000)));
        let first = take(&job, false, 1_000).unwrap();
        assert_eq!((first.lease, first.lease_until_ms), (1, 1_100));
        let held = Err(NotNow::Leased("w".into(), 1_100));
        assert_eq!(take(&first, false, 1_099), held);
        assert_eq!(take(&first, false, 1_100).unwrap().lease, 2);
        let second = take(&first, true, 1_001).unwrap();
        let lost = NotNow::LeaseLost("w".into());
        assert_eq!(second.renewed(lease(1), 1_002, 100), Err(lost.clone()));
        assert_eq!(
            second.stepped(lease(1), step(1, 1, 0), 1_002, 100),
            Err(lost.clone())
        );
        let foreign = Lease {
            job: JobId([6; 16]),
            number: 2,
        };
        assert_eq!(second.renewed(foreign, 1_002, 100), Err(lost));
        let renewed = second.renewed(lease(2), 1_050, 100).unwrap();
        assert_eq!(renewed.lease_until_ms, 1_150);
    }

    #[test]
    fn a_step_counts_once_and_in_order() {
        let job = job().leased("w".into(), false, 1_000, 100).unwrap();
        let tell = |j: &Job, s| j.stepped(lease(1), s, 2_000, 100);
        let one = tell(&job, step(1, 3, 1)).unwrap().unwrap();
        assert_eq!((one.steps, one.counts.moved, one.counts.seen), (1, 3, 4));
        assert_eq!(tell(&one, step(1, 3, 1)), Ok(None), "told twice");
        assert_eq!(tell(&one, step(3, 1, 0)), Err(NotNow::Step(3, 2)));
        let mut elsewhere = step(1, 3, 1);
        elsewhere.cursor = vec![9];
        assert_eq!(tell(&one, elsewhere), Err(NotNow::Step(1, 2)));
        let mut wrong = step(2, 1, 0);
        wrong.counts.seen = 2;
        assert_eq!(tell(&one, wrong), Err(NotNow::Sum));
        let mut wrong = step(2, 1, 0);
        wrong.census = Census::default();
        assert_eq!(tell(&one, wrong), Err(NotNow::Sum));
        let mut last = step(2, 0, 2);
        last.completed = true;
        let two = tell(&one, last).unwrap().unwrap();
        assert_eq!(
            (two.state, two.ended_ms),
            (JobState::Completed, Some(2_000))
        );
        assert_eq!(
            two.census.of(VersionNumber::FIRST),
            Found { found: 6, left: 3 }
        );
        assert_eq!(tell(&two, step(3, 1, 0)), Ok(None), "it has ended");
    }

    #[test]
    fn paused_jobs_take_the_step_under_way_and_no_lease() {
        let job = job().leased("w".into(), false, 1_000, 100).unwrap();
        let paused = job.changed(JobChange::Pause, 1_001).unwrap();
        let took = paused.stepped(lease(1), step(1, 1, 0), 1_002, 100);
        assert_eq!(took.unwrap().unwrap().counts.moved, 1);
        let refused = Err(NotNow::State(JobState::Paused));
        assert_eq!(paused.leased("w".into(), true, 1_002, 100), refused);
        assert_eq!(paused.renewed(lease(1), 1_002, 100), refused);
        let open = paused.changed(JobChange::Resume, 1_003).unwrap();
        assert_eq!(open.state, JobState::Open);
        let gone = open.changed(JobChange::Cancel, 1_004).unwrap();
        assert!(!gone.open());
        for change in [JobChange::Pause, JobChange::Resume, JobChange::Cancel] {
            let ended = NotNow::State(JobState::Cancelled);
            assert_eq!(gone.changed(change, 1_005), Err(ended));
        }
    }

    #[test]
    fn a_version_is_needed_until_a_job_has_gone_through_and_left_nothing() {
        let (one, two) = (VersionNumber::FIRST, VersionNumber::new(2).unwrap());
        let job = job().leased("w".into(), false, 1_000, 100).unwrap();
        assert_eq!(job.needs(one), Some(Need::Unfinished));
        assert_eq!(job.needs(two), None, "the target itself");
        let end = |moved, left| {
            let mut last = step(1, moved, left);
            last.completed = true;
            job.stepped(lease(1), last, 2_000, 100).unwrap().unwrap()
        };
        assert_eq!(end(5, 0).needs(one), None);
        assert_eq!(end(5, 2).needs(one), Some(Need::Left(2)));
        assert_eq!(end(5, 0).needs(two), Some(Need::MovedHere(5)));
        assert_eq!(end(0, 0).needs(two), None);
        let mut unreadable = step(1, 5, 0);
        unreadable.counts.seen += 3;
        unreadable.counts.left += 3;
        unreadable.completed = true;
        let ended = job.stepped(lease(1), unreadable, 2_000, 100).unwrap();
        assert_eq!(ended.unwrap().needs(one), Some(Need::Unknown(3)));
        let some = job.stepped(lease(1), step(1, 5, 0), 2_000, 100);
        let cancelled = some.unwrap().unwrap().changed(JobChange::Cancel, 3_000);
        assert_eq!(cancelled.unwrap().needs(one), Some(Need::Cancelled));
        let untouched = job.changed(JobChange::Cancel, 3_000).unwrap();
        assert_eq!(untouched.needs(one), None, "it never found any");
    }

    #[test]
    fn leases_and_ids_read_back() {
        let text = lease(7).to_string();
        assert_eq!(Lease::parse(&text), Some(lease(7)));
        for bad in ["", "x.1", "0505.1", &text[..32], &format!("{text}x")] {
            assert_eq!(Lease::parse(bad), None, "{bad}");
        }
        assert_eq!(Lease::parse(&format!("{}.0", job().id)), None);
    }
}
