//! Counting wraps before they are made. The store is asked once for every 65,536.

use std::sync::Arc;

use tracing::{Instrument, error, info};

use super::App;
use crate::{
    error::{Error, Reason, Result},
    key::{Key, KeyId, KeyVersion, Take, VersionNumber, WrapCounter},
};

/// Counts `n` wraps under a version.
///
/// # Errors
/// [`Reason::KeyWornOut`] when the version has wrapped as often as it may, or the
/// store's error when it cannot be counted.
pub(super) async fn count(app: &Arc<App>, key: &Key, version: &KeyVersion, n: u64) -> Result<()> {
    match version.wraps.take(n) {
        Take::Taken { low: false } => return Ok(()),
        Take::Taken { low: true } => {
            if app.reserving.try_lock().is_ok() {
                // Ahead of need, and nobody waits for it.
                let limit = key.rules.refuse_at();
                let ahead = reserve_logged(Arc::clone(app), key.id, version.clone(), limit);
                tokio::spawn(ahead.in_current_span());
            }
            return Ok(());
        }
        Take::Empty => {}
    }
    let limit = key.rules.refuse_at();
    // A task of its own: a caller that leaves must not lose a block that the store has
    // already given.
    let task = reserve(Arc::clone(app), key.id, version.clone(), n, limit);
    tokio::spawn(task.in_current_span())
        .await
        .map_err(|e| Error::internal(format!("reserving wraps: {e}")))??;
    match version.wraps.take(n) {
        Take::Taken { .. } => Ok(()),
        Take::Empty => Err(Error::new(
            Reason::Busy,
            "too many wraps of one key at once; try again",
        )),
    }
}

async fn reserve_logged(app: Arc<App>, key: KeyId, version: KeyVersion, limit: u64) {
    if let Err(e) = reserve(app, key, version, WrapCounter::BLOCK / 2, limit).await {
        error!(key = %key, error = ?e, "wraps could not be reserved ahead");
    }
}

/// Makes sure that `n` wraps are there to be taken, unless another task already did.
async fn reserve(app: Arc<App>, key: KeyId, version: KeyVersion, n: u64, limit: u64) -> Result<()> {
    let _one_at_a_time = app.reserving.lock().await;
    if version.wraps.left() >= n {
        return Ok(());
    }
    let number: VersionNumber = version.number;
    let total = app
        .store
        .reserve_wraps(key, number, WrapCounter::BLOCK, limit)
        .await?;
    let Some(total) = total else {
        return Err(Error::new(
            Reason::KeyWornOut,
            format!("version {number} of this key has wrapped as often as it may; rotate the key"),
        ));
    };
    info!(key = %key, version = number.get(), reserved = total, "wraps reserved");
    version.wraps.grant(total);
    Ok(())
}
