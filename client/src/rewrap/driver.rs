//! Runs one job over a place, from its cursor to its end.

use std::{
    pin::pin,
    sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering},
};

use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use tokio::time::{Instant, sleep_until};

use super::{
    Event, Order, Tell, cursor,
    lease::{self, Held},
    mover::{Done, Mover, newest_of},
    pace::Pace,
    patience::{Patience, Stop},
    place::Place,
    server::Server,
    tally::{Tally, sum},
};
use crate::{
    Failure, FailureKind,
    proto::{self, CheckpointJobRequest, CreateJobRequest, Job, JobState},
};

/// Pages of one step at most.
const PAGES: usize = 16;

/// Goes on with the open job of this key and place, or begins one, and works on it to the
/// end.
///
/// # Errors
/// [`FailureKind::Stopped`] when asked to stop, [`FailureKind::State`] when the job was
/// paused, cancelled or taken over, else what the server or the place says. The same call
/// goes on where it stopped.
pub async fn run<S: Server, P: Place>(
    server: &S,
    place: &P,
    order: &Order,
    tell: Tell<'_>,
    stop: &Stop,
) -> Result<Job, Failure> {
    let patience = Patience {
        limit: order.patience,
        pause: order.pause,
        tell,
        stop,
    };
    let key = patience
        .insist(async || server.key(&order.key).await)
        .await?;
    let expected = patience.insist(async || place.expected().await).await?;
    let job = find_or_begin(server, place, order, &patience).await?;
    if job.rate_per_second != order.rate && order.rate != 0 {
        let rate = job.rate_per_second;
        tell(Event::Note(format!(
            "job {} was begun with another rate, which stays: {rate} a second (0: no limit)",
            job.id
        )));
    }
    let steps = place.order();
    let held = match lease::take(server, job, order, &steps, &patience).await? {
        Ok(held) => held,
        // What appears as a whole appears where its worker is.
        Err(job) if !place.goes_on() && !job.dry_run => {
            let text = format!(
                "job {} over {} was completed by another worker, and nothing was written here; the same command does it here",
                job.id, job.subject
            );
            return Err(Failure::new(FailureKind::State, text));
        }
        Err(job) => return Ok(job),
    };
    tell(Event::Begin(&held.job, held.job.steps > 0));
    let mut work = Work {
        server,
        place,
        order,
        patience: &patience,
        expected,
        held,
        pending: Pending::default(),
    };
    work.go(&key).await?;
    Ok(work.held.job)
}

async fn find_or_begin<S: Server, P: Place>(
    server: &S,
    place: &P,
    order: &Order,
    patience: &Patience<'_>,
) -> Result<Job, Failure> {
    let subject = place.subject();
    let open = async || server.open_job(&order.key, &subject).await;
    let request = CreateJobRequest {
        key: order.key.clone(),
        kind: place.kind().into(),
        subject: subject.clone(),
        dry_run: order.dry_run,
        rate_per_second: order.rate,
    };
    // Begun once for each look whether it is there: an answer that got lost is found.
    let begin = async || match open().await? {
        Some(job) => Ok(job),
        None => server.create(request.clone()).await,
    };
    let job = match patience.insist(begin).await {
        // Somebody else was faster.
        Err(failure) if failure.kind() == FailureKind::State => {
            patience.insist(open).await?.ok_or(failure)?
        }
        answer => answer?,
    };
    if job.dry_run != order.dry_run {
        let what = if job.dry_run { "only looks" } else { "moves" };
        let text = format!(
            "job {} over {subject} is open and {what}; complete it (without this --dry-run, or with it) or cancel it first: keywright job cancel {}",
            job.id, job.id
        );
        return Err(Failure::new(FailureKind::State, text));
    }
    Ok(job)
}

/// What was done since the last step that was reported.
#[derive(Default)]
struct Pending {
    pages: usize,
    tally: Tally,
    after: Option<String>,
    since: Option<Instant>,
}

/// A job at work.
struct Work<'a, S, P> {
    server: &'a S,
    place: &'a P,
    order: &'a Order,
    patience: &'a Patience<'a>,
    expected: u64,
    held: Held,
    pending: Pending,
}

