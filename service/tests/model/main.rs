//! The life of keys against a model: random histories of eight clients at once, over TLS,
//! with every role, the other tenant, time that passes and policies that change.
//!
//! `KEYWRIGHT_MODEL_HISTORIES` says how many (a few by default), `KEYWRIGHT_MODEL_SEED`
//! runs the one history with that seed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::too_many_lines,
    clippy::useless_vec,
    reason = "this is a test"
)]

mod ask;
mod check;
#[path = "../common/mod.rs"]
mod common;
mod expect;
mod history;
mod model;
#[path = "../common/postgres.rs"]
mod postgres;
mod stream;
mod wire;

use std::{
    collections::BTreeMap,
    io::Write as _,
    sync::Arc,
    time::{Duration, Instant},
};

use check::Findings;
use common::Appliance;
use history::{Ask, CLIENTS, Done, KEYS, World};
use keywright_client::{Client, proto};
use keywright_hsm::fake::FakeDevice;
use keywright_service::{
    config::Limits,
    store::{PostgresStore, PostgresUrl},
};
use postgres::Postgres;

/// Questions of one client in one history.
const OPS: usize = 200;
/// Without `KEYWRIGHT_MODEL_HISTORIES`.
const HISTORIES: u64 = 12;
/// Histories on one appliance: keys and records grow, and so does the time they take.
const PER_APPLIANCE: u64 = 25;
/// Histories on three nodes without `KEYWRIGHT_MODEL_HISTORIES`, and of one set of nodes.
const OF_NODES: u64 = 1;
const PER_NODES: u64 = 10;
/// Every node knows everything: its lease is at most so old.
const KNOWN: Duration = Duration::from_secs(6);

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    let hex = text.strip_prefix("0x");
    let number = hex.map_or_else(|| text.parse(), |h| u64::from_str_radix(h, 16));
    Some(number.expect("a number"))
}

/// All that came of all histories.
#[derive(Default)]
struct Total {
    histories: u64,
    restarts: u64,
    streams: u64,
    found: Findings,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_is_one_of_the_model() {
    histories("model", HISTORIES, async |first, total, wanted| {
        appliance(first, PER_APPLIANCE.min(wanted), total).await;
    })
    .await;
}

/// Clients of one node may see for some seconds what clients of another one have changed;
/// every change follows from the one before, wherever it was made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_of_three_nodes_is_one_of_the_model() {
    histories(
        "model of three nodes",
        OF_NODES,
        async |first, total, wanted| {
            three_nodes(first, PER_NODES.min(wanted), total).await;
        },
    )
    .await;
}

/// `some` runs histories from a seed on, as many as it likes up to what is wanted.
async fn histories(name: &str, usual: u64, some: impl AsyncFn(u64, &mut Total, u64)) {
    let only = number("KEYWRIGHT_MODEL_SEED");
    let wanted = number("KEYWRIGHT_MODEL_HISTORIES").unwrap_or(match only {
        Some(_) => 1,
        None => usual,
    });
    let base = only.unwrap_or_else(|| {
        let mut bytes = [0; 8];
        keywright_service::clock::Entropy::fill(&keywright_service::clock::System, &mut bytes)
            .unwrap();
        u64::from_le_bytes(bytes) >> 1
    });
    let began = Instant::now();
    let mut total = Total::default();
    while total.histories < wanted && total.found.violations.is_empty() {
        let first = base.wrapping_add(total.histories);
        let more = wanted - total.histories;
        some(first, &mut total, more).await;
    }
    let Total {
        histories,
        restarts,
        streams,
        found,
    } = total;
    let classes: Vec<String> = found
        .classes
        .iter()
        .map(|(class, n)| format!("{class} {n}"))
        .collect();
    let line = format!(
        "{name}: {histories} histories x {} clients x {OPS} operations = {} answers ({} with one picture in question), {} changes, {} destructions, {streams} streams, {restarts} restarts; {}; {} violations; {:.1} s\n",
        CLIENTS.len(),
        found.ops,
        found.exact,
        found.changes,
        found.destroyed,
        classes.join(", "),
        found.violations.len(),
        began.elapsed().as_secs_f64(),
    );
    // Past the capture of the test harness: the numbers are the result.
    std::io::stdout().write_all(line.as_bytes()).unwrap();
    for violation in found.violations.iter().take(10) {
        println!("{violation}\n");
    }
    assert_eq!(found.violations.len(), 0, "the first seed was {base:#x}");
}

/// A connection for each client.
async fn connect(it: &Appliance) -> Vec<Client> {
    let mut clients = Vec::new();
    for (tenant, name, _) in CLIENTS {
        clients.push(it.client(tenant, name).await);
    }
    clients
}

