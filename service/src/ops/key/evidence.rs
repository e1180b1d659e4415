//! What the HSM itself says about a key, read back now.

use keywright_hsm::{KeyEvidence, ModuleEvidence};

use crate::{
    error::{Error, Reason, Result},
    key::{KeyId, KeyName, KeyState, KeyVersion, Unusable},
    ops::{App, Call},
    policy::act,
};

/// Evidence about a key.
#[derive(Debug)]
pub struct Evidence {
    /// Which key.
    pub name: KeyName,
    /// Its id.
    pub id: KeyId,
    /// One for each version asked for.
    pub versions: Vec<VersionEvidence>,
    /// Module and token, and what they withstood.
    pub module: ModuleEvidence,
}

/// Evidence about one version.
#[derive(Debug)]
pub struct VersionEvidence {
    /// Which version.
    pub version: u32,
    /// What the token answered.
    pub attributes: KeyEvidence,
    /// The tokens that proved now that they hold it.
    pub tokens: Vec<String>,
}

/// Reads the attributes of one version, or of all.
///
/// # Errors
/// Permission, [`Reason::KeyVersionNotFound`], HSM.
pub async fn get_key_evidence(
    app: &App,
    call: &mut Call,
    name: &KeyName,
    only: Option<u32>,
) -> Result<Evidence> {
    let permit = call.open::<act::GetKeyEvidence>(app, name)?;
    let key = permit.key();
    let wanted: Vec<&KeyVersion> = match only {
        // What is destroyed has nothing to show.
        None => key
            .versions()
            .filter(|v| v.state != KeyState::Destroyed)
            .collect(),
        Some(n) => vec![key.version(n).ok_or_else(|| {
            Error::field(
                Reason::KeyVersionNotFound,
                "version",
                format!("this key has no version {n} here"),
            )
        })?],
    };
    let mut versions = Vec::with_capacity(wanted.len());
    for version in wanted {
        if version.state == KeyState::Destroyed {
            return Err(Unusable::State(version.number, version.state).into());
        }
        let attributes = app.hsm.describe(&version.on_token, call.deadline).await?;
        let tokens = app.hsm.holders(&version.on_token, call.deadline).await;
        call.note(key, Some(version.number.get()));
        versions.push(VersionEvidence {
            version: version.number.get(),
            attributes,
            tokens,
        });
    }
    Ok(Evidence {
        name: key.name.clone(),
        id: key.id,
        versions,
        module: app.hsm.evidence(),
    })
}
