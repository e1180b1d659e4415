//! Three nodes on one PostgreSQL and one token: what one does the others know in time, and
//! who has lost touch does nothing.
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

#[path = "../common/mod.rs"]
mod common;
mod lists;
#[path = "../common/postgres.rs"]
mod postgres;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use common::{Appliance, encrypt, reason};
use keywright_client::{
    Client, Settings,
    proto::{self, ChangeStateRequest, KeyState},
};
use keywright_hsm::fake::FakeDevice;
use keywright_service::{
    config::Limits,
    ops::{job::work_on_kept, keep_rules, save_last_use},
    store::{LogId, NodeId, PostgresStore, PostgresUrl},
};
use postgres::Postgres;
use tonic::{Code, Status};

async fn three(database: &str) -> Vec<Appliance> {
    Postgres::shared().create_database(database);
    let device = FakeDevice::new();
    let mut nodes = Vec::new();
    for number in 1..=3 {
        nodes.push(node(database, &device, number).await);
    }
    nodes
}

async fn node(database: &str, device: &FakeDevice, number: u8) -> Appliance {
    let url = Postgres::shared().url_of("postgres", database);
    let url = PostgresUrl::parse(&url).unwrap();
    let store = PostgresStore::open(&url, None).await.unwrap();
    let limits = Limits {
        retirement_quiet_ms: 60_000,
        job_window_ms: 0,
        ..Limits::default()
    };
    let (store, clock) = (Arc::new(store), Arc::default());
    Appliance::node(limits, store, device.clone(), number, clock).await
}

async fn seal(user: &Client, plaintext: &[u8]) -> Result<proto::EncryptResponse, Status> {
    let sealed = user.crypto().encrypt(encrypt("k", &[plaintext])).await?;
    Ok(sealed.into_inner())
}

async fn open(user: &Client, sealed: &proto::EncryptResponse) -> Result<Vec<u8>, Status> {
    let request = proto::DecryptRequest {
        header: sealed.header.clone(),
        items: sealed.items.clone(),
        ..Default::default()
    };
    let opened = user.crypto().decrypt(request).await?.into_inner();
    Ok(opened.plaintexts[0].to_vec())
}

async fn show(node: &Appliance) -> Result<proto::Key, Status> {
    let request = proto::GetKeyRequest { name: "k".into() };
    let admin = node.client("red", "admin").await;
    let shown = admin.keys().get_key(request).await?;
    Ok(shown.into_inner().key.unwrap())
}

async fn rotate(node: &Appliance, patience: Duration) -> Result<proto::Key, Status> {
    let mut request = tonic::Request::new(proto::RotateKeyRequest { name: "k".into() });
    request.set_timeout(patience);
    let admin = node.client("red", "admin").await;
    let rotated = admin.keys().rotate_key(request).await?;
    Ok(rotated.into_inner().key.unwrap())
}

