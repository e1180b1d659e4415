//! The real daemon on a real SoftHSM2 token, the real command line, real files.
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

use std::{
    fs,
    io::Read,
    path::Path,
    process::{Command, Stdio},
};

use keywright_softhsm_tests::daemon::{Daemon, binary, eventually, fails, feed, ok};
use rustix::process::Signal;
use tempfile::tempdir;

const KEY: &str = "payments/cards";

fn start() -> (tempfile::TempDir, Daemon) {
    let dir = tempdir().unwrap();
    let daemon = Daemon::start(&dir.path().join("data"));
    (dir, daemon)
}

fn create(daemon: &Daemon) {
    let _ = ok(daemon
        .cli()
        .args(["key", "create", KEY, "--spec", "aes-256"]));
}

/// Bytes that do not repeat, the same every time.
fn bytes(len: usize) -> Vec<u8> {
    let mut x = 0x9e37_79b9_7f4a_7c15u64;
    (0..len)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            (x >> 32) as u8
        })
        .collect()
}

fn encrypt_file(daemon: &Daemon, from: &Path, to: &Path) {
    let _ = ok(daemon
        .cli()
        .args(["encrypt", "--key", KEY, "--context", "app=shop", "--in"])
        .arg(from)
        .arg("--out")
        .arg(to));
}

fn decrypt(daemon: &Daemon, from: &Path, to: &Path) -> Command {
    let mut command = daemon.cli();
    command
        .args(["decrypt", "--context", "app=shop", "--in"])
        .arg(from)
        .arg("--out")
        .arg(to);
    command
}

#[test]
fn files_of_every_size_come_back_bit_for_bit() {
    let (dir, daemon) = start();
    create(&daemon);
    let (plain, sealed, again) = (
        dir.path().join("p"),
        dir.path().join("s"),
        dir.path().join("a"),
    );
    const CHUNK: usize = 64 << 10;
    const SEGMENT: usize = 4 << 20;
    for size in [
        0,
        1,
        CHUNK - 1,
        CHUNK,
        CHUNK + 1,
        SEGMENT - 1,
        SEGMENT,
        SEGMENT + 1,
        2 * SEGMENT + 77,
    ] {
        let content = bytes(size);
        fs::write(&plain, &content).unwrap();
        encrypt_file(&daemon, &plain, &sealed);
        let chunks = size.div_ceil(CHUNK).max(1);
        let segments = size.div_ceil(SEGMENT).max(1);
        let expected = 24 + 136 * segments + 20 * chunks + size;
        assert_eq!(
            fs::metadata(&sealed).unwrap().len(),
            expected as u64,
            "{size}"
        );
        let _ = ok(&mut decrypt(&daemon, &sealed, &again));
        assert!(fs::read(&again).unwrap() == content, "{size}");
    }
    // Through pipes.
    let content = bytes(100_000);
    let sealed = feed(daemon.cli().args(["encrypt", "--key", KEY]), &content).stdout;
    assert_eq!(
        feed(daemon.cli().args(["decrypt"]), &sealed).stdout,
        content
    );
}

