//! `keywright`: the command line for people, scripts and jobs.
#![forbid(unsafe_code)]

mod args;
mod command;
mod output;

use std::process::ExitCode;

use clap::Parser;
use keywright_client::{Failure, FailureKind};

fn run(args: args::Args) -> Result<(), Failure> {
    let no_runtime = |e| Failure::new(FailureKind::Other, format!("no runtime: {e}"));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(no_runtime)?;
    let ending = {
        let _in = runtime.enter();
        output::end_on_signal().map_err(no_runtime)?
    };
    runtime.spawn(ending);
    runtime.block_on(command::run(args))
}

fn main() -> ExitCode {
    let args = args::Args::parse();
    let output = args.output;
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            match output {
                args::Output::Table => anstream::eprintln!("keywright: {failure}"),
                args::Output::Json => anstream::eprintln!(
                    "{}",
                    serde_json::json!({ "error": {
                        "message": failure.to_string(),
                        "reason": failure.reason(),
                        "exit_code": failure.exit_code(),
                    } })
                ),
            }
            ExitCode::from(failure.exit_code())
        }
    }
}
