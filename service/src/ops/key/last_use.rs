//! When versions were last used, from memory to the store. Off the hot path: requests
//! leave a time in memory, and this brings it down now and then.

use crate::{
    key::{Key, KeyVersion},
    ops::App,
    store::Use,
};

/// Stores what is new. What cannot be stored now is stored the next time.
pub async fn save_last_use(app: &App) {
    let keys = app.keyring.all();
    let versions: Vec<(&Key, &KeyVersion)> = keys
        .iter()
        .flat_map(|key| key.versions().map(|v| (&**key, v)))
        .collect();
    let mut uses = Vec::new();
    let mut taken = Vec::new();
    for (key, version) in versions {
        if let Some((times, more_bytes)) = version.used.take_unsaved() {
            uses.push(Use {
                key: key.id,
                number: version.number,
                times,
                more_bytes,
            });
            taken.push((&version.used, more_bytes));
        }
    }
    if uses.is_empty() {
        return;
    }
    if let Err(e) = app.store.set_last_used(&uses).await {
        tracing::warn!(error = %e, "when keys were last used could not be stored; tried again");
        taken
            .iter()
            .for_each(|(used, bytes)| used.still_unsaved(*bytes));
    }
}
