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

use super::{change::change, retirement, rules::record};
use crate::{
    audit::Event,
    clock::rfc3339,
    error::{Error, Reason, Result},
    key::{Key, KeyName, KeyVersion},
    ops::{App, Call, nodes::look_again},
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
    /// Nothing is scheduled yet: the version does nothing for so long, for a try.
    pub brown_out_minutes: Option<u32>,
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
    /// A month: longer is not a try.
    pub const MAX_BROWN_OUT_MINUTES: u32 = 30 * 24 * 60;
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

const MINUTE_MS: i64 = 60 * 1000;
const DAY_MS: i64 = 24 * 60 * MINUTE_MS;

/// Schedules versions for destruction; from now on they do nothing. Or lets one do nothing
/// for a try. What is still needed is refused.
///
/// # Errors
/// [`Reason::KeyState`] for a version that is active, scheduled already or destroyed,
/// [`Reason::KeyVersionInUse`] for one that is still needed, [`Reason::InvalidArgument`] for
/// a time out of range, [`Reason::Conflict`], permission, store.
pub async fn schedule_destruction(
    app: &Arc<App>,
    call: &mut Call,
    request: &ScheduleDestruction,
) -> Result<Arc<Key>> {
    let ScheduleDestruction {
        name,
        version,
        days,
        brown_out_minutes,
        seen,
    } = request;
    let (least, most) = (ScheduleDestruction::MIN_DAYS, ScheduleDestruction::MAX_DAYS);
    in_range("days", *days, least, most)?;
    let minutes = brown_out_minutes.unwrap_or(1);
    in_range(
        "brown_out_minutes",
        minutes,
        1,
        ScheduleDestruction::MAX_BROWN_OUT_MINUTES,
    )?;
    let standing = standing(app, call, name).await?;
    let quiet_ms = i64::try_from(app.limits.retirement_quiet_ms).unwrap_or(i64::MAX);
    let detail = &mut call.entry.detail;
    if brown_out_minutes.is_none() {
        let at_ms = call.now_ms + i64::from(*days) * DAY_MS;
        detail.insert("destroy_at", rfc3339(at_ms));
        return change::<act::ScheduleDestruction>(app, call, name, *seen, |call, key| {
            let (next, which) = key.scheduled(*version, at_ms)?;
            for number in &which {
                retirement::check(key, *number, &standing, call.now_ms, quiet_ms)?;
            }
            Ok((next, which))
        })
        .await;
    }
    let until_ms = call.now_ms + i64::from(minutes) * MINUTE_MS;
    detail.insert("brown_out_until", rfc3339(until_ms));
    let number = version.ok_or_else(|| {
        Error::field(
            Reason::InvalidArgument,
            "version",
            "name the version that is to do nothing for a try",
        )
    })?;
    change::<act::ScheduleDestruction>(app, call, name, *seen, |call, key| {
        let (next, which) = key.browned_out(number, until_ms)?;
        for number in &which {
            retirement::check(key, *number, &standing, call.now_ms, quiet_ms)?;
        }
        Ok((next, which))
    })
    .await
}

fn in_range(field: &'static str, n: u32, least: u32, most: u32) -> Result<()> {
    if (least..=most).contains(&n) {
        return Ok(());
    }
    let unit = field.rsplit('_').next().unwrap_or(field);
    Err(Error::field(
        Reason::InvalidArgument,
        field,
        format!("{n} {unit}; from {least} to {most}"),
    ))
}

/// What jobs say about a key. A job that begins from now on finds what it needs scheduled,
/// and says so: there is time to cancel.
async fn standing(app: &App, call: &mut Call, name: &KeyName) -> Result<retirement::Standing> {
    let permit = call.open::<act::ScheduleDestruction>(app, name)?;
    let key = permit.key().id;
    Ok(retirement::Standing {
        jobs: app.store.standing_jobs(key).await?,
        kept: app.store.kept_versions(key).await?,
    })
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

/// Destroys versions of a key that are due by now. What fails is tried again in the next
/// round.
pub(super) async fn destroy_due(app: &Arc<App>, key: &Key, now_ms: i64) {
    let due = |v: &&KeyVersion| v.destroy_at_ms.is_some_and(|at| at <= now_ms);
    for version in key.versions().filter(due) {
        let number = version.number.get();
        match destroy(app, key, number, now_ms).await {
            Ok(()) => info!(key = %key.name, version = number, "destroyed as scheduled"),
            Err(e) => {
                error!(key = %key.name, version = number, error = ?e, "not destroyed yet");
            }
        }
    }
}

async fn destroy(app: &Arc<App>, key: &Key, number: u32, now_ms: i64) -> Result<()> {
    let change = app.keyring.begin_change(key.tenant, &key.name)?;
    // Again, now that nobody can cancel it: it may have been cancelled just before, also on
    // another node.
    app.membership.must_serve()?;
    let key = match app.store.is_shared() {
        true => look_again(app, key).await?,
        false => match app.keyring.current(key) {
            Some(key) => key,
            None => return Ok(()),
        },
    };
    let due = |v: &&KeyVersion| v.destroy_at_ms.is_some_and(|at| at <= now_ms);
    let Some(version) = key.version(number).filter(due) else {
        return Ok(());
    };
    // Not begun in vain round after round: it would be recorded each time.
    app.hsm.can_destroy()?;
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
