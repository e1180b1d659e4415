//! Certificates: what one costs beside the signature in it, in process and over TLS with
//! everything durable, and what lint and revocation lists take. The bars are T1, T2, T3, T5
//! and T8 of the design.
//!
//! `cargo bench -p keywright-benches --bench pki` prints the tables; with `--test` it only
//! shows that it runs.
#![allow(
    clippy::cast_precision_loss,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark"
)]

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use keywright_benches::{
    Server, connect,
    load::{Plan, drive, median},
    raw::{self, RawToken, Work, serve_raw},
};
use keywright_client::Client;
use keywright_proto::v1::SignCsrRequest;
use rcgen::{CertificateParams, KeyPair};

/// Callers of the durable rows.
const CALLERS: usize = 64;
/// What a signature of the slow token takes beside its computation, in microseconds.
const SLOW_SIGN_US: [u32; 2] = [1000, 5000];
/// A file system in memory, on every Linux.
const MEMORY: &str = "/dev/shm";

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, module] = args.as_slice()
        && flag == raw::FLAG
    {
        return serve_raw(module.into());
    }
    let plan = Plan::of(&args, CALLERS);
    in_process(plan);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        // Callers stand for other machines: they take what the appliance leaves.
        .on_thread_start(|| rustix::process::setpriority_process(None, 19).unwrap())
        .enable_all()
        .build();
    // Many times as long as an answer takes, or beginning and end of a window count.
    let long = Plan {
        window: plan.window * 4,
        ..plan
    };
    runtime.unwrap().block_on(over_tls(long));
}

fn mark(met: bool) -> &'static str {
    if met { "met" } else { "missed" }
}

/// T1.
fn in_process(plan: Plan) {
    let dir = tempfile::tempdir().unwrap();
    let mut token = RawToken::start(dir.path(), Path::new(raw::SOFTHSM2));
    let (mut signs, mut issues, mut ratios) = (vec![], vec![], vec![]);
    for round in 0..=plan.rounds {
        let sign = token.alone(Work::Sign, plan.window);
        let issue = token.alone(Work::Issue, plan.window);
        // The first round warms up.
        if round > 0 {
            signs.push(1e6 / sign);
            issues.push(1e6 / issue);
            ratios.push(sign / issue);
        }
    }
    let ratio = median(&mut ratios);
    println!(
        "\nOne thread on SoftHSM2, P-256: proof of possession, key policy, profile, draft, lint, signature, self-check;"
    );
    println!(
        "no store, audit or wire. Median of {} rounds in turns with C_SignInit and C_Sign alone.\n",
        plan.rounds
    );
    println!("| | us | raw sign us | times a raw sign | bar | |");
    println!("|---|---|---|---|---|---|");
    println!(
        "| T1 certificate in process | {:.0} | {:.0} | {ratio:.1} | 6.0 | {} |",
        median(&mut issues),
        median(&mut signs),
        mark(ratio <= 6.0)
    );
    println!("\n| | measured | bar | |");
    println!("|---|---|---|---|");
    let us = token.lint_us();
    println!(
        "| T8 lint of a certificate, with the second parser | {us:.1} us | 50 us | {} |",
        mark(us <= 50.0)
    );
    let sizes = if plan.rounds > 1 {
        &[(100_000, 1.0), (1_000_000, 10.0)][..]
    } else {
        &[(1000, 1.0)][..]
    };
    for (entries, bar) in sizes {
        let seconds = token.crl_seconds(*entries);
        println!(
            "| T5 full CRL of {entries} entries: made, linted, signed, checked | {seconds:.2} s | {bar:.0} s | {} |",
            mark(seconds <= *bar)
        );
    }
    let mib = token.peak_mib();
    println!(
        "| T5 memory of that process at its peak | {mib:.0} MiB | 500 MB | {} |",
        mark(mib < 476.0)
    );
}

