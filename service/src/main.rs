//! `keywrightd`: arguments, logging, runtime. Everything else is in the library.
#![forbid(unsafe_code)]

use std::{
    ffi::OsString,
    fs::OpenOptions,
    io::Write,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::Duration,
};

use clap::{Parser, Subcommand};
use keywright_hsm::{
    PinSource, State,
    pkcs11::{TokenConfig, is_there, module_path},
};
use keywright_pki::SpiffeId;
#[cfg(feature = "otel")]
use keywright_service::api::Traces;
use keywright_service::{
    api::TlsReloader,
    app::{self, StartError, open_hsm},
    config::{Config, StoreConfig},
    dev::{self, Dev},
    harden::harden,
    init,
    migrate::migrate_store,
    policy::{Engine, Outcome, PolicyError, run_tests},
    recover::{By, Recovered, plan_recovery, recover_store},
    store::Counted,
};
use serde_json::json;
use tracing_subscriber::{EnvFilter, Layer, layer::SubscriberExt, util::SubscriberInitExt};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The Keywright daemon: batched envelope encryption with keys that cannot leave the HSM.
#[derive(Debug, Parser)]
#[command(name = "keywrightd", version, after_help = EXIT_CODES)]
struct Args {
    #[command(subcommand)]
    command: Cmd,
}

const EXIT_CODES: &str = "Exit codes: 0 done, 1 failed, 2 usage, 3 configuration file, \
4 something it names (certificates, policies, addresses), 5 HSM, 6 data directory.\n\
Logs are JSON lines on standard error; KEYWRIGHT_LOG sets the level (default info).";

#[derive(Debug, Subcommand)]
enum Cmd {
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
enum PolicyCmd {
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
enum Format {
    #[default]
    Text,
    Json,
}

fn parse_id(text: &str) -> Result<SpiffeId, String> {
    SpiffeId::parse(text).map_err(|e| e.to_string())
}

fn main() -> ExitCode {
    let args = Args::parse();
    let traces = log_to_stderr();
    let result = run(args.command);
    traces.into_iter().for_each(stop);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            anstream::eprintln!("keywrightd: {e}");
            ExitCode::from(e.exit_code())
        }
    }
}

fn run(command: Cmd) -> Result<(), StartError> {
    harden().map_err(StartError::Other)?;
    match command {
        Cmd::Serve { config } => {
            let config = Config::read(&config)?;
            block_on(app::run(
                config,
                async |_| Ok(()),
                |addresses| {
                    anstream::println!("ready on {}", addresses.grpc);
                },
            ))
        }
        Cmd::LookFor {
            module,
            init_reserved,
            label,
            serial,
        } => look_for(TokenConfig {
            module,
            init_reserved,
            label,
            serial,
            // Nobody logs in.
            pin: PinSource::File(PathBuf::new()),
            pin_latch: None,
            scout: None,
        }),
        Cmd::CheckConfig { config, hsm } => check(&Config::read(&config)?, hsm),
        Cmd::Init {
            config,
            admins,
            join,
        } => {
            let config = Config::read(&config)?;
            let done = if join {
                block_on(init::join(&config))?;
                "joined"
            } else {
                block_on(init::init(&config, &admins))?;
                "initialised"
            };
            anstream::println!("{done}; start it with: keywrightd serve --config FILE");
            Ok(())
        }
        Cmd::MigrateStore {
            config,
            to_postgres,
            password_file,
        } => migrate(&config, to_postgres, password_file),
        Cmd::PlanRecovery {
            config,
            reason,
            out,
        } => plan(&config, &reason, &out),
        Cmd::RecoverStore {
            config,
            reason,
            plan,
            approvals,
        } => recover(&config, reason.as_deref(), plan.as_deref(), &approvals),
        Cmd::Policy { command } => policy(&command),
        Cmd::Dev {
            data,
            listen,
            module,
            store_postgres,
        } => develop(&data, listen, module, store_postgres.as_deref()),
    }
}

