//! What stops a start, and what a second start finds.

use super::*;

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
    // client.env is what the reader sources.
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
    // A role that no policy names, and an administrator nobody could be.
    let roles = data.join("policies/roles.toml");
    let good = fs::read_to_string(&roles).unwrap();
    fs::write(&roles, good.replace("key-user =", "key-usr =")).unwrap();
    let (status, log) = start();
    assert_eq!(status.code(), Some(4));
    assert!(log.contains("no policy names the role"), "{log}");
    fs::write(&roles, good).unwrap();
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

/// A stopped appliance is backed up by copying three things; without the store it does
/// not begin anew over the old audit log.
#[test]
fn a_store_is_one_file_and_is_not_replaced_when_it_is_lost() {
    let (_dir, daemon) = start();
    create(&daemon);
    let data = daemon.dir.clone();
    assert!(daemon.stop().success());
    let names = |dir: &Path| -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap();
        entries
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .filter(|n| n.starts_with("keywright.db"))
            .collect()
    };
    assert_eq!(names(&data), ["keywright.db"]);
    let store = fs::read(data.join("keywright.db")).unwrap();
    fs::remove_file(data.join("keywright.db")).unwrap();

    for args in [
        vec!["serve", "--config", "CONFIG"],
        vec![
            "init",
            "--config",
            "CONFIG",
            "--admin",
            "spiffe://dev.keywright/admin",
        ],
        vec!["dev", "--data", "DATA"],
    ] {
        let args = args.into_iter().map(|a| match a {
            "CONFIG" => data.join("keywrightd.toml").into_os_string(),
            "DATA" => data.clone().into_os_string(),
            other => other.into(),
        });
        let text = fails(
            Command::new(binary("keywrightd"))
                .args(args)
                .env("SOFTHSM2_CONF", data.join("softhsm2.conf")),
            6,
        );
        assert!(text.contains("Restore"), "{text}");
    }
    fs::write(data.join("keywright.db"), store).unwrap();
    let daemon = Daemon::start(&data);
    let _ = ok(daemon.cli().args(["key", "show", KEY]));
}
