//! What people read: tables, JSON, exit codes.

use super::*;

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
    assert!(text.contains("a policy forbids you to encrypt"), "{text}");
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
    for addr in [
        "127.0.0.1",
        "127.0.0.1:99999",
        "a@127.0.0.1:1",
        "127.0.0.1:1/x",
    ] {
        let text = fails(daemon.cli().arg("random").env("KEYWRIGHT_ADDR", addr), 2);
        assert!(text.contains("host:port"), "{addr}: {text}");
    }
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
    // Another appliance's CA: no better by trying again.
    let text = fails(
        daemon
            .cli()
            .arg("random")
            .env("KEYWRIGHT_CA", other.dir.join("ca.pem")),
        2,
    );
    assert!(text.contains("KEYWRIGHT_CA must hold"), "{text}");
}

#[test]
fn a_suspended_key_rests_until_it_is_resumed() {
    let (dir, daemon) = start();
    create(&daemon);
    let (plain, sealed) = (dir.path().join("p"), dir.path().join("s"));
    fs::write(&plain, b"text").unwrap();
    encrypt_file(&daemon, &plain, &sealed);
    let shown = ok(daemon.cli().args(["key", "suspend", KEY])).stdout;
    assert!(String::from_utf8(shown).unwrap().contains("suspended"));
    let text = fails(&mut decrypt(&daemon, &sealed, &plain), 8);
    assert!(
        text.contains("version 1 of this key is suspended"),
        "{text}"
    );
    assert_eq!(fs::read(&plain).unwrap(), b"text");
    let text = fails(
        daemon.cli().args(["key", "resume", KEY, "--revision", "1"]),
        8,
    );
    assert!(text.contains("somebody else changed this key"), "{text}");
    let _ = ok(daemon.cli().args(["key", "resume", KEY]));
    let _ = ok(&mut decrypt(&daemon, &sealed, &plain));
    let _ = fails(daemon.cli_as("user").args(["key", "suspend", KEY]), 4);
}

#[test]
fn standard_output_that_is_full_or_closed_is_no_panic() {
    let (_dir, daemon) = start();
    for args in [
        vec!["random"],
        vec!["key", "list"],
        vec!["completions", "bash"],
    ] {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let text = fails(daemon.cli().args(&args).stdout(full), 1);
        assert!(text.contains("standard output"), "{args:?}: {text}");
    }
    let json = ok(daemon.cli().args(["random", "8", "--output", "json"])).stdout;
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(json["random"].as_str().unwrap().len(), 16);
    // Nothing is written before the server has said yes.
    let out = daemon
        .cli()
        .args(["encrypt", "--key", "no/such", "--in", "/dev/null"])
        .output()
        .unwrap();
    assert_eq!((out.status.code(), out.stdout.len()), (Some(5), 0));
}

/// Half of a decrypted file must not stay behind, under whatever name.
#[test]
fn a_signal_leaves_no_half_file() {
    let (dir, daemon) = start();
    create(&daemon);
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let folder = dir.path().join(format!("{signal:?}"));
        fs::create_dir(&folder).unwrap();
        let mut child = daemon
            .cli()
            .args(["encrypt", "--key", KEY, "--out"])
            .arg(folder.join("out"))
            // Waits for input that never comes.
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let count = || fs::read_dir(&folder).unwrap().count();
        eventually("a half file", || count() == 1);
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
        eventually("gone", || child.try_wait().unwrap().is_some());
        assert_eq!(count(), 0, "{signal:?}");
    }
}