/// A module that hangs is no answer, and nothing of it may outlive the question.
fn look_for(token: TokenConfig) -> Result<(), StartError> {
    const PATIENCE: Duration = Duration::from_secs(10);
    let (answer, heard) = std::sync::mpsc::channel();
    std::thread::spawn(move || answer.send(is_there(&token)));
    match heard.recv_timeout(PATIENCE) {
        Ok(Ok(true)) => Ok(()),
        Ok(Ok(false)) => Err(StartError::Other("no such token".into())),
        Ok(Err(e)) => Err(e.into()),
        Err(_) => std::process::abort(),
    }
}

fn check(config: &Config, hsm: bool) -> Result<(), StartError> {
    let setup = |e: &dyn std::fmt::Display| StartError::Setup(e.to_string());
    TlsReloader::new(config).map_err(|e| setup(&e))?;
    let engine = Engine::read(&config.policies_dir).map_err(|e| setup(&e))?;
    let domains: Vec<&str> = config
        .tenants
        .iter()
        .map(|t| t.trust_domain.as_str())
        .collect();
    if let Some(foreign) = engine.stranger(&domains) {
        return Err(StartError::Setup(format!(
            "roles.toml: {foreign} is of a trust domain that no tenant has"
        )));
    }
    module_path(&config.hsm.module)?;
    let parent = config.data_dir.parent();
    if !config.data_dir.is_dir() && !parent.is_some_and(Path::is_dir) {
        return Err(StartError::Data(format!(
            "data directory {}: neither it nor the folder it would lie in exists",
            config.data_dir.display()
        )));
    }
    if config.store.is_some() {
        block_on(app::probe_store(config))?;
    }
    if hsm {
        let (evidence, tokens) = block_on(async {
            let hsm = open_hsm(config).await?;
            let all = (hsm.evidence(), hsm.tokens());
            hsm.close();
            Ok::<_, StartError>(all)
        })?;
        if let Some(away) = tokens.iter().find(|t| t.state != State::Ready) {
            let (name, state) = (&away.name, away.state.name());
            let text = format!("the token {name:?} of the group is {state}; the log says why");
            return Err(keywright_hsm::Error::new(keywright_hsm::Kind::Gone, text).into());
        }
        for token in tokens.iter().skip(1) {
            anstream::println!("replica {:?} is there", token.name);
        }
        anstream::println!(
            "token {:?} serial {}",
            evidence.token_label,
            evidence.token_serial
        );
        for attack in evidence.attacks {
            anstream::println!("  {:<4} {}: {}", attack.id, attack.attempt, attack.outcome);
        }
    }
    anstream::println!("configuration is valid");
    Ok(())
}

fn plan(config: &Path, reason: &str, out: &Path) -> Result<(), StartError> {
    let file = |e: std::io::Error| StartError::Setup(format!("{}: {e}", out.display()));
    let config = Config::read(config)?;
    if out.exists() {
        return Err(file(std::io::ErrorKind::AlreadyExists.into()));
    }
    let text = block_on(plan_recovery(&config, reason))?;
    let mut new = OpenOptions::new().write(true).create_new(true).open(out);
    new.as_mut()
        .map_err(|e| e.kind().into())
        .and_then(|new| new.write_all(text.as_bytes()))
        .map_err(file)?;
    let (out, needed) = (out.display(), config.limits.recovery_approvals);
    anstream::print!("{text}");
    anstream::println!(
        "\nNext, within a day: {needed} key administrators read {out} and approve it, each with their own certificate: keywright admin approve-recovery {out} --out NAME.toml\nThen: keywrightd recover-store --config FILE --plan {out} --approval NAME.toml …"
    );
    Ok(())
}

