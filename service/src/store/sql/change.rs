//! Changes of more than one statement: all or nothing, and as if one came after the other.
//! PostgreSQL refuses what would look otherwise, and then the change is made again from its
//! first statement.

use std::time::Duration;

use crate::{
    clock::{Entropy, System},
    store::StoreError,
};

/// A change that was refused so often fails.
pub(super) const ATTEMPTS: u32 = 20;

/// `atomically!(store, tx => { … Ok(value) })`: the block in a transaction, `value` when it
/// is committed. It may run several times. A macro, since the future of a closure that
/// borrows cannot be said to be `Send`.
macro_rules! atomically {
    ($store:expr, $tx:ident => $change:block) => {{
        let mut attempt = 1;
        loop {
            let mut $tx = $store.write().await?;
            let changed: Result<_> = async { $change }.await;
            let ended = match changed {
                Ok(value) => $tx.commit().await.map(|()| value).map_err(unavailable),
                Err(e) => $tx.rollback().await.map_err(unavailable).and(Err(e)),
            };
            match ended {
                Err(StoreError::Contended) if attempt < $crate::store::sql::change::ATTEMPTS => {
                    $crate::store::sql::change::pause(attempt).await;
                    attempt += 1;
                }
                ended => break ended,
            }
        }
    }};
}

/// A few milliseconds, more with every attempt, and never the same for two who collided.
pub(super) async fn pause(attempt: u32) {
    let mut chance = [0];
    // Without chance they may only collide again.
    let _ = System.fill(&mut chance);
    let [chance] = chance;
    let longest_us = 4_000 << attempt.min(5);
    let pause_us = longest_us * (u64::from(chance) + 1) / 256;
    tokio::time::sleep(Duration::from_micros(pause_us)).await;
}

/// serialization_failure and deadlock_detected: nothing was changed, it can be tried again.
const AGAIN: [&str; 2] = ["40001", "40P01"];

pub(in crate::store) fn unavailable(e: sqlx::Error) -> StoreError {
    match e.as_database_error().and_then(|d| d.code()) {
        Some(code) if AGAIN.contains(&&*code) => StoreError::Contended,
        _ => StoreError::Unavailable(e.to_string()),
    }
}

pub(super) fn taken(e: sqlx::Error) -> StoreError {
    match e.as_database_error() {
        Some(d) if d.is_unique_violation() => StoreError::Exists,
        _ => unavailable(e),
    }
}
