//! The life of a key from the command line, and what people ask about it.

use super::*;

fn json(command: &mut Command) -> serde_json::Value {
    serde_json::from_slice(&ok(command.args(["--output", "json"])).stdout).unwrap()
}

fn show(daemon: &Daemon) -> serde_json::Value {
    json(daemon.cli().args(["key", "show", KEY]))
}

/// A line of the metrics; those about objects come from a look at the token at start.
fn metric(daemon: &Daemon, name: &str) -> String {
    let (_, body) = daemon.get("/metrics");
    let line = body.lines().find(|l| l.starts_with(name));
    line.unwrap_or_default().to_owned()
}

/// The real token loses the object; the time is moved in the store, because nobody waits
/// seven days for a test.
#[test]
fn a_version_is_destroyed_in_the_token_when_its_time_has_come() {
    let (dir, daemon) = start();
    create(&daemon);
    let (plain, sealed) = (dir.path().join("plain"), dir.path().join("sealed"));
    fs::write(&plain, bytes(1000)).unwrap();
    encrypt_file(&daemon, &plain, &sealed);
    let _ = ok(daemon.cli().args(["key", "rotate", KEY]));
    let schedule = ["key", "schedule-destruction", KEY, "--version", "1"];
    let text = fails(daemon.cli().args(schedule), 8);
    assert!(text.contains("deactivate or suspend it first"), "{text}");
    let _ = ok(daemon
        .cli()
        .args(["key", "deactivate", KEY, "--version", "1"]));
    let text = fails(daemon.cli().args(schedule).args(["--days", "3"]), 6);
    assert!(text.contains("from 7 to 90"), "{text}");
    let shown = String::from_utf8(ok(daemon.cli().args(schedule)).stdout).unwrap();
    assert!(shown.contains("to be destroyed 20"), "{shown}");
    let back = dir.path().join("back");
    let text = fails(&mut decrypt(&daemon, &sealed, &back), 8);
    assert!(text.contains("scheduled for destruction"), "{text}");
    let _ = ok(daemon.cli().args(["key", "cancel-destruction", KEY]));
    let _ = ok(&mut decrypt(&daemon, &sealed, &back));
    let _ = ok(daemon.cli().args(schedule));
    assert!(daemon.stop().success());

    let data = dir.path().join("data");
    destruction_is_due(&data);
    let daemon = Daemon::start(&data);
    eventually("the version is destroyed", || {
        show(&daemon)["versions"][0]["state"] == "destroyed"
    });
    let text = fails(&mut decrypt(&daemon, &sealed, &back), 8);
    assert!(text.contains("is destroyed"), "{text}");
    assert!(daemon.stop().success());
    // Opened again, the token neither misses nor shows what is gone.
    let daemon = Daemon::start(&data);
    assert!(metric(&daemon, "keywright_hsm_missing_objects").ends_with(" 0"));
    assert!(metric(&daemon, "keywright_hsm_orphan_objects").ends_with(" 0"));
    assert!(!daemon.log().contains("was restored from a backup"));
    let evidence = json(daemon.cli().args(["key", "evidence", KEY]));
    assert_eq!(evidence["versions"].as_array().unwrap().len(), 1);
}