fn recover(
    config: &Path,
    reason: Option<&str>,
    plan: Option<&Path>,
    approvals: &[PathBuf],
) -> Result<(), StartError> {
    let read = |path: &Path| {
        let text = std::fs::read_to_string(path);
        text.map_err(|e| StartError::Setup(format!("{}: {e}", path.display())))
    };
    let config = Config::read(config)?;
    let plan = plan.map(read).transpose()?;
    let approvals: Vec<(String, String)> = approvals
        .iter()
        .map(|path| Ok((path.display().to_string(), read(path)?)))
        .collect::<Result<_, StartError>>()?;
    let by = match &plan {
        Some(plan) => By::Approvers {
            plan,
            approvals: &approvals,
        },
        None => By::Operator(reason.unwrap_or_default()),
    };
    let recovered = block_on(recover_store(&config, by))?;
    let Recovered {
        epoch,
        token_epoch,
        rows,
        approved_by,
    } = recovered;
    for approver in approved_by {
        anstream::println!("Approved by {approver}.");
    }
    let lost = token_epoch.saturating_sub(epoch);
    anstream::println!(
        "The store is at change {epoch}; the token had seen {token_epoch}: {lost} lost."
    );
    anstream::println!(
        "Rows that were not sealed by this appliance, and are now: {}",
        rows.len()
    );
    for row in &rows {
        anstream::println!("  {row}");
    }
    anstream::println!(
        "Next: start the daemon, and look at the state of each key: keywright key list"
    );
    Ok(())
}

fn migrate(
    config: &Path,
    to_postgres: String,
    password_file: Option<PathBuf>,
) -> Result<(), StartError> {
    let config = Config::read(config)?;
    let mut lines = format!("[store]\npostgres = {to_postgres:?}\n");
    if let Some(file) = &password_file {
        let file = std::path::absolute(file).unwrap_or_else(|_| file.clone());
        lines.push_str(&format!("password_file = {file:?}\n"));
    }
    let target = StoreConfig::new(to_postgres, password_file);
    for Counted { table, rows } in block_on(migrate_store(&config, &target))? {
        anstream::println!("{table:<20} {rows:>12}");
    }
    anstream::println!(
        "every row is the same in both. Put this at the end of the configuration, and start the daemon:\n\n{lines}"
    );
    Ok(())
}

fn policy(command: &PolicyCmd) -> Result<(), StartError> {
    let (PolicyCmd::Check { output, .. } | PolicyCmd::Test { output, .. }) = command;
    let result = match command {
        PolicyCmd::Check { dir, .. } => policy_check(dir, *output),
        PolicyCmd::Test { dir, .. } => policy_test(dir, *output),
    };
    let wrong = match result {
        Ok(done) => return done,
        Err(wrong) => wrong,
    };
    match output {
        Format::Text => Err(StartError::Setup(wrong.to_string())),
        Format::Json => {
            let findings = wrong.findings();
            anstream::println!("{}", json!({ "ok": false, "findings": findings }));
            let text = "the policies or their tests are not valid; standard output says why";
            Err(StartError::Setup(text.into()))
        }
    }
}

/// The outer error is about the policies, the inner one about what came of them.
type Judged = Result<Result<(), StartError>, PolicyError>;

fn policy_check(dir: &Path, output: Format) -> Judged {
    let set = hex::encode(Engine::read(dir)?.digest());
    match output {
        Format::Text => anstream::println!("the policies are valid; set {set}"),
        Format::Json => {
            anstream::println!("{}", json!({ "ok": true, "findings": [], "set": set }));
        }
    }
    Ok(Ok(()))
}

fn policy_test(dir: &Path, output: Format) -> Judged {
    let outcomes = run_tests(dir)?;
    let failed = outcomes.iter().filter(|o| o.failure.is_some()).count();
    let ok = failed == 0 && !outcomes.is_empty();
    match output {
        Format::Text => {
            for Outcome {
                file,
                name,
                failure,
            } in &outcomes
            {
                match failure {
                    None => anstream::println!("ok      {name}"),
                    Some(why) => anstream::println!("FAILED  {name}: {why} ({file})"),
                }
            }
            anstream::println!("{} tests, {failed} failed", outcomes.len());
        }
        Format::Json => {
            let tests = outcomes.len();
            let said = json!({ "ok": ok, "tests": tests, "failed": failed, "results": outcomes });
            anstream::println!("{said}");
        }
    }
    let folder = dir.join("tests");
    Ok(match (outcomes.len(), failed) {
        (0, _) => Err(StartError::Setup(format!("{}: no tests", folder.display()))),
        (_, 0) => Ok(()),
        _ => Err(StartError::Other("a policy test failed".into())),
    })
}

