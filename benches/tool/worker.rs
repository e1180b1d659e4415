//! One process of callers: reads a plan, prepares it, says `ready`, and then drives it for
//! as many milliseconds as each further line says.

use std::{
    io::{BufRead, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};
use hdrhistogram::Histogram;
use keywright_client::{Client, Failure, WAITING};
use rustix::time::{ClockId, clock_gettime};

use crate::{
    batch::{Batch, Kind},
    plan::{Plan, Round},
};

/// How long a caller that was turned away waits before it asks again.
const TURNED_AWAY: Duration = Duration::from_millis(10);
/// What an appliance says when it sheds load.
const BUSY: &str = "BUSY";
/// Longer than any request may take; a histogram wants to know.
const LONGEST_US: u64 = 600_000_000;

/// Until its standard input ends.
pub(crate) fn run() -> Result<()> {
    let mut lines = std::io::stdin().lock().lines();
    let Some(plan) = lines.next() else {
        return Ok(());
    };
    let plan: Plan = serde_json::from_str(&plan?).context("the plan")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let client = runtime.block_on(Client::connect(&plan.settings()))?;
    let batch = Arc::new(runtime.block_on(Batch::prepare(&client, &plan))?);
    say("ready")?;
    for line in lines {
        let window = Duration::from_millis(line?.trim().parse().context("milliseconds")?);
        let round = runtime.block_on(drive(&client, &plan, &batch, window))?;
        say(&serde_json::to_string(&round)?)?;
    }
    Ok(())
}

fn say(line: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

/// When the requests of a round are due.
struct Pace {
    began: Instant,
    ends: Instant,
    /// Between two of them; none: as soon as there is somebody to ask.
    every: Option<Duration>,
    next: AtomicU64,
}

impl Pace {
    fn new(window: Duration, rate: Option<f64>) -> Self {
        let began = Instant::now();
        Self {
            began,
            ends: began + window,
            every: rate.map(|rate| Duration::from_secs_f64(1.0 / rate)),
            next: AtomicU64::new(0),
        }
    }

    /// From when on the next request counts as asked; none: the round is over. Who comes too
    /// late for a request that was due counts from when it was due, so that a server that
    /// stands still cannot hide it (coordinated omission). That a timer rings late is not
    /// the server's doing.
    async fn turn(&self) -> Option<Instant> {
        let now = Instant::now();
        let Some(every) = self.every else {
            return (now < self.ends).then_some(now);
        };
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let due = self.began + every.mul_f64(number as f64);
        if due >= self.ends {
            return None;
        }
        if due <= now {
            return Some(due);
        }
        tokio::time::sleep_until(due.into()).await;
        Some(Instant::now())
    }
}

/// What one caller has seen.
struct Seen {
    round: Round,
    micros: Histogram<u64>,
}

impl Seen {
    fn new() -> Result<Self> {
        Ok(Self {
            round: Round::default(),
            micros: Histogram::new_with_max(LONGEST_US, 3)?,
        })
    }

    fn note(&mut self, asked: Instant, answer: &Result<(), Failure>) {
        match answer {
            Ok(()) => {
                self.round.requests += 1;
                let took = asked.elapsed().as_micros();
                self.micros
                    .saturating_record(u64::try_from(took).unwrap_or(u64::MAX));
            }
            Err(e) if e.reason() == Some(BUSY) => self.round.refused += 1,
            Err(e) => {
                self.round.failed += 1;
                self.round.failure.get_or_insert_with(|| e.to_string());
            }
        }
    }
}

async fn drive(
    client: &Client,
    plan: &Plan,
    batch: &Arc<Batch>,
    window: Duration,
) -> Result<Round> {
    let cpu = cpu_seconds();
    let pace = Arc::new(Pace::new(window, plan.rate));
    let callers: u32 = if plan.streams {
        plan.in_flight.div_ceil(u32::try_from(WAITING)?)
    } else {
        plan.in_flight
    };
    let callers: Vec<_> = (0..callers)
        .map(|_| {
            let (client, batch, pace) = (client.clone(), Arc::clone(batch), Arc::clone(&pace));
            let streams = plan.streams;
            tokio::spawn(async move {
                if streams {
                    on_stream(&client, &batch, &pace).await
                } else {
                    one_by_one(&client, &batch, &pace).await
                }
            })
        })
        .collect();
    let mut all = Seen::new()?;
    for caller in callers {
        let seen = caller.await??;
        all.micros.add(&seen.micros)?;
        all.round.requests += seen.round.requests;
        all.round.refused += seen.round.refused;
        all.round.failed += seen.round.failed;
        all.round.failure = all.round.failure.or(seen.round.failure);
    }
    Ok(Round {
        seconds: pace.began.elapsed().as_secs_f64(),
        cpu_seconds: cpu_seconds() - cpu,
        micros: all
            .micros
            .iter_recorded()
            .map(|v| (v.value_iterated_to(), v.count_at_value()))
            .collect(),
        ..all.round
    })
}

async fn one_by_one(client: &Client, batch: &Batch, pace: &Pace) -> Result<Seen> {
    let mut seen = Seen::new()?;
    while let Some(asked) = pace.turn().await {
        let answer = batch.ask(client).await;
        seen.note(asked, &answer);
        if answer.is_err() {
            tokio::time::sleep(TURNED_AWAY).await;
        }
    }
    Ok(seen)
}

/// Keeps one stream full.
macro_rules! keep_full {
    ($client:ident, $batch:ident, $pace:ident, $open:ident, $request:ident) => {{
        let mut seen = Seen::new()?;
        let mut stream = $client.$open::<Instant>().await?;
        loop {
            while !stream.is_full()
                && let Some(asked) = $pace.turn().await
            {
                stream.send(asked, $request.clone())?;
            }
            let Some((asked, answer)) = stream.answer().await? else {
                break;
            };
            let answer = answer.and_then(|a| $batch.check(&a));
            seen.note(asked, &answer);
        }
        Ok(seen)
    }};
}

async fn on_stream(client: &Client, batch: &Batch, pace: &Pace) -> Result<Seen> {
    match &batch.kind {
        Kind::Encrypt(r) => {
            keep_full!(client, batch, pace, encrypt_stream, r)
        }
        Kind::Decrypt(r) => {
            keep_full!(client, batch, pace, decrypt_stream, r)
        }
        Kind::Rewrap(r) => keep_full!(client, batch, pace, rewrap_stream, r),
        Kind::Sign(r) => keep_full!(client, batch, pace, sign_stream, r),
        Kind::Mac(_) => Err(anyhow!("there is no stream of MACs; leave out --streams")),
    }
}

#[allow(clippy::cast_precision_loss, reason = "seconds of a benchmark")]
fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_comes_too_late_counts_from_when_it_was_due() {
        let pace = Pace::new(Duration::from_secs(60), Some(1000.0));
        // Nobody asked for a while: the first ones are overdue.
        let overdue = Pace {
            began: pace.began - Duration::from_secs(1),
            ..pace
        };
        let first = overdue.turn().await.unwrap();
        let second = overdue.turn().await.unwrap();
        assert_eq!(first, overdue.began);
        assert_eq!(second - first, Duration::from_millis(1));
    }

    #[tokio::test]
    async fn a_round_ends() {
        for rate in [None, Some(10.0)] {
            assert!(Pace::new(Duration::ZERO, rate).turn().await.is_none());
        }
    }
}
