//! The commands, one file each.

mod audit;
mod data;
mod key;
mod random;

use clap::CommandFactory;
use keywright_client::{Client, Failure};

use crate::{
    args::{Args, Cmd},
    output::print,
};

pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let output = args.output;
    let connect = || async { Client::connect(&args.server.settings()).await };
    match args.command {
        Cmd::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Args::command(), "keywright", &mut script);
            print(&String::from_utf8_lossy(&script))
        }
        Cmd::Audit(command) => audit::run(&command, output),
        Cmd::Key(command) => key::run(&connect().await?, command, output).await,
        Cmd::Random { bytes, encoding } => {
            random::run(&connect().await?, bytes, encoding, output).await
        }
        Cmd::Encrypt { key, context, data } => {
            data::not_to_a_screen(&data)?;
            let job = data::Job::open(&data, false)?;
            job.encrypt(&connect().await?, &key, context, output).await
        }
        Cmd::Decrypt { key, context, data } => {
            let job = data::Job::open(&data, true)?;
            job.decrypt(&connect().await?, key.as_deref(), context, output)
                .await
        }
        Cmd::Rewrap { key, data } => {
            let job = data::Job::open(&data, false)?;
            job.rewrap(&connect().await?, key.as_deref(), output).await
        }
    }
}
