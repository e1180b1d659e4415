//! Many clients for a while: 64 connections that mix every operation, ask for errors now
//! and then, and check all that comes back. Nothing that was not asked for may fail, the
//! daemon's memory stays flat, and the audit log holds together at the end.
//!
//! `KEYWRIGHT_SOAK_SECONDS` says how long: ten seconds as one test among others, five
//! minutes with `make soak`.
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

mod refused;
mod streams;
mod tally;
mod user;

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use keywright_client::{Client, audit, proto};
use keywright_softhsm_tests::daemon::Daemon;
use tally::Tally;
use tempfile::tempdir;
use user::{DATA, MAC, SIGN, User};

const CLIENTS: usize = 64;
const SECONDS: &str = "KEYWRIGHT_SOAK_SECONDS";
/// Without [`SECONDS`]: long enough for every operation to meet every other.
const SHORT: u64 = 10;
/// From here on the daemon has had time to warm up, and its memory is judged.
const LONG: u64 = 300;
/// What the resident memory may grow by between the second and the last fifth. Keys gain
/// versions all the time, and the allocator keeps what a peak of requests needed.
const GROWTH: f64 = 1.10;

#[test]
fn mixed_work_of_many_clients_makes_no_error_and_no_leak() {
    let seconds = std::env::var(SECONDS).map_or(SHORT, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{SECONDS}: {text:?} is not a number of seconds"))
    });
    let dir = tempdir().unwrap();
    let daemon = Daemon::start(&dir.path().join("data"));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let start = resident_kb(daemon.pid());
    let (tally, samples) = runtime
        .unwrap()
        .block_on(soak(&daemon, Duration::from_secs(seconds)));
    let data = daemon.dir.clone();
    let log = daemon.log();
    assert!(daemon.stop().success(), "the daemon ended badly: {log}");
    let report = audit::verify(&data, None).unwrap();

    println!(
        "\n{CLIENTS} connections, {seconds} s, {} calls\n",
        tally.calls
    );
    tally.print();
    let fifth = (samples.len() / 5).max(1);
    let second = median(&samples[fifth.min(samples.len() - 1)..(2 * fifth).min(samples.len())]);
    let last = median(&samples[samples.len() - fifth..]);
    let growth = last as f64 / second as f64;
    println!("\n| resident memory of the daemon | MiB |\n|---|---|");
    println!("| at the start | {:.1} |", mib(start));
    println!("| median of the second fifth | {:.1} |", mib(second));
    println!("| median of the last fifth | {:.1} |", mib(last));
    println!("| growth (at most {GROWTH:.2}) | {growth:.3} |");
    println!(
        "\naudit log: {} records in {} segments, verified",
        report.records, report.segments
    );

    assert_eq!(tally.unexpected, 0, "{:#?}", tally.samples);
    tally.everything_happened();
    assert!(
        report.records >= tally.calls,
        "{} calls left {} audit records",
        tally.calls,
        report.records
    );
    if seconds >= LONG {
        assert!(growth <= GROWTH, "memory grew {growth:.3} times");
    }
}

/// All clients at once; what they did, and the memory of the daemon over the time.
async fn soak(daemon: &Daemon, length: Duration) -> (Tally, Vec<u64>) {
    let settings = daemon.settings();
    let first = Client::connect(&settings).await.unwrap();
    for (name, spec) in [
        (DATA, proto::KeySpec::Aes256),
        (SIGN, proto::KeySpec::EcP256),
        (MAC, proto::KeySpec::HmacSha256),
    ] {
        user::create(&first, name, spec).await;
    }
    let mut users = Vec::new();
    for number in 0..CLIENTS {
        let client = Client::connect(&settings).await.unwrap();
        users.push(User::new(client, number).await);
    }
    let end = Instant::now() + length;
    let running: Vec<_> = users
        .into_iter()
        .map(|mut user| {
            tokio::spawn(async move {
                while Instant::now() < end {
                    user.step().await;
                }
                user.tally
            })
        })
        .collect();
    let mut samples = Vec::new();
    let mut tick = tokio::time::interval(length.div_f64(300.0).max(Duration::from_millis(20)));
    while Instant::now() < end {
        tick.tick().await;
        samples.push(resident_kb(daemon.pid()));
    }
    let mut all = Tally::default();
    for user in running {
        all.add(user.await.unwrap());
    }
    (all, samples)
}

fn resident_kb(pid: u32) -> u64 {
    let status = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status"));
    status
        .unwrap()
        .lines()
        .find_map(|l| l.strip_prefix("VmRSS:"))
        .and_then(|l| l.split_whitespace().next()?.parse().ok())
        .expect("a running process has a VmRSS")
}

fn median(values: &[u64]) -> u64 {
    let mut values = values.to_vec();
    values.sort_unstable();
    values[values.len() / 2]
}

fn mib(kb: u64) -> f64 {
    kb as f64 / 1024.0
}