fn develop(
    data: &std::path::Path,
    listen: Option<std::net::SocketAddr>,
    module: Option<PathBuf>,
    store_postgres: Option<&str>,
) -> Result<(), StartError> {
    let dev = Dev::new(data)?;
    let conf = dev.softhsm_conf()?;
    become_with_softhsm_conf(conf.into_os_string())?;
    block_on(async {
        let mut config = dev.prepare(module, store_postgres).await?;
        if let Some(listen) = listen {
            config.listen.grpc = listen;
        }
        app::run(
            config,
            async |app| dev::authorities(app).await,
            |addresses| {
                if let Err(e) = dev.write_client_env(&addresses) {
                    tracing::error!(error = %e, "client.env");
                }
                anstream::print!("{}", dev.summary(&addresses));
                anstream::println!("ready on {}", addresses.grpc);
            },
        )
        .await
    })
}

/// SoftHSM2 reads its environment when it is loaded, and setting a variable of a running
/// process is not safe: start over with it set.
fn become_with_softhsm_conf(conf: OsString) -> Result<(), StartError> {
    const NAME: &str = "SOFTHSM2_CONF";
    #[expect(
        clippy::disallowed_methods,
        reason = "to see whether it is set already"
    )]
    if std::env::var_os(NAME).as_ref() == Some(&conf) {
        return Ok(());
    }
    let this = std::env::current_exe().map_err(|e| StartError::Other(e.to_string()))?;
    let e = Command::new(this)
        .args(std::env::args_os().skip(1))
        .env(NAME, conf)
        .exec();
    Err(StartError::Other(format!("cannot start over: {e}")))
}

const THREADS_END_WITHIN: Duration = Duration::from_secs(3);

fn block_on<T>(work: impl Future<Output = Result<T, StartError>>) -> Result<T, StartError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| StartError::Other(format!("no runtime: {e}")))?;
    let result = runtime.block_on(work);
    // Threads that were in a PKCS#11 module clear up behind themselves when they end, in
    // libraries that the end of the process clears away: first they, then it. A call that
    // hangs there must not keep the process.
    runtime.shutdown_timeout(THREADS_END_WITHIN);
    result
}

#[cfg(not(feature = "otel"))]
type Traces = std::convert::Infallible;

#[cfg(feature = "otel")]
fn stop(traces: Traces) {
    traces.stop();
}

#[cfg(not(feature = "otel"))]
fn stop(never: Traces) {
    match never {}
}

/// Lines for people and their tools; with the feature `otel` spans for a collector, when
/// the environment names one.
fn log_to_stderr() -> Option<Traces> {
    let filter =
        EnvFilter::try_from_env("KEYWRIGHT_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    // The list of spans begins with the request, whatever is at work for it.
    let lines = tracing_subscriber::fmt::layer()
        .json()
        .with_current_span(false)
        .with_span_list(true)
        .with_writer(std::io::stderr)
        .with_filter(filter);
    let registry = tracing_subscriber::registry().with(lines);
    #[cfg(not(feature = "otel"))]
    {
        registry.init();
        None
    }
    #[cfg(feature = "otel")]
    {
        let started = collector().map(|endpoint| Traces::start(&endpoint));
        let traces = started.as_ref().and_then(|t| t.as_ref().ok());
        registry.with(traces.map(Traces::layer)).init();
        match started.transpose() {
            Ok(traces) => traces,
            Err(why) => {
                tracing::error!(why, "no traces: OTEL_EXPORTER_OTLP_ENDPOINT");
                None
            }
        }
    }
}

#[cfg(feature = "otel")]
#[expect(
    clippy::disallowed_methods,
    reason = "before there is a configuration, as for the level of the log"
)]
fn collector() -> Option<String> {
    let endpoint = std::env::var("OTEL_EXPORTER_OTLP_ENDPOINT").ok();
    endpoint.filter(|e| !e.is_empty())
}
