//! Data keys that the appliance keeps: the commands, and the job that goes on after a kill.

use std::{collections::BTreeMap, time::Duration};

use keywright_client::{Client, Settings, proto::GenerateDataKeysRequest};

use super::*;

fn json(output: &[u8]) -> serde_json::Value {
    serde_json::from_slice(output).unwrap()
}

/// Keeps `count` more data keys.
fn keep(settings: &Settings, count: usize) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let client = Client::connect(settings).await.unwrap();
        let request = GenerateDataKeysRequest {
            key: KEY.into(),
            lengths: vec![32; count],
            keep: true,
            ..Default::default()
        };
        let made = client.crypto().generate_data_keys(request).await.unwrap();
        assert_eq!(made.into_inner().data_keys.len(), count);
    });
}

#[test]
fn kept_data_keys_move_by_themselves_also_after_a_kill() {
    let dir = tempdir().unwrap();
    let data = dir.path().join("data");
    let daemon = Daemon::start(&data);
    create(&daemon);
    let context = ["--context", "app=shop"];
    let generate = ["data-key", "generate", "--keep", "--key", KEY];
    let made = ok(daemon
        .cli()
        .args(generate)
        .args(context)
        .args(["--output", "json"]));
    let made = json(&made.stdout);
    assert!(made.get("wrapped").is_none(), "{made}");
    let (id, plaintext) = (made["id"].as_str().unwrap(), &made["plaintext"]);
    let open = |daemon: &Daemon| {
        let mut cli = daemon.cli();
        let _ = cli.args(["data-key", "open", "--id", id, "--output", "json"]);
        let _ = cli.args(context);
        cli
    };
    assert_eq!(
        &json(&ok(&mut open(&daemon)).stdout)["plaintext"],
        plaintext
    );
    let _ = fails(open(&daemon).args(["--context", "more=x"]), 6);
    keep(&daemon.settings(), 1_500);

    let _ = ok(daemon.cli().args(["key", "rotate", KEY]));
    let due = json(&ok(&mut open(&daemon)).stdout);
    assert_eq!(due["rewrap_due"], true);
    let look = ["rewrap", "kept", "--key", KEY, "--dry-run"];
    let said = fails(daemon.cli().args(look), 9);
    assert!(said.contains("1501 of 1501"), "{said}");
    // Slow enough to be killed in the midst of it.
    let mut watching = daemon
        .cli()
        .args(["rewrap", "kept", "--key", KEY, "--rate", "300"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let moved = |daemon: &Daemon| -> BTreeMap<String, u64> {
        let out = ok(daemon
            .cli()
            .args(["job", "list", "--key", KEY, "--output", "json"]));
        let jobs = json(&out.stdout);
        let jobs = jobs["jobs"].as_array().or(jobs.as_array()).unwrap().clone();
        let newest = jobs.iter().find(|j| j["dry_run"] == false);
        let counts = newest.map(|j| j["counts"].clone()).unwrap_or_default();
        serde_json::from_value(counts).unwrap_or_default()
    };
    eventually("the job has begun", || {
        moved(&daemon).get("moved").is_some_and(|n| *n > 0)
    });
    daemon.kill();
    let _ = watching.wait().unwrap();

    let daemon = Daemon::start(&data);
    std::thread::sleep(Duration::from_millis(100));
    let _ = ok(daemon.cli().args(["rewrap", "kept", "--key", KEY]));
    let counts = moved(&daemon);
    assert_eq!(counts["seen"], 1_501, "{counts:?}");
    assert_eq!(counts["moved"] + counts["current"], 1_501, "{counts:?}");
    let opened = json(&ok(&mut open(&daemon)).stdout);
    assert_eq!(
        (&opened["plaintext"], &opened["rewrap_due"]),
        (plaintext, &false.into())
    );

    let forget = ["data-key", "forget", "--key", KEY, id];
    let said = String::from_utf8(ok(daemon.cli().args(forget)).stdout).unwrap();
    assert!(said.contains("forgotten: 1 of 1"), "{said}");
    let said = fails(&mut open(&daemon), 5);
    assert!(said.contains("it was forgotten"), "{said}");
    let _ = fails(daemon.cli().args(["data-key", "open", "--id", "xyz"]), 2);
}
