//! `keywright rewrap table` as a job of a real appliance over a real PostgreSQL table, with
//! applications that write and read meanwhile, rotations, and `kill -9` again and again. At
//! the end nothing is under an old version, no write is lost, every row opens, and the old
//! versions go through the gate.
//!
//! `KEYWRIGHT_REWRAP_ROWS` says how many rows (20,000), `KEYWRIGHT_BINARIES` where other
//! binaries are: `make rewrap-million` takes a release build and a million.
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

mod applications;
#[path = "../../../service/tests/common/postgres.rs"]
mod postgres;
mod table;

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use applications::Applications;
use keywright_client::Client;
use keywright_softhsm_tests::daemon::{Daemon, destruction_is_due, eventually, fails, ok};
use table::{KEY, Shop};

/// Killed so often.
const KILLS: u32 = 10;
/// In which what was encrypted reaches its row; and how long a version must be quiet.
const WINDOW_MS: u64 = 2_000;

/// A developer's appliance with short times.
fn daemon(data: &Path) -> Daemon {
    assert!(Daemon::start(data).stop().success());
    let file = data.join("keywrightd.toml");
    let text = fs::read_to_string(&file).unwrap();
    let limits = format!(
        "retirement_quiet_ms = {WINDOW_MS}\njob_window_ms = {WINDOW_MS}\njob_lease_ms = 2000\n"
    );
    // Instead of those of a developer, who waits for nothing.
    let theirs = ["retirement_quiet_ms = 0\n", "job_window_ms = 1000\n"];
    assert!(theirs.iter().all(|line| text.contains(line)), "{text}");
    let text = text.replace(theirs[0], &limits).replace(theirs[1], "");
    fs::write(&file, text).unwrap();
    Daemon::start(data)
}

fn rewrap(daemon: &Daemon, shop: &Shop, more: &[&str]) -> Command {
    let mut command = daemon.cli();
    command
        .env("KEYWRIGHT_POSTGRES_URL", &shop.url)
        .args(["rewrap", "table", "--table", "cards", "--column", "pan"])
        .args(["--key", KEY])
        .args(more);
    command
}

fn key(daemon: &Daemon, what: &str, more: &[&str]) -> Command {
    let mut command = daemon.cli();
    command.args(["key", what, KEY]).args(more);
    command
}

fn start(command: &mut Command) -> Child {
    command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn rows() -> i64 {
    let said = std::env::var("KEYWRIGHT_REWRAP_ROWS").ok();
    said.map_or(20_000, |n| n.parse().unwrap())
}

/// How long a job works before it is killed.
fn patience(kill: u32, rows: i64) -> Duration {
    let share = u64::try_from(rows).unwrap() / 100;
    Duration::from_millis(500 + u64::from(kill) * (300 + share / 10))
}

#[test]
fn a_table_leaves_its_old_versions_under_way_and_for_good() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let daemon = daemon(&data);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let url = postgres::Postgres::shared().create_database("shop");
    let client = runtime.block_on(Client::connect(&daemon.settings()));
    let client = client.unwrap();
    let _ = ok(&mut key(&daemon, "create", &["--spec", "aes-256"]));
    let began = Instant::now();
    let shop = runtime.block_on(Shop::fill(&url, &client, rows()));
    println!("{} rows filled in {:.0?}", shop.rows, began.elapsed());

    let applications = Applications::start(&runtime, &shop, &client);
    let _ = ok(&mut key(&daemon, "rotate", &[]));
    // Nothing but a look: what is old is there, and stays.
    let looked = rewrap(&daemon, &shop, &["--dry-run"]).output().unwrap();
    assert_eq!(looked.status.code(), Some(9), "{looked:?}");

    // Slow enough for a table to be killed in the midst of it, whatever its size.
    let killing: Duration = (0..KILLS).map(|kill| patience(kill, shop.rows)).sum();
    let rate = (shop.rows / i64::try_from(killing.as_secs()).unwrap()).to_string();
    let began = Instant::now();
    let mut in_the_midst = 0;
    for kill in 0..KILLS {
        let more = ["--take-over", "--rate", &rate];
        let mut job = start(&mut rewrap(&daemon, &shop, &more));
        // At any moment: while it waits, begins, or is in the midst of it.
        let end = Instant::now() + patience(kill, shop.rows);
        while Instant::now() < end && job.try_wait().unwrap().is_none() {
            thread::sleep(Duration::from_millis(5));
        }
        in_the_midst += u32::from(job.try_wait().unwrap().is_none());
        job.kill().unwrap();
        job.wait().unwrap();
        if kill == 3 || kill == 6 {
            let _ = ok(&mut key(&daemon, "rotate", &[]));
            // The job goes on, and the gate is shut.
            let _ = ok(&mut key(&daemon, "deactivate", &["--version", "1"]));
            let early = fails(
                &mut key(&daemon, "schedule-destruction", &["--version", "1"]),
                8,
            );
            assert!(early.contains("still needed"), "{early}");
            let _ = ok(&mut key(&daemon, "resume", &["--version", "1"]));
        }
    }
    assert!(in_the_midst > KILLS / 2, "{in_the_midst} of {KILLS}");
    let finished = ok(&mut rewrap(&daemon, &shop, &["--take-over"]));
    println!(
        "after {KILLS} kills, in {:.0?}:\n{}",
        began.elapsed(),
        String::from_utf8_lossy(&finished.stdout)
    );
    let tally = applications.stop(&runtime);
    println!(
        "{} writes and {} reads meanwhile",
        tally.written, tally.read
    );
    assert!(tally.written > 100 && tally.read > 100);

    let versions = runtime.block_on(shop.versions());
    assert_eq!(versions, [(4, shop.rows)], "rows by version");
    runtime.block_on(shop.every_row_opens(&client, &tally.last));

    // The old versions go, and nobody misses them.
    thread::sleep(Duration::from_millis(WINDOW_MS));
    for version in ["1", "2", "3"] {
        let only = ["--version", version];
        let _ = ok(&mut key(&daemon, "deactivate", &only));
        let _ = ok(&mut key(&daemon, "schedule-destruction", &only));
    }
    assert!(daemon.stop().success());
    destruction_is_due(&data);
    let daemon = Daemon::start(&data);
    eventually("the old versions are destroyed", || {
        let shown = ok(key(&daemon, "show", &[]).args(["--output", "json"]));
        let shown: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
        (0..3).all(|v| shown["versions"][v]["state"] == "destroyed")
    });
    let client = runtime.block_on(Client::connect(&daemon.settings()));
    runtime.block_on(shop.every_row_opens(&client.unwrap(), &tally.last));
    let again = ok(&mut rewrap(&daemon, &shop, &["--dry-run"]));
    assert!(again.status.success(), "nothing is left");
}
