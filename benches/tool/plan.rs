//! What one process of callers is to do, as it is told on its standard input, and what it
//! says afterwards.

use std::{fmt, path::PathBuf, str::FromStr};

use clap::ValueEnum;
use keywright_client::Settings;
use serde::{Deserialize, Serialize};

/// The operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Op {
    /// Plaintexts into an envelope.
    Encrypt,
    /// And back. The envelope is made once, before.
    Decrypt,
    /// Headers with a DEK each to the newest version. Rotates the key first, once for each
    /// line of the table and process, so that there is something to do.
    Rewrap,
    /// Digests of the items, by the key's default scheme.
    Sign,
    /// Of the items.
    Mac,
}

impl Op {
    /// As the metrics of the appliance name it.
    pub(crate) fn rpc(self) -> &'static str {
        match self {
            Self::Encrypt => "Encrypt",
            Self::Decrypt => "Decrypt",
            Self::Rewrap => "Rewrap",
            Self::Sign => "Sign",
            Self::Mac => "Mac",
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.rpc().to_lowercase())
    }
}

/// How the items of a batch stand in a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Layout {
    /// One field each.
    Repeated,
    /// One field with all of them, and their lengths.
    Packed,
}

/// Items of a batch, and bytes of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Shape {
    pub(crate) count: u32,
    pub(crate) bytes: u32,
}

impl Shape {
    /// Bytes of all items.
    pub(crate) fn total(self) -> u64 {
        u64::from(self.count) * u64::from(self.bytes)
    }
}

impl FromStr for Shape {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not COUNTxBYTES, as in 100x256");
        let (count, bytes) = text.split_once(['x', 'X', '×']).ok_or_else(wrong)?;
        let shape = Self {
            count: count.parse().map_err(|_| wrong())?,
            bytes: bytes.parse().map_err(|_| wrong())?,
        };
        // What an appliance refuses anyway is refused here, before memory is taken for it.
        if shape.count == 0 || shape.total() > 64 << 20 {
            return Err(format!(
                "{text:?}: give at least one item and at most 64 MiB"
            ));
        }
        Ok(shape)
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.count, self.bytes)
    }
}

/// One process: whom it asks, what, and how many at once.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) addr: String,
    pub(crate) ca: Option<PathBuf>,
    pub(crate) cert: Option<PathBuf>,
    pub(crate) client_key: Option<PathBuf>,
    pub(crate) key: String,
    pub(crate) op: Op,
    pub(crate) shape: Shape,
    pub(crate) layout: Layout,
    pub(crate) in_flight: u32,
    /// Requests per second of this process; none: closed loop.
    pub(crate) rate: Option<f64>,
    pub(crate) streams: bool,
    /// Nobody looks at what comes back: it is an echo.
    pub(crate) echo: bool,
}

impl Plan {
    pub(crate) fn settings(&self) -> Settings {
        Settings {
            addr: Some(self.addr.clone()),
            ca: self.ca.clone(),
            cert: self.cert.clone(),
            key: self.client_key.clone(),
        }
    }
}

/// What came of one round in one process.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Round {
    /// Answered as asked.
    pub(crate) requests: u64,
    /// Turned away by an appliance that was busy.
    pub(crate) refused: u64,
    /// Anything else, a wrong answer too.
    pub(crate) failed: u64,
    /// The first of them.
    pub(crate) failure: Option<String>,
    /// From the first to the last.
    pub(crate) seconds: f64,
    /// CPU time of this process in it.
    pub(crate) cpu_seconds: f64,
    /// Microseconds and how many requests took so long; three digits are right.
    pub(crate) micros: Vec<(u64, u64)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_read_and_bounded() {
        let shape: Shape = "100x256".parse().unwrap();
        assert_eq!(
            (shape.count, shape.bytes, shape.total()),
            (100, 256, 25_600)
        );
        assert_eq!(shape.to_string(), "100x256");
        assert_eq!("1x0".parse::<Shape>().unwrap().total(), 0);
        for text in [
            "",
            "x",
            "100",
            "0x64",
            "1x",
            "x1",
            "-1x2",
            "1x4294967295",
            "4294967295x4294967295",
        ] {
            assert!(text.parse::<Shape>().is_err(), "{text}");
        }
    }
}
