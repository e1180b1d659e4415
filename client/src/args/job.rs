//! `keywright job …`: what can be typed.

use std::path::PathBuf;

use clap::{Args as Flags, Subcommand, ValueEnum, builder::NonEmptyStringValueParser};
use keywright_client::proto::JobKind;

#[derive(Debug, Subcommand)]
pub(crate) enum Job {
    /// Begin a job for a worker of your own; keywright rewrap begins its jobs itself.
    #[command(after_help = "Example:\n  \
keywright job create --key payments/cards --kind table --subject mysql://db.internal/shop/cards.pan")]
    Create {
        /// Name of the key.
        #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
        key: String,
        /// What it goes over.
        #[arg(long, value_enum)]
        kind: Kind,
        /// Which one, without secrets.
        #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
        subject: String,
        /// Only look and count.
        #[arg(long)]
        dry_run: bool,
        /// Move at most so many a second.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        rate: Option<u32>,
    },
    /// List jobs, newest first.
    #[command(
        after_help = "Examples:\n  keywright job list --open\n  keywright job list --key payments/cards --output json"
    )]
    List {
        /// Only of this key.
        #[arg(long, value_name = "NAME", default_value = "")]
        key: String,
        /// Only those that have not ended.
        #[arg(long)]
        open: bool,
    },
    /// Show a job: where it stands, who works on it, what was found.
    #[command(after_help = "Example:\n  keywright job show 4f21c0")]
    Show(Which),
    /// Follow a job until it has ended.
    #[command(
        after_help = "Examples:\n  keywright job watch 4f21c0\n  keywright job watch 4f21c0 --output json"
    )]
    Watch(Which),
    /// Stop work on a job for now; its worker hears of it within seconds.
    #[command(after_help = "Example:\n  keywright job pause 4f21c0")]
    Pause(Which),
    /// Let a paused job be worked on again.
    #[command(after_help = "Example:\n  keywright job resume 4f21c0")]
    Resume(Which),
    /// End a job early. What was moved stays moved.
    #[command(after_help = "Example:\n  keywright job cancel 4f21c0")]
    Cancel(Which),
    /// Write what a job that has ended came to, signed by the appliance.
    #[command(
        after_help = "Example:\n  keywright job report 4f21c0 --out report.json\n\n\
FILE.sig holds the signature (ECDSA, P-256, SHA-256, DER), as openssl dgst -verify reads it."
    )]
    Report {
        #[command(flatten)]
        which: Which,
        /// Write here, and the signature to FILE.sig; left out: only the report, on
        /// standard output.
        #[arg(long = "out", value_name = "FILE")]
        output_file: Option<PathBuf>,
    },
    /// Check the signature of a report, FILE.sig, and print the report. Works offline. Exit
    /// code 6 when it is not valid.
    #[command(
        after_help = "Example:\n  keywright job verify-report report.json --public-key appliance.pem"
    )]
    VerifyReport {
        /// The report.
        #[arg(value_name = "FILE")]
        report: PathBuf,
        /// The appliance's public key, from a source you trust.
        #[arg(long, value_name = "PEM")]
        public_key: PathBuf,
    },
}

#[derive(Debug, Flags)]
pub(crate) struct Which {
    /// Id of the job, or the first 6 digits or more when no other begins with them.
    pub(crate) id: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// A column of a table.
    Table,
    /// Files in a directory.
    Files,
    /// A column of a text file.
    Lines,
}

impl Kind {
    pub(crate) fn wire(self) -> JobKind {
        match self {
            Self::Table => JobKind::Table,
            Self::Files => JobKind::Files,
            Self::Lines => JobKind::Lines,
        }
    }
}
