//! The public half of a pair.

use keywright_hsm::PublicKey;

use crate::{
    error::{Error, Reason, Result},
    key::{KeyName, KeySpec},
    ops::{App, Call},
    policy::act,
};

/// A public key and what it belongs to.
#[derive(Debug)]
pub struct Public {
    /// The key.
    pub key: PublicKey,
    /// `key id:version`, for whoever keeps several.
    pub kid: String,
    /// Which version.
    pub version: u32,
    /// Algorithm, size, use.
    pub spec: KeySpec,
}

/// Reads the public key of a version, whatever its state: what was signed stays signed.
///
/// # Errors
/// Permission, [`Reason::KeyVersionNotFound`], [`Reason::KeyUse`] for a key without a
/// public half.
pub fn get_public_key(
    app: &App,
    call: &mut Call,
    name: &KeyName,
    version: Option<u32>,
) -> Result<Public> {
    let permit = call.open::<act::GetPublicKey>(app, name)?;
    let key = permit.key();
    let number = version.unwrap_or(key.primary.get());
    let version = key.version(number).ok_or_else(|| {
        Error::field(
            Reason::KeyVersionNotFound,
            "version",
            format!("this key has no version {number} here"),
        )
    })?;
    call.note(key, Some(number));
    let public = version.on_token.public().ok_or_else(|| {
        Error::new(
            Reason::KeyUse,
            format!("a key of {} has no public half", key.spec.name()),
        )
    })?;
    Ok(Public {
        key: public.clone(),
        kid: format!("{}:{number}", key.id),
        version: number,
        spec: key.spec,
    })
}
