//! What every change of a key has in common: permit, one change at a time, the revision
//! the caller has seen, the store, and only then everybody else.

use std::sync::Arc;

use crate::{
    error::{Error, Reason, Result},
    key::{Key, KeyName, VersionNumber},
    keyring::Change,
    ops::{
        App, Call,
        nodes::{heard, look_again},
    },
    policy::{KeyAction, Permit},
    store::StoreError,
};

/// [`Keyring::open_alone`](crate::keyring::Keyring::open_alone) for whoever calls.
fn alone<A: KeyAction>(app: &App, call: &mut Call, name: &KeyName) -> Result<(Permit<A>, Change)> {
    let (asking, entry) = call.asks();
    app.keyring.open_alone(&asking, name, entry)
}

/// The same on the key as it is stored: another node may have changed it just now, or used
/// it, which the gate before a destruction wants to know.
pub(super) async fn alone_now<A: KeyAction>(
    app: &App,
    call: &mut Call,
    name: &KeyName,
) -> Result<(Permit<A>, Change)> {
    let (permit, change) = alone::<A>(app, call, name)?;
    if !app.store.is_shared() {
        return Ok((permit, change));
    }
    look_again(app, permit.key()).await?;
    Ok((call.open(app, name)?, change))
}

/// Makes the next picture of a key, stores it, shows it. From the answer on everybody on
/// this node sees it: no DEK outlives the request it was unwrapped for. When another node
/// was quicker, it is done once more on what that one left, if the policies still allow it.
///
/// # Errors
/// Permission, [`Reason::Conflict`], what `next` says, store.
pub(super) async fn change<A: KeyAction>(
    app: &Arc<App>,
    call: &mut Call,
    name: &KeyName,
    seen: Option<u64>,
    next: impl Fn(&mut Call, &Key) -> Result<(Key, Vec<VersionNumber>)>,
) -> Result<Arc<Key>> {
    let (mut permit, change) = alone_now::<A>(app, call, name).await?;
    let mut again = true;
    let (next, changed) = loop {
        let key = permit.key();
        as_seen(key, seen)?;
        let (next, changed) = next(call, key)?;
        match app.store.change_key(&next).await {
            Ok(()) => break (next, changed),
            Err(StoreError::Conflict) if std::mem::take(&mut again) => {
                look_again(app, key).await?;
                permit = call.open(app, name)?;
            }
            Err(e) => return Err(e.into()),
        }
    };
    let next = change.publish(next);
    drop(change);
    heard(app, &next).await;
    if changed.is_empty() {
        call.note(&next, None);
    }
    for number in changed {
        call.note(&next, Some(number.get()));
    }
    Ok(next)
}

fn as_seen(key: &Key, seen: Option<u64>) -> Result<()> {
    if let Some(seen) = seen.filter(|seen| *seen != key.revision.0) {
        return Err(Error::new(
            Reason::Conflict,
            format!(
                "somebody else changed this key: it has revision {}, not {seen}; read it again",
                key.revision.0
            ),
        ));
    }
    Ok(())
}
