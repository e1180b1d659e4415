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
    let args = match args::Args::try_parse() {
        Ok(args) => args,
        // Also help and the version, which are no errors.
        Err(e) if !e.use_stderr() || !args::wants_json(std::env::args_os()) => e.exit(),
        Err(e) => {
            let text = e.render().to_string();
            let text = text.trim_end().trim_start_matches("error: ");
            return say(&Failure::new(FailureKind::Usage, text), args::Output::Json);
        }
    };
    let output = args.output;
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => say(&failure, output),
    }
}

/// A failure on standard error.
fn say(failure: &Failure, output: args::Output) -> ExitCode {
    match output {
        args::Output::Table => anstream::eprintln!("keywright: {failure}"),
        args::Output::Json => {
            let error = serde_json::json!({ "error": {
                "message": failure.to_string(),
                "reason": failure.reason(),
                "exit_code": failure.exit_code(),
                "request_id": failure.request_id(),
                "complete_lines": failure.complete_lines(),
            } });
            anstream::eprintln!("{error}");
        }
    }
    ExitCode::from(failure.exit_code())
}
