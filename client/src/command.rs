//! The commands, one file each.

mod admin;
mod audit;
mod daemon;
mod data;
mod data_key;
mod explain;
mod job;
mod key;
mod mac;
mod pki;
mod policy;
mod random;
mod rewrap;
mod sign;

use clap::CommandFactory;
use keywright_client::{Client, Failure, FailureKind, proto::ExplainRequest};

use crate::{
    args::{self, Args, Cmd, Context, Output},
    output::print,
};

pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let output = args.output;
    match args.command {
        // These need no server.
        Cmd::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Args::command(), "keywright", &mut script);
            print(&String::from_utf8_lossy(&script))
        }
        Cmd::Admin(command) => admin::run(&command, &args.server.settings()),
        Cmd::Policy(command) => policy::run(&command, output),
        Cmd::Audit(command) => audit::run(&command, output),
        Cmd::Pki(command) => pki::run(command, args.server.settings(), output).await,
        // Files are opened before the server is asked.
        Cmd::Encrypt {
            key,
            local,
            context,
            data,
        } => {
            data::not_to_a_screen(&data)?;
            let job = data::Job::open(&data, false)?;
            let client = Client::connect(&args.server.settings()).await?;
            job.encrypt(&client, &key, local, context, output).await
        }
        Cmd::Decrypt { key, context, data } => {
            let job = data::Job::open(&data, true)?;
            let client = Client::connect(&args.server.settings()).await?;
            job.decrypt(&client, key.as_deref(), context, output).await
        }
        Cmd::Sign {
            key,
            how,
            lines: true,
            files,
        } => {
            let algorithm = sign::message(&how)?;
            let job = data::Job::to_sign(&files)?;
            let client = Client::connect(&args.server.settings()).await?;
            job.sign(&client, &key, algorithm, output).await
        }
        Cmd::Rewrap(what) => rewrap::run(what, &args.server.settings(), output).await,
        Cmd::Job(args::job::Job::VerifyReport { report, public_key }) => {
            job::verify(&report, &public_key, output)
        }
        Cmd::Reencrypt {
            key,
            context,
            new_context,
            no_context,
            data,
        } => {
            let changed = no_context || !new_context.is_empty();
            let new_context = changed.then_some(Context { pairs: new_context });
            let job = data::Job::open(&data, false)?;
            let client = Client::connect(&args.server.settings()).await?;
            job.reencrypt(&client, &key, context, new_context, output)
                .await
        }
        other => {
            ask(
                &Client::connect(&args.server.settings()).await?,
                other,
                output,
            )
            .await
        }
    }
}

/// One question, one answer.
async fn ask(client: &Client, command: Cmd, output: Output) -> Result<(), Failure> {
    match command {
        Cmd::Key(command) => key::run(client, command, output).await,
        Cmd::Job(command) => job::run(client, command, output).await,
        Cmd::Random { bytes, encoding } => random::run(client, bytes, encoding, output).await,
        Cmd::Sign {
            key, how, files, ..
        } => {
            let (from, to) = (files.input_file.as_deref(), files.output_file.as_deref());
            sign::sign(client, key, &how, from, to, output).await
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
            sign::verify(client, key, &how, from, what, output).await
        }
        Cmd::Mac { key, input_file } => mac::mac(client, key, input_file.as_deref(), output).await,
        Cmd::VerifyMac {
            key,
            mac,
            version,
            input_file,
        } => {
            let from = input_file.as_deref();
            mac::verify(client, key, (&mac, version), from, output).await
        }
        Cmd::DataKey(command) => data_key::run(client, command, output).await,
        Cmd::AsymmetricDecrypt {
            key,
            version,
            hash,
            files,
        } => {
            let (from, to) = (files.input_file.as_deref(), files.output_file.as_deref());
            data_key::asymmetric_decrypt(client, key, version, hash, from, to).await
        }
        Cmd::Explain {
            action,
            key,
            context,
            principal,
            version,
        } => {
            explain::fits(&action, version)?;
            let request = ExplainRequest {
                key,
                action,
                context: data::pairs(context)?,
                principal: principal.unwrap_or_default(),
                key_version: version.unwrap_or(0),
            };
            explain::run(client, request, output).await
        }
        Cmd::Completions { .. }
        | Cmd::Admin(_)
        | Cmd::Policy(_)
        | Cmd::Audit(_)
        | Cmd::Pki(_)
        | Cmd::Encrypt { .. }
        | Cmd::Decrypt { .. }
        | Cmd::Rewrap(_)
        | Cmd::Reencrypt { .. } => Err(no_question()),
    }
}

fn no_question() -> Failure {
    Failure::new(FailureKind::Other, "this command asks no server")
}
