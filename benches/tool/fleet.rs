//! The processes of callers on one side, started once and driven round after round.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};

use crate::plan::{Plan, Round};

/// Callers of one side.
#[derive(Debug)]
pub(crate) struct Fleet(Vec<Worker>);

#[derive(Debug)]
struct Worker {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Fleet {
    /// Shares the callers and the rate of `plan` among some processes.
    pub(crate) fn start(plan: &Plan, processes: u32) -> Result<Self> {
        let workers = (0..processes).map(|n| {
            let share = Plan {
                in_flight: share(plan.in_flight, processes, n),
                rate: plan.rate.map(|rate| rate / f64::from(processes)),
                ..plan.clone()
            };
            Worker::start(&share)
        });
        let mut fleet = Self(workers.collect::<Result<_>>()?);
        for worker in &mut fleet.0 {
            let answer = worker.answer()?;
            if answer != "ready" {
                bail!("a process of callers said {answer:?}");
            }
        }
        Ok(fleet)
    }

    /// One round of all of them at once.
    pub(crate) fn drive(&mut self, window: Duration) -> Result<Round> {
        for worker in &mut self.0 {
            writeln!(worker.orders, "{}", window.as_millis())?;
        }
        let rounds: Result<Vec<Round>> = self
            .0
            .iter_mut()
            .map(|w| Ok(serde_json::from_str(&w.answer()?)?))
            .collect();
        Ok(together(rounds?))
    }
}

/// Nobody is left without any.
fn share(all: u32, processes: u32, n: u32) -> u32 {
    (all / processes + u32::from(n < all % processes)).max(1)
}

fn together(rounds: Vec<Round>) -> Round {
    let mut all = Round::default();
    let mut micros = BTreeMap::new();
    for round in rounds {
        all.requests += round.requests;
        all.refused += round.refused;
        all.failed += round.failed;
        all.failure = all.failure.or(round.failure);
        all.seconds = all.seconds.max(round.seconds);
        all.cpu_seconds += round.cpu_seconds;
        for (us, n) in round.micros {
            *micros.entry(us).or_insert(0) += n;
        }
    }
    all.micros = micros.into_iter().collect();
    all
}

impl Worker {
    fn start(plan: &Plan) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("worker")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("a process of callers")?;
        let none = || anyhow!("a process without pipes");
        let mut worker = Self {
            orders: child.stdin.take().ok_or_else(none)?,
            answers: BufReader::new(child.stdout.take().ok_or_else(none)?),
            child,
        };
        writeln!(worker.orders, "{}", serde_json::to_string(plan)?)?;
        Ok(worker)
    }

    fn answer(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.answers.read_line(&mut line)? == 0 {
            // It has said why on its standard error.
            bail!("a process of callers ended: {}", self.child.wait()?);
        }
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_are_shared_and_none_is_lost() {
        for (all, processes) in [(32, 1), (32, 3), (7, 4)] {
            let sum: u32 = (0..processes).map(|n| share(all, processes, n)).sum();
            assert_eq!(sum, all);
        }
        assert_eq!(share(1, 4, 3), 1);
    }

    #[test]
    fn rounds_of_processes_are_one() {
        let round = |us, seconds| Round {
            requests: 2,
            seconds,
            cpu_seconds: 0.5,
            micros: vec![(us, 2)],
            ..Round::default()
        };
        let all = together(vec![round(10, 1.0), round(10, 2.0), round(5, 1.0)]);
        assert_eq!((all.requests, all.seconds), (6, 2.0));
        assert_eq!(all.micros, [(5, 2), (10, 4)]);
    }
}