/// Several histories on one appliance, and then its books.
async fn appliance(first: u64, count: u64, total: &mut Total) {
    let mut it = Arc::new(Appliance::start().await);
    let mut requests: BTreeMap<String, u64> = BTreeMap::new();
    let mut destroyed = 0;
    let mut clients = connect(&it).await;
    for seed in first..first + count {
        let world = Arc::new(World::new(vec![Arc::clone(&it)], seed));
        let mut violations = all_at_once(&world, &clients).await;
        // Both tenants read everything back.
        for (client, connection) in clients.iter().enumerate().take(2) {
            for key in 0..KEYS.len() {
                world.ask(connection, client, key, Ask::Get).await;
            }
        }
        violations.extend(total.add(&world, &mut requests, &mut destroyed));
        // After another start everything is as it was.
        if seed + 1 == first + count || seed % 8 == 0 {
            let before = world.ops.lock().unwrap().split_off(CLIENTS.len() * OPS);
            drop((world, clients));
            it = Arc::new(Arc::into_inner(it).expect("nobody else").restart().await);
            clients = connect(&it).await;
            total.restarts += 1;
            for op in before {
                let client = &clients[op.client];
                let name = format!("h{seed:x}/{}", KEYS[op.key].0);
                let request = proto::GetKeyRequest { name };
                let now = client.keys().get_key(request).await;
                let now = now
                    .map(|key| model::Picture::of(&key.into_inner().key.unwrap()))
                    .map_err(|status| common::reason(&status));
                let class = now.as_ref().map_or_else(Clone::clone, |_| "OK".to_owned());
                *requests.entry(class).or_default() += 1;
                let was = match op.out {
                    Ok(Done::Key(picture)) => Ok(picture),
                    Ok(other) => panic!("{other:?} for a key"),
                    Err(reason) => Err(reason),
                };
                if now != was {
                    violations.push(format!("after a restart {now:?} instead of {was:?}"));
                }
            }
        }
        if !violations.is_empty() {
            println!("violations with KEYWRIGHT_MODEL_SEED={seed:#x}");
            total.found.violations.extend(violations);
            return;
        }
    }
    books(&[it], &requests, destroyed, total);
}

/// The questions of all clients.
async fn all_at_once(world: &Arc<World>, clients: &[Client]) -> Vec<String> {
    let tasks: Vec<_> = clients
        .iter()
        .enumerate()
        .map(|(i, c)| tokio::spawn(history::client(Arc::clone(world), c.clone(), i, OPS)))
        .collect();
    let mut violations = Vec::new();
    for task in tasks {
        if let Err(e) = task.await {
            violations.push(format!("a client stopped: {e}"));
        }
    }
    violations
}

impl Total {
    /// What was found in a history; its violations are given back.
    fn add(
        &mut self,
        world: &World,
        requests: &mut BTreeMap<String, u64>,
        destroyed: &mut u64,
    ) -> Vec<String> {
        let found = check::check(world);
        self.histories += 1;
        self.found.ops += found.ops;
        self.found.exact += found.exact;
        self.found.changes += found.changes;
        self.found.destroyed += found.destroyed;
        *destroyed += found.destroyed;
        let streams = world.streams.load(std::sync::atomic::Ordering::SeqCst);
        *requests.entry("OK".into()).or_default() += streams;
        self.streams += streams;
        for (class, n) in found.classes {
            *requests.entry(class.clone()).or_default() += n;
            *self.found.classes.entry(class).or_default() += n;
        }
        found.violations
    }
}

/// Several histories on three nodes with one PostgreSQL, one token and one clock.
async fn three_nodes(first: u64, count: u64, total: &mut Total) {
    let url = Postgres::shared().create_database(&format!("model_{first:x}"));
    let url = PostgresUrl::parse(&url).unwrap();
    let (device, clock) = (FakeDevice::new(), Arc::<common::Later>::default());
    let mut nodes = Vec::new();
    for number in 1..=3 {
        let store = Arc::new(PostgresStore::open(&url, None).await.unwrap());
        let limits = Limits {
            retirement_quiet_ms: 0,
            ..Limits::default()
        };
        let node = Appliance::node(limits, store, device.clone(), number, Arc::clone(&clock));
        nodes.push(Arc::new(node.await));
    }
    let mut clients = Vec::new();
    for ((tenant, name, _), node) in CLIENTS.iter().zip(nodes.iter().cycle()) {
        clients.push(node.client(tenant, name).await);
    }
    let (mut requests, mut destroyed) = (BTreeMap::new(), 0);
    for seed in first..first + count {
        let world = Arc::new(World::new(nodes.clone(), seed));
        let mut violations = all_at_once(&world, &clients).await;
        // By now each of them must say the same, and the last.
        tokio::time::sleep(KNOWN).await;
        for node in &nodes {
            for (client, (tenant, name, _)) in CLIENTS.iter().enumerate().take(2) {
                let connection = node.client(tenant, name).await;
                for key in 0..KEYS.len() {
                    world.ask(&connection, client, key, Ask::Get).await;
                }
            }
        }
        violations.extend(total.add(&world, &mut requests, &mut destroyed));
        if !violations.is_empty() {
            println!("violations with KEYWRIGHT_MODEL_SEED={seed:#x}");
            total.found.violations.extend(violations);
            return;
        }
    }
    books(&nodes, &requests, destroyed, total);
}

/// The audit log has one record for each answer, with its outcome, one before and one
/// after each destruction, and an unbroken chain.
fn books(
    nodes: &[Arc<Appliance>],
    requests: &BTreeMap<String, u64>,
    destroyed: u64,
    total: &mut Total,
) {
    let mut recorded: BTreeMap<String, u64> = BTreeMap::new();
    let mut events: BTreeMap<String, u64> = BTreeMap::new();
    for record in nodes.iter().flat_map(|node| node.audit()) {
        let text = |field: &str| record[field].as_str().unwrap_or_default().to_owned();
        let book = match record.get("event") {
            Some(_) => events.entry(text("action")).or_default(),
            None => recorded.entry(text("outcome")).or_default(),
        };
        *book += 1;
    }
    let violations = &mut total.found.violations;
    if recorded != *requests {
        violations.push(format!("records {recorded:?}, answers {requests:?}"));
    }
    let of = |event: &str| events.get(event).copied().unwrap_or(0);
    if of("destroying") != of("destroyed") || of("destroyed") < destroyed {
        violations.push(format!("events {events:?} for {destroyed} destructions"));
    }
    for node in nodes {
        if let Err(e) = keywright_client::audit::verify(node.dir.path(), None) {
            violations.push(format!("audit log: {e:?}"));
        }
    }
}
