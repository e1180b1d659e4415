//! `keywright pki …`.

mod acme_key;
mod authority;
mod ceremony;
mod files;
mod find;
mod profile;
mod readable;
mod renew;
mod request;
mod revoke;
mod sign;
mod verify;
mod written;

use keywright_client::{Client, Failure, Settings};

use crate::args::{Output, pki::Pki};

/// Files are read, and those to be written opened, before the server is asked.
pub(crate) async fn run(command: Pki, settings: Settings, output: Output) -> Result<(), Failure> {
    match command {
        Pki::Verify(what) => verify::run(&what, output),
        Pki::Sign(what) => sign::sign(&settings, what, output).await,
        Pki::Issue(what) => sign::issue(&settings, what, output).await,
        Pki::Renew(what) => renew::renew(settings, what, output).await,
        Pki::Revoke(what) => revoke::revoke(&settings, what, output).await,
        Pki::BlockKey(what) => revoke::block_key(&settings, what, output).await,
        Pki::Ceremony(what) => ceremony::run(&settings, what, output).await,
        Pki::Profile(what) => profile::run(&settings, what, output).await,
        Pki::AcmeKey(what) => acme_key::run(&settings, what, output).await,
        Pki::Issuer(what) => authority::run(&Client::connect(&settings).await?, what, output).await,
        Pki::List(what) => find::list(&Client::connect(&settings).await?, what, output).await,
        Pki::Show { issuer, serial } => {
            let client = Client::connect(&settings).await?;
            find::show(&client, &issuer, &serial.0, output).await
        }
        Pki::Crl {
            issuer,
            shard,
            output_file,
        } => {
            let client = Client::connect(&settings).await?;
            let shard = shard.unwrap_or(0);
            find::crl(&client, &issuer, shard, output_file.as_deref(), output).await
        }
        Pki::Bundle { roots, output_file } => {
            let client = Client::connect(&settings).await?;
            find::bundle(&client, roots, output_file.as_deref(), output).await
        }
    }
}
