//! Check signatures with the public key. The HSM is not asked.

use super::{App, Call, Strings, Verdict, mac::candidates};
use crate::{
    error::Result,
    key::{KeyName, KeyUse, KeyVersion},
    policy::act,
    signature::{Algorithm, Asked},
};

/// What to check.
#[derive(Debug)]
pub struct Verify {
    /// Of which key.
    pub key: KeyName,
    /// How it was signed.
    pub asked: Asked,
    /// Messages or digests.
    pub inputs: Strings,
    /// One for each input.
    pub signatures: Strings,
    /// Only this version; none: any that may process.
    pub version: Option<u32>,
}

/// Checks each signature.
///
/// # Errors
/// Permission, use and state of the key, an algorithm that does not fit, a digest of the
/// wrong length. A signature that is not valid is a verdict, not an error.
pub fn verify(app: &App, call: &mut Call, request: &Verify) -> Result<Vec<Verdict>> {
    let permit = app
        .keyring
        .open::<act::Verify>(&call.caller, &request.key, &mut call.entry)?;
    let key = permit.key();
    let versions = candidates(key, KeyUse::Sign, request.version)?;
    call.note(key, request.version);
    let algorithm = Algorithm::of(key.spec, request.asked)?;
    let mut verdicts = Vec::with_capacity(request.inputs.len());
    for (given, signature) in request.inputs.iter().zip(request.signatures.iter()) {
        let input = algorithm.input(given)?;
        let made_it = |version: &&&KeyVersion| {
            algorithm.decode(signature).is_some_and(|signature| {
                version
                    .on_token
                    .public()
                    .is_some_and(|public| public.verify(algorithm.how, &input, &signature).is_ok())
            })
        };
        let version = versions.iter().find(made_it).map(|v| v.number.get());
        verdicts.push(Verdict { version });
    }
    call.verdicts(&request.inputs, &verdicts);
    Ok(verdicts)
}
