//! Sign a batch under the primary version of a key.

use keywright_hsm as hsm;

use super::{App, Call, Output, Strings, each};
use crate::{
    error::Result,
    key::{KeyName, KeyUse},
    policy::act,
    signature::{Algorithm, Asked, Scheme},
};

/// What to sign.
#[derive(Debug)]
pub struct Sign {
    /// With which key.
    pub key: KeyName,
    /// How.
    pub asked: Asked,
    /// Messages or digests, in order.
    pub inputs: Strings,
}

/// Signatures.
#[derive(Debug)]
pub struct Signed {
    /// One for each input.
    pub output: Output,
    /// The version that signed.
    pub version: u32,
    /// How.
    pub scheme: Scheme,
}

/// Signs a batch. No signature leaves that the public key does not verify.
///
/// # Errors
/// Permission, use and state of the key, an algorithm that does not fit; inputs fail by
/// themselves.
pub async fn sign(app: &App, call: &mut Call, request: Sign) -> Result<Signed> {
    let permit = call.open::<act::Sign>(app, &request.key)?;
    let key = permit.key();
    let version = key.to_protect(KeyUse::Sign)?.get();
    call.protects(key, version);
    let algorithm = Algorithm::of(key.spec, request.asked)?;
    let jobs: Vec<Result<hsm::Sign>> = request
        .inputs
        .iter()
        .map(|input| {
            super::seal::fits(&app.limits, input.len())?;
            Ok(hsm::Sign {
                key: version.on_token.clone(),
                how: algorithm.how,
                input: algorithm.input(input)?,
            })
        })
        .collect();
    let deadline = call.deadline;
    let results = each(jobs, async |jobs| app.hsm.sign(jobs, deadline).await).await;
    let output = Output::collect(
        results
            .into_iter()
            .map(|r| r.and_then(|signature| algorithm.encode(signature))),
    );
    call.batch(&request.inputs, &output)?;
    Ok(Signed {
        output,
        version: version.number.get(),
        scheme: algorithm.scheme,
    })
}