#[test]
fn a_file_that_was_tampered_with_leaves_no_output() {
    let (dir, daemon) = start();
    create(&daemon);
    let path = |name: &str| dir.path().join(name);
    const SEGMENT: usize = 4 << 20;
    // In the encrypted file.
    const SEALED_SEGMENT: usize = 136 + 64 * (65_536 + 20);
    const ITEM: usize = 65_536 + 20;
    fs::write(path("p"), bytes(2 * SEGMENT + 100_000)).unwrap();
    fs::write(path("q"), bytes(2 * SEGMENT + 100_000)).unwrap();
    encrypt_file(&daemon, &path("p"), &path("s"));
    encrypt_file(&daemon, &path("q"), &path("t"));
    let good = fs::read(path("s")).unwrap();
    let other = fs::read(path("t")).unwrap();
    let segment = |file: &[u8], n: usize| {
        let from = 24 + n * SEALED_SEGMENT;
        file[from..file.len().min(from + SEALED_SEGMENT)].to_vec()
    };
    let (head, s0, s1, s2) = (
        &good[..24],
        segment(&good, 0),
        segment(&good, 1),
        segment(&good, 2),
    );
    let mut chunks_swapped = good.clone();
    let (a, b) = (24 + 136, 24 + 136 + ITEM);
    let first = chunks_swapped[a..b].to_vec();
    let second = chunks_swapped[b..b + ITEM].to_vec();
    chunks_swapped[a..b].copy_from_slice(&second);
    chunks_swapped[b..b + ITEM].copy_from_slice(&first);
    let flip = |at: usize| {
        let mut out = good.clone();
        out[at] ^= 1;
        out
    };
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("cut at a segment", good[..24 + SEALED_SEGMENT].to_vec()),
        (
            "cut at two segments",
            good[..24 + 2 * SEALED_SEGMENT].to_vec(),
        ),
        (
            "cut at a chunk",
            good[..24 + 2 * SEALED_SEGMENT + 136 + ITEM].to_vec(),
        ),
        ("cut by one byte", good[..good.len() - 1].to_vec()),
        (
            "cut inside a header",
            good[..24 + SEALED_SEGMENT + 50].to_vec(),
        ),
        ("cut inside the file header", good[..20].to_vec()),
        ("nothing left", vec![]),
        ("one byte more", [&good[..], b"x"].concat()),
        ("a segment more", [&good[..], &s0].concat()),
        (
            "extended by another file's segment",
            [&good[..24 + SEALED_SEGMENT], &segment(&other, 1)].concat(),
        ),
        ("segments swapped", [head, &s1, &s0, &s2].concat()),
        ("a segment left out", [head, &s0, &s2].concat()),
        ("a segment twice", [head, &s0, &s0, &s2].concat()),
        (
            "a segment of another file",
            [head, &s0, &segment(&other, 1), &s2].concat(),
        ),
        ("chunks swapped", chunks_swapped),
        ("another file's id", [&other[..24], &good[24..]].concat()),
        ("file header bit", flip(10)),
        ("segment size changed", flip(7)),
        ("format changed", flip(4)),
        ("envelope header bit", flip(24 + 40)),
        ("payload bit", flip(24 + 136 + 1000)),
        ("last byte", flip(good.len() - 1)),
        ("not ours", bytes(1000)),
    ];
    for (what, content) in cases {
        fs::write(path("bad"), content).unwrap();
        let text = fails(&mut decrypt(&daemon, &path("bad"), &path("out")), 6);
        assert!(text.starts_with("keywright: "), "{what}: {text}");
        assert!(!path("out").exists(), "{what} left an output");
    }
    // Wrong context, wrong file kind.
    let text = fails(
        daemon
            .cli()
            .args(["decrypt", "--context", "app=other", "--in"])
            .arg(path("s")),
        6,
    );
    assert!(text.contains("the context is another"), "{text}");
    let text = fails(
        daemon
            .cli()
            .args(["decrypt", "--lines", "--in"])
            .arg(path("s")),
        6,
    );
    assert!(text.contains("not a kw1. token"), "{text}");
    // No half-written file is left behind either.
    let left = fs::read_dir(dir.path()).unwrap().filter(|e| {
        e.as_ref()
            .unwrap()
            .file_name()
            .to_string_lossy()
            .starts_with(".keywright-")
    });
    assert_eq!(left.count(), 0);
}

#[test]
fn rewrap_changes_headers_and_no_payload() {
    let (dir, daemon) = start();
    create(&daemon);
    let path = |name: &str| dir.path().join(name);
    fs::write(path("p"), bytes(9_000_000)).unwrap();
    encrypt_file(&daemon, &path("p"), &path("s"));
    let _ = ok(daemon.cli().args(["key", "rotate", KEY]));
    let rewrap = |to: &str| {
        let mut c = daemon.cli();
        c.args(["--output", "json", "rewrap", "--in"])
            .arg(path("s"))
            .arg("--out")
            .arg(path(to));
        c
    };
    let summary = ok(&mut rewrap("r")).stderr;
    let summary: serde_json::Value = serde_json::from_slice(&summary).unwrap();
    assert_eq!(
        (&summary["rewrapped"], &summary["already_current"]),
        (&3.into(), &0.into())
    );
    let (before, after) = (fs::read(path("s")).unwrap(), fs::read(path("r")).unwrap());
    assert_eq!(before.len(), after.len());
    const SEALED_SEGMENT: usize = 136 + 64 * (65_536 + 20);
    for (at, (a, b)) in before.iter().zip(&after).enumerate() {
        let in_segment = at.checked_sub(24).map(|n| n % SEALED_SEGMENT);
        let may_change = in_segment.is_some_and(|n| (68..136).contains(&n));
        assert!(a == b || may_change, "byte {at} changed");
    }
    assert_ne!(before, after);
    let _ = ok(&mut decrypt(&daemon, &path("r"), &path("a")));
    assert!(fs::read(path("a")).unwrap() == fs::read(path("p")).unwrap());
    // In place, and once more: everything is current.
    let _ = ok(daemon
        .cli()
        .args(["rewrap", "--in"])
        .arg(path("s"))
        .arg("--out")
        .arg(path("s")));
    let again: serde_json::Value = serde_json::from_slice(&ok(&mut rewrap("r2")).stderr).unwrap();
    assert_eq!(
        (&again["rewrapped"], &again["already_current"]),
        (&0.into(), &3.into())
    );
}

