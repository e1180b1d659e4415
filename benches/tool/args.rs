//! What can be typed.

use std::{path::PathBuf, time::Duration};

use clap::{Args as Flags, Parser, Subcommand, ValueEnum};
use keywright_client::Settings;

use crate::{
    plan::{Layout, Op, Shape},
    pure::Part,
    sizing::Mechanism,
};

/// How fast is this appliance, this machine, this token? Ratios to an echo of the same bytes
/// and to what the parts alone can do; they travel between machines, rates do not.
#[derive(Debug, Parser)]
#[command(name = "keywright-bench", version, after_help = AFTER)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Cmd,
}

const AFTER: &str = "Exit codes: 0 done, 1 failed, 2 usage.\n\n\
Examples:\n  \
keywright-bench compare --shape 1000x64,100x256\n  \
keywright-bench compare --shape 1x64 --in-flight 64 --rate 5000 --seconds 5\n  \
set -a; . ./demo-data/client.env; set +a\n  \
keywright-bench load --key demo/files --shape 100x256 --metrics 127.0.0.1:9100 --plot load.svg\n  \
keywright-bench token --module /usr/lib/softhsm/libsofthsm2.so --label keywright --pin-file pin";

#[derive(Debug, Subcommand)]
pub(crate) enum Cmd {
    /// Start an appliance on SoftHSM2 and an echo of the same bytes here, and load both in
    /// turns.
    Compare(Compare),
    /// Load an appliance that runs already.
    Load(Box<Load>),
    /// Find out what a token can do, and what an appliance could do with it.
    Token(Token),
    /// Serve the echo with the listener and TLS of an appliance, for `load --echo` from
    /// another machine.
    Echo {
        /// Configuration of the appliance.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Where to listen.
        #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
        listen: String,
    },
    /// Measure the ratios of `compare` against those that were stored; fails when one lost more
    /// than a tenth.
    Check(Check),
    /// Count the instructions of the parts that ask nobody, with valgrind, against those that
    /// were stored; fails when one takes a tenth more.
    Instructions(Check),
    /// One of these parts, to be counted.
    #[command(hide = true)]
    Pure {
        /// Which.
        part: Part,
        /// How often.
        times: u32,
    },
    /// One process of callers; told what to do on its standard input.
    #[command(hide = true)]
    Worker,
}

/// What is asked, how often and by how many.
#[derive(Debug, Clone, Flags)]
pub(crate) struct Asked {
    /// The operation.
    #[arg(long, value_enum, default_value_t = Op::Encrypt)]
    pub(crate) op: Op,
    /// Items of a batch and bytes of each, `COUNTxBYTES`; several with commas.
    #[arg(
        long,
        value_name = "SHAPE",
        value_delimiter = ',',
        default_value = "100x256"
    )]
    pub(crate) shape: Vec<Shape>,
    /// One field for each item, or all of them in one and their lengths.
    #[arg(long, value_enum, default_value_t = Layout::Repeated)]
    pub(crate) layout: Layout,
    /// Requests (or batches of streams) in flight, in all; several with commas.
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "32",
        value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) in_flight: Vec<u32>,
    /// Open loop: so many requests a second, whether they are answered or not. Without it
    /// every caller asks again as soon as it is answered.
    #[arg(long, value_name = "PER_SECOND",
        value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rate: Option<u32>,
    /// Batches on streams instead of a request for each; in a closed loop only.
    #[arg(long, conflicts_with = "rate")]
    pub(crate) streams: bool,
    /// Processes of callers, each with a connection of its own.
    #[arg(long, value_name = "N", default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) processes: u32,
    /// Length of one round.
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    pub(crate) seconds: Duration,
    /// Rounds; medians are printed.
    #[arg(long, value_name = "N", default_value_t = 5,
        value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rounds: u32,
    /// Before the first round.
    #[arg(long, value_name = "SECONDS", default_value = "0.5", value_parser = seconds)]
    pub(crate) warm_up: Duration,
}

/// How it is shown.
#[derive(Debug, Clone, Flags)]
pub(crate) struct Shown {
    /// A table for people, Markdown for documents, JSON for machines.
    #[arg(long, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
    /// Also draws the rows into this SVG file.
    #[arg(long, value_name = "FILE")]
    pub(crate) plot: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Table,
    /// For documents.
    Markdown,
    /// For machines.
    Json,
}

