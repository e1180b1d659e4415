//! Forget kept data keys: what they encrypted is gone with them.

use super::{App, Call};
use crate::{envelope::DataKeyId, error::Result, key::KeyName, policy::act};

/// What to forget.
#[derive(Debug)]
pub struct ForgetDataKeys {
    /// Under which key they were made.
    pub key: KeyName,
    /// Which ones.
    pub ids: Vec<DataKeyId>,
}

/// Forgets data keys, and says how many of them were there.
///
/// # Errors
/// Permission, store.
pub async fn forget_data_keys(app: &App, call: &mut Call, which: ForgetDataKeys) -> Result<usize> {
    let permit = call.open::<act::ForgetDataKey>(app, &which.key)?;
    let key = permit.key();
    call.note(key, None);
    let ids: Vec<String> = which.ids.iter().map(ToString::to_string).collect();
    // Who asks later what became of it finds it here.
    call.entry.detail.insert("data_keys", ids.join(" "));
    let forgotten = app.store.forget(key.id, &which.ids).await?;
    let forgotten = usize::try_from(forgotten).unwrap_or(usize::MAX);
    call.items(forgotten, 0, 0);
    Ok(forgotten)
}
