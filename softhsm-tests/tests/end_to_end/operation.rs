//! A daemon that goes on: lost tokens, full disks, new certificates.

use super::*;

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
        "trap '' XFSZ; ulimit -S -f 512; exec {} \"$@\"",
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
    // With room again it is ready by itself: whoever asks readyz sends no requests.
    let pid = Pid::from_raw(i32::try_from(daemon.pid()).unwrap());
    let room = Rlimit {
        current: None,
        maximum: None,
    };
    prlimit(pid, Resource::Fsize, room).unwrap();
    eventually("ready again", || daemon.get("/readyz").0.contains("200"));
    assert!(daemon.stop().success());
    // Everything that was acknowledged opens, and the chain holds.
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
    let _ = feed(daemon.cli().args(["encrypt", "--key", KEY]), b"ab");
    let (status, body) = daemon.get("/metrics");
    assert!(status.contains("200"));
    for name in [
        "keywright_requests_total{rpc=\"Encrypt\",outcome=\"OK\"} 1",
        "keywright_items_total{rpc=\"Encrypt\",result=\"ok\"} 1",
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