#[test]
fn keys_are_updated_and_explained() {
    let (_dir, daemon) = start();
    create(&daemon);
    let _ = ok(daemon.cli().args(["key", "rotate", KEY]));
    let update = |args: &[&str]| json(daemon.cli().args(["key", "update", KEY]).args(args));
    let key = update(&["--minimum-version", "2", "--label", "team=pay"]);
    assert_eq!(key["minimum_version"], 2);
    let key = update(&["--rotate-after-days", "90"]);
    assert_eq!(key["labels"]["team"], "pay", "what is not named stays");
    let key = update(&["--wrap-limit", "1000000"]);
    assert_eq!(key["rules"]["rotate_after_days"], 90, "rules too");
    let key = update(&["--default-rules", "--no-labels"]);
    assert_eq!(key["rules"]["rotate_after_days"], serde_json::Value::Null);
    let _ = fails(daemon.cli().args(["key", "update", KEY]), 2);
    let text = fails(daemon.cli().args(["key", "compromise", KEY]), 2);
    assert!(text.contains("--all"), "{text}");

    let explain = |who: &str, args: &[&str]| {
        let mut command = daemon.cli_as(who);
        command.arg("explain").args(args);
        command
    };
    let text = String::from_utf8(ok(&mut explain("user", &["encrypt", KEY])).stdout).unwrap();
    assert!(
        text.contains("allowed") && text.contains("version   2"),
        "{text}"
    );
    let _ = fails(&mut explain("admin", &["encrypt", KEY]), 4);
    let text = fails(&mut explain("user", &["decrypt", KEY, "--version", "1"]), 8);
    assert!(text.contains("below its minimum version 2"), "{text}");
    let json = ["encrypt", KEY, "--output", "json"];
    let e = fails(&mut explain("admin", &json), 4);
    let e: serde_json::Value = serde_json::from_str(&e).unwrap();
    assert_eq!(e["error"]["reason"], "PERMISSION_DENIED");
    let text = fails(&mut explain("user", &["encrypt", KEY, "--version", "1"]), 2);
    assert!(text.contains("the primary version"), "{text}");
    let _ = fails(&mut explain("user", &["create_key", KEY]), 2);
    let table = |args: &[&str]| {
        String::from_utf8(ok(daemon.cli().args(["key"]).args(args)).stdout).unwrap()
    };
    assert!(table(&["show", KEY]).contains("active, below minimum"));
    let listed = table(&["list"]);
    assert!(
        listed.contains("use") && listed.contains("encrypt") && listed.contains("active"),
        "{listed}"
    );
    let user = "spiffe://dev.keywright/user";
    let about = explain("admin", &["decrypt", KEY, "--principal", user]).output();
    let about = String::from_utf8(about.unwrap().stdout).unwrap();
    assert!(about.contains(user), "{about}");
    // Failures are JSON too when JSON is asked for.
    let text = fails(
        daemon
            .cli()
            .args(["key", "show", "no/such", "--output", "json"]),
        5,
    );
    let e: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(e["error"]["reason"], "KEY_NOT_FOUND");
    assert_eq!(e["error"]["exit_code"], 5);
    assert!(e["error"]["request_id"].as_str().unwrap().len() > 8);
    // Also of what cannot be parsed.
    let oops = ["key", "oops", "--output", "json"];
    let e = fails(daemon.cli().args(oops), 2);
    let e: serde_json::Value = serde_json::from_str(&e).unwrap();
    assert_eq!(e["error"]["exit_code"], 2);
    assert!(e["error"]["message"].as_str().unwrap().contains("oops"));
}

#[test]
fn files_lines_and_data_keys_move_to_another_key() {
    let (dir, daemon) = start();
    create(&daemon);
    let _ = ok(daemon
        .cli()
        .args(["key", "create", "payments/new", "--spec", "aes-256"]));
    let path = |name: &str| dir.path().join(name);
    let data = bytes(9_000_000);
    fs::write(path("plain"), &data).unwrap();
    encrypt_file(&daemon, &path("plain"), &path("sealed"));
    let mut reencrypt = daemon.cli();
    reencrypt
        .args([
            "reencrypt",
            "--key",
            "payments/new",
            "--context",
            "app=shop",
        ])
        .args(["--new-context", "app=bank", "--in"])
        .arg(path("sealed"))
        .arg("--out")
        .arg(path("moved"));
    let _ = ok(&mut reencrypt);
    let _ = fails(&mut decrypt(&daemon, &path("moved"), &path("back")), 6);
    let mut open = daemon.cli();
    open.args([
        "decrypt",
        "--key",
        "payments/new",
        "--context",
        "app=bank",
        "--in",
    ])
    .arg(path("moved"))
    .arg("--out")
    .arg(path("back"));
    let _ = ok(&mut open);
    assert!(fs::read(path("back")).unwrap() == data);
    // With the wrong context nothing is written.
    let mut wrong = daemon.cli();
    wrong
        .args(["reencrypt", "--key", "payments/new", "--in"])
        .arg(path("sealed"))
        .arg("--out")
        .arg(path("never"));
    let text = fails(&mut wrong, 6);
    assert!(text.contains("the context is another"), "{text}");
    assert!(!path("never").exists());

    let tokens = feed(
        daemon.cli().args(["encrypt", "--lines", "--key", KEY]),
        b"one\ntwo\n",
    );
    let moved = feed(
        daemon
            .cli()
            .args(["reencrypt", "--lines", "--key", "payments/new"]),
        &tokens.stdout,
    );
    let lines = feed(
        daemon
            .cli()
            .args(["decrypt", "--lines", "--key", "payments/new"]),
        &moved.stdout,
    );
    assert_eq!(lines.stdout, b"one\ntwo\n");

    let made = json(daemon.cli().args(["data-key", "generate", "--key", KEY]));
    let _ = ok(daemon.cli().args(["key", "rotate", KEY]));
    let wrapped = made["wrapped"].as_str().unwrap();
    let moved = json(daemon.cli().args(["data-key", "rewrap", wrapped]));
    assert_ne!(moved["wrapped"], made["wrapped"]);
    let moved = moved["wrapped"].as_str().unwrap();
    let opened = json(daemon.cli().args(["data-key", "open", moved]));
    assert_eq!(opened["plaintext"], made["plaintext"]);
}

