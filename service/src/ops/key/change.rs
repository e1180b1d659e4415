//! What every change of a key has in common: permit, one change at a time, the revision
//! the caller has seen, the store, and only then everybody else.

use std::sync::Arc;

use crate::{
    error::{Error, Reason, Result},
    key::{Key, KeyName, VersionNumber},
    keyring::Change,
    ops::{App, Call},
    policy::{KeyAction, Permit},
};

/// [`Keyring::open_alone`](crate::keyring::Keyring::open_alone) for whoever calls.
pub(super) fn alone<A: KeyAction>(
    app: &App,
    call: &mut Call,
    name: &KeyName,
) -> Result<(Permit<A>, Change)> {
    let (asking, entry) = call.asks();
    app.keyring.open_alone(&asking, name, entry)
}

/// Makes the next picture of a key, stores it, shows it. From the answer on everybody on
/// this node sees it: no DEK outlives the request it was unwrapped for.
///
/// # Errors
/// Permission, [`Reason::Conflict`], what `next` says, store.
pub(super) async fn change<A: KeyAction>(
    app: &Arc<App>,
    call: &mut Call,
    name: &KeyName,
    seen: Option<u64>,
    next: impl FnOnce(&mut Call, &Key) -> Result<(Key, Vec<VersionNumber>)>,
) -> Result<Arc<Key>> {
    let (permit, change) = alone::<A>(app, call, name)?;
    let key = permit.key();
    if let Some(seen) = seen.filter(|seen| *seen != key.revision.0) {
        return Err(Error::new(
            Reason::Conflict,
            format!(
                "somebody else changed this key: it has revision {}, not {seen}; read it again",
                key.revision.0
            ),
        ));
    }
    let (next, changed) = next(call, key)?;
    app.store.change_key(&next).await?;
    let next = change.publish(next);
    if changed.is_empty() {
        call.note(&next, None);
    }
    for number in changed {
        call.note(&next, Some(number.get()));
    }
    Ok(next)
}
