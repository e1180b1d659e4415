//! What the appliance does to keys by itself: rotate what is due, deactivate what is old,
//! bring back what did nothing for a try, destroy what was scheduled. Each is recorded like
//! a request.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tracing::{error, info};

use super::{
    destruction::destroy_due,
    rotate::{promote, turn},
};
use crate::{
    audit::{Entry, Event, KeyNote},
    error::{Reason, Result},
    key::{Due, Key, KeyState, KeyVersion, VersionNumber},
    ops::{App, nodes::is_ours},
};

/// For one rotation; nobody waits for it.
const PATIENCE: Duration = Duration::from_secs(30);
/// For the end of one that somebody else began; the next round comes soon.
const LITTLE_PATIENCE: Duration = Duration::from_millis(500);

/// One round over all keys. What fails is tried again in the next one; a rotation, after a
/// pause that grows.
pub async fn keep_rules(app: &Arc<App>) {
    // What cannot be recorded is not done.
    if !app.audit.healthy() || !is_ours(app).await {
        return;
    }
    let now_ms = app.clock.now_ms();
    for key in app.keyring.all() {
        if key.waiting().is_some() {
            match finish(app, &key).await {
                // By others, or by this node: it is being done.
                Err(e) if matches!(e.reason(), Reason::Conflict | Reason::DeadlineExceeded) => {}
                done => report(&key, "rotated to the end", done),
            }
        }
        if due(&key, now_ms).is_some() && app.pauses.is_over(key.id, now_ms) {
            let done = rotate(app, &key, now_ms).await;
            app.pauses.tried(key.id, done.is_ok(), now_ms);
            report(&key, "rotated by its rule", done);
        }
        if !key.deactivation_due(now_ms).is_empty() {
            let done = deactivate(app, &key, now_ms).await;
            report(&key, "old versions deactivated by rule", done);
        }
        let over = |v: &KeyVersion| v.brown_out_until_ms.is_some_and(|until| until <= now_ms);
        if key.versions().any(over) {
            report(&key, "back from a try", come_back(app, &key, now_ms).await);
        }
        destroy_due(app, &key, now_ms).await;
    }
}

/// The second phase of a rotation that was left after the first.
async fn finish(app: &Arc<App>, key: &Key) -> Result<()> {
    let change = app.keyring.begin_change(key.tenant, &key.name)?;
    let current = app.keyring.current(key);
    let Some(key) = current.filter(|key| key.waiting().is_some()) else {
        return Ok(());
    };
    let next = promote(app, Instant::now() + LITTLE_PATIENCE, key, &change).await?;
    record(app, &next, next.primary.get(), Event::Rotated).await
}

fn report(key: &Key, what: &str, done: Result<()>) {
    match done {
        Ok(()) => info!(key = %key.name, "{what}"),
        Err(e) => error!(key = %key.name, error = ?e, "not {what} yet"),
    }
}

/// The rule by which the appliance rotates a key now. A key that does not protect now, or
/// that people rotate, is left alone.
fn due(key: &Key, now_ms: i64) -> Option<Due> {
    let primary = key.version(key.primary.get())?;
    if key.waiting().is_some() || key.rules.rotate_by_hand || !primary.state.may_protect() {
        return None;
    }
    key.rotation_due(primary, now_ms)
}

async fn rotate(app: &Arc<App>, key: &Key, now_ms: i64) -> Result<()> {
    let change = app.keyring.begin_change(key.tenant, &key.name)?;
    // Again, now that nobody else changes it: somebody may have rotated it just before.
    let Some(key) = app.keyring.current(key) else {
        return Ok(());
    };
    let Some(due) = due(&key, now_ms) else {
        return Ok(());
    };
    let rotating = Event::Rotating { due: due.name() };
    record(app, &key, key.primary.get(), rotating).await?;
    let next = turn(app, Instant::now() + PATIENCE, key, &change).await?;
    record(app, &next, next.primary.get(), Event::Rotated).await
}

async fn deactivate(app: &Arc<App>, key: &Key, now_ms: i64) -> Result<()> {
    let change = app.keyring.begin_change(key.tenant, &key.name)?;
    let Some(mut key) = app.keyring.current(key) else {
        return Ok(());
    };
    for number in key.deactivation_due(now_ms) {
        let (next, _) = key.moved(Some(number.get()), KeyState::Deactivated)?;
        // Recorded first: nothing changes that nobody can see.
        record(app, &key, number.get(), Event::Deactivating).await?;
        app.store.change_key(&next).await?;
        key = change.publish(next);
    }
    Ok(())
}

async fn come_back(app: &Arc<App>, key: &Key, now_ms: i64) -> Result<()> {
    let change = app.keyring.begin_change(key.tenant, &key.name)?;
    let Some(key) = app.keyring.current(key) else {
        return Ok(());
    };
    let (next, which) = key.back(now_ms)?;
    for number in which {
        record(
            app,
            &next,
            VersionNumber::get(number),
            Event::BrownOutEnding,
        )
        .await?;
    }
    app.store.change_key(&next).await?;
    change.publish(next);
    Ok(())
}

/// Writes down what the appliance did to a version.
pub(super) async fn record(app: &App, key: &Key, number: u32, event: Event) -> Result<()> {
    let mut entry = Entry::event(event);
    entry.tenant = app.tenants.get(&key.tenant).cloned();
    entry.note(KeyNote {
        name: key.name.to_string(),
        id: key.id.to_string(),
        version: Some(number),
    });
    app.audit.record(entry).await
}
