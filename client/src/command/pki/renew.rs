//! `keywright pki renew`: the certificate proves itself by the connection.

use keywright_client::{Client, Failure, Settings, proto::RenewRequest};
use sha2::{Digest, Sha256};

use super::{files, readable, request, sign::idempotency_key, written::Outputs};
use crate::{
    args::{Output, pki::Renew},
    output::Sink,
};

pub(super) async fn renew(settings: Settings, what: Renew, output: Output) -> Result<(), Failure> {
    let named = &what.written;
    files::all_different(&[
        what.new_key_out.as_ref(),
        named.output_file.as_ref(),
        named.chain.as_ref(),
        named.full_chain.as_ref(),
        named.root.as_ref(),
    ])?;
    let held = files::private_key(&what.key)?;
    let (key, written) = match &what.new_key_out {
        None => (held, None),
        Some(path) => {
            let key = request::new_key(request::kind_of(&held)?)?;
            let pem = request::private_pem(&key)?;
            (key, Some((Sink::key(path, what.force)?, pem)))
        }
    };
    let csr = request::csr(&key)?;
    let spki = readable::request(&csr)?.spki_sha256;
    let outputs = Outputs::open(what.written, written)?;
    let request = RenewRequest {
        idempotency_key: match what.idempotency_key {
            Some(key) => idempotency_key(key)?,
            None => hex::encode(Sha256::digest(&csr)),
        },
        csr_der: csr.into(),
        ttl_seconds: what.ttl.map_or(0, |ttl| ttl.seconds),
    };
    let settings = Settings {
        cert: Some(what.cert),
        key: Some(what.key),
        ..settings
    };
    let client = Client::connect(&settings).await?;
    let roots = outputs.roots(&client).await?;
    let (issued, _) = client.renew(request).await?;
    outputs.write(&issued, &roots, spki, output)
}
