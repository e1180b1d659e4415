//! What a supervisor, a scraper and a reader of logs see of the daemon, and what a client
//! does not: that certificates, CAs and policies are exchanged under it.

use std::{collections::BTreeSet, os::unix::net::UnixDatagram, path::PathBuf, time::Duration};

use keywright_client::{Client, Settings, proto};

use super::*;

/// Metric names in a text.
fn names(text: &str) -> BTreeSet<&str> {
    let part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    text.split(|c| !part(c))
        .filter(|word| word.starts_with("keywright_") || word.starts_with("process_"))
        .collect()
}

/// The value of the one series whose name and labels begin like this.
fn value(metrics: &str, series: &str) -> f64 {
    let mut found = metrics.lines().filter(|l| l.starts_with(series));
    let line = found.next().unwrap_or_else(|| panic!("no {series}"));
    assert_eq!(found.next(), None, "{series} is one series");
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

fn client(daemon: &Daemon, certificates: &Path) -> Settings {
    let file = |name: &str| Some(certificates.join(name));
    Settings {
        addr: Some(daemon.addr.to_string()),
        ca: file("ca.pem"),
        cert: file("certs/developer.pem"),
        key: file("certs/developer.key"),
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Runtime::new().unwrap()
}

/// The end of version 1, in ten days.
async fn schedule(settings: &Settings) {
    let keys = Client::connect(settings).await.unwrap().keys();
    let name = KEY.to_owned();
    let rotate = proto::RotateKeyRequest { name: name.clone() };
    let _ = keys.clone().rotate_key(rotate).await.unwrap();
    let deactivate = proto::ChangeStateRequest {
        name: name.clone(),
        version: 1,
        state: proto::KeyState::Deactivated.into(),
        ..Default::default()
    };
    let _ = keys.clone().change_state(deactivate).await.unwrap();
    let destroy = proto::ScheduleDestructionRequest {
        name,
        version: 1,
        days: 10,
        ..Default::default()
    };
    let _ = keys.clone().schedule_destruction(destroy).await.unwrap();
}

#[test]
fn every_metric_is_documented_and_every_documented_one_is_there() {
    let (dir, daemon) = start();
    create(&daemon);
    let sealed = feed(daemon.cli().args(["encrypt", "--key", KEY]), b"ab");
    let opened = feed(daemon.cli().arg("decrypt"), &sealed.stdout);
    assert_eq!(opened.stdout, b"ab");
    let _ = fails(daemon.cli().args(["key", "show", "no/such"]), 5);
    runtime().block_on(schedule(&client(&daemon, &daemon.dir)));
    let (_, before) = daemon.get("/metrics");
    // A token that goes away is the way to its errors.
    fs::rename(daemon.dir.join("tokens"), dir.path().join("away")).unwrap();
    let _ = feed(daemon.cli().args(["encrypt", "--key", KEY]), b"a");
    eventually("down", || {
        let (_, body) = daemon.get("/metrics");
        value(&body, "keywright_hsm_state{state=\"down\"}") == 1.0
    });
    let (status, body) = daemon.get("/metrics");
    assert!(status.contains("200"));

    let exported: BTreeSet<&str> = body
        .lines()
        .filter_map(|l| l.strip_prefix("# TYPE ")?.split(' ').next())
        .collect();
    let text = include_str!("../../../docs/operation.md");
    let section = text.split("## Metrics").nth(1).unwrap();
    let table = section.split("\nRates are").next().unwrap();
    assert_eq!(exported, names(table));

    assert_eq!(value(&body, "keywright_hsm_up"), 0.0);
    assert_eq!(value(&body, "keywright_hsm_state{state=\"ready\"}"), 0.0);
    assert_eq!(value(&before, "keywright_hsm_state{state=\"ready\"}"), 1.0);
    // One wrap under version 1, none under version 2, which is the primary now.
    assert_eq!(
        value(&before, "keywright_wraps_left"),
        (1u64 << 32) as f64 - 65536.0
    );
    assert_eq!(value(&body, "keywright_keys_worn{percent=\"50\"}"), 0.0);
    assert_eq!(value(&body, "keywright_destructions_scheduled"), 1.0);
    let next = value(&body, "keywright_destruction_next_seconds");
    assert!(next > 9.9 * 86400.0 && next <= 10.0 * 86400.0, "{next}");
    assert_eq!(value(&body, "keywright_stream_batches_in_flight"), 0.0);
    for name in [
        "payments",
        "cards",
        "developer",
        "spiffe",
        "\"dev\"",
        "127.",
    ] {
        assert!(!body.contains(name), "{name} is in\n{body}");
    }
    parts_add_up(&before);
}

/// For each RPC that was asked for: five parts, and together no more than the request. What
/// `dev` does before anybody asks has parts, too, and no request.
fn parts_add_up(metrics: &str) {
    let mut asked = 0;
    let series = "keywright_request_part_seconds_count{rpc=\"";
    let rpcs: BTreeSet<&str> = metrics
        .lines()
        .filter_map(|l| l.strip_prefix(series)?.split('"').next())
        .filter(|rpc| metrics.contains(&format!("keywright_request_seconds_sum{{rpc=\"{rpc}\"}}")))
        .collect();
    for rpc in rpcs {
        let read = |what: &str, part: &str| {
            let part =
                format!("keywright_request_part_seconds_{what}{{rpc=\"{rpc}\",part=\"{part}\"}}");
            value(metrics, &part)
        };
        let parts = ["queue", "hsm", "crypto", "audit", "process"];
        let sum: f64 = parts.map(|p| read("sum", p)).iter().sum();
        let whole = value(
            metrics,
            &format!("keywright_request_seconds_sum{{rpc=\"{rpc}\"}}"),
        );
        assert!(sum > 0.0 && sum <= whole + 1e-6, "{rpc}: {sum} of {whole}");
        let counts = parts.map(|p| read("count", p));
        assert!(counts.iter().all(|c| *c == counts[0]), "{rpc}: {counts:?}");
        assert!(read("sum", "audit") > 0.0, "{rpc} waits for its record");
        let seals = ["Encrypt", "Decrypt"].contains(&rpc);
        assert_eq!(read("sum", "crypto") > 0.0, seals, "{rpc} seals or opens");
        if ["Encrypt", "Decrypt", "CreateKey"].contains(&rpc) {
            assert!(read("sum", "hsm") > 0.0, "{rpc} asks the token");
        } else if rpc == "GetKey" {
            assert_eq!(read("sum", "hsm") + read("sum", "queue"), 0.0);
        }
        asked += 1;
    }
    assert!(asked >= 5, "{asked}");
}

#[test]
fn every_line_of_a_request_says_which() {
    let dir = tempdir().unwrap();
    let mut command = Command::new(binary("keywrightd"));
    command.env("KEYWRIGHT_LOG", "debug,h2=off,hyper=off,rustls=off");
    let daemon = Daemon::start_with(&dir.path().join("data"), command);
    create(&daemon);
    fs::rename(daemon.dir.join("tokens"), dir.path().join("away")).unwrap();
    let secret = "CONTEXT-canary";
    let sealed = feed(
        daemon
            .cli()
            .args(["encrypt", "--key", KEY, "--context", &format!("c={secret}")]),
        b"PLAINTEXT-canary\n",
    );
    assert!(!sealed.status.success());
    let log = daemon.log();
    let lines: Vec<serde_json::Value> = log
        .lines()
        .filter_map(|l| serde_json::from_str(l).ok())
        .collect();
    // From the thread of the worker as from the task of the request.
    for message in ["the token was lost under an operation", "request failed"] {
        let found: Vec<_> = lines
            .iter()
            .filter(|l| l["fields"]["message"] == message)
            .collect();
        assert!(!found.is_empty(), "{message} is not in\n{log}");
        for line in found {
            let span = &line["spans"][0];
            assert_eq!(span["name"], "request", "{line}");
            assert_eq!(span["rpc"], "Encrypt", "{line}");
            assert!(span["request_id"].is_string(), "{line}");
        }
    }
    for secret in ["PLAINTEXT-canary", secret] {
        assert!(!log.contains(secret), "{secret} is in\n{log}");
    }
}

/// Certificate, client CA and policies change; a connection that is open stays.
#[test]
fn a_reload_drops_no_connection() {
    let (dir, daemon) = start();
    create(&daemon);
    // What the client has must not change with what the server reads.
    let mine: PathBuf = dir.path().join("mine");
    fs::create_dir_all(mine.join("certs")).unwrap();
    for file in ["ca.pem", "certs/developer.pem", "certs/developer.key"] {
        fs::copy(daemon.dir.join(file), mine.join(file)).unwrap();
    }
    let other = Daemon::start(&dir.path().join("other"));
    let runtime = runtime();
    let show = |client: &Client| {
        let request = proto::GetKeyRequest { name: KEY.into() };
        runtime.block_on(client.keys().get_key(request))
    };
    let connect = |from: &Path| runtime.block_on(Client::connect(&client(&daemon, from)));
    let enters = |from: &Path| connect(from).is_ok_and(|client| show(&client).is_ok());
    let stays = connect(&mine).unwrap();
    let _ = show(&stays).unwrap();
    assert!(!enters(&other.dir));

    for file in ["ca.pem", "certs/server.pem", "certs/server.key"] {
        fs::copy(other.dir.join(file), daemon.dir.join(file)).unwrap();
    }
    daemon.signal(Signal::HUP);
    eventually("the other CA", || enters(&other.dir));
    assert!(!enters(&mine), "the old server certificate is gone");
    // It trusts the new server, and its own certificate is of the old client CA.
    fs::copy(other.dir.join("ca.pem"), mine.join("ca.pem")).unwrap();
    assert!(!enters(&mine), "the old client CA is gone");
    // It could not come in again: so it is the connection it had before.
    let _ = show(&stays).unwrap();

    let roles = daemon.dir.join("policies/roles.toml");
    let good = fs::read_to_string(&roles).unwrap();
    fs::write(&roles, good.replace("/developer", "/somebody-else")).unwrap();
    daemon.signal(Signal::HUP);
    eventually("the new roles", || show(&stays).is_err());
    fs::write(&roles, good).unwrap();
    daemon.signal(Signal::HUP);
    eventually("the old roles", || show(&stays).is_ok());
    let (_, metrics) = daemon.get("/metrics");
    for part in ["certificates", "policies"] {
        let reloads = format!("keywright_reloads_total{{part=\"{part}\",result=\"ok\"}}");
        assert_eq!(value(&metrics, &reloads), 3.0);
    }
}

#[test]
fn the_supervisor_is_told() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let mut heard = Vec::new();
    let mut until = |what: &str| -> Vec<String> {
        loop {
            let mut message = [0; 1024];
            let len = socket.recv(&mut message).unwrap_or_else(|e| {
                panic!("{what} did not come: {e}; heard {heard:?}");
            });
            let text = std::str::from_utf8(&message[..len]).unwrap();
            let lines: Vec<String> = text.lines().map(str::to_owned).collect();
            heard.push(text.to_owned());
            if lines.iter().any(|l| l == what) {
                return lines;
            }
        }
    };
    let mut command = Command::new(binary("keywrightd"));
    command
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "600000");
    let daemon = Daemon::start_with(&dir.path().join("data"), command);
    let _ = until("READY=1");
    let _ = until("STATUS=serving");
    for _ in 0..3 {
        let _ = until("WATCHDOG=1");
    }
    daemon.signal(Signal::HUP);
    let reloading = until("RELOADING=1");
    let time = reloading
        .iter()
        .find_map(|l| l.strip_prefix("MONOTONIC_USEC="))
        .unwrap();
    assert!(time.parse::<u64>().unwrap() > 0);
    let _ = until("READY=1");
    // Down is said, and is not dead.
    fs::rename(daemon.dir.join("tokens"), dir.path().join("away")).unwrap();
    let _ = until("STATUS=not ready: the HSM is down");
    for _ in 0..3 {
        let _ = until("WATCHDOG=1");
    }
    daemon.signal(Signal::TERM);
    let _ = until("STOPPING=1");
    assert!(daemon.stop().success());
    assert!(heard[0].contains("READY=1"), "nothing before: {heard:?}");
}
