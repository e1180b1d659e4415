//! `keywright rewrap …`: what can be typed.

use std::path::PathBuf;

use clap::{Args as Flags, Subcommand, ValueEnum, builder::NonEmptyStringValueParser};
use keywright_client::rewrap::Order;

use super::Data;

#[derive(Debug, Flags)]
pub(crate) struct Rewrap {
    /// Refuse what was encrypted under any other key.
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) key: Option<String>,
    #[command(flatten)]
    pub(crate) data: Data,
    #[command(subcommand)]
    pub(crate) everything: Option<Everything>,
}

/// What else is said under the commands.
const GOES_ON: &str = "\n\nThe same command goes on where it stopped. Exit code 0: nothing is left under an old \
version; 9: something is; 130: stopped (Ctrl-C).";

#[derive(Debug, Subcommand)]
pub(crate) enum Everything {
    /// Move a column of a PostgreSQL table (bytea, or text with kw1. tokens) to the primary
    /// version of a key. Only headers travel; rows that somebody changes meanwhile are
    /// never overwritten. Needs SELECT on the key column, SELECT and UPDATE on the column.
    #[command(after_help = format!("Examples:\n  \
keywright rewrap table --postgres postgres://app@db.internal/shop --table cards --column pan --key payments/cards --dry-run\n  \
keywright rewrap table --table sales.orders --column note --key-column order_id --key payments/cards --rate 5000{GOES_ON}"))]
    Table(Table),
    /// Move every file below a directory that keywright encrypted. Each is written anew
    /// beside itself and takes its own place whole; other files are left alone, links are
    /// not followed.
    #[command(after_help = format!("Examples:\n  \
keywright rewrap files /srv/backups --key backups/shop\n  \
keywright rewrap files /srv/backups --key backups/shop --dry-run --output json{GOES_ON}"))]
    Files(Folder),
    /// Move the kw1. tokens in one field of JSON Lines, or in one column of a CSV file with
    /// a header row. The output appears whole or not at all. Lines of JSON keep every other
    /// byte; fields of CSV keep their values, and quotes are written where they are needed.
    #[command(after_help = format!("Examples:\n  \
keywright rewrap lines --in cards.jsonl --out cards.jsonl --format jsonl --column card.pan --key payments/cards\n  \
keywright rewrap lines --in cards.csv --out new.csv --format csv --column pan --key payments/cards{GOES_ON}"))]
    Lines(Lines),
    /// Move the data keys that the appliance keeps (`data-key generate --keep`). It works by
    /// itself; this begins the job, or finds the open one, and watches it.
    #[command(after_help = "Examples:\n  \
keywright rewrap kept --key backups/shop\n  \
keywright rewrap kept --key backups/shop --dry-run --output json\n\n\
Exit code 0: nothing is left under an old version; 9: something is. Ctrl-C ends the watching, not the job.")]
    Kept(Kept),
}

#[derive(Debug, Flags)]
pub(crate) struct Kept {
    /// Name of the key.
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) key: String,
    /// Only look and count.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Move at most so many a second.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rate: Option<u32>,
}

#[derive(Debug, Flags)]
pub(crate) struct Table {
    /// The database, postgres://user@host/db?sslmode=verify-full. Better in the environment
    /// when there is a password in it.
    #[arg(
        long,
        env = "KEYWRIGHT_POSTGRES_URL",
        value_name = "URL",
        hide_env_values = true
    )]
    pub(crate) postgres: String,
    /// The table, with its schema when that is not on the search path.
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    pub(crate) table: String,
    /// The column with the envelopes.
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    pub(crate) column: String,
    /// The column that orders the rows: NOT NULL and unique. Left out: the primary key.
    #[arg(long, value_name = "COLUMN", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) key_column: Option<String>,
    #[command(flatten)]
    pub(crate) work: Work,
}

#[derive(Debug, Flags)]
pub(crate) struct Folder {
    /// The directory.
    #[arg(value_name = "DIR")]
    pub(crate) dir: PathBuf,
    #[command(flatten)]
    pub(crate) work: Work,
}

#[derive(Debug, Flags)]
pub(crate) struct Lines {
    /// The file.
    #[arg(long = "in", value_name = "FILE")]
    pub(crate) input_file: PathBuf,
    /// Where to write; may be the same file.
    #[arg(long = "out", value_name = "FILE", required_unless_present = "dry_run")]
    pub(crate) output_file: Option<PathBuf>,
    /// What the file is.
    #[arg(long, value_enum)]
    pub(crate) format: Format,
    /// The field with the token, of objects in objects as a.b; or the column's name in the
    /// header row.
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    pub(crate) column: String,
    #[command(flatten)]
    pub(crate) work: Work,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// One JSON object a line.
    Jsonl,
    /// RFC 4180, with a header row.
    Csv,
}

/// What all of them have.
#[derive(Debug, Clone, Flags)]
pub(crate) struct Work {
    /// Name of the key. Envelopes of other keys are counted and left alone.
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) key: String,
    /// Only look and count.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Move at most so many a second.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rate: Option<u32>,
    /// Entries read at a time.
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) batch: u32,
    /// Batches in flight.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) workers: u32,
    /// One job only, also when the key was rotated meanwhile.
    #[arg(long)]
    pub(crate) once: bool,
    /// Take the job from a worker that still has its lease.
    #[arg(long)]
    pub(crate) take_over: bool,
    /// How long to wait for a server or a database that is away.
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    pub(crate) patience: u64,
}

impl Work {
    pub(crate) fn order(&self) -> Order {
        Order {
            dry_run: self.dry_run,
            rate: self.rate.unwrap_or(0),
            batch: self.batch as usize,
            workers: self.workers as usize,
            take_over: self.take_over,
            patience: std::time::Duration::from_secs(self.patience),
            ..Order::new(&self.key)
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::{Args, Cmd};

    fn parse(line: &str) -> Result<Cmd, clap::Error> {
        Args::try_parse_from(line.split_whitespace()).map(|a| a.command)
    }

    #[test]
    fn one_file_is_rewrapped_as_ever_and_not_together_with_a_place() {
        for line in [
            "keywright rewrap --in a --out b",
            "keywright rewrap --lines --key k",
            "keywright rewrap",
        ] {
            assert!(
                matches!(parse(line), Ok(Cmd::Rewrap(r)) if r.everything.is_none()),
                "{line}"
            );
        }
        assert!(parse("keywright rewrap --in a files /srv --key k").is_err());
        assert!(parse("keywright rewrap files /srv").is_err(), "no key");
        let lines = "keywright rewrap lines --in a --format csv --column c --key k";
        assert!(parse(lines).is_err(), "no --out");
        assert!(parse(&format!("{lines} --dry-run")).is_ok());
    }
}
