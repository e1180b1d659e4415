//! Rotate a key, in two phases: a new version that every node hears of, and then protects.
//!
//! A version becomes primary when every node knows that it exists: else one would meet what
//! another protected by it, and not know it. What is left between the phases, by a crash,
//! is finished by the rounds of the appliance or by the next rotation.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::time::sleep;

use super::{
    change::alone_now,
    generate::{Wanted, generate, take_back},
};
use crate::{
    error::{Error, Reason, Result},
    key::{Key, KeyName, VersionNumber},
    keyring::Change,
    ops::{
        App, Call,
        nodes::{heard, look_again},
    },
    policy::act,
    store::{Promoted, StoreError},
};

/// How soon the others are asked again.
const PAUSE: Duration = Duration::from_millis(50);

/// Generates a version and makes it primary; older versions go on processing.
///
/// # Errors
/// [`Reason::Conflict`] when somebody else changes the key, [`Reason::DeadlineExceeded`]
/// when a node does not hear of the version in time, permission, HSM, store.
pub async fn rotate_key(app: &Arc<App>, call: &mut Call, name: &KeyName) -> Result<Arc<Key>> {
    let (permit, change) = alone_now::<act::RotateKey>(app, call, name).await?;
    let next = match turn(app, call.deadline, permit.shared_key(), &change).await {
        // Another node was quicker: once more on what it left, if the policies still allow it.
        Err(e) if e.reason() == Reason::Conflict && app.store.is_shared() => {
            look_again(app, permit.key()).await?;
            let permit = call.open::<act::RotateKey>(app, name)?;
            turn(app, call.deadline, permit.shared_key(), &change).await?
        }
        done => done?,
    };
    drop(change);
    heard(app, &next).await;
    call.note(&next, Some(next.primary.get()));
    Ok(next)
}

/// The rotation itself, of a key that nobody else on this node changes.
pub(super) async fn turn(
    app: &App,
    deadline: Instant,
    key: Arc<Key>,
    change: &Change,
) -> Result<Arc<Key>> {
    let key = match key.waiting() {
        Some(_) => key,
        None => add(app, deadline, &key, change).await?,
    };
    promote(app, deadline, key, change).await
}

/// The first phase.
async fn add(app: &App, deadline: Instant, key: &Key, change: &Change) -> Result<Arc<Key>> {
    let number = key
        .next_number()
        .ok_or_else(|| Error::new(Reason::KeyState, "this key has no version numbers left"))?;
    let wanted = Wanted {
        tenant: key.tenant,
        key: key.id,
        name: &key.name,
        spec: key.spec,
        number,
    };
    let next = key.with_version(generate(app, deadline, &wanted).await?);
    let version = next.version(number.get());
    let version = version.ok_or_else(|| Error::internal("a new version is not there"))?;
    if let Err(e) = app.store.add_version(&next, version).await {
        if matches!(e, StoreError::Conflict) {
            take_back(app, deadline, &next).await;
        }
        return Err(e.into());
    }
    Ok(change.publish(next))
}

/// The second phase: as soon as the other nodes know of the version that waits.
pub(super) async fn promote(
    app: &App,
    deadline: Instant,
    mut key: Arc<Key>,
    change: &Change,
) -> Result<Arc<Key>> {
    let Some(number) = key.waiting() else {
        return Ok(key);
    };
    loop {
        let next = key.promoted(app.clock.now_ms())?;
        match app.store.promote(app.membership.id(), &next, number).await {
            Ok(Promoted::Done) => return Ok(change.publish(next)),
            Ok(Promoted::Waits(_)) if Instant::now() + PAUSE < deadline => sleep(PAUSE).await,
            Ok(Promoted::Waits(nodes)) => return Err(not_heard(number, &nodes)),
            Err(StoreError::Conflict) => {
                key = look_again(app, &key).await?;
                if key.primary >= number {
                    // Another node has finished it.
                    return Ok(key);
                }
                if key.waiting() != Some(number) {
                    return Err(StoreError::Conflict.into());
                }
            }
            Err(e) => return Err(e.into()),
        }
    }
}

fn not_heard(number: VersionNumber, nodes: &[String]) -> Error {
    Error::new(
        Reason::DeadlineExceeded,
        format!(
            "version {number} is made and becomes primary by itself as soon as these nodes have heard of it, or are gone for {} seconds: {}",
            crate::membership::LEASE.as_secs(),
            nodes.join(", ")
        ),
    )
}
