//! `keywright-bench`: closed and open loops against an appliance, an echo of the same bytes
//! and the parts alone, in one run; and what a token can do.
#![forbid(unsafe_code)]
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "rates and times, for people to read"
)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::float_cmp,
        reason = "these are tests"
    )
)]

mod args;
mod batch;
mod check;
mod compare;
mod fleet;
mod measure;
mod plan;
mod plot;
mod pure;
mod report;
mod scrape;
mod sizing;
mod worker;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use keywright_benches::raw;

use crate::{
    args::{Args, Cmd, Load, Shown},
    measure::{Row, Side},
};

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    if let (Some(flag), Some(module)) = (words.next(), words.next())
        && flag == raw::FLAG
    {
        raw::serve_raw(module.into());
        return ExitCode::SUCCESS;
    }
    match run(Args::parse().command) {
        Ok(code) => code,
        Err(e) => {
            anstream::eprintln!("keywright-bench: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Cmd) -> Result<ExitCode> {
    match command {
        Cmd::Compare(asked) => finish(&compare::run(&asked)?, &asked.shown),
        Cmd::Load(asked) => {
            let shown = asked.shown.clone();
            finish(&load(*asked)?, &shown)
        }
        Cmd::Token(asked) => {
            let sizing = sizing::size(&asked)?;
            report::show(&sizing, &sizing.tables(), asked.output)?;
            if asked.output == args::Output::Table {
                anstream::println!("hsm.workers = {}", sizing.workers);
            }
            Ok(ExitCode::SUCCESS)
        }
        Cmd::Echo { config, listen } => {
            keywright_benches::serve_echo_as(&config, &listen);
            Ok(ExitCode::SUCCESS)
        }
        Cmd::Check(asked) => Ok(exit(check::ratios(&asked)?)),
        Cmd::Instructions(asked) => Ok(exit(check::instructions(&asked)?)),
        Cmd::Pure { part, times } => part.repeat(times).map(|()| ExitCode::SUCCESS),
        Cmd::Worker => worker::run().map(|()| ExitCode::SUCCESS),
    }
}

fn exit(good: bool) -> ExitCode {
    if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// An appliance that runs already, and an echo if there is one.
fn load(asked: Load) -> Result<Vec<Row>> {
    let settings = asked.server.settings();
    let echo = asked.echo.map(|addr| Side {
        settings: keywright_client::Settings {
            addr: Some(addr),
            ..settings.clone()
        },
        key: asked.key.clone(),
        metrics: None,
        cpu_seconds: None,
        echo: true,
    });
    let appliance = Side {
        settings,
        key: asked.key,
        metrics: asked.metrics,
        cpu_seconds: None,
        echo: false,
    };
    let dek = "as its rules say";
    measure::rows(&asked.asked, dek, &appliance, echo.as_ref(), &mut |_, _| {
        None
    })
}

/// Shows the rows; what failed is for the exit code to say, too.
fn finish(rows: &[Row], shown: &Shown) -> Result<ExitCode> {
    report::show(&rows, &report::tables(rows), shown.output)?;
    if let Some(path) = &shown.plot {
        plot::write(rows, path)?;
    }
    let Some(failed) = rows.iter().find(|r| r.failed > 0) else {
        return Ok(ExitCode::SUCCESS);
    };
    let why = failed.failure.as_deref().unwrap_or("no reason was kept");
    anstream::eprintln!(
        "keywright-bench: {} requests failed, the first: {why}",
        failed.failed
    );
    Ok(ExitCode::FAILURE)
}
