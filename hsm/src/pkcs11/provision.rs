//! A new token, for `keywrightd dev` and for tests: what an operator does once with
//! the vendor's tool in the field.

use cryptoki::session::UserType;
use tracing::info;

use super::{classify, device, module, module_path, raw::Raw};
use crate::{
    Pin, Result,
    error::{Error, Kind},
};

/// What the new token is called and who may use it.
#[derive(Debug)]
pub struct NewToken {
    /// CK_TOKEN_INFO.label.
    pub label: String,
    /// Security officer's PIN.
    pub so_pin: Pin,
    /// The PIN the daemon logs in with.
    pub user_pin: Pin,
}

/// Initialises a free slot of the module as a new token and returns its serial.
///
/// # Errors
/// [`Kind::Setup`] when the module has no free slot or refuses; a token that already
/// carries the label is never initialised again.
pub fn provision(module: &std::path::Path, new: &NewToken) -> Result<String> {
    let path = module_path(module)?;
    let raw = Raw::load(&path)?;
    let module = module::initialise(&path, None)?;
    let fail = |e: &cryptoki::error::Error| {
        Error::new(
            Kind::Setup,
            format!(
                "the token could not be initialised: {}",
                classify::from_cryptoki(e)
            ),
        )
    };
    let slots = module.get_slots_with_token().map_err(|e| fail(&e))?;
    let facts: Vec<_> = slots
        .iter()
        .filter_map(|slot| Some((*slot, raw.token_facts(*slot).ok()?)))
        .collect();
    if facts.iter().any(|(_, f)| f.label == new.label) {
        return Err(Error::new(
            Kind::Setup,
            format!(
                "a token with label {:?} exists already; it was left alone",
                new.label
            ),
        ));
    }
    let (free, _) = facts
        .iter()
        .find(|(_, f)| f.flags & cryptoki_sys::CKF_TOKEN_INITIALIZED == 0)
        .ok_or_else(|| Error::new(Kind::Setup, "the module shows no uninitialised token"))?;
    module
        .init_token(*free, new.so_pin.secret(), &new.label)
        .map_err(|e| fail(&e))?;
    let (slot, facts) = device::find_token(&module, &raw, Some(&new.label), None)?;
    {
        let session = module.open_rw_session(slot).map_err(|e| fail(&e))?;
        session
            .login(UserType::So, Some(new.so_pin.secret()))
            .map_err(|e| fail(&e))?;
        session
            .init_pin(new.user_pin.secret())
            .map_err(|e| fail(&e))?;
        session.logout().map_err(|e| fail(&e))?;
    }
    // `open` initialises the module again, with the new token in its slot list.
    module.finalize().map_err(|e| fail(&e))?;
    info!(label = %facts.label, serial = %facts.serial, "token initialised");
    Ok(facts.serial)
}