/// T2 on a data directory in memory, where nothing waits for a disk; T3 on the disk.
async fn over_tls(plan: Plan) {
    println!(
        "\n`SignCsr` over TLS, {CALLERS} callers, P-256 issuer; intent, certificate and audit record are written before the answer,"
    );
    println!(
        "against C_Sign alone on a token as slow, with one thread for each worker of the daemon."
    );
    println!(
        "T2: 0.90 of it with the data in memory. T3: on the disk, flushed, 0.80 of T2 in this run.\n"
    );
    println!(
        "| a signature waits | data | certificates/s | raw signs/s | ratio | | p50 ms | p99 ms | server CPU us each |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    let dir = tempfile::tempdir().unwrap();
    let slow = slow_module(dir.path());
    for us in [0].into_iter().chain(SLOW_SIGN_US) {
        let module = if us == 0 {
            Path::new(raw::SOFTHSM2)
        } else {
            slow.as_path()
        };
        let memory = tempfile::tempdir_in(MEMORY).unwrap();
        let t2 = row(plan, us, module, memory.path()).await;
        t2.print(us, "memory", "T2", 0.90);
        let disk = tempfile::tempdir().unwrap();
        let t3 = row(plan, us, module, disk.path()).await;
        t3.print(us, "disk", "T3", 0.80 * t2.ratio);
    }
}

/// Medians of a row.
struct Row {
    ratio: f64,
    certificates: f64,
    signs: f64,
    p50: f64,
    p99: f64,
    cpu_us: f64,
}

impl Row {
    fn print(&self, us: u32, place: &str, name: &str, bar: f64) {
        let Self {
            ratio,
            certificates,
            signs,
            p50,
            p99,
            cpu_us,
        } = self;
        // A software token takes the CPU that everything else wants: no bar.
        let judged = if us == 0 {
            String::new()
        } else {
            format!("{name} {bar:.2}: {}", mark(*ratio >= bar))
        };
        println!(
            "| {us} us | {place} | {certificates:.0} | {signs:.0} | {ratio:.2} | {judged} | {p50:.0} | {p99:.0} | {cpu_us:.0} |"
        );
    }
}

async fn row(plan: Plan, us: u32, module: &Path, dir: &Path) -> Row {
    let environment = [
        ("SLOW_MODULE", raw::SOFTHSM2.to_owned()),
        ("SLOW_SIGN_US", us.to_string()),
    ];
    let daemon = Server::daemon_on(dir, module, &environment);
    let mut token = RawToken::start_with(dir, module, &environment);
    let client = connect(dir, daemon.addr).await;
    let next = Arc::new(AtomicU64::new(0));
    let (mut ours, mut theirs, mut ratios, mut cpu) = (vec![], vec![], vec![], vec![]);
    let (mut p50, mut p99) = (vec![], vec![]);
    for round in 0..=plan.rounds {
        let signs = token.per_second(Work::Sign, plan.window);
        let before = daemon.cpu_seconds();
        let (client, csr, next) = (client.clone(), csr(round), Arc::clone(&next));
        let issued = drive(plan, move || {
            let number = next.fetch_add(1, Ordering::Relaxed);
            issue(client.clone(), csr.clone(), number)
        })
        .await;
        if round > 0 {
            cpu.push((daemon.cpu_seconds() - before) * 1e6 / issued.requests);
            ratios.push(issued.per_second / signs);
            ours.push(issued.per_second);
            theirs.push(signs);
            p50.push(issued.percentile(0.50));
            p99.push(issued.percentile(0.99));
        }
    }
    Row {
        ratio: median(&mut ratios),
        certificates: median(&mut ours),
        signs: median(&mut theirs),
        p50: median(&mut p50),
        p99: median(&mut p99),
        cpu_us: median(&mut cpu),
    }
}

/// Another key in each round, so that no key carries more certificates than a service has.
fn csr(round: usize) -> Bytes {
    let names = [format!("bench-{round}.dev.example")];
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    let csr = params.serialize_request(&KeyPair::generate().unwrap());
    csr.unwrap().der().to_vec().into()
}

async fn issue(client: Client, csr_der: Bytes, number: u64) {
    let request = SignCsrRequest {
        profile: "dev-service".into(),
        csr_der,
        idempotency_key: format!("bench-request-{number:016}"),
        ..Default::default()
    };
    client.pki().sign_csr(request).await.unwrap();
}

/// Compiles the module that waits.
fn slow_module(dir: &Path) -> PathBuf {
    let module = dir.join("slow.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/slow_module.c");
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-O2", "-o"])
        .arg(&module)
        .arg(source)
        .arg("-ldl")
        .status()
        .expect("a C compiler is needed; run: apt-get install build-essential");
    assert!(built.success(), "{source} does not compile");
    module
}
