//! Three real daemons on one PostgreSQL and one token, each in a network namespace where
//! the kernel lets us make them, under load, while one after the
//! other is killed, paused and cut off from the database: nothing that was acknowledged is
//! lost, a suspended key opens nothing any more after five seconds, and each step of a
//! rewrap job counts once.
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

mod load;
mod node;
mod place;
#[path = "../../../service/tests/common/postgres.rs"]
mod postgres;
#[allow(dead_code, reason = "a test beside this one needs more of it")]
#[path = "../rewrap/table.rs"]
mod table;
mod tls;
mod wire;

use std::{
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use keywright_client::{
    Client,
    proto::{self, KeyState},
};
use load::{GUARDED, Load, TURNING, change, open, seal};
use node::{Node, three};
use rustix::process::Signal;
use table::Shop;
use tokio::runtime::Runtime;

/// No node may act on what it knew so long ago.
const FENCE: Duration = Duration::from_secs(5);
const ROWS: i64 = 6_000;

#[derive(Debug, Clone, Copy)]
enum Trouble {
    Kill,
    Pause,
    Cut,
}

impl Trouble {
    fn begin(self, node: &mut Node) {
        match self {
            Self::Kill => node.kill(),
            Self::Pause => node.signal(Signal::STOP),
            Self::Cut => node.place.cut(),
        }
    }

    fn end(self, node: &mut Node) {
        match self {
            Self::Kill => node.start(),
            Self::Pause => node.signal(Signal::CONT),
            Self::Cut => node.place.mend(),
        }
    }
}

#[test]
fn nothing_is_lost_whoever_is_killed_paused_or_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let (mut nodes, server) = three(dir.path(), "cluster");
    let shop_url = server.create_database("shop");
    let clients: [Client; 3] = std::array::from_fn(|n| runtime.block_on(nodes[n].client()));

    for key in [TURNING, GUARDED, table::KEY] {
        let made = clients[0].create_key(key, proto::KeySpec::Aes256);
        runtime.block_on(made).unwrap();
    }
    let secret = Bytes::from_static(b"opens while it may");
    let guarded = runtime
        .block_on(seal(&clients[0], GUARDED, &secret))
        .unwrap();
    let shop = runtime.block_on(Shop::fill(&shop_url, &clients[0], ROWS));
    runtime.block_on(clients[0].rotate_key(table::KEY)).unwrap();

    let load_began = Instant::now();
    let load = Load::start(&runtime, &clients, &guarded);
    let working = Arc::new(AtomicBool::new(true));
    let worker = work(&nodes, &shop, &working);
    all_open(&load, "at first");
    for (number, trouble) in [Trouble::Pause, Trouble::Cut, Trouble::Kill]
        .into_iter()
        .enumerate()
    {
        let (ill, well) = (number, (number + 1) % 3);
        trouble.begin(&mut nodes[ill]);
        let suspended = asked_until_done(&runtime, &clients[well], KeyState::Suspended, &load);
        thread::sleep(FENCE + Duration::from_secs(2));
        trouble.end(&mut nodes[ill]);
        thread::sleep(Duration::from_secs(1));
        for node in 0..3 {
            let last = load.guard.last(node);
            println!(
                "{trouble:?} of {}: {} opened last {:.1} s after the suspension",
                nodes[ill].name,
                nodes[node].name,
                last.as_secs_f64() - suspended.as_secs_f64()
            );
            assert!(
                last < suspended + FENCE,
                "{trouble:?}: {} opened",
                nodes[node].name
            );
        }
        asked_until_done(&runtime, &clients[well], KeyState::Active, &load);
        let back = all_open(&load, "after the trouble");
        println!(
            "{trouble:?} of {}: all serve {back:.1?} after it ended",
            nodes[ill].name
        );
    }
    working.store(false, Ordering::Release);
    let acknowledged = load.stop(&runtime);
    worker.join().unwrap();
    println!("{:.0?} in all", load_began.elapsed());
    println!(
        "{} values, {} keys, version {} acknowledged; {} refused or lost",
        acknowledged.sealed.len(),
        acknowledged.created.len(),
        acknowledged.primary,
        acknowledged.failed
    );
    assert!(acknowledged.sealed.len() > 100 && acknowledged.created.len() > 10);
    assert!(acknowledged.primary > 3, "rotations went on");

    runtime.block_on(async {
        for client in &clients {
            for (plain, item) in &acknowledged.sealed {
                assert_eq!(open(client, item).await.unwrap(), plain);
            }
            for name in &acknowledged.created {
                client.key(name).await.unwrap();
            }
            let turning = client.key(TURNING).await.unwrap();
            assert!(turning.primary_version >= acknowledged.primary);
        }
        jobs_count_once(&clients[0]).await;
        assert_eq!(shop.versions().await, [(2, ROWS)]);
        shop.every_row_opens(&clients[1], &std::collections::BTreeMap::default())
            .await;
    });
    nodes.iter_mut().for_each(Node::stop);
    // Each goes on with its own log, which the store knows.
    nodes.iter_mut().for_each(Node::start);
    for node in &nodes {
        runtime.block_on(node.client());
        let mut verify = node.cli();
        let report = verify
            .args(["audit", "verify"])
            .arg(&node.dir)
            .output()
            .unwrap();
        assert!(report.status.success(), "{}: {report:?}", node.name);
    }
}