#[test]
fn lines_come_back_as_they_were() {
    let (_dir, daemon) = start();
    create(&daemon);
    let table: String = (0..10_000)
        .map(|i| format!("{i},4111-1111-1111-{:04},Zoë\n", i % 10_000))
        .collect();
    for text in [
        "",
        "\n",
        "a",
        "a\n\n\nb",
        "\r\n",
        "tab\tand \u{0} nul\n",
        &table,
    ] {
        let encrypt = ["encrypt", "--key", KEY, "--lines", "--context", "t=c"];
        let sealed = feed(daemon.cli().args(encrypt), text.as_bytes());
        assert!(
            sealed.status.success(),
            "{:?}",
            String::from_utf8_lossy(&sealed.stderr)
        );
        let tokens = String::from_utf8(sealed.stdout).unwrap();
        assert_eq!(tokens.lines().count(), text.split_inclusive('\n').count());
        assert!(tokens.lines().all(|t| t.starts_with("kw1.")));
        let opened = feed(
            daemon
                .cli()
                .args(["decrypt", "--lines", "--context", "t=c"]),
            tokens.as_bytes(),
        );
        assert_eq!(opened.stdout, text.as_bytes());
    }
    let sealed = feed(
        daemon.cli().args(["encrypt", "--key", KEY, "--lines"]),
        b"a\nb\nc\n",
    )
    .stdout;
    let sealed = String::from_utf8(sealed).unwrap();
    let _ = ok(daemon.cli().args(["key", "rotate", KEY]));
    let moved = feed(daemon.cli().args(["rewrap", "--lines"]), sealed.as_bytes());
    let moved = String::from_utf8(moved.stdout).unwrap();
    assert_ne!(moved, sealed);
    assert_eq!(
        feed(daemon.cli().args(["decrypt", "--lines"]), moved.as_bytes()).stdout,
        b"a\nb\nc\n"
    );
    // The bad ones are named by their number.
    let lines: Vec<&str> = sealed.lines().collect();
    let bad = format!("{}\nhello\n\n{}\n", lines[0], lines[1]);
    let output = feed(daemon.cli().args(["decrypt", "--lines"]), bad.as_bytes());
    assert_eq!(output.status.code(), Some(6));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        text.contains("line 2: not a kw1. token") && text.contains("line 3: empty"),
        "{text}"
    );
    assert!(output.stdout.is_empty());
    let mut cut = lines[1].to_owned();
    cut.replace_range(200..201, if &cut[200..201] == "A" { "B" } else { "A" });
    let output = feed(daemon.cli().args(["decrypt", "--lines"]), cut.as_bytes());
    assert_eq!(output.status.code(), Some(6));
}