#[derive(Debug, Flags)]
pub(crate) struct Compare {
    #[command(flatten)]
    pub(crate) asked: Asked,
    #[command(flatten)]
    pub(crate) shown: Shown,
    /// The key has its DEK on lease for so long; without it every batch has its own.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub(crate) lease_seconds: Option<u32>,
    /// The daemon to start; without it the one beside this program.
    #[arg(long, value_name = "FILE")]
    pub(crate) daemon: Option<PathBuf>,
}

#[derive(Debug, Flags)]
pub(crate) struct Load {
    #[command(flatten)]
    pub(crate) server: Server,
    /// Name of a key that you may use.
    #[arg(long, value_name = "NAME", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub(crate) key: String,
    #[command(flatten)]
    pub(crate) asked: Asked,
    #[command(flatten)]
    pub(crate) shown: Shown,
    /// An echo to take turns with (`keywright-bench echo` on the same machine as the
    /// appliance).
    #[arg(long, value_name = "ADDR")]
    pub(crate) echo: Option<String>,
    /// Where the appliance shows its metrics, for its CPU time and where it went.
    #[arg(long, value_name = "ADDR")]
    pub(crate) metrics: Option<String>,
}

#[derive(Debug, Flags)]
pub(crate) struct Check {
    /// File with what was stored.
    #[arg(value_name = "FILE")]
    pub(crate) stored: PathBuf,
    /// Store what is measured now.
    #[arg(long)]
    pub(crate) write: bool,
    /// The daemon to start; without it the one beside this program.
    #[arg(long, value_name = "FILE")]
    pub(crate) daemon: Option<PathBuf>,
}

/// The names that `keywright` reads too.
#[derive(Debug, Clone, Flags)]
pub(crate) struct Server {
    /// Server, host:port.
    #[arg(
        long,
        env = "KEYWRIGHT_ADDR",
        value_name = "ADDR",
        hide_env_values = true
    )]
    addr: Option<String>,
    /// PEM file with the CA of the server.
    #[arg(
        long,
        env = "KEYWRIGHT_CA",
        value_name = "FILE",
        hide_env_values = true
    )]
    ca: Option<PathBuf>,
    /// PEM file with your certificate chain.
    #[arg(
        long,
        env = "KEYWRIGHT_CERT",
        value_name = "FILE",
        hide_env_values = true
    )]
    client_cert: Option<PathBuf>,
    /// PEM file with your private key.
    #[arg(
        long,
        env = "KEYWRIGHT_KEY",
        value_name = "FILE",
        hide_env_values = true
    )]
    client_key: Option<PathBuf>,
}

impl Server {
    pub(crate) fn settings(self) -> Settings {
        Settings {
            addr: self.addr,
            ca: self.ca,
            cert: self.client_cert,
            key: self.client_key,
        }
    }
}

#[derive(Debug, Flags)]
pub(crate) struct Token {
    /// Absolute path of the PKCS#11 library.
    #[arg(long, value_name = "FILE")]
    pub(crate) module: PathBuf,
    /// Label of the token.
    #[arg(long, required_unless_present = "serial")]
    pub(crate) label: Option<String>,
    /// Serial number of the token.
    #[arg(long)]
    pub(crate) serial: Option<String>,
    /// File with the user PIN. A wrong one is tried once and never again by itself.
    #[arg(long, value_name = "FILE")]
    pub(crate) pin_file: PathBuf,
    /// What to measure; several with commas; without it everything.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub(crate) mechanism: Vec<Mechanism>,
    /// Sessions to try; several with commas.
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "1,2,4,8",
        value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) sessions: Vec<u32>,
    /// Length of each measurement.
    #[arg(long, value_name = "SECONDS", default_value = "0.5", value_parser = seconds)]
    pub(crate) seconds: Duration,
    /// A table for people, Markdown for documents, JSON for machines.
    #[arg(long, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|e| format!("{e}"))?;
    if !(0.01..=86_400.0).contains(&seconds) {
        return Err("give 0.01 to 86400 seconds".into());
    }
    Ok(Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn rounds_have_a_length() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for text in ["0", "-1", "nan", "inf", "x", "100000"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }
}
