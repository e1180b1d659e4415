//! `keywright-bench` as somebody uses it: against a daemon of its own, against one that runs,
//! against a token, and with things that are not there. What it measures is not judged here.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "these are tests"
)]

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use keywright_benches::{Server, connect, raw::SOFTHSM2};
use keywright_client::proto::{CreateKeyRequest, KeySpec};
use serde_json::Value;

const SHORT: [&str; 6] = ["--rounds", "1", "--seconds", "0.1", "--warm-up", "0.05"];

fn bench(args: &[&str]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_keywright-bench"))
        .args(args)
        .env_remove("KEYWRIGHT_ADDR")
        .output();
    output.expect("keywright-bench runs")
}

fn rows(output: &Output) -> Vec<Value> {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn an_appliance_and_an_echo_in_turns() {
    let dir = tempfile::tempdir().unwrap();
    let plot = dir.path().join("plot.svg");
    let mut args = vec!["compare", "--shape", "10x64,2x1000", "--in-flight", "4,8"];
    args.extend(SHORT);
    args.extend(["--output", "json", "--plot", plot.to_str().unwrap()]);
    let rows = rows(&bench(&args));
    assert_eq!(rows.len(), 4);
    for row in &rows {
        assert!(row["requests_per_second"].as_f64().unwrap() > 0.0, "{row}");
        assert_eq!((&row["failed"], &row["refused"]), (&0.into(), &0.into()));
        assert!(row["echo"]["ratio"].as_f64().unwrap() > 0.0);
        assert!(row["echo"]["ceiling"].as_f64().unwrap() < 1.0);
        assert!(row["server_cpu_us_per_request"].as_f64().unwrap() > 0.0);
        for part in ["queue", "hsm", "crypto", "audit", "process", "codec"] {
            assert!(
                row["split_us"][part].as_f64().unwrap() > 0.0,
                "{part}: {row}"
            );
        }
        let latency = &row["latency_ms"];
        assert!(latency["p50"].as_f64() <= latency["p99"].as_f64());
    }
    let svg = fs::read_to_string(plot).unwrap();
    assert!(svg.starts_with("<svg") && svg.contains("10x64"), "{svg}");
}

#[test]
fn every_operation_and_both_kinds_of_calls() {
    for (op, more) in [
        ("decrypt", &["--layout", "packed"][..]),
        ("encrypt", &["--streams", "--processes", "2"]),
        ("encrypt", &["--lease-seconds", "60", "--rate", "200"]),
        ("rewrap", &[]),
        ("sign", &[]),
        ("mac", &[]),
    ] {
        let mut args = vec!["compare", "--op", op, "--shape", "4x32", "--in-flight", "8"];
        args.extend(SHORT);
        args.extend(["--output", "json"]);
        args.extend(more);
        let rows = rows(&bench(&args));
        assert!(rows[0]["items_per_second"].as_f64().unwrap() > 0.0, "{op}");
        assert_eq!(rows[0]["failed"], 0, "{op}");
    }
}

#[tokio::main(flavor = "current_thread")]
async fn create(data: &Path, addr: SocketAddr, name: &str) {
    let client = connect(data, addr).await;
    let create = CreateKeyRequest {
        name: name.into(),
        spec: KeySpec::Aes256.into(),
        ..Default::default()
    };
    client.keys().create_key(create).await.unwrap();
}

fn beside() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_keywright-bench")).with_file_name("keywrightd")
}