#[test]
fn memory_stays_flat_however_long_the_input() {
    let (_dir, daemon) = start();
    create(&daemon);
    let mut zeros = Command::new("head")
        .args(["-c", "300000000", "/dev/zero"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut cli = daemon
        .cli()
        .args(["encrypt", "--key", KEY, "--out", "/dev/null"])
        .stdin(zeros.stdout.take().unwrap())
        .spawn()
        .unwrap();
    let mut peak = 0;
    while cli.try_wait().unwrap().is_none() {
        let status = fs::read_to_string(format!("/proc/{}/status", cli.id())).unwrap_or_default();
        let rss = status
            .lines()
            .find_map(|l| l.strip_prefix("VmHWM:"))
            .and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok());
        peak = peak.max(rss.unwrap_or(0));
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert!(cli.wait().unwrap().success());
    zeros.wait().unwrap();
    assert!(peak > 0 && peak < 160_000, "{peak} kB for 300 MB of input");
}

#[test]
fn keys_are_shown_listed_and_proved() {
    let (_dir, daemon) = start();
    create(&daemon);
    let json = |args: &[&str]| -> serde_json::Value {
        serde_json::from_slice(&ok(daemon.cli().args(["--output", "json"]).args(args)).stdout)
            .unwrap()
    };
    let key = json(&["key", "show", KEY]);
    assert_eq!(
        (&key["name"], &key["spec"], &key["primary_version"]),
        (&KEY.into(), &"aes-256".into(), &1.into())
    );
    let _ = ok(daemon.cli().args(["key", "rotate", KEY]));
    assert_eq!(
        json(&["key", "list"])[0]["versions"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    let evidence = json(&["key", "evidence", KEY]);
    for version in evidence["versions"].as_array().unwrap() {
        assert_eq!(version["cannot_leave"], true, "{version}");
        assert_eq!(version["extractable"], false);
        assert_eq!(version["never_extractable"], true);
        assert_eq!(version["local"], true);
    }
    assert_eq!(evidence["attacks"].as_array().unwrap().len(), 14);
    assert!(evidence["token"]["serial"].as_str().unwrap().len() > 4);
    // People get tables, with the words that matter.
    let text =
        String::from_utf8(ok(daemon.cli_as("auditor").args(["key", "evidence", KEY])).stdout)
            .unwrap();
    assert!(
        text.contains("CKA_NEVER_EXTRACTABLE") && text.contains("14 of 14 resisted"),
        "{text}"
    );
}

#[test]
fn exit_codes_mean_something() {
    let (dir, daemon) = start();
    create(&daemon);
    let text = fails(daemon.cli().args(["key", "show", "no/such"]), 5);
    assert!(text.contains("no such key"), "{text}");
    let text = fails(
        daemon
            .cli()
            .args(["key", "create", KEY, "--spec", "aes-256"]),
        8,
    );
    assert!(text.contains("exists already"), "{text}");
    let text = fails(
        daemon
            .cli_as("admin")
            .args(["encrypt", "--key", KEY, "--in", "/dev/null"]),
        4,
    );
    assert!(text.contains("no policy allows you to encrypt"), "{text}");
    let text = fails(daemon.cli_as("auditor").args(["key", "rotate", KEY]), 4);
    assert!(text.contains("rotate_key"), "{text}");
    let _ = ok(daemon.cli_as("user").args([
        "encrypt",
        "--key",
        KEY,
        "--in",
        "/dev/null",
        "--out",
        "/dev/null",
    ]));
    let _ = fails(
        daemon
            .cli()
            .args(["encrypt", "--key", KEY, "--in", "/no/such/file"]),
        1,
    );
    let text = fails(
        daemon
            .cli()
            .args(["encrypt", "--key", KEY, "--context", "novalue"]),
        2,
    );
    assert!(text.contains("KEY=VALUE"), "{text}");
    let _ = fails(
        daemon.cli().args([
            "encrypt",
            "--key",
            KEY,
            "--context",
            "a=1",
            "--context",
            "a=2",
        ]),
        2,
    );
    let text = fails(
        daemon
            .cli()
            .arg("random")
            .env("KEYWRIGHT_ADDR", "127.0.0.1:1"),
        3,
    );
    assert!(text.contains("cannot connect to 127.0.0.1:1"), "{text}");
    let text = fails(daemon.cli().arg("random").env_remove("KEYWRIGHT_CERT"), 2);
    assert!(text.contains("KEYWRIGHT_CERT is not set"), "{text}");
    let text = fails(
        daemon.cli().arg("random").env("KEYWRIGHT_CA", "/no/ca.pem"),
        2,
    );
    assert!(text.contains("/no/ca.pem"), "{text}");
    // Another appliance's certificate.
    let other = Daemon::start(&dir.path().join("other"));
    let stranger = fails(
        daemon
            .cli()
            .arg("random")
            .env("KEYWRIGHT_CERT", other.dir.join("certs/user.pem"))
            .env("KEYWRIGHT_KEY", other.dir.join("certs/user.key")),
        4,
    );
    assert!(
        stranger.contains("refused the client certificate"),
        "{stranger}"
    );
}

#[test]
fn a_second_start_goes_on_where_the_first_ended() {
    let (dir, daemon) = start();
    create(&daemon);
    let sealed = feed(
        daemon.cli().args(["encrypt", "--key", KEY, "--lines"]),
        b"kept\n",
    )
    .stdout;
    assert!(daemon.log().contains("\"ready\""));
    assert!(daemon.stop().success());
    let daemon = Daemon::start(&dir.path().join("data"));
    let opened = feed(daemon.cli().args(["decrypt", "--lines"]), &sealed);
    assert_eq!(opened.stdout, b"kept\n");
    let data = daemon.dir.clone();
    let report = ok(Command::new(binary("keywright"))
        .args(["audit", "verify"])
        .arg(&data));
    assert!(String::from_utf8_lossy(&report.stdout).contains("holds together"));
    // client.env is what the issue's reader sources.
    let env = fs::read_to_string(data.join("client.env")).unwrap();
    for name in [
        "KEYWRIGHT_ADDR=",
        "KEYWRIGHT_CA=",
        "KEYWRIGHT_CERT=",
        "KEYWRIGHT_KEY=",
    ] {
        assert!(env.lines().any(|l| l.starts_with(name)), "{env}");
    }
    let script = format!(
        "set -a; . {}/client.env; set +a; exec {} random 16",
        data.display(),
        binary("keywright").display()
    );
    let random = ok(Command::new("sh").args(["-c", &script]));
    assert_eq!(random.stdout.len(), 33);
}

#[test]
fn two_daemons_do_not_share_a_data_directory() {
    let (_dir, daemon) = start();
    let (status, log) =
        Daemon::try_start(&daemon.dir, Command::new(binary("keywrightd"))).unwrap_err();
    assert_eq!(status.code(), Some(6));
    assert!(log.contains("in use by another keywrightd"), "{log}");
    assert!(log.contains(&daemon.pid().to_string()), "{log}");
    create(&daemon);
}

#[test]
fn what_the_operator_got_wrong_is_named() {
    let (_dir, daemon) = start();
    let data = daemon.dir.clone();
    assert!(daemon.stop().success());
    let config = fs::read_to_string(data.join("keywrightd.toml")).unwrap();
    let start = || Daemon::try_start(&data, Command::new(binary("keywrightd"))).unwrap_err();
    let edits = [
        (
            "module = \"/",
            "module = \"/nowhere/",
            5,
            "cannot be opened",
        ),
        (
            "token_label = \"keywright-dev\"",
            "token_label = \"other\"",
            5,
            "no initialised token with label \"other\"",
        ),
        (
            "pin_file = \"hsm-pin\"",
            "pin_file = \"no-pin\"",
            5,
            "no-pin",
        ),
        (
            "data_dir = \".\"",
            "data_dir = \".\"\nfast = true",
            3,
            "fast",
        ),
        (
            "certificate = \"certs/server.pem\"",
            "certificate = \"certs/none.pem\"",
            4,
            "none.pem",
        ),
        (
            "client_ca = \"ca.pem\"",
            "client_ca = \"hsm-pin\"",
            4,
            "hsm-pin",
        ),
        (
            "policies_dir = \"policies\"",
            "policies_dir = \"none\"",
            4,
            "none",
        ),
        (
            "admin = \"127.0.0.1:0\"",
            "admin = \"0.0.0.0:1\"",
            3,
            "loopback",
        ),
    ];
    for (from, to, code, expected) in edits {
        assert!(config.contains(from), "{from}");
        fs::write(data.join("keywrightd.toml"), config.replacen(from, to, 1)).unwrap();
        let (status, log) = start();
        assert_eq!(status.code(), Some(code), "{to}: {log}");
        assert!(log.contains(expected), "{to}: {log}");
    }
    // A library that is not a PKCS#11 module.
    let libc = [
        "/lib/x86_64-linux-gnu/libm.so.6",
        "/lib/aarch64-linux-gnu/libm.so.6",
        "/lib64/libm.so.6",
    ];
    let libc = libc.iter().find(|p| Path::new(p).exists()).unwrap();
    let line = config.lines().find(|l| l.starts_with("module")).unwrap();
    fs::write(
        data.join("keywrightd.toml"),
        config.replace(line, &format!("module = \"{libc}\"")),
    )
    .unwrap();
    let (status, log) = start();
    assert_eq!(status.code(), Some(5));
    assert!(log.contains("is not a PKCS#11 module"), "{log}");
    fs::write(data.join("keywrightd.toml"), config).unwrap();
    let check = Command::new(binary("keywrightd"))
        .args(["check-config", "--config"])
        .arg(data.join("keywrightd.toml"))
        .output()
        .unwrap();
    assert!(
        check.status.success(),
        "{}",
        String::from_utf8_lossy(&check.stderr)
    );
    let _ = Daemon::start(&data);
}

#[test]
fn a_wrong_pin_is_tried_once_over_many_starts() {
    let (_dir, daemon) = start();
    create(&daemon);
    let data = daemon.dir.clone();
    assert!(daemon.stop().success());
    let pin = fs::read(data.join("hsm-pin")).unwrap();
    fs::write(data.join("hsm-pin"), "0000").unwrap();
    let start = || Daemon::try_start(&data, Command::new(binary("keywrightd"))).unwrap_err();
    let (status, log) = start();
    assert_eq!(status.code(), Some(5));
    assert!(
        log.contains("CKR_PIN_INCORRECT") && log.contains("not tried again"),
        "{log}"
    );
    for _ in 0..3 {
        let (_, log) = start();
        assert!(
            log.contains("was not tried again") && !log.contains("CKR_PIN_INCORRECT"),
            "{log}"
        );
    }
    fs::write(data.join("hsm-pin"), pin).unwrap();
    let daemon = Daemon::start(&data);
    let _ = ok(daemon.cli().args(["key", "show", KEY]));
}

#[test]
fn a_token_that_goes_away_makes_the_daemon_unready_and_comes_back() {
    let (dir, daemon) = start();
    create(&daemon);
    assert!(daemon.get("/readyz").0.contains("200"));
    let tokens = daemon.dir.join("tokens");
    let away = dir.path().join("away");
    fs::rename(&tokens, &away).unwrap();
    let text = fails(
        daemon.cli().args([
            "encrypt",
            "--key",
            KEY,
            "--in",
            "/dev/null",
            "--out",
            "/dev/null",
        ]),
        3,
    );
    assert!(text.contains("the HSM cannot be used now"), "{text}");
    eventually("unready", || daemon.get("/readyz").0.contains("503"));
    assert!(
        daemon.get("/healthz").0.contains("200"),
        "alive all the same"
    );
    fs::rename(&away, &tokens).unwrap();
    eventually("ready again", || daemon.get("/readyz").0.contains("200"));
    let _ = ok(daemon.cli().args([
        "encrypt",
        "--key",
        KEY,
        "--in",
        "/dev/null",
        "--out",
        "/dev/null",
    ]));
}

/// A file-size limit stands for the full disk: the write fails, the process lives.
#[test]
fn a_full_disk_stops_the_answers_and_loses_nothing() {
    let dir = tempdir().unwrap();
    let data = dir.path().join("data");
    let first = Daemon::start(&data);
    create(&first);
    assert!(first.stop().success());
    let mut limited = Command::new("bash");
    let script = format!(
        "trap '' XFSZ; ulimit -f 512; exec {} \"$@\"",
        binary("keywrightd").display()
    );
    limited.args(["-c", &script, "keywrightd"]);
    let daemon = Daemon::start_with(&data, limited);
    let mut sealed = Vec::new();
    let refused = loop {
        assert!(sealed.len() < 3000, "the disk never filled up");
        let output = feed(
            daemon.cli().args(["encrypt", "--key", KEY, "--lines"]),
            &vec![b'\n'; 100_000],
        );
        if !output.status.success() {
            break output;
        }
        sealed.push(output.stdout);
    };
    let text = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(3), "{text}");
    assert!(text.contains("the audit log cannot be written"), "{text}");
    // A shorter record may still have found room; in the end none does.
    eventually("unready", || {
        let _ = feed(
            daemon.cli().args(["encrypt", "--key", KEY, "--lines"]),
            b"x\n",
        );
        daemon.get("/readyz").0.contains("503")
    });
    assert!(daemon.log().contains("nothing is answered until it can"));
    drop(daemon);
    // With room again: everything that was acknowledged opens, and the chain holds.
    let daemon = Daemon::start(&data);
    let last = sealed.pop().unwrap();
    assert_eq!(
        feed(daemon.cli().args(["decrypt", "--lines"]), &last).stdout,
        vec![b'\n'; 100_000]
    );
    let _ = ok(daemon.cli().args(["audit", "verify"]).arg(&data));
}

#[test]
fn sighup_reads_policies_again_and_keeps_the_old_ones_when_they_are_bad() {
    let (_dir, daemon) = start();
    create(&daemon);
    let roles = daemon.dir.join("policies/roles.toml");
    let good = fs::read_to_string(&roles).unwrap();
    let show = || {
        daemon
            .cli()
            .args(["key", "show", KEY])
            .output()
            .unwrap()
            .status
            .success()
    };
    fs::write(&roles, good.replace("/developer", "/somebody-else")).unwrap();
    daemon.signal(Signal::HUP);
    eventually("the new roles", || !show());
    fs::write(&roles, "[roles\n").unwrap();
    daemon.signal(Signal::HUP);
    eventually("the complaint", || {
        daemon.log().contains("the old one stays in force")
    });
    assert!(!show(), "bad roles change nothing");
    fs::write(&roles, good).unwrap();
    daemon.signal(Signal::HUP);
    eventually("the old roles", show);
    let records = fs::read_dir(daemon.dir.join("audit"))
        .unwrap()
        .map(|f| fs::read_to_string(f.unwrap().path()).unwrap())
        .collect::<String>();
    assert_eq!(records.matches("\"policies_reloaded\":").count(), 2);
}

#[test]
fn sighup_takes_a_new_server_certificate() {
    let (dir, daemon) = start();
    let other = Daemon::start(&dir.path().join("other"));
    for file in ["server.pem", "server.key"] {
        fs::copy(
            other.dir.join("certs").join(file),
            daemon.dir.join("certs").join(file),
        )
        .unwrap();
    }
    daemon.signal(Signal::HUP);
    // New connections see a certificate of the other CA.
    eventually("the new certificate", || {
        !daemon
            .cli()
            .arg("random")
            .output()
            .unwrap()
            .status
            .success()
    });
    let _ = ok(daemon
        .cli()
        .arg("random")
        .env("KEYWRIGHT_CA", other.dir.join("ca.pem")));
}

#[test]
fn metrics_are_there_and_name_no_key() {
    let (_dir, daemon) = start();
    create(&daemon);
    let _ = feed(
        daemon.cli().args(["encrypt", "--key", KEY, "--lines"]),
        b"a\nb\n",
    );
    let (status, body) = daemon.get("/metrics");
    assert!(status.contains("200"));
    for name in [
        "keywright_requests_total{rpc=\"Encrypt\",outcome=\"OK\"} 1",
        "keywright_items_total{rpc=\"Encrypt\",result=\"ok\"} 2",
        "keywright_hsm_up 1",
        "keywright_audit_up 1",
        "keywright_keys 1",
        "keywright_hsm_seconds_bucket",
        "keywright_audit_commit_seconds_count",
    ] {
        assert!(body.contains(name), "{name} is not in\n{body}");
    }
    assert!(!body.contains("payments"));
}

#[test]
fn the_process_is_closed_to_core_dumps() {
    let (_dir, daemon) = start();
    let limits = fs::read_to_string(format!("/proc/{}/limits", daemon.pid())).unwrap();
    let core = limits
        .lines()
        .find(|l| l.starts_with("Max core file size"))
        .unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
    for file in [
        "hsm-pin",
        "ca.key",
        "certs/user.key",
        "keywright.db",
        "keywrightd.toml",
    ] {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(daemon.dir.join(file))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o077, 0, "{file} is open to others: {mode:o}");
    }
}

#[test]
fn the_token_files_do_not_hold_what_was_encrypted_nor_keys_in_clear() {
    let (_dir, daemon) = start();
    create(&daemon);
    let canary = b"PLAINTEXT-canary-5d20c1";
    let sealed = feed(
        daemon.cli().args([
            "encrypt",
            "--key",
            KEY,
            "--lines",
            "--context",
            "c=CONTEXT-canary",
        ]),
        canary,
    );
    assert!(sealed.status.success());
    let pin = fs::read(daemon.dir.join("hsm-pin")).unwrap();
    let (mut folders, mut scanned) = (vec![daemon.dir.clone()], 0);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let mut content = Vec::new();
            fs::File::open(&path)
                .unwrap()
                .read_to_end(&mut content)
                .unwrap();
            scanned += 1;
            let holds = |needle: &[u8]| content.windows(needle.len()).any(|w| w == needle);
            assert!(
                !holds(canary) && !holds(b"CONTEXT-canary"),
                "{}",
                path.display()
            );
            assert!(
                path.ends_with("hsm-pin") || !holds(&pin),
                "the PIN is in {}",
                path.display()
            );
        }
    }
    assert!(scanned > 15);
    assert!(!daemon.log().contains("canary"));
}
