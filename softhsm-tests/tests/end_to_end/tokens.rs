//! Two tokens that hold the same keys: one is killed under the daemon and its callers, is
//! missing at start, or holds what was to be destroyed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use keywright_client::{Client, proto};
use keywright_softhsm_tests::{copy_token, token_folder};

use super::*;

const FIRST: &str = "keywright-dev";
const COPY: &str = "keywright-copy";

/// An appliance whose token was copied when it held a key, stopped.
fn appliance() -> (tempfile::TempDir, std::path::PathBuf) {
    let (dir, daemon) = start();
    create(&daemon);
    let data = daemon.dir.clone();
    assert!(daemon.stop().success());
    let _ = copy_token(&data.join("tokens"), FIRST, COPY);
    configure(&data, COPY, "hsm-pin");
    (dir, data)
}

fn configure(data: &Path, label: &str, pin: &str) {
    let path = data.join("keywrightd.toml");
    let text = fs::read_to_string(&path).unwrap();
    let text = text.split("\n[[hsm.replica]]").next().unwrap().to_owned();
    let replica = format!(
        "\n[[hsm.replica]]\ncopied_by = \"vendor\"\ntoken_label = \"{label}\"\npin_file = \"{pin}\"\n"
    );
    fs::write(&path, text + &replica).unwrap();
}

fn is(daemon: &Daemon, token: &str, state: &str) -> bool {
    let (_, body) = daemon.get("/readyz");
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    body["tokens"][token] == state
}

