//! Open what was encrypted to a public key.

use bytes::Bytes;
use keywright_hsm::{self as hsm, Oaep};

use super::{App, Call, Output, Strings, each};
use crate::{
    error::{Error, Reason, Result},
    key::{KeyName, KeyUse},
    policy::act,
};

/// What to open.
#[derive(Debug)]
pub struct AsymmetricDecrypt {
    /// With which key.
    pub key: KeyName,
    /// Which version; none: the primary one.
    pub version: Option<u32>,
    /// Hash of OAEP.
    pub how: Oaep,
    /// In order.
    pub ciphertexts: Strings,
}

/// Opens each ciphertext; gives the version too.
///
/// # Errors
/// Permission, use and state of the key, HSM; ciphertexts fail by themselves, all with
/// one answer.
pub async fn asymmetric_decrypt(
    app: &App,
    call: &mut Call,
    request: AsymmetricDecrypt,
) -> Result<(Output, u32)> {
    let permit = call.open::<act::AsymmetricDecrypt>(app, &request.key)?;
    let key = permit.key();
    let number = request.version.unwrap_or(key.primary.get());
    let version = call.to_process(key, KeyUse::Decrypt, number)?;
    call.note(key, Some(number));
    let jobs = request
        .ciphertexts
        .iter()
        .map(|ciphertext| {
            Ok(hsm::Decrypt {
                key: version.on_token.clone(),
                how: request.how,
                ciphertext: Bytes::copy_from_slice(ciphertext),
            })
        })
        .collect();
    let deadline = call.deadline;
    let results = each(jobs, async |jobs| app.hsm.decrypt(jobs, deadline).await).await;
    if results.iter().any(Result::is_ok) {
        version.used.processes(call.now_ms);
    }
    let output = Output::collect(results.into_iter().map(|r| r.map_err(one_answer)));
    call.batch(&request.ciphertexts, &output)?;
    Ok((output, number))
}

/// For every ciphertext that does not open; there is neither context nor AAD here.
fn one_answer(e: Error) -> Error {
    if e.reason() != Reason::DecryptionFailed {
        return e;
    }
    let answer = Error::new(
        Reason::DecryptionFailed,
        "decryption failed: key, version, hash of OAEP and ciphertext do not belong together",
    );
    match e.internal_text() {
        Some(internal) => answer.because(internal),
        None => answer,
    }
}
