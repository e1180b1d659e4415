//! An appliance and an echo of the same bytes, in turns; and what the parts alone can do.

use std::time::Duration;

use anyhow::Result;
use keywright_benches::{aead, load::median};
use keywright_client::Settings;
use serde::Serialize;

use crate::{
    args::Asked,
    fleet::Fleet,
    plan::{Layout, Op, Plan, Round, Shape},
    scrape::{Parts, Scrape},
};

/// One of the two who are asked.
pub(crate) struct Side {
    pub(crate) settings: Settings,
    pub(crate) key: String,
    /// Its metrics; of an echo none.
    pub(crate) metrics: Option<String>,
    /// CPU time of an echo that is ours.
    pub(crate) cpu_seconds: Option<Box<dyn Fn() -> f64>>,
    pub(crate) echo: bool,
}

/// What the token alone can do of what one batch needs: seconds for one batch, and how
/// often a second.
pub(crate) type Alone<'a> = dyn FnMut(Op, Duration) -> Option<f64> + 'a;

/// One line of the report.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    pub(crate) op: Op,
    pub(crate) shape: String,
    pub(crate) layout: Layout,
    /// `per batch`, `lease`, or what the rules of the key say.
    pub(crate) dek: &'static str,
    pub(crate) streams: bool,
    pub(crate) in_flight: u32,
    /// Asked for; none: closed loop.
    pub(crate) rate_per_second: Option<u32>,
    pub(crate) processes: u32,
    pub(crate) requests_per_second: f64,
    pub(crate) items_per_second: f64,
    pub(crate) megabytes_per_second: f64,
    pub(crate) latency_ms: Latency,
    pub(crate) refused: u64,
    pub(crate) failed: u64,
    pub(crate) failure: Option<String>,
    /// Of the whole appliance, TLS and audit log with it.
    pub(crate) server_cpu_us_per_request: Option<f64>,
    pub(crate) server_cpu_us_per_item: Option<f64>,
    pub(crate) client_cpu_us_per_request: f64,
    /// Wall time of a request, by where it went.
    pub(crate) split_us: Option<Parts>,
    pub(crate) echo: Option<Echo>,
    /// AES-GCM of a batch on one core.
    pub(crate) aead_us_per_batch: Option<f64>,
    /// The token's calls for a batch, without anything else.
    pub(crate) token_us_per_batch: Option<f64>,
    /// Rate to what the token alone could do.
    pub(crate) of_token: Option<f64>,
}

/// Milliseconds.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
}

/// The same asked of the echo.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Echo {
    pub(crate) requests_per_second: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    /// CPU time of both ends for a request.
    pub(crate) cpu_us_per_request: f64,
    /// Median of the ratios of the rounds.
    pub(crate) ratio: f64,
    /// What the ratio could be if the appliance cost nothing but the echo, AES-GCM and the
    /// token's calls, all on the same cores.
    pub(crate) ceiling: Option<f64>,
    /// Ratio to that.
    pub(crate) efficiency: Option<f64>,
}

/// Every shape with every number in flight.
pub(crate) fn rows(
    asked: &Asked,
    dek: &'static str,
    appliance: &Side,
    echo: Option<&Side>,
    alone: &mut Alone<'_>,
) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for shape in &asked.shape {
        for in_flight in &asked.in_flight {
            rows.push(row(asked, dek, *shape, *in_flight, appliance, echo, alone)?);
        }
    }
    Ok(rows)
}

/// What the rounds of one side came to.
#[derive(Default)]
struct Sums {
    per_second: Vec<f64>,
    rounds: Vec<Round>,
    server: Scrape,
}

fn row(
    asked: &Asked,
    dek: &'static str,
    shape: Shape,
    in_flight: u32,
    appliance: &Side,
    echo: Option<&Side>,
    alone: &mut Alone<'_>,
) -> Result<Row> {
    let start = |side: &Side| Fleet::start(&plan(asked, shape, in_flight, side), asked.processes);
    let mut ours = start(appliance)?;
    let mut theirs = echo.map(start).transpose()?;
    ours.drive(asked.warm_up)?;
    if let Some(theirs) = &mut theirs {
        theirs.drive(asked.warm_up)?;
    }
    let (mut us, mut them, mut ratios) = (Sums::default(), Sums::default(), vec![]);
    for _ in 0..asked.rounds {
        let cpu = || echo.and_then(|e| e.cpu_seconds.as_ref()).map(|cpu| cpu());
        let cpu_before = cpu();
        let echoed = theirs
            .as_mut()
            .map(|f| f.drive(asked.seconds))
            .transpose()?;
        if let (Some(before), Some(after)) = (cpu_before, cpu()) {
            them.server.cpu_seconds += after - before;
        }
        let before = scrape(appliance, asked.op)?;
        let round = ours.drive(asked.seconds)?;
        if let (Some(before), Some(after)) = (before, scrape(appliance, asked.op)?) {
            us.server = us.server.and(after.since(before));
        }
        if let Some(echoed) = echoed {
            ratios.push(per_second(&round) / per_second(&echoed));
            them.take(echoed);
        }
        us.take(round);
    }
    drop((ours, theirs));
    let token_us = alone(asked.op, asked.seconds).map(|us| match asked.op {
        // One for a batch, and for the others one for an item.
        Op::Encrypt if dek == "lease" => 0.0,
        Op::Encrypt | Op::Decrypt => us,
        Op::Rewrap | Op::Sign | Op::Mac => us * f64::from(shape.count),
    });
    let aead_us = sealed(asked.op).then(|| aead_us(shape, asked.seconds / 2));
    let mut row = us.row(asked, dek, shape, in_flight);
    row.of_token = token_us
        .filter(|us| *us > 0.0)
        .map(|us| row.requests_per_second * us / 1e6);
    (row.aead_us_per_batch, row.token_us_per_batch) = (aead_us, token_us);
    if let Some(ratio) = middle(&mut ratios) {
        row.echo = Some(them.echo(ratio, aead_us.zip(token_us), &row));
    }
    Ok(row)
}

