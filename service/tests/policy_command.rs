//! `keywrightd policy check | test` as tools see them: one JSON object, an exit code.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "this is a test"
)]

use std::{fs, path::Path, process::Command};

use keywright_service::policy::DEFAULT_ROLES;
use serde_json::Value;

fn run(command: &str, dir: &Path) -> (Value, i32) {
    let out = Command::new(env!("CARGO_BIN_EXE_keywrightd"))
        .args(["policy", command, "--output", "json"])
        .arg(dir)
        .output()
        .unwrap();
    (
        serde_json::from_slice(&out.stdout).expect("one JSON object"),
        out.status.code().unwrap(),
    )
}

fn test(name: &str, rest: &str) -> String {
    format!("[[test]]\nname = \"{name}\"\ncaller = \"spiffe://a/user\"\n{rest}\n")
}

#[test]
fn tools_read_one_json_object() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
    fs::create_dir(dir.path().join("tests")).unwrap();
    write("roles.toml", "[roles]\nkey-user = [\"spiffe://a/user\"]");
    write("roles.cedar", DEFAULT_ROLES);
    let (said, code) = run("check", dir.path());
    assert_eq!((&said["ok"], code), (&Value::Bool(true), 0), "{said}");

    let good = test("good", "action = \"list_keys\"\nexpect = \"allow\"");
    let bad = test("bad", "action = \"list_keys\"\nexpect = \"deny\"");
    write("tests/a.toml", &good);
    let (said, code) = run("test", dir.path());
    assert_eq!((&said["ok"], code), (&Value::Bool(true), 0), "{said}");
    write("tests/a.toml", &(good + &bad));
    let (said, code) = run("test", dir.path());
    assert_eq!((&said["ok"], code), (&Value::Bool(false), 1), "{said}");
    assert_eq!((&said["tests"], &said["failed"]), (&2.into(), &1.into()));
    assert_eq!(said["results"][0]["failure"], Value::Null);
    assert_eq!(said["results"][1]["name"], "bad");
    assert!(said["results"][1]["failure"].is_string());

    // A test without sense, and a policy without sense.
    let senseless = test("odd", "action = \"decrypt\"\nexpect = \"deny\"");
    write("tests/a.toml", &senseless);
    let (said, code) = run("test", dir.path());
    assert_eq!((&said["ok"], code), (&Value::Bool(false), 4), "{said}");
    let message = said["findings"][0]["message"].as_str().unwrap();
    assert!(message.contains("odd"), "{message}");
    let wrong = "\npermit (principal, action, resource is Key) when { resource.size == 1 };";
    write("extra.cedar", wrong);
    let (said, code) = run("check", dir.path());
    assert_eq!((&said["ok"], code), (&Value::Bool(false), 4), "{said}");
    let findings = said["findings"].as_array().unwrap();
    assert_eq!((findings.len(), &findings[0]["line"]), (1, &2.into()));
    let policy = findings[0]["policy"].as_str().unwrap();
    assert!(policy.ends_with("extra.cedar:2"), "{policy}");
}
