//! Who writes and reads the table while a job goes over it. Each writer has rows of its
//! own, so that it knows which write of a row was acknowledged last.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use keywright_client::Client;
use sqlx::Row;
use tokio::{runtime::Runtime, task::JoinSet};

use crate::table::{Shop, open, seal, write_of};

const WRITERS: i64 = 3;
const READERS: i64 = 2;

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) written: u64,
    pub(crate) read: u64,
    /// The last acknowledged write of each row that was written.
    pub(crate) last: BTreeMap<i64, u64>,
}

pub(crate) struct Applications {
    stop: Arc<AtomicBool>,
    tasks: JoinSet<Tally>,
}

impl Applications {
    pub(crate) fn start(runtime: &Runtime, shop: &Shop, client: &Client) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        for n in 0..WRITERS {
            let work = write(shop.clone(), client.clone(), n, Arc::clone(&stop));
            tasks.spawn_on(work, runtime.handle());
        }
        for n in 0..READERS {
            let work = read(shop.clone(), client.clone(), n, Arc::clone(&stop));
            tasks.spawn_on(work, runtime.handle());
        }
        Self { stop, tasks }
    }

    pub(crate) fn stop(self, runtime: &Runtime) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        let mut sum = Tally::default();
        for tally in runtime.block_on(self.tasks.join_all()) {
            sum.written += tally.written;
            sum.read += tally.read;
            sum.last.extend(tally.last);
        }
        sum
    }
}

/// A row, and the next one, all over the table and always the same.
fn scattered(rows: i64, step: i64) -> i64 {
    (step * 7_919 + step * step % 101).rem_euclid(rows)
}

async fn write(shop: Shop, client: Client, n: i64, stop: Arc<AtomicBool>) -> Tally {
    let mut tally = Tally::default();
    for step in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        // Rows of its own: those with this rest.
        let id = scattered(shop.rows / WRITERS, step) * WRITERS + n;
        let write = tally.last.get(&id).copied().unwrap_or(0) + 1;
        let sealed = seal(&client, &[(id, write)]).await.remove(0);
        let changed = sqlx::query("UPDATE cards SET pan = $1 WHERE id = $2")
            .bind(sealed.to_vec())
            .bind(id)
            .execute(&shop.pool)
            .await
            .unwrap();
        assert_eq!(changed.rows_affected(), 1, "row {id}");
        tally.last.insert(id, write);
        tally.written += 1;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    tally
}

async fn read(shop: Shop, client: Client, n: i64, stop: Arc<AtomicBool>) -> Tally {
    let mut tally = Tally::default();
    for step in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let id = scattered(shop.rows, step * 2 + n);
        let row = sqlx::query("SELECT pan FROM cards WHERE id = $1").bind(id);
        let pan: Vec<u8> = row.fetch_one(&shop.pool).await.unwrap().get(0);
        let plain = open(&client, &[(id, pan)]).await.remove(0);
        assert!(write_of(id, &plain).is_some(), "row {id} holds {plain:?}");
        tally.read += 1;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    tally
}
