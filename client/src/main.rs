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
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            anstream::eprintln!("keywright: {failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}