#[test]
fn policies_are_checked_and_tested_without_a_server() {
    let dir = tempdir().unwrap();
    let policies = dir.path();
    let roles = include_str!("../../../service/policies/roles.cedar");
    fs::write(policies.join("roles.cedar"), roles).unwrap();
    fs::write(
        policies.join("roles.toml"),
        "[roles]\nkey-user = [\"spiffe://corp.example/api\"]\n",
    )
    .unwrap();
    let policy = |verb: &str| {
        let mut command = Command::new(binary("keywright"));
        command.args(["policy", verb]).arg(policies);
        command
    };
    let _ = ok(&mut policy("check"));
    let text = fails(&mut policy("test"), 6);
    assert!(text.contains("tests"), "{text}");
    fs::create_dir(policies.join("tests")).unwrap();
    let test = |expect: &str| {
        let text = format!(
            "[[test]]\nname = \"users encrypt\"\ncaller = \"spiffe://corp.example/api\"\naction = \"encrypt\"\nkey = {{ name = \"a/b\" }}\nexpect = \"{expect}\"\npolicies = [\"key-user\"]\n"
        );
        fs::write(policies.join("tests/users.toml"), text).unwrap();
    };
    test("allow");
    let out = ok(&mut policy("test"));
    assert!(String::from_utf8_lossy(&out.stdout).contains("1 tests, 0 failed"));
    test("deny");
    let out = policy("test").output().unwrap();
    assert_eq!(out.status.code(), Some(6));
    let said = String::from_utf8_lossy(&out.stdout);
    assert!(
        said.contains("FAILED  users encrypt: allowed; decided by key-user"),
        "{said}"
    );
    let out = policy("test").args(["--output", "json"]).output().unwrap();
    let said: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(said["failed"], 1);
    let e: serde_json::Value = serde_json::from_slice(&out.stderr).unwrap();
    assert_eq!(e["error"]["exit_code"], 6);
    let checked = ok(policy("check").args(["--output", "json"])).stdout;
    let checked: serde_json::Value = serde_json::from_slice(&checked).unwrap();
    assert_eq!(checked["set"].as_str().unwrap().len(), 64);
    // Errors stand at their line: what is no policy, and what does not fit the schema.
    for (wrong, place) in [
        ("permit (principal,\n  action == oops\n", "extra.cedar:2:"),
        (
            "permit (principal, action, resource is Key)\nwhen { resource.colour == \"x\" };\n",
            "extra.cedar:2:",
        ),
    ] {
        fs::write(policies.join("extra.cedar"), wrong).unwrap();
        let text = fails(&mut policy("check"), 6);
        assert!(text.contains(place), "{text}");
    }
}

/// What the documentation of the library shows, against the real daemon.
#[test]
fn the_tour_of_the_client_library_works() {
    let (_dir, daemon) = start();
    let cli = daemon.cli();
    let example = |name: &str| {
        let mut example = Command::new(binary(name));
        for (name, value) in cli.get_envs() {
            if let Some(value) = value {
                example.env(name, value);
            }
        }
        example
    };
    let mut tour = example("examples/tour");
    for versions in ["2 versions", "3 versions"] {
        let out = ok(&mut tour);
        let said = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(
            said.contains(versions) && said.contains("all of it worked"),
            "{said}"
        );
    }
    let out = ok(&mut example("examples/local"));
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(
        said.contains("after the rotation under version 2"),
        "{said}"
    );
}
