//! Data keys that this appliance keeps for more than one batch of its own, where the rule
//! `lease_seconds` of a key allows it: an HSM that takes its time is then asked ahead of
//! need, and nobody waits for it.
//!
//! The permit is opened for each request all the same. A suspended, rotated or forbidden key
//! seals nothing under a lease, and what is left of the data key is cleared soon after.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::Mutex;
use tracing::{Instrument, warn};

use super::{App, Call, seal};
use crate::{
    envelope::Kind,
    error::{Error, Reason, Result},
    key::{DekLease, Key, KeyVersion, LeasedDek, Taken},
};

/// How long a data key may outlive the right to seal under it.
const LOOK: Duration = Duration::from_secs(1);

/// Whose turn it is to ask the HSM for the next data key of a key, while others wait for it.
/// Keys share the turns: now and then one waits for another.
pub struct Renewing([Mutex<()>; 64]);

impl Default for Renewing {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Mutex::default()))
    }
}

impl Renewing {
    fn of(&self, key: &Key) -> &Mutex<()> {
        let ([first, ..], [byte, ..]) = (&self.0, key.id.0);
        let turn = self.0.get(usize::from(byte) % self.0.len());
        turn.unwrap_or(first)
    }
}

/// One envelope under the data key that the version has on lease; a new one when that has
/// ended. Whoever comes while it is made waits for the same one.
pub(super) async fn take(
    app: &Arc<App>,
    call: &mut Call,
    key: &Key,
    version: &KeyVersion,
    life: Duration,
) -> Result<Arc<LeasedDek>> {
    call.protects(key, version);
    let lease = &version.lease;
    if let Taken::Dek { leased, low } = lease.take(Instant::now(), life) {
        if low && app.renewing.of(key).try_lock().is_ok() {
            renew_ahead(app, key, version);
        }
        return Ok(leased);
    }
    let late = || {
        Error::new(
            Reason::DeadlineExceeded,
            "the HSM did not make a data key in time",
        )
    };
    let deadline = tokio::time::Instant::from_std(call.deadline);
    let turn = tokio::time::timeout_at(deadline, app.renewing.of(key).lock()).await;
    let _turn = turn.map_err(|_| late())?;
    if let Taken::Dek { leased, .. } = lease.take(Instant::now(), life) {
        return Ok(leased);
    }
    renew(app, key, version, call.deadline).await?;
    match lease.take(Instant::now(), life) {
        Taken::Dek { leased, .. } => Ok(leased),
        Taken::Ended => Err(late()),
    }
}

/// Nobody waits for it; the data key there is goes on meanwhile.
fn renew_ahead(app: &Arc<App>, key: &Key, version: &KeyVersion) {
    let (app, key, version) = (Arc::clone(app), key.clone(), version.clone());
    let seen = version.lease.made();
    let ahead = async move {
        let Ok(_turn) = app.renewing.of(&key).try_lock() else {
            return;
        };
        // Somebody may have been here between the request and now.
        if version.lease.made() != seen {
            return;
        }
        let deadline = Instant::now() + Duration::from_millis(app.limits.request_ms);
        if let Err(e) = renew(&app, &key, &version, deadline).await {
            warn!(key = %key.id, error = ?e, "no data key ahead of need");
            // Whoever has nothing left when this is over asks by itself.
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::spawn(ahead.in_current_span());
}

/// In the turn of [`Renewing`]. The time counts from before the HSM was asked.
async fn renew(app: &Arc<App>, key: &Key, version: &KeyVersion, deadline: Instant) -> Result<()> {
    let made = Instant::now();
    let minted = seal::mint(app, key, version, Kind::Items, 1, deadline).await?;
    let one = minted.into_iter().next();
    let (dek, wrapped) = one.ok_or_else(|| Error::internal("a data key got lost"))??;
    let first = version.lease.made().is_none();
    let envelopes = app.limits.lease_envelopes;
    version.lease.begin(dek, wrapped, made, envelopes);
    if first {
        tokio::spawn(look_after(Arc::clone(app), key.clone(), version.clone()));
    }
    Ok(())
}

/// Clears the data key when its time is over or nobody may seal under it any more.
async fn look_after(app: Arc<App>, key: Key, version: KeyVersion) {
    let lease: &DekLease = &version.lease;
    while let Some(made) = lease.made() {
        tokio::time::sleep(LOOK).await;
        let current = app.keyring.current(&key);
        let life = current.and_then(|key| life(&key, &version));
        if life.is_none_or(|life| made.elapsed() >= life) && lease.made() == Some(made) {
            let _turn = app.renewing.of(&key).lock().await;
            if lease.made() == Some(made) {
                lease.end();
                return;
            }
        }
    }
}

/// How long a data key of this version seals, as of now.
fn life(key: &Key, version: &KeyVersion) -> Option<Duration> {
    let (primary, life) = super::lease::to_lend(key).ok()?;
    (primary.number == version.number).then_some(life)
}