/// Changes the guarded key; says when that was acknowledged, on the clock of the guard.
fn asked_until_done(runtime: &Runtime, client: &Client, to: KeyState, load: &Load) -> Duration {
    for _ in 0..200 {
        if runtime.block_on(change(client, to)).is_ok() {
            return load.guard.began.elapsed();
        }
        thread::sleep(Duration::from_millis(50));
    }
    panic!("a healthy node does not change a key to {to:?}")
}

/// Waits until each node opens what the guarded key sealed.
fn all_open(load: &Load, when: &str) -> Duration {
    let began = Instant::now();
    let before: Vec<u64> = (0..3).map(|node| load.guard.opened(node)).collect();
    let end = began + Duration::from_secs(30);
    while (0..3).any(|node| load.guard.opened(node) == before[node]) {
        assert!(Instant::now() < end, "not every node serves {when}");
        thread::sleep(Duration::from_millis(20));
    }
    began.elapsed()
}

/// A rewrap job whose worker goes from node to node, wherever it still gets an answer.
fn work(nodes: &[Node], shop: &Shop, working: &Arc<AtomicBool>) -> thread::JoinHandle<()> {
    let rate = (ROWS / 25).to_string();
    let mut commands: Vec<_> = nodes.iter().map(Node::cli).collect();
    for command in &mut commands {
        command
            .env("KEYWRIGHT_POSTGRES_URL", &shop.url)
            .args(["rewrap", "table", "--table", "cards", "--column", "pan"])
            .args(["--key", table::KEY, "--take-over", "--rate", &rate])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
    }
    let working = Arc::clone(working);
    thread::spawn(move || {
        for number in 0..1_000 {
            let last = !working.load(Ordering::Acquire);
            let mut child = commands[number % 3].spawn().unwrap();
            // Whoever has its worker elsewhere does not wait for a node for ever.
            let patience = Instant::now() + Duration::from_secs(if last { 120 } else { 6 });
            let done = loop {
                match child.try_wait().unwrap() {
                    Some(status) => break status.success(),
                    None if Instant::now() > patience => {
                        child.kill().unwrap();
                        child.wait().unwrap();
                        break false;
                    }
                    None => thread::sleep(Duration::from_millis(20)),
                }
            };
            if done {
                println!("the job was done by its worker number {}", number + 1);
                return;
            }
            thread::sleep(Duration::from_millis(200));
        }
        panic!("the job does not come to its end");
    })
}

/// Every job that came to its end has seen every row, and none twice.
async fn jobs_count_once(client: &Client) {
    let mut jobs = client.jobs();
    let listed = jobs.list_jobs(proto::ListJobsRequest::default());
    let jobs = listed.await.unwrap().into_inner().jobs;
    let ended: Vec<_> = jobs
        .iter()
        .filter(|job| job.state() == proto::JobState::Completed)
        .collect();
    assert!(!ended.is_empty(), "{jobs:?}");
    for job in ended {
        let counts = job.counts.unwrap();
        assert_eq!(counts.seen, u64::try_from(ROWS).unwrap(), "{job:?}");
        println!("{} steps, {} rows moved", job.steps, counts.moved);
    }
}