/// The token comes back at the pace of its back-off, which grows to half a minute.
fn in_time(what: &str, mut so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(45);
    while !so() {
        assert!(Instant::now() < end, "{what} did not come");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Encrypts and decrypts until told to stop, and never tries twice.
async fn calls(client: Client, done: Arc<AtomicUsize>, stopped: tokio::sync::watch::Receiver<()>) {
    while stopped.has_changed().is_ok() {
        let encrypt = proto::EncryptRequest {
            key: KEY.into(),
            plaintexts: vec![b"card".to_vec().into()],
            ..Default::default()
        };
        let sealed = client.crypto().encrypt(encrypt).await.unwrap().into_inner();
        let decrypt = proto::DecryptRequest {
            header: sealed.header,
            items: sealed.items,
            ..Default::default()
        };
        let opened = client.crypto().decrypt(decrypt).await.unwrap().into_inner();
        assert_eq!(opened.plaintexts, [&b"card"[..]]);
        done.fetch_add(2, Ordering::Relaxed);
    }
}

#[test]
fn either_token_is_killed_under_load_and_no_request_fails() {
    let (dir, data) = appliance();
    let daemon = Daemon::start(&data);
    in_time("both", || {
        is(&daemon, FIRST, "ready") && is(&daemon, COPY, "ready")
    });
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let done = Arc::new(AtomicUsize::new(0));
    let (stop, stopped) = tokio::sync::watch::channel(());
    let client = runtime
        .block_on(Client::connect(&daemon.settings()))
        .unwrap();
    let callers: Vec<_> = (0..64)
        .map(|_| runtime.spawn(calls(client.clone(), Arc::clone(&done), stopped.clone())))
        .collect();
    let work = || {
        let enough = done.load(Ordering::Relaxed) + 500;
        in_time("work", || done.load(Ordering::Relaxed) > enough);
    };
    for lost in [COPY, FIRST] {
        work();
        let folder = token_folder(&data.join("tokens"), lost);
        let away = dir.path().join("away");
        fs::rename(&folder, &away).unwrap();
        in_time("lost", || is(&daemon, lost, "down"));
        work();
        assert!(daemon.get("/readyz").0.contains("200"), "one is enough");
        let (_, metrics) = daemon.get("/metrics");
        for series in [
            format!("keywright_hsm_token_state{{token=\"{lost}\",state=\"down\"}} 1"),
            "keywright_hsm_up 1".into(),
        ] {
            assert!(metrics.contains(&series), "{series} is not in\n{metrics}");
        }
        fs::rename(&away, &folder).unwrap();
        in_time("back", || is(&daemon, lost, "ready"));
    }
    work();
    drop(stop);
    for caller in callers {
        runtime.block_on(caller).unwrap();
    }
    println!("{} requests, none failed", done.load(Ordering::Relaxed));
    assert!(daemon.stop().success());
}

#[test]
fn a_token_that_is_missing_at_start_is_named_and_joins() {
    let (dir, data) = appliance();
    let away = dir.path().join("away");
    for missing in [COPY, FIRST] {
        let folder = token_folder(&data.join("tokens"), missing);
        fs::rename(&folder, &away).unwrap();
        let daemon = Daemon::start(&data);
        assert!(daemon.get("/readyz").0.contains("200"));
        assert!(is(&daemon, missing, "down"));
        let log = daemon.log();
        assert!(
            log.contains("this token of the group is not there"),
            "{log}"
        );
        assert!(log.contains(&format!("\"token\":\"{missing}\"")), "{log}");
        let sealed = feed(daemon.cli().args(["encrypt", "--key", KEY]), b"ab");
        let opened = feed(daemon.cli().arg("decrypt"), &sealed.stdout);
        assert_eq!(opened.stdout, b"ab");
        fs::rename(&away, &folder).unwrap();
        in_time("it joins", || is(&daemon, missing, "ready"));
        assert!(daemon.stop().success());
    }
    // Who accepts a store asks and tells all of them.
    fs::rename(token_folder(&data.join("tokens"), COPY), &away).unwrap();
    let said = fails(&mut recover_store(&data, "one is away"), 5);
    assert!(
        said.contains(COPY) && said.contains("all of them"),
        "{said}"
    );
    fs::rename(&away, data.join("tokens/back")).unwrap();
    let _ = ok(&mut recover_store(&data, "all are there"));
}

#[test]
fn what_the_operator_got_wrong_with_a_replica_is_named() {
    let (_dir, data) = appliance();
    let start = || Daemon::try_start(&data, Command::new(binary("keywrightd"))).unwrap_err();
    configure(&data, FIRST, "hsm-pin");
    let (status, log) = start();
    assert_eq!(status.code(), Some(3));
    assert!(log.contains("named twice"), "{log}");
    configure(&data, COPY, "no-pin");
    let (status, log) = start();
    assert_eq!(status.code(), Some(5));
    assert!(log.contains("no-pin"), "{log}");
    let check = |code| {
        let mut check = Command::new(binary("keywrightd"));
        check
            .args(["check-config", "--hsm", "--config"])
            .arg(data.join("keywrightd.toml"))
            .env("SOFTHSM2_CONF", data.join("softhsm2.conf"));
        fails(&mut check, code)
    };
    // A wrong PIN of one token is tried once, and the other one serves.
    let pin = data.join("other-pin");
    fs::copy(data.join("hsm-pin"), &pin).unwrap();
    fs::write(&pin, "0000").unwrap();
    configure(&data, COPY, "other-pin");
    for refusal in ["CKR_PIN_INCORRECT", "was not tried again"] {
        let daemon = Daemon::start(&data);
        assert!(is(&daemon, COPY, "blocked"), "{}", daemon.log());
        assert!(daemon.log().contains(refusal), "{}", daemon.log());
        let _ = ok(daemon.cli().args(["key", "show", KEY]));
        assert!(daemon.stop().success());
    }
    let text = check(5);
    assert!(text.contains(COPY) && text.contains("blocked"), "{text}");
}

/// The copy is away when the time has come: nothing is called destroyed until it is.
#[test]
fn destroyed_is_said_when_no_token_has_the_key_any_more() {
    let (dir, data) = appliance();
    let daemon = Daemon::start(&data);
    in_time("both", || is(&daemon, COPY, "ready"));
    let _ = ok(daemon.cli().args(["key", "rotate", KEY]));
    let _ = ok(daemon
        .cli()
        .args(["key", "deactivate", KEY, "--version", "1"]));
    let _ = ok(daemon.cli().args([
        "key",
        "schedule-destruction",
        KEY,
        "--version",
        "1",
        "--days",
        "7",
    ]));
    assert!(daemon.stop().success());
    destruction_is_due(&data);
    let copy = token_folder(&data.join("tokens"), COPY);
    let objects = |folder: &Path| {
        let files = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
        files
            .filter(|p| p.extension().is_some_and(|e| e == "object"))
            .count()
    };
    let before = objects(&copy);
    let away = dir.path().join("away");
    fs::rename(&copy, &away).unwrap();
    let daemon = Daemon::start(&data);
    let state = || {
        let mut show = daemon.cli();
        show.args(["--output", "json", "key", "show", KEY]);
        let shown: serde_json::Value = serde_json::from_slice(&ok(&mut show).stdout).unwrap();
        shown["versions"][0]["state"].clone()
    };
    in_time("the report", || daemon.log().contains("not destroyed yet"));
    assert!(
        daemon.log().contains("may hold the key"),
        "{}",
        daemon.log()
    );
    assert_eq!(state(), "deactivated", "{}", daemon.log());
    fs::rename(&away, &copy).unwrap();
    in_time("destroyed", || state() == "destroyed");
    assert_eq!(objects(&copy), before - 1, "the copy's is gone, too");
    assert!(daemon.stop().success());
}
