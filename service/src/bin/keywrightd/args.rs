//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use keywright_pki::SpiffeId;

/// The Keywright daemon: batched envelope encryption with keys that cannot leave the HSM.
#[derive(Debug, Parser)]
#[command(name = "keywrightd", version, after_help = EXIT_CODES)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Cmd,
}

const EXIT_CODES: &str = "Exit codes: 0 done, 1 failed, 2 usage, 3 configuration file, \
4 something it names (certificates, policies, addresses), 5 HSM, 6 data directory.\n\
Logs are JSON lines on standard error; KEYWRIGHT_LOG sets the level (default info).";

#[derive(Debug, Subcommand)]
pub(crate) enum Cmd {
    /// Serve until SIGTERM; SIGHUP reads certificates, policies and the PIN again.
    Serve {
        /// Configuration file (TOML).
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Does the module show a token? For the daemon itself.
    #[command(hide = true)]
    LookFor {
        #[arg(long)]
        module: PathBuf,
        #[arg(long)]
        init_reserved: Option<String>,
        #[arg(long)]
        label: Option<String>,
        #[arg(long)]
        serial: Option<String>,
    },
    /// Check a configuration and everything it names, and start nothing.
    CheckConfig {
        /// Configuration file (TOML).
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Also log in to the token, probe it and attack throw-away keys.
        #[arg(long)]
        hsm: bool,
    },
    /// Check or test policies; no configuration, no HSM. `keywright policy` calls this.
    Policy {
        #[command(subcommand)]
        command: PolicyCmd,
    },
    /// Initialise an appliance: its own key in the token, first administrators, genesis record.
    #[command(
        after_help = "Example:\n  keywrightd init --config /etc/keywright/keywrightd.toml --admin spiffe://corp.example/keywright/alice\n  keywrightd init --config /etc/keywright/keywrightd.toml --join"
    )]
    Init {
        /// Configuration file (TOML).
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// SPIFFE id of a first key administrator; repeat for more.
        #[arg(long = "admin", value_name = "SPIFFE-ID", value_parser = parse_id)]
        admins: Vec<SpiffeId>,
        /// This machine becomes one more node of an appliance that exists: same PostgreSQL,
        /// same token, same policies, a data directory of its own.
        #[arg(long, conflicts_with = "admins")]
        join: bool,
    },
    /// Copy the embedded store into an empty PostgreSQL database and compare the two; the
    /// daemon is stopped. `keywright admin migrate-store` calls this.
    #[command(
        after_help = "Example:\n  keywrightd migrate-store --config /etc/keywright/keywrightd.toml --to-postgres 'postgres://keywright@db.internal/keywright?sslmode=verify-full' --password-file /etc/keywright/db-password"
    )]
    MigrateStore {
        /// Configuration file (TOML), as it is for the embedded store.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Where to; without a password.
        #[arg(long, value_name = "URL")]
        to_postgres: String,
        /// File with the password of the database, for its owner alone.
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
    },
    /// Write down what `recover-store` would accept, for key administrators to approve
    /// (`keywright admin approve-recovery`). Changes nothing; all nodes are stopped.
    #[command(
        after_help = "Example:\n  keywrightd plan-recovery --config /etc/keywright/keywrightd.toml --reason 'disk lost, backup of Monday 02:00, ticket 4711' --out plan.toml"
    )]
    PlanRecovery {
        /// Configuration file (TOML).
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Why; it goes into the plan and into the audit log.
        #[arg(long, value_name = "TEXT")]
        reason: String,
        /// Where to write the plan; the file must not be there yet.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Take the store as it is, although it is older than the token has seen it or somebody
    /// else changed rows; all nodes are stopped. What it lost is lost.
    #[command(
        after_help = "Examples:\n  keywrightd recover-store --config /etc/keywright/keywrightd.toml --plan plan.toml --approval alice.toml --approval bob.toml\n  keywrightd recover-store --config ./demo-data/keywrightd.toml --reason 'disk lost'    (limits.recovery_approvals = 0)"
    )]
    RecoverStore {
        /// Configuration file (TOML).
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Why; it goes into the audit log. Only where the operator decides alone.
        #[arg(
            long,
            value_name = "TEXT",
            conflicts_with = "plan",
            required_unless_present = "plan"
        )]
        reason: Option<String>,
        /// What was approved, as `plan-recovery` wrote it.
        #[arg(long, value_name = "FILE")]
        plan: Option<PathBuf>,
        /// What a key administrator wrote; repeat for more.
        #[arg(long = "approval", value_name = "FILE", requires = "plan")]
        approvals: Vec<PathBuf>,
    },
    /// Everything for a laptop: SoftHSM token, CA, certificates, policies, daemon.
    #[command(after_help = "Example:\n  keywrightd dev --data ./demo-data --listen 127.0.0.1:0")]
    Dev {
        /// Directory for everything; made when missing, continued when not.
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
        /// Address for gRPC; port 0 takes a free one.
        #[arg(long, value_name = "ADDR")]
        listen: Option<std::net::SocketAddr>,
        /// PKCS#11 module instead of the installed SoftHSM2.
        #[arg(long, value_name = "PATH")]
        module: Option<PathBuf>,
        /// Keep the store in this PostgreSQL database; decided once, when DIR is made.
        #[arg(long, value_name = "URL")]
        store_postgres: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCmd {
    /// Read every *.cedar and roles.toml of a directory, and say what is wrong.
    Check {
        /// The policies directory.
        #[arg(value_name = "DIR")]
        dir: PathBuf,
        /// Lines for people, or one JSON object for tools.
        #[arg(long, value_enum, default_value_t)]
        output: Format,
    },
    /// The same, then run tests/*.toml of the directory.
    Test {
        /// The policies directory.
        #[arg(value_name = "DIR")]
        dir: PathBuf,
        /// Lines for people, or one JSON object for tools.
        #[arg(long, value_enum, default_value_t)]
        output: Format,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum Format {
    #[default]
    Text,
    Json,
}

fn parse_id(text: &str) -> Result<SpiffeId, String> {
    SpiffeId::parse(text).map_err(|e| e.to_string())
}
