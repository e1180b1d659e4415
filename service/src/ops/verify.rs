//! Check signatures with the public key. The HSM is not asked.

use std::sync::Arc;

use super::{App, Call, Checked, Strings, Verdict};
use crate::{
    error::{Error, Result},
    key::{Key, KeyName, KeyUse, KeyVersion, Unusable},
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
    /// Only this version; none: any that may process. What another version made is then
    /// refused for the reason that version may not.
    pub version: Option<u32>,
}

/// Checks each signature.
///
/// # Errors
/// Permission, use and state of the key, an algorithm that does not fit; a digest of the
/// wrong length and a signature of a version that may not process fail by themselves. A
/// signature that is not valid is a verdict, not an error.
pub async fn verify(app: &App, call: &mut Call, request: Verify) -> Result<Checked> {
    let permit = call.open::<act::Verify>(app, &request.key)?;
    let key = permit.shared_key();
    call.note(&key, request.version);
    let request = Arc::new(request);
    let (asked, known) = (Arc::clone(&request), Arc::clone(&key));
    // Thousands of verifications under several versions take a while: not on a thread
    // that others wait for.
    let results = tokio::task::spawn_blocking(move || verdicts(&known, &asked))
        .await
        .map_err(|e| Error::internal(format!("verifying: {e}")))??;
    let Checked { verdicts, failures } = Checked::collect(results);
    for made_by in verdicts.iter().filter_map(|v| key.version(v.version?)) {
        made_by.used.processes(call.now_ms);
    }
    call.verdicts(&request.inputs, &verdicts);
    failures.unless_all_alike(verdicts.len())?;
    Ok(Checked { verdicts, failures })
}

fn verdicts(key: &Key, request: &Verify) -> Result<Vec<Result<Verdict>>> {
    let versions = key.to_check(KeyUse::Sign, request.version)?;
    let barred: Vec<(&KeyVersion, Unusable)> = match request.version {
        Some(_) => Vec::new(),
        None => key.barred(KeyUse::Sign).collect(),
    };
    let algorithm = Algorithm::of(key.spec, request.asked)?;
    let one = |(given, signature): (&[u8], &[u8])| {
        let input = algorithm.input(given)?;
        let signature = algorithm.decode(signature);
        let made_it = |version: &KeyVersion| match (&signature, version.on_token.public()) {
            (Some(signature), Some(public)) => {
                public.verify(algorithm.how, &input, signature).is_ok()
            }
            _ => false,
        };
        if let Some(version) = versions.iter().find(|v| made_it(v.get())) {
            let version = Some(version.get().number.get());
            return Ok(Verdict { version });
        }
        // "Not valid" would send people looking for a forger.
        match barred.iter().find(|(version, _)| made_it(version)) {
            Some((_, why)) => Err((*why).into()),
            None => Ok(Verdict { version: None }),
        }
    };
    let pairs = request.inputs.iter().zip(request.signatures.iter());
    Ok(pairs.map(one).collect())
}