impl<S: Server, P: Place> Work<'_, S, P> {
    /// To the end, or as far as it goes; what is done is reported in any case.
    async fn go(&mut self, key: &proto::Key) -> Result<(), Failure> {
        let pace = Pace::new(self.held.job.rate_per_second);
        let (named, ended) = (AtomicUsize::new(0), AtomicBool::new(false));
        let newest = AtomicU32::new(newest_of(key));
        let mover = Mover {
            server: self.server,
            key,
            target: self.held.job.target_version,
            dry_run: self.held.job.dry_run,
            pace: &pace,
            patience: self.patience,
            tell: self.patience.tell,
            newest: &newest,
            named: &named,
        };
        let (place, order) = (self.place, self.order);
        let first = self.held.after.clone().filter(|_| place.goes_on());
        // One second's worth, so that a slow rate goes evenly.
        let second = match self.held.job.rate_per_second {
            0 => usize::MAX,
            n => n as usize,
        };
        let most = order.batch.min(second).max(1);
        let pages = pages(place, first, most, self.patience, &ended);
        let done = pages
            .map(|page| async { mover.page(place, page?).await })
            .buffered(order.workers.max(1));
        let outcome = Box::pin(self.walk(done)).await;
        match outcome {
            Ok(()) if ended.load(Ordering::Relaxed) => {
                self.place.finish()?;
                self.checkpoint(true).await
            }
            Ok(()) => {
                self.last_word().await?;
                Err(lease::stopped(&self.held.job))
            }
            Err(End::Work(failure)) => {
                // What was done before it counts; what went wrong is what is told.
                let told = self.last_word().await;
                match failure.kind() {
                    FailureKind::Stopped if told.is_ok() => Err(lease::stopped(&self.held.job)),
                    _ => Err(failure),
                }
            }
            Err(End::Job(failure)) => Err(failure),
        }
    }

    /// Takes pages as they are done and reports steps, until there are no more.
    async fn walk(
        &mut self,
        done: impl Stream<Item = Result<Done<P::Own>, Failure>>,
    ) -> Result<(), End> {
        let mut done = pin!(done);
        loop {
            let next = tokio::select! {
                next = done.try_next() => Some(next.map_err(End::Work)?),
                () = sleep_until(self.wake()) => None,
            };
            match next {
                Some(Some(page)) => self.took(page).map_err(End::Work)?,
                Some(None) => return Ok(()),
                None => {}
            }
            if self.is_due() {
                self.checkpoint(false).await.map_err(End::Job)?;
            } else if Instant::now() >= self.held.renew_at {
                lease::renew(self.server, &mut self.held, self.patience)
                    .await
                    .map_err(End::Job)?;
            }
            if let Some(failure) = lease::stands(&self.held.job) {
                return Err(End::Job(failure));
            }
        }
    }

    fn took(&mut self, done: Done<P::Own>) -> Result<(), Failure> {
        self.place.take(done.page, &done.new)?;
        let pending = &mut self.pending;
        pending.pages += 1;
        pending.tally.add(&done.tally);
        pending.after = Some(done.after);
        pending.since.get_or_insert_with(Instant::now);
        let before = self.held.job.counts.unwrap_or_default();
        let counts = sum(&before, &pending.tally.counts);
        (self.patience.tell)(Event::Progress(counts, self.expected));
        Ok(())
    }

    /// When to look up from the work.
    fn wake(&self) -> Instant {
        match self.pending.since {
            Some(since) if self.cursor().is_some() => {
                (since + self.order.beat).min(self.held.renew_at)
            }
            _ => self.held.renew_at,
        }
    }

    fn is_due(&self) -> bool {
        let Some(since) = self.pending.since else {
            return false;
        };
        let long = since.elapsed() >= self.order.beat || Instant::now() >= self.held.renew_at;
        (long || self.pending.pages >= PAGES) && self.cursor().is_some()
    }

    /// Where the next step begins; none while that cannot be said.
    fn cursor(&self) -> Option<bytes::Bytes> {
        let after = self.pending.after.as_ref()?;
        let goes_on = self.place.goes_on();
        goes_on.then(|| cursor::encode(&self.place.order(), after))?
    }

    /// Reports what is done, if a next worker can go on behind it.
    async fn last_word(&mut self) -> Result<(), Failure> {
        match self.cursor() {
            Some(_) => self.checkpoint(false).await,
            None => Ok(()),
        }
    }

    /// Reports one step. Whoever hears the same step twice counts it once, so it may be
    /// tried again.
    async fn checkpoint(&mut self, completed: bool) -> Result<(), Failure> {
        let cursor = self.cursor().unwrap_or_default();
        let pending = std::mem::take(&mut self.pending);
        let request = CheckpointJobRequest {
            id: self.held.job.id.clone(),
            lease: self.held.lease.clone(),
            step: self.held.job.steps + 1,
            cursor,
            counts: Some(pending.tally.counts),
            census: pending.tally.census(),
            expected: self.expected,
            completed,
        };
        let call = async || self.server.checkpoint(request.clone()).await;
        let answer = self.patience.insist(call).await;
        let answer = answer.map_err(|e| lease::lost(e, &self.held.job))?;
        self.held.job = answer.job.ok_or_else(Failure::nonsense)?;
        self.held.renewed(answer.lease_ms);
        match self.held.job.state() {
            JobState::Completed => Ok(()),
            _ if completed => Err(lease::stands(&self.held.job).unwrap_or_else(Failure::nonsense)),
            _ => Ok(()),
        }
    }
}

/// Why work ends early.
enum End {
    /// A page could not be done; what was done before it is still to be reported.
    Work(Failure),
    /// The job is not ours any more, or nobody's.
    Job(Failure),
}

/// Pages from the cursor on, until the end or until asked to stop.
fn pages<'a, P: Place>(
    place: &'a P,
    first: Option<String>,
    most: usize,
    patience: &'a Patience<'a>,
    ended: &'a AtomicBool,
) -> impl Stream<Item = Result<super::Page<P::Own>, Failure>> + 'a {
    stream::try_unfold(first, move |after| async move {
        if patience.stop.is_asked() {
            return Ok(None);
        }
        let read = async || place.read(after.as_deref(), most).await;
        let Some(page) = patience.insist(read).await? else {
            ended.store(true, Ordering::Relaxed);
            return Ok(None);
        };
        let after = Some(page.after.clone());
        Ok(Some((page, after)))
    })
}
