//! `keywrightd`: arguments, logging, runtime. Everything else is in the library.
#![forbid(unsafe_code)]

mod args;
mod check;
mod develop;
mod logs;
mod migrate;
mod policy;
mod recovery;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::Parser;
use keywright_hsm::{
    PinSource,
    pkcs11::{TokenConfig, is_there},
};
use keywright_service::{
    app::{self, StartError},
    config::Config,
    harden::harden,
    init,
};

use args::{Args, Cmd};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let args = Args::parse();
    let traces = logs::log_to_stderr();
    let result = run(args.command);
    traces.into_iter().for_each(logs::stop);
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
        Cmd::CheckConfig { config, hsm } => check::check(&Config::read(&config)?, hsm),
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
        } => migrate::migrate(&config, to_postgres, password_file),
        Cmd::PlanRecovery {
            config,
            reason,
            out,
        } => recovery::plan(&config, &reason, &out),
        Cmd::RecoverStore {
            config,
            reason,
            plan,
            approvals,
        } => recovery::recover(&config, reason.as_deref(), plan.as_deref(), &approvals),
        Cmd::Policy { command } => policy::policy(&command),
        Cmd::Dev {
            data,
            listen,
            module,
            store_postgres,
        } => develop::develop(&data, listen, module, store_postgres.as_deref()),
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