#[test]
fn an_appliance_that_runs_is_loaded_and_told_apart_from_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path();
    let mut dev = Command::new(beside());
    dev.args(["dev", "--listen", "127.0.0.1:0", "--data"])
        .arg(data);
    let daemon = Server::start(dev.env("KEYWRIGHT_LOG", "warn")).unwrap();
    let addr = daemon.addr.to_string();
    let (ca, cert) = (data.join("ca.pem"), data.join("certs/developer.pem"));
    let key = data.join("certs/developer.key");
    let path = |p: &Path| p.to_str().unwrap().to_owned();
    let load = |name: &str, more: &[&str]| {
        let (ca, cert, key) = (path(&ca), path(&cert), path(&key));
        let mut args = vec!["load", "--addr", &addr, "--ca", &ca, "--client-cert", &cert];
        args.extend(["--client-key", &key, "--key", name, "--shape", "1x16"]);
        args.extend(SHORT);
        args.extend(["--in-flight", "2", "--output", "json"]);
        args.extend(more);
        bench(&args)
    };
    create(data, daemon.addr, "bench/mine");
    let metrics = daemon.metrics.as_deref().unwrap();
    let mine = rows(&load(
        "bench/mine",
        &["--metrics", metrics, "--processes", "2"],
    ));
    assert!(mine[0]["requests_per_second"].as_f64().unwrap() > 0.0);
    assert!(mine[0]["server_cpu_us_per_item"].as_f64().unwrap() > 0.0);
    assert_eq!(mine[0]["echo"], Value::Null);
    // What is refused would be refused a million times: there is no rate of that.
    let none = load("nobody/has/it", &[]);
    assert_eq!(none.status.code(), Some(1));
    assert!(said(&none).contains("no such key"), "{}", said(&none));
    let elsewhere = load("bench/mine", &["--metrics", "127.0.0.1:1"]);
    assert_eq!(elsewhere.status.code(), Some(1));
    assert!(
        said(&elsewhere).contains("127.0.0.1:1"),
        "{}",
        said(&elsewhere)
    );
}

#[test]
fn a_token_is_sized_and_left_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let mut dev = Command::new(beside());
    dev.args(["dev", "--listen", "127.0.0.1:0", "--data"])
        .arg(dir.path());
    // It makes the token; then it is ours.
    drop(Server::start(dev.env("KEYWRIGHT_LOG", "warn")).unwrap());
    let config = fs::read_to_string(dir.path().join("keywrightd.toml")).unwrap();
    let value = |name: &str| {
        let line = config.lines().find(|l| l.trim_start().starts_with(name));
        let line = line.unwrap_or_else(|| panic!("{name} in {config}"));
        line.split('"').nth(1).unwrap().to_owned()
    };
    let size = |pin: &str| {
        Command::new(env!("CARGO_BIN_EXE_keywright-bench"))
            .args([
                "token",
                "--module",
                SOFTHSM2,
                "--label",
                &value("token_label"),
            ])
            .args(["--pin-file", pin, "--seconds", "0.05", "--sessions", "1,2"])
            .args(["--mechanism", "mint,sign-p256", "--output", "json"])
            .env("SOFTHSM2_CONF", dir.path().join("softhsm2.conf"))
            .output()
            .unwrap()
    };
    let objects = || {
        let token = dir.path().join("tokens");
        let one = fs::read_dir(token).unwrap().next().unwrap().unwrap().path();
        fs::read_dir(one).unwrap().count()
    };
    let before = objects();
    let pin = dir.path().join(value("pin_file"));
    let output = size(pin.to_str().unwrap());
    assert!(output.status.success(), "{}", said(&output));
    let sizing: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(sizing["rates"].as_array().unwrap().len(), 4, "{sizing}");
    assert!(sizing["workers"].as_u64().unwrap() >= 1);
    assert_eq!(objects(), before, "its keys are gone again");
    let missing = size("/nowhere");
    assert_eq!(missing.status.code(), Some(1));
    assert!(said(&missing).contains("/nowhere"), "{}", said(&missing));
}

#[test]
fn what_is_not_there_is_named() {
    let none = bench(&["compare", "--daemon", "/nowhere/keywrightd"]);
    assert_eq!(none.status.code(), Some(1));
    assert!(
        said(&none).contains("/nowhere/keywrightd"),
        "{}",
        said(&none)
    );
    for wrong in [
        &["compare", "--shape", "0x64"][..],
        &["compare", "--in-flight", "0"],
        &["compare", "--seconds", "never"],
        &["compare", "--streams", "--rate", "5"],
        &["load"],
        &["token"],
    ] {
        assert_eq!(bench(wrong).status.code(), Some(2), "{wrong:?}");
    }
    let unstored = bench(&["instructions", "/nowhere.json"]);
    assert_eq!(unstored.status.code(), Some(1));
    assert!(said(&unstored).contains("--write"), "{}", said(&unstored));
}
