//! `keywright`: the command line for people, scripts and jobs.
#![forbid(unsafe_code)]

mod args;
mod command;
mod output;

use std::process::ExitCode;

use clap::Parser;
use keywright_client::{Failure, FailureKind};

fn main() -> ExitCode {
    let args = args::Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(command::run(args)),
        Err(e) => Err(Failure::new(FailureKind::Other, format!("no runtime: {e}"))),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            anstream::eprintln!("keywright: {failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}
