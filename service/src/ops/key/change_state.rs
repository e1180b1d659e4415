//! Move versions of a key through the states of SP 800-57 (§7): suspend, resume,
//! deactivate, mark as compromised.

use std::sync::Arc;

use crate::{
    error::{Error, Reason, Result},
    key::{Key, KeyName, KeyState},
    ops::{App, Call},
    policy::act,
};

/// What to change.
#[derive(Debug)]
pub struct ChangeState {
    /// Which key.
    pub name: KeyName,
    /// Which version; none: every one that may move there.
    pub version: Option<u32>,
    /// Where to.
    pub to: KeyState,
    /// The revision the caller has seen; none: whatever it is now.
    pub seen: Option<u64>,
}

/// Moves versions. From the answer on nobody on this node uses them otherwise: no DEK
/// outlives the request it was unwrapped for.
///
/// # Errors
/// [`Reason::KeyState`] when the table of states has no such move, [`Reason::Conflict`]
/// when somebody else changed the key, permission, store.
pub async fn change_state(
    app: &Arc<App>,
    call: &mut Call,
    request: &ChangeState,
) -> Result<Arc<Key>> {
    let name = &request.name;
    let permit = app
        .keyring
        .open::<act::ChangeState>(&call.caller, name, &mut call.entry)?;
    let change = app.keyring.begin_change(permit.key().tenant, name)?;
    // Again, now that nobody else can change it.
    let permit = app
        .keyring
        .open::<act::ChangeState>(&call.caller, name, &mut call.entry)?;
    let key = permit.key();
    if let Some(seen) = request.seen.filter(|seen| *seen != key.revision.0) {
        return Err(Error::new(
            Reason::Conflict,
            format!(
                "somebody else changed this key: it has revision {}, not {seen}; read it again",
                key.revision.0
            ),
        ));
    }
    call.entry.state = Some(request.to.name());
    let (next, moved) = key.moved(request.version, request.to)?;
    app.store.set_states(&next, &moved).await?;
    let next = change.publish(next);
    for number in moved {
        call.note(&next, Some(number.get()));
    }
    Ok(next)
}
