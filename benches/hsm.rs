//! HSM operations through the handle (queue, worker, session) on SoftHSM2.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::too_many_lines,
    clippy::useless_vec,
    reason = "a benchmark"
)]

use std::{
    fs,
    os::unix::process::CommandExt,
    path::PathBuf,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use criterion::{Criterion, Throughput};
use keywright_hsm::{
    Hsm, KeySpec, ObjectId, Options, Pin, PinSource, Rewrap, Silent, Unwrap,
    pkcs11::{self, NewToken, TokenConfig, provision},
};

/// SoftHSM2 reads its environment once: start over with it set.
fn with_softhsm() -> (PathBuf, Option<tempfile::TempDir>) {
    if let Some(dir) = std::env::var_os("KEYWRIGHT_BENCH_DIR") {
        return (dir.into(), None);
    }
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("tokens")).unwrap();
    let conf = dir.path().join("softhsm2.conf");
    let text = format!(
        "directories.tokendir = {}\nlog.level = ERROR\n",
        dir.path().join("tokens").display()
    );
    fs::write(&conf, text).unwrap();
    let status = Command::new(std::env::current_exe().unwrap())
        .arg0("hsm")
        .args(std::env::args().skip(1))
        .env("SOFTHSM2_CONF", conf)
        .env("KEYWRIGHT_BENCH_DIR", dir.path())
        .status()
        .unwrap();
    std::process::exit(status.code().unwrap_or(1));
}

fn main() {
    let (_dir, _) = with_softhsm();
    let module = PathBuf::from("/usr/lib/softhsm/libsofthsm2.so");
    let pin = || Pin::new("123456".into());
    let new = NewToken {
        label: "bench".into(),
        so_pin: pin(),
        user_pin: pin(),
    };
    provision(&module, &new).unwrap();
    let device = pkcs11::open(TokenConfig {
        module,
        init_reserved: None,
        label: Some("bench".into()),
        serial: None,
        pin: PinSource::Given(pin(), "the benchmark"),
        pin_latch: None,
        scout: None,
    })
    .unwrap();
    let options = Options {
        workers: 2,
        queue_jobs: 1024,
        check_every: Duration::from_secs(60),
    };
    let hsm = Hsm::start(Arc::new(device), options, Arc::new(Silent)).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let soon = || Instant::now() + Duration::from_secs(60);
    let key = |label: &str| {
        let id = ObjectId::random().unwrap();
        let label = label.to_owned();
        runtime
            .block_on(hsm.generate(id, KeySpec::Aes256, label, soon()))
            .unwrap()
            .key
    };
    let (one, two) = (key("one"), key("two"));
    let aad = [1; 56];
    let (_, wrapped) = runtime.block_on(hsm.mint(&one, aad, soon())).unwrap();
    let unwrap = Unwrap {
        key: one.clone(),
        aad,
        wrapped,
    };
    let rewrap = Rewrap {
        from: unwrap.clone(),
        to: two,
        to_aad: aad,
        verify: false,
    };

    let mut c = Criterion::default().configure_from_args();
    let mut group = c.benchmark_group("hsm");
    group.bench_function("mint", |b| {
        b.to_async(&runtime)
            .iter(|| async { hsm.mint(&one, aad, soon()).await.unwrap() });
    });
    group.bench_function("unwrap", |b| {
        b.to_async(&runtime)
            .iter(|| async { hsm.unwrap(vec![unwrap.clone()], soon()).await });
    });
    group.throughput(Throughput::Elements(256));
    group.bench_function("unwrap 256", |b| {
        b.to_async(&runtime)
            .iter(|| async { hsm.unwrap(vec![unwrap.clone(); 256], soon()).await });
    });
    group.bench_function("rewrap 256", |b| {
        b.to_async(&runtime)
            .iter(|| async { hsm.rewrap(vec![rewrap.clone(); 256], soon()).await });
    });
    group.finish();
    c.final_summary();
    hsm.close();
}