/// Waits until it is so, not longer than `limit`; says how long it took.
async fn until(limit: Duration, what: &str, is: impl AsyncFn() -> bool) -> Duration {
    let began = Instant::now();
    while !is().await {
        assert!(began.elapsed() < limit, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    began.elapsed()
}

const SOON: Duration = Duration::from_secs(2);
const LONG: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_one_node_does_the_others_know_soon() {
    let nodes = three("known_soon").await;
    let [a, b, c] = &nodes[..] else { panic!() };
    a.create("red", "k").await;
    for node in [b, c] {
        until(SOON, "a new key", async || show(node).await.is_ok()).await;
    }
    let (user_a, user_c) = (a.client("red", "user").await, c.client("red", "user").await);
    let sealed = seal(&user_a, b"x").await.unwrap();
    assert_eq!(open(&user_c, &sealed).await.unwrap(), b"x");
    let suspend = |to: KeyState| ChangeStateRequest {
        name: "k".into(),
        version: 1,
        state: to.into(),
        revision: 0,
    };
    let admin = b.client("red", "admin").await;
    let suspended = suspend(KeyState::Suspended);
    admin.keys().change_state(suspended).await.unwrap();
    let refused = async || open(&user_c, &sealed).await.is_err();
    until(SOON, "a suspension", refused).await;
    let admin = c.client("red", "admin").await;
    // Also who has not heard of it yet changes the key as it is now.
    admin
        .keys()
        .change_state(suspend(KeyState::Active))
        .await
        .unwrap();
    let opens = async || open(&user_a, &sealed).await.is_ok();
    until(SOON, "the end of it", opens).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_node_meets_a_version_it_does_not_know() {
    let nodes = three("versions").await;
    nodes[0].create("red", "k").await;
    let mut users = Vec::new();
    for node in &nodes {
        until(SOON, "a new key", async || show(node).await.is_ok()).await;
        users.push(node.client("red", "user").await);
    }
    let (stop, moves) = (AtomicBool::new(false), AtomicU64::new(0));
    let work = async |from: usize, to: usize| {
        while !stop.load(Ordering::Relaxed) {
            let sealed = seal(&users[from], b"x").await.expect("encrypt");
            assert_eq!(open(&users[to], &sealed).await.expect("decrypt"), b"x");
            moves.fetch_add(1, Ordering::Relaxed);
        }
    };
    let rotations = async {
        for version in 2..=7 {
            let key = rotate(&nodes[version % 3], LONG).await.unwrap();
            assert_eq!(key.primary_version as usize, version);
            // Who rotates next must have heard of this one.
            let next = &nodes[(version + 1) % 3];
            let heard = async || show(next).await.unwrap().primary_version == key.primary_version;
            until(SOON, "a rotation", heard).await;
        }
        stop.store(true, Ordering::Relaxed);
    };
    tokio::join!(
        rotations,
        work(0, 1),
        work(1, 2),
        work(2, 0),
        work(1, 0),
        work(2, 1),
        work(0, 2)
    );
    println!("{} moves", moves.load(Ordering::Relaxed));
    assert!(moves.load(Ordering::Relaxed) > 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_node_that_lost_touch_stops_and_is_not_waited_for_longer_than_its_lease() {
    let mut nodes = three("lost_touch").await;
    nodes[0].create("red", "k").await;
    for node in &nodes {
        until(SOON, "a new key", async || show(node).await.is_ok()).await;
    }
    let user = nodes[2].client("red", "user").await;
    let sealed = seal(&user, b"x").await.unwrap();
    nodes[2].freeze();
    let frozen = Instant::now();
    let rotated = rotate(&nodes[0], LONG).await.unwrap();
    let waited = frozen.elapsed();
    assert_eq!(rotated.primary_version, 2);
    let (least, most) = (Duration::from_secs(3), Duration::from_secs(7));
    assert!((least..most).contains(&waited), "{waited:?}");
    // By the time that nobody waits for it, it does nothing.
    for refused in [
        open(&user, &sealed).await.map(drop),
        seal(&user, b"y").await.map(drop),
        show(&nodes[2]).await.map(drop),
    ] {
        assert_eq!(reason(&refused.unwrap_err()), "NODE_FENCED");
    }
    nodes[2].thaw();
    let opens = async || open(&user, &sealed).await.is_ok();
    until(SOON, "it is back", opens).await;
    let sealed = seal(&user, b"y").await.unwrap();
    assert_eq!(sealed.key_version, 2, "it has read what it missed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nobody_serves_from_a_database_that_went_back_or_was_edited() {
    let nodes = three("went_back").await;
    let user = nodes[0].client("red", "user").await;
    let edit = |text: &str| Postgres::shared().sql("went_back", text);
    nodes[0].create("red", "k").await;
    until(SOON, "known", async || show(&nodes[2]).await.is_ok()).await;
    let sealed = seal(&user, b"x").await.unwrap();

    edit("UPDATE cluster SET epoch = epoch - 1");
    let fenced =
        async || matches!(open(&user, &sealed).await, Err(e) if reason(&e) == "NODE_FENCED");
    until(LONG, "fenced", fenced).await;
    edit("UPDATE cluster SET epoch = epoch + 1");
    until(LONG, "served again", async || {
        open(&user, &sealed).await.is_ok()
    })
    .await;

    // A row that all of them are to read anew.
    edit("UPDATE key_versions SET state = 'deactivated'");
    edit("UPDATE keys SET epoch = epoch + 1");
    edit("UPDATE cluster SET epoch = epoch + 1");
    until(LONG, "fenced", fenced).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_rotation_that_was_left_half_way_is_finished_by_another_node() {
    let mut nodes = three("half_way").await;
    nodes[0].create("red", "k").await;
    for node in &nodes {
        until(SOON, "a new key", async || show(node).await.is_ok()).await;
    }
    // The second phase waits for a node that does not answer, and then its own node is gone.
    nodes[2].freeze();
    let e = rotate(&nodes[0], Duration::from_millis(1500)).await;
    let e = e.unwrap_err();
    // The client's own timer may be the quicker one; then nobody said a reason.
    let late = e.code() == Code::Cancelled || reason(&e) == "DEADLINE_EXCEEDED";
    assert!(late, "{e:?}");
    nodes[0].freeze();
    let half = show(&nodes[1]).await.unwrap();
    assert_eq!((half.primary_version, half.versions.len()), (1, 2));
    let app = &nodes[1].app;
    let done = async || {
        keep_rules(app).await;
        show(&nodes[1]).await.unwrap().primary_version == 2
    };
    until(Duration::from_secs(10), "a whole rotation", done).await;
    assert_eq!(show(&nodes[1]).await.unwrap().versions.len(), 2);
    for number in [0, 2] {
        nodes[number].thaw();
        let heard = async || {
            show(&nodes[number])
                .await
                .is_ok_and(|k| k.primary_version == 2)
        };
        until(SOON, "the end of it", heard).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn changes_on_different_nodes_follow_each_other() {
    let nodes = three("changes").await;
    nodes[0].create("red", "k").await;
    let mut admins = Vec::new();
    for node in &nodes {
        until(SOON, "a new key", async || show(node).await.is_ok()).await;
        admins.push(node.client("red", "admin").await);
    }
    // Nobody waits until the others have heard of the change before.
    for i in 0..12 {
        let to = [KeyState::Suspended, KeyState::Active][i % 2];
        let request = ChangeStateRequest {
            name: "k".into(),
            version: 1,
            state: to.into(),
            revision: 0,
        };
        admins[i % 3].keys().change_state(request).await.unwrap();
    }
    let label = async |i: usize| {
        let request = proto::UpdateKeyRequest {
            name: "k".into(),
            labels: Some(proto::NewLabels {
                pairs: common::pairs(&[("n", &i.to_string())]),
            }),
            ..Default::default()
        };
        admins[i].keys().update_key(request).await
    };
    for _ in 0..10 {
        let (one, other) = tokio::join!(label(0), label(1));
        one.unwrap();
        other.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn jobs_wait_for_who_does_not_know_and_the_gate_hears_of_every_use() {
    let nodes = three("jobs").await;
    let [a, b, _] = &nodes[..] else { panic!() };
    a.create("red", "k").await;
    until(SOON, "a new key", async || show(b).await.is_ok()).await;
    let user = b.client("red", "user").await;
    let sealed = seal(&user, b"x").await.unwrap();
    rotate(a, LONG).await.unwrap();

    let worker = a.client("red", "rewrap").await;
    let create = proto::CreateJobRequest {
        key: "k".into(),
        kind: proto::JobKind::Table.into(),
        subject: "t".into(),
        ..Default::default()
    };
    let admin = a.client("red", "admin").await;
    let job = worker.jobs().create_job(create).await.unwrap().into_inner();
    let lease = async || {
        let request = proto::LeaseJobRequest {
            id: job.job.clone().unwrap().id,
            worker: "w".into(),
            take_over: true,
            ..Default::default()
        };
        worker.jobs().lease_job(request).await
    };
    until(SOON, "a job that may begin", async || lease().await.is_ok()).await;
    let ghost = NodeId([9; 16]);
    let log = LogId([9; 16]);
    let joined = a.app.store.join(ghost, "ghost", log, LONG).await;
    assert_eq!(joined.unwrap(), None);
    let e = lease().await.unwrap_err();
    assert_eq!(reason(&e), "JOB_STATE");
    assert!(e.message().contains("ghost"), "{e:?}");
    a.app.store.leave(ghost).await.unwrap();
    lease().await.unwrap();

    // Used on one node, to be destroyed on another one.
    let old = ChangeStateRequest {
        name: "k".into(),
        version: 1,
        state: KeyState::Deactivated.into(),
        revision: 0,
    };
    admin.keys().change_state(old).await.unwrap();
    open(&user, &sealed).await.unwrap();
    save_last_use(&b.app).await;
    let request = proto::ScheduleDestructionRequest {
        name: "k".into(),
        version: 1,
        days: 7,
        ..Default::default()
    };
    let e = admin
        .keys()
        .schedule_destruction(request)
        .await
        .unwrap_err();
    assert_eq!(reason(&e), "KEY_VERSION_IN_USE");
    assert!(e.message().contains("used to open"), "{e:?}");
}

/// A node that stands still in the midst of a job over kept data keys: another one goes on,
/// and nothing counts twice when the first wakes up.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_job_over_kept_data_keys_goes_on_on_another_node() {
    let mut nodes = three("kept").await;
    nodes[0].create("red", "k").await;
    let known = async || show(&nodes[1]).await.is_ok();
    until(SOON, "a new key", known).await;
    let user = nodes[1].client("red", "user").await;
    let request = proto::GenerateDataKeysRequest {
        key: "k".into(),
        lengths: vec![32; 400],
        keep: true,
        ..Default::default()
    };
    let made = user.crypto().generate_data_keys(request).await.unwrap();
    let made = made.into_inner().data_keys;
    rotate(&nodes[0], LONG).await.unwrap();
    let worker = nodes[2].client("red", "rewrap").await;
    let create = proto::CreateJobRequest {
        key: "k".into(),
        kind: proto::JobKind::Kept.into(),
        rate_per_second: 100,
        ..Default::default()
    };
    let job = worker.create_job(create).await.unwrap();
    let looks = async || worker.job(&job.id).await.unwrap();

    let first = Arc::clone(&nodes[0].app);
    let works = tokio::spawn(async move { work_on_kept(&first).await });
    until(LONG, "the first step", async || looks().await.steps > 0).await;
    nodes[0].freeze();
    works.await.unwrap();
    let stopped = looks().await;
    assert!(stopped.ended_unix_ms == 0, "it was fenced in the midst");
    // The others wait for its lease of the job, whoever is first by now.
    until(2 * LONG, "the end of the job", async || {
        for node in &nodes[1..] {
            work_on_kept(&node.app).await;
        }
        looks().await.ended_unix_ms != 0
    })
    .await;
    nodes[0].thaw();
    let counts = looks().await.counts.unwrap();
    // What the first had moved and could not tell any more was found where it belongs.
    assert_eq!(counts.seen, 400, "{counts:?}");
    assert_eq!(counts.moved + counts.current, 400, "{counts:?}");
    let request = proto::DecryptDataKeysRequest {
        ids: made.iter().map(|k| k.id.clone()).collect(),
        ..Default::default()
    };
    let opened = user.crypto().decrypt_data_keys(request).await.unwrap();
    let opened = opened.into_inner();
    assert!(opened.rewrap_due.is_empty());
    let same = opened.plaintexts.iter().zip(&made);
    assert!(same.into_iter().all(|(a, b)| *a == b.plaintext));
}
