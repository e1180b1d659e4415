//! What an appliance says of itself: its CPU time, and where the time of its requests went.

use std::{
    io::{Read, Write},
    net::{TcpStream, ToSocketAddrs},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};
use serde::Serialize;

const PATIENCE: Duration = Duration::from_secs(5);
/// Sums of the histograms, by RPC.
const PARTS: &str = "keywright_request_part_seconds_sum";
const REQUESTS: &str = "keywright_request_seconds";
const BATCHES: &str = "keywright_request_part_seconds_count";
const CPU: &str = "process_cpu_seconds_total";

/// At one moment, since it was started.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Scrape {
    /// CPU time.
    pub(crate) cpu_seconds: f64,
    /// Of all operations of one RPC.
    pub(crate) parts: Parts,
    /// How many there were.
    pub(crate) batches: f64,
}

/// Seconds of one RPC.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(crate) struct Parts {
    /// Waiting for a worker of the HSM.
    pub(crate) queue: f64,
    /// In the HSM.
    pub(crate) hsm: f64,
    /// AES-GCM and the derivation of its keys.
    pub(crate) crypto: f64,
    /// Waiting until the audit record is durable.
    pub(crate) audit: f64,
    /// Identity, policies, limits, putting batches together, waiting for a core.
    pub(crate) process: f64,
    /// From the first frame to the decoded message, and everything before the operation.
    pub(crate) codec: f64,
}

impl Parts {
    pub(crate) const NAMES: [&'static str; 6] =
        ["codec", "process", "queue", "hsm", "crypto", "audit"];

    /// In the order of [`Self::NAMES`].
    pub(crate) fn all(self) -> [f64; 6] {
        [
            self.codec,
            self.process,
            self.queue,
            self.hsm,
            self.crypto,
            self.audit,
        ]
    }

    fn map(self, other: Self, f: impl Fn(f64, f64) -> f64) -> Self {
        Self {
            queue: f(self.queue, other.queue),
            hsm: f(self.hsm, other.hsm),
            crypto: f(self.crypto, other.crypto),
            audit: f(self.audit, other.audit),
            process: f(self.process, other.process),
            codec: f(self.codec, other.codec),
        }
    }
}

impl Scrape {
    /// Asks the metrics of an appliance; `addr` is host:port, with or without the rest of
    /// the address.
    pub(crate) fn of(addr: &str, rpc: &str) -> Result<Self> {
        let text = get(addr).with_context(|| format!("the metrics at {addr}"))?;
        Self::read(&text, rpc)
    }

    fn read(text: &str, rpc: &str) -> Result<Self> {
        let label = |name: &str| format!("{name}=\"{rpc}\"");
        let value = |name: &str, labels: &[String]| -> f64 {
            let lines = text.lines().filter(|l| {
                let named = l
                    .strip_prefix(name)
                    .is_some_and(|rest| rest.starts_with(['{', ' ']));
                named && labels.iter().all(|label| l.contains(label.as_str()))
            });
            let values = lines.filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok());
            values.sum()
        };
        let part = |part: &str| value(PARTS, &[label("rpc"), format!("part=\"{part}\"")]);
        if !text.lines().any(|l| l.starts_with(CPU)) {
            bail!("there is no {CPU}; is it an appliance?");
        }
        let mut parts = Parts {
            queue: part("queue"),
            hsm: part("hsm"),
            crypto: part("crypto"),
            audit: part("audit"),
            process: part("process"),
            codec: 0.0,
        };
        let inside: f64 = parts.all().iter().sum();
        let whole = value(&format!("{REQUESTS}_sum"), &[label("rpc")]);
        parts.codec = (whole - inside).max(0.0);
        Ok(Self {
            cpu_seconds: value(CPU, &[]),
            parts,
            batches: value(BATCHES, &[label("rpc"), "part=\"audit\"".into()]),
        })
    }

    /// What was added since `before`.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            cpu_seconds: self.cpu_seconds - before.cpu_seconds,
            parts: self.parts.map(before.parts, |now, then| now - then),
            batches: self.batches - before.batches,
        }
    }

    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            cpu_seconds: self.cpu_seconds + other.cpu_seconds,
            parts: self.parts.map(other.parts, |a, b| a + b),
            batches: self.batches + other.batches,
        }
    }

    /// Microseconds of each part for one batch.
    pub(crate) fn micros(self) -> Parts {
        let n = self.batches.max(1.0);
        self.parts.map(self.parts, |sum, _| sum * 1e6 / n)
    }
}

/// The metrics stand at a loopback address in clear text, one request a connection.
fn get(addr: &str) -> Result<String> {
    let addr = addr.strip_prefix("http://").unwrap_or(addr);
    let host = addr.split('/').next().unwrap_or(addr);
    let to = host.to_socket_addrs()?.next();
    let to = to.ok_or_else(|| anyhow!("no such host"))?;
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "GET /metrics HTTP/1.0\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .ok_or_else(|| anyhow!("not an answer of HTTP"))?;
    match head.lines().next() {
        Some(status) if status.contains(" 200 ") => Ok(body.to_owned()),
        status => bail!("it answered {:?}", status.unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# TYPE process_cpu_seconds_total counter
process_cpu_seconds_total 2.5
keywright_request_seconds_sum{rpc=\"Encrypt\"} 10
keywright_request_seconds_count{rpc=\"Encrypt\"} 4
keywright_request_part_seconds_sum{rpc=\"Encrypt\",part=\"hsm\"} 2
keywright_request_part_seconds_sum{rpc=\"Encrypt\",part=\"audit\"} 3
keywright_request_part_seconds_sum{rpc=\"Decrypt\",part=\"hsm\"} 100
keywright_request_part_seconds_count{rpc=\"Encrypt\",part=\"audit\"} 4
";

    #[test]
    fn what_is_not_inside_an_operation_is_the_codec() {
        let now = Scrape::read(TEXT, "Encrypt").unwrap();
        assert_eq!((now.cpu_seconds, now.batches), (2.5, 4.0));
        assert_eq!(
            (now.parts.hsm, now.parts.audit, now.parts.codec),
            (2.0, 3.0, 5.0)
        );
        let half = now.since(Scrape::default());
        assert_eq!(half.micros().hsm, 500_000.0);
        assert_eq!(now.since(now).parts, Parts::default());
    }

    #[test]
    fn somebody_else_is_no_appliance() {
        assert!(Scrape::read("up 1\n", "Encrypt").is_err());
    }
}
