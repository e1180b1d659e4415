//! Move versions of a key through the states of SP 800-57 (§7): suspend, resume,
//! deactivate, mark as compromised.

use std::sync::Arc;

use super::change::change;
use crate::{
    error::Result,
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

/// Moves versions.
///
/// # Errors
/// [`KeyState`](crate::error::Reason::KeyState) when the table of states has no such move,
/// [`Conflict`](crate::error::Reason::Conflict) when somebody else changed the key,
/// permission, store.
pub async fn change_state(
    app: &Arc<App>,
    call: &mut Call,
    request: &ChangeState,
) -> Result<Arc<Key>> {
    let ChangeState {
        name,
        version,
        to,
        seen,
    } = request;
    call.entry.state = Some(to.name());
    change::<act::ChangeState>(app, call, name, *seen, |_, key| {
        Ok(key.moved(*version, *to)?)
    })
    .await
}
