//! Connections that can be given up all at once. A way to the database that was cut, or a
//! server that is gone without a word, leaves connections that hang until TCP gives up, and
//! a pool waits for them.

use std::{fmt, sync::Arc};

use arc_swap::ArcSwap;
use sqlx::AnyPool;

type Connect = dyn Fn() -> sqlx::Result<AnyPool> + Send + Sync;

/// A pool, and how to make another one.
#[derive(Clone)]
pub(in crate::store) struct Pool {
    now: Arc<ArcSwap<AnyPool>>,
    connect: Arc<Connect>,
}

impl Pool {
    /// `connect` makes a pool that connects when it is asked for something.
    pub(in crate::store) fn new(
        connect: impl Fn() -> sqlx::Result<AnyPool> + Send + Sync + 'static,
    ) -> sqlx::Result<Self> {
        Ok(Self {
            now: Arc::new(ArcSwap::from_pointee(connect()?)),
            connect: Arc::new(connect),
        })
    }

    /// The connections of now.
    pub(in crate::store) fn get(&self) -> AnyPool {
        AnyPool::clone(&self.now.load())
    }

    /// Others from now on. Who uses one of the old ones goes on with it.
    pub(in crate::store) fn anew(&self) {
        match (self.connect)() {
            Ok(pool) => {
                let old = self.now.swap(Arc::new(pool));
                // It waits for those that are in use.
                tokio::spawn(async move { old.close().await });
            }
            Err(e) => tracing::error!(error = %e, "no new connections to the database"),
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pool").field(&self.get()).finish()
    }
}
