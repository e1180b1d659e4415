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
mod stream;
mod wire;

use std::{collections::BTreeMap, io::Write as _, sync::Arc, time::Instant};

use check::Findings;
use common::Appliance;
use history::{Ask, CLIENTS, Done, KEYS, World};
use keywright_client::{Client, proto};

/// Questions of one client in one history.
const OPS: usize = 200;
/// Without `KEYWRIGHT_MODEL_HISTORIES`.
const HISTORIES: u64 = 12;
/// Histories on one appliance: keys and records grow, and so does the time they take.
const PER_APPLIANCE: u64 = 25;

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
    let only = number("KEYWRIGHT_MODEL_SEED");
    let wanted = number("KEYWRIGHT_MODEL_HISTORIES").unwrap_or(match only {
        Some(_) => 1,
        None => HISTORIES,
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
        let count = PER_APPLIANCE.min(wanted - total.histories);
        let first = base.wrapping_add(total.histories);
        appliance(first, count, &mut total).await;
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
        "model: {histories} histories x {} clients x {OPS} operations = {} answers ({} with one picture in question), {} changes, {} destructions, {streams} streams, {restarts} restarts; {}; {} violations; {:.1} s\n",
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
        let world = Arc::new(World::new(Arc::clone(&it), seed));
        let tasks: Vec<_> = clients
            .iter()
            .enumerate()
            .map(|(i, c)| tokio::spawn(history::client(Arc::clone(&world), c.clone(), i, OPS)))
            .collect();
        let mut violations = Vec::new();
        for task in tasks {
            if let Err(e) = task.await {
                violations.push(format!("a client stopped: {e}"));
            }
        }
        // Both tenants read everything back.
        for (client, connection) in clients.iter().enumerate().take(2) {
            for key in 0..KEYS.len() {
                world.ask(connection, client, key, Ask::Get).await;
            }
        }
        let found = check::check(&world);
        violations.extend(found.violations);
        total.histories += 1;
        total.found.ops += found.ops;
        total.found.exact += found.exact;
        total.found.changes += found.changes;
        total.found.destroyed += found.destroyed;
        destroyed += found.destroyed;
        let streams = world.streams.load(std::sync::atomic::Ordering::SeqCst);
        *requests.entry("OK".into()).or_default() += streams;
        total.streams += streams;
        for (class, n) in found.classes {
            *requests.entry(class.clone()).or_default() += n;
            *total.found.classes.entry(class).or_default() += n;
        }
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
    books(&it, &requests, destroyed, total);
}

/// The audit log has one record for each answer, with its outcome, one before and one
/// after each destruction, and an unbroken chain.
fn books(it: &Appliance, requests: &BTreeMap<String, u64>, destroyed: u64, total: &mut Total) {
    let mut recorded: BTreeMap<String, u64> = BTreeMap::new();
    let mut events: BTreeMap<String, u64> = BTreeMap::new();
    for record in it.audit() {
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
    if let Err(e) = keywright_client::audit::verify(it.dir.path(), None) {
        violations.push(format!("audit log: {e:?}"));
    }
}
