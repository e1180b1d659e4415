//! The commands, one file each.

mod audit;
mod data;
mod data_key;
mod key;
mod mac;
mod random;
mod sign;

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
        Cmd::Sign { key, how, files } => {
            let (from, to) = (files.input_file.as_deref(), files.output_file.as_deref());
            sign::sign(&connect().await?, key, &how, from, to, output).await
        }
        Cmd::Verify {
            key,
            signature,
            how,
            version,
            input_file,
        } => {
            let from = input_file.as_deref();
            let what = (signature.as_path(), version);
            sign::verify(&connect().await?, key, &how, from, what, output).await
        }
        Cmd::Mac { key, input_file } => {
            mac::mac(&connect().await?, key, input_file.as_deref(), output).await
        }
        Cmd::VerifyMac {
            key,
            mac,
            version,
            input_file,
        } => {
            let from = input_file.as_deref();
            mac::verify(&connect().await?, key, (&mac, version), from, output).await
        }
        Cmd::DataKey(command) => data_key::run(&connect().await?, command, output).await,
        Cmd::AsymmetricDecrypt {
            key,
            version,
            hash,
            files,
        } => {
            let (from, to) = (files.input_file.as_deref(), files.output_file.as_deref());
            data_key::asymmetric_decrypt(&connect().await?, key, version, hash, from, to).await
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
