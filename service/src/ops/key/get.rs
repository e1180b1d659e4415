//! Read about a key.

use std::sync::Arc;

use crate::{
    error::Result,
    key::{Key, KeyName},
    ops::{App, Call},
    policy::act,
};

/// The key, without anything secret: there is nothing secret in it.
///
/// # Errors
/// Permission.
pub fn get_key(app: &App, call: &mut Call, name: &KeyName) -> Result<Arc<Key>> {
    let permit = call.open::<act::GetKey>(app, name)?;
    call.note(permit.key(), None);
    Ok(permit.shared_key())
}
