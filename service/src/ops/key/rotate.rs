//! Rotate a key: a new version that is primary from now on.

use std::sync::Arc;

use super::{
    change::alone,
    generate::{Wanted, generate},
};
use crate::{
    error::{Error, Reason, Result},
    key::{Key, KeyName},
    ops::{App, Call},
    policy::act,
};

/// Generates a version and makes it primary; older versions go on processing.
///
/// # Errors
/// [`Reason::Conflict`] when somebody else changes the key, permission, HSM, store.
pub async fn rotate_key(app: &Arc<App>, call: &mut Call, name: &KeyName) -> Result<Arc<Key>> {
    let (permit, change) = alone::<act::RotateKey>(app, call, name)?;
    let key = permit.key();
    let number = key
        .next_number()
        .ok_or_else(|| Error::new(Reason::KeyState, "this key has no version numbers left"))?;
    let version = generate(
        app,
        call.deadline,
        &Wanted {
            tenant: key.tenant,
            tenant_name: &call.caller.tenant_name,
            key: key.id,
            name,
            spec: key.spec,
            number,
        },
    )
    .await?;
    let next = key.rotated(version.clone());
    app.store.add_version(&next, &version).await?;
    let next = change.publish(next);
    call.note(&next, Some(number.get()));
    Ok(next)
}
