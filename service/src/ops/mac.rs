//! Make and check MACs of a batch.

use bytes::Bytes;
use keywright_hsm as hsm;
use subtle::ConstantTimeEq;

use super::{App, Call, Checked, Output, Strings, Verdict, each};
use crate::{
    error::Result,
    key::{KeyName, KeyUse, KeyVersion, ProcessVersion},
    policy::act,
};

/// What to authenticate.
#[derive(Debug)]
pub struct Mac {
    /// With which key.
    pub key: KeyName,
    /// In order.
    pub inputs: Strings,
}

/// What to check.
#[derive(Debug)]
pub struct VerifyMac {
    /// Of which key.
    pub key: KeyName,
    /// In order.
    pub inputs: Strings,
    /// One for each input.
    pub macs: Strings,
    /// Only this version; none: any that may process.
    pub version: Option<u32>,
}

/// Makes a MAC of each input under the primary version; gives the version too.
///
/// # Errors
/// Permission, use and state of the key, HSM; inputs fail by themselves.
pub async fn mac(app: &App, call: &mut Call, request: Mac) -> Result<(Output, u32)> {
    let permit = call.open::<act::Mac>(app, &request.key)?;
    let key = permit.key();
    let version = key.to_protect(KeyUse::Mac)?.get();
    call.protects(key, version);
    let output = Output::collect(macs(app, call, version, &request.inputs).await);
    call.batch(&request.inputs, &output)?;
    Ok((output, version.number.get()))
}

/// Checks each MAC.
///
/// # Errors
/// Permission, use and state of the key, HSM. A MAC that is not valid is a verdict.
pub async fn verify_mac(app: &App, call: &mut Call, request: VerifyMac) -> Result<Checked> {
    let permit = call.open::<act::VerifyMac>(app, &request.key)?;
    let key = permit.key();
    let versions = key.to_check(KeyUse::Mac, request.version)?;
    call.note(key, request.version);
    let unknown = || Ok(Verdict { version: None });
    let mut results: Vec<Result<Verdict>> = request.inputs.iter().map(|_| unknown()).collect();
    for version in versions.into_iter().map(ProcessVersion::get) {
        if !results.iter().any(open) {
            break;
        }
        let made = macs(app, call, version, &request.inputs).await;
        for ((result, made), given) in results.iter_mut().zip(made).zip(request.macs.iter()) {
            match made {
                _ if !open(result) => {}
                Ok(made) if bool::from(made.ct_eq(given)) => {
                    version.used.processes(call.now_ms);
                    let version = Some(version.number.get());
                    *result = Ok(Verdict { version });
                }
                Ok(_) => {}
                Err(e) => *result = Err(e),
            }
        }
    }
    let Checked { verdicts, failures } = Checked::collect(results);
    call.verdicts(&request.inputs, &verdicts);
    failures.unless_all_alike(verdicts.len())?;
    Ok(Checked { verdicts, failures })
}

/// Neither valid nor failed yet.
fn open(result: &Result<Verdict>) -> bool {
    matches!(result, Ok(Verdict { version: None }))
}

async fn macs(
    app: &App,
    call: &Call,
    version: &KeyVersion,
    inputs: &Strings,
) -> Vec<Result<Vec<u8>>> {
    let jobs = inputs
        .iter()
        .map(|input| {
            super::seal::fits(&app.limits, input.len())?;
            Ok(hsm::Mac {
                key: version.on_token.clone(),
                message: Bytes::copy_from_slice(input),
            })
        })
        .collect();
    each(jobs, async |jobs| app.hsm.mac(jobs, call.deadline).await).await
}