fn plan(asked: &Asked, shape: Shape, in_flight: u32, side: &Side) -> Plan {
    Plan {
        addr: side.settings.addr.clone().unwrap_or_default(),
        ca: side.settings.ca.clone(),
        cert: side.settings.cert.clone(),
        client_key: side.settings.key.clone(),
        key: side.key.clone(),
        op: asked.op,
        shape,
        layout: asked.layout,
        in_flight,
        rate: asked.rate.map(f64::from),
        streams: asked.streams,
        echo: side.echo,
    }
}

fn scrape(side: &Side, op: Op) -> Result<Option<Scrape>> {
    let of = |addr: &String| Scrape::of(addr, op.rpc());
    side.metrics.as_ref().map(of).transpose()
}

/// Does an appliance seal or open anything for it?
fn sealed(op: Op) -> bool {
    matches!(op, Op::Encrypt | Op::Decrypt)
}

fn aead_us(shape: Shape, window: Duration) -> f64 {
    let count = f64::from(shape.count);
    let (items, bytes) = (shape.count as usize, shape.bytes as usize);
    count * 1e6 / aead::per_second(items, bytes, window)
}

fn per_second(round: &Round) -> f64 {
    round.requests as f64 / round.seconds.max(1e-9)
}

fn middle(values: &mut [f64]) -> Option<f64> {
    (!values.is_empty()).then(|| median(values))
}

impl Sums {
    fn take(&mut self, round: Round) {
        self.per_second.push(per_second(&round));
        self.rounds.push(round);
    }

    fn requests(&self) -> f64 {
        let answered: u64 = self.rounds.iter().map(|r| r.requests).sum();
        (answered as f64).max(1.0)
    }

    fn client_us(&self) -> f64 {
        let cpu: f64 = self.rounds.iter().map(|r| r.cpu_seconds).sum();
        cpu * 1e6 / self.requests()
    }

    fn latency(&self) -> Latency {
        let mut micros: Vec<(u64, u64)> = self
            .rounds
            .iter()
            .flat_map(|r| r.micros.iter().copied())
            .collect();
        micros.sort_unstable();
        let all: u64 = micros.iter().map(|(_, n)| n).sum();
        let at = |share: f64| {
            let wanted = (all as f64 * share).ceil() as u64;
            let mut seen = 0;
            let found = micros.iter().find(|(_, n)| {
                seen += n;
                seen >= wanted
            });
            found
                .or(micros.last())
                .map_or(0.0, |(us, _)| *us as f64 / 1e3)
        };
        Latency {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: at(1.0),
        }
    }

    fn row(mut self, asked: &Asked, dek: &'static str, shape: Shape, in_flight: u32) -> Row {
        let rate = middle(&mut self.per_second).unwrap_or(0.0);
        let count = f64::from(shape.count);
        let measured = self.server.batches > 0.0;
        let cpu = measured.then(|| self.server.cpu_seconds * 1e6 / self.requests());
        Row {
            op: asked.op,
            shape: shape.to_string(),
            layout: asked.layout,
            dek,
            streams: asked.streams,
            in_flight,
            rate_per_second: asked.rate,
            processes: asked.processes,
            requests_per_second: rate,
            items_per_second: rate * count,
            megabytes_per_second: rate * shape.total() as f64 / 1e6,
            latency_ms: self.latency(),
            refused: self.rounds.iter().map(|r| r.refused).sum(),
            failed: self.rounds.iter().map(|r| r.failed).sum(),
            failure: self.rounds.iter().find_map(|r| r.failure.clone()),
            server_cpu_us_per_request: cpu,
            server_cpu_us_per_item: cpu.map(|cpu| cpu / count),
            client_cpu_us_per_request: self.client_us(),
            split_us: measured.then(|| self.server.micros()),
            echo: None,
            aead_us_per_batch: None,
            token_us_per_batch: None,
            of_token: None,
        }
    }

    /// `alone`: microseconds of AES-GCM and of the token for a batch.
    fn echo(mut self, ratio: f64, alone: Option<(f64, f64)>, row: &Row) -> Echo {
        let rate = middle(&mut self.per_second).unwrap_or(0.0);
        let latency = self.latency();
        // Both ends of an echo cost about the same; that of another machine cannot be seen.
        let both = match self.server.cpu_seconds {
            0.0 => 2.0 * self.client_us(),
            server => self.client_us() + server * 1e6 / self.requests(),
        };
        let ceiling = alone
            .filter(|_| row.rate_per_second.is_none())
            .map(|(aead, token)| both / (both + aead + token));
        Echo {
            requests_per_second: rate,
            p50_ms: latency.p50,
            p99_ms: latency.p99,
            cpu_us_per_request: both,
            ratio,
            ceiling,
            efficiency: ceiling.map(|ceiling| ratio / ceiling),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_all_rounds_together() {
        let round = |micros: &[(u64, u64)]| Round {
            micros: micros.to_vec(),
            requests: micros.iter().map(|(_, n)| n).sum(),
            ..Round::default()
        };
        let sums = Sums {
            rounds: vec![round(&[(1000, 50), (9000, 1)]), round(&[(2000, 49)])],
            ..Sums::default()
        };
        let latency = sums.latency();
        assert_eq!((latency.p50, latency.p90, latency.p99), (1.0, 2.0, 2.0));
        assert_eq!((latency.p999, latency.max), (9.0, 9.0));
        assert_eq!(Sums::default().latency().p99, 0.0);
    }
}
