//! The end of key material: scheduled by an operator, carried out by the appliance when
//! its time has come, and cancelled at any moment before.
//!
//! A scheduled version does nothing, so that whoever still needs it is heard in time. The
//! object in the HSM goes first and the record is changed after: a crash in between leaves
//! a scheduled version without an object, and the next round finishes what was begun.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use keywright_hsm::Kind;
use tracing::{error, info};

use super::change::change;
use crate::{
    audit::{Entry, Event, KeyNote},
    clock::rfc3339,
    error::{Error, Reason, Result},
    key::{Key, KeyName, KeyVersion},
    ops::{App, Call},
    policy::act,
};

/// What to destroy, and when.
#[derive(Debug)]
pub struct ScheduleDestruction {
    /// Which key.
    pub name: KeyName,
    /// Which version; none: all that have material.
    pub version: Option<u32>,
    /// How long from now.
    pub days: u32,
    /// The revision the caller has seen; none: whatever it is now.
    pub seen: Option<u64>,
}

impl ScheduleDestruction {
    /// When nothing is said.
    pub const DEFAULT_DAYS: u32 = 30;
    /// Time for somebody to notice.
    pub const MIN_DAYS: u32 = 7;
    /// Nobody remembers a longer plan.
    pub const MAX_DAYS: u32 = 90;
}

/// What to spare.
#[derive(Debug)]
pub struct CancelDestruction {
    /// Which key.
    pub name: KeyName,
    /// Which version; none: all that are scheduled.
    pub version: Option<u32>,
    /// The revision the caller has seen; none: whatever it is now.
    pub seen: Option<u64>,
}

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// Schedules versions for destruction; from now on they do nothing.
///
/// # Errors
/// [`Reason::KeyState`] for a version that is active, scheduled already or destroyed,
/// [`Reason::InvalidArgument`] for a time out of range, [`Reason::Conflict`], permission,
/// store.
pub async fn schedule_destruction(
    app: &Arc<App>,
    call: &mut Call,
    request: &ScheduleDestruction,
) -> Result<Arc<Key>> {
    let ScheduleDestruction {
        name,
        version,
        days,
        seen,
    } = request;
    let (least, most) = (ScheduleDestruction::MIN_DAYS, ScheduleDestruction::MAX_DAYS);
    if !(least..=most).contains(days) {
        return Err(Error::field(
            Reason::InvalidArgument,
            "days",
            format!("{days} days; from {least} to {most}"),
        ));
    }
    let at_ms = call.now_ms + i64::from(*days) * DAY_MS;
    call.entry.detail.insert("destroy_at", rfc3339(at_ms));
    change::<act::ScheduleDestruction>(app, call, name, *seen, |_, key| {
        Ok(key.scheduled(*version, at_ms)?)
    })
    .await
}

/// Cancels scheduled destructions; the versions have the states they had.
///
/// # Errors
/// [`Reason::KeyState`] for a version that is not scheduled, [`Reason::Conflict`],
/// permission, store.
pub async fn cancel_destruction(
    app: &Arc<App>,
    call: &mut Call,
    request: &CancelDestruction,
) -> Result<Arc<Key>> {
    change::<act::CancelDestruction>(app, call, &request.name, request.seen, |_, key| {
        Ok(key.spared(request.version)?)
    })
    .await
}

/// For one destruction; nobody waits for it.
const PATIENCE: Duration = Duration::from_secs(30);

/// Destroys what is due by now. What fails is tried again in the next round.
pub async fn destroy_due(app: &Arc<App>) {
    let now_ms = app.clock.now_ms();
    for key in app.keyring.all() {
        let due = |v: &&KeyVersion| v.destroy_at_ms.is_some_and(|at| at <= now_ms);
        for version in key.versions().filter(due) {
            let number = version.number.get();
            match destroy(app, &key, number, now_ms).await {
                Ok(()) => info!(key = %key.name, version = number, "destroyed as scheduled"),
                Err(e) => {
                    error!(key = %key.name, version = number, error = ?e, "not destroyed yet")
                }
            }
        }
    }
}

async fn destroy(app: &Arc<App>, key: &Key, number: u32, now_ms: i64) -> Result<()> {
    let change = app.keyring.begin_change(key.tenant, &key.name)?;
    // Again, now that nobody can cancel it: it may have been cancelled just before.
    let Some(key) = app.keyring.current(key) else {
        return Ok(());
    };
    let due = |v: &&KeyVersion| v.destroy_at_ms.is_some_and(|at| at <= now_ms);
    let Some(version) = key.version(number).filter(due) else {
        return Ok(());
    };
    // Recorded first: nothing is destroyed that nobody can see the destruction of.
    record(app, &key, number, Event::Destroying).await?;
    let deadline = Instant::now() + PATIENCE;
    let object = version.on_token.object;
    match app.hsm.destroy(object, key.spec, deadline).await {
        Ok(()) => {}
        Err(e) if e.kind() == Kind::NoSuchKey => {
            info!(%object, "the object is gone already");
        }
        Err(e) => return Err(e.into()),
    }
    let (next, _) = key.destroyed(number)?;
    app.store.change_key(&next).await?;
    let next = change.publish(next);
    record(app, &next, number, Event::Destroyed).await
}

async fn record(app: &App, key: &Key, number: u32, event: Event) -> Result<()> {
    let mut entry = Entry::event(event);
    entry.note(KeyNote {
        name: key.name.to_string(),
        id: key.id.to_string(),
        version: Some(number),
    });
    app.audit.record(entry).await
}
