//! `encrypt --local`: the same file format and the same tokens, and it ends with the right
//! to it.

use std::{
    io::Write,
    time::{Duration, Instant},
};

use super::*;

fn lending(daemon: &Daemon) {
    create(daemon);
    let _ = ok(daemon
        .cli()
        .args(["key", "update", KEY, "--lease-seconds", "60"]));
}

/// How often a data key was lent.
fn leases(daemon: &Daemon) -> usize {
    let out = ok(daemon.cli().args(["key", "show", KEY, "--output", "json"]));
    let key: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(key["rules"]["lease_seconds"], 60);
    let audit = daemon.dir.join("audit");
    let logs = fs::read_dir(audit).unwrap().map(|e| e.unwrap().path());
    let text: String = logs
        .filter(|p| p.extension().is_some_and(|e| e == "jsonl"))
        .map(|p| fs::read_to_string(p).unwrap())
        .collect();
    text.lines()
        .filter(|l| l.contains("\"action\":\"LeaseDataKey\"") && l.contains("\"OK\""))
        .count()
}

#[test]
fn a_file_and_lines_are_encrypted_on_this_machine() {
    let (dir, daemon) = start();
    lending(&daemon);
    let plain = dir.path().join("plain");
    let [sealed, moved, opened] = ["sealed", "moved", "opened"].map(|n| dir.path().join(n));
    fs::write(&plain, bytes(9 << 20)).unwrap();
    let file = |command: &str, from: &Path, to: &Path| {
        let mut cli = daemon.cli();
        let _ = cli.arg(command).arg("--in").arg(from).arg("--out").arg(to);
        cli
    };
    let context = ["--context", "file=plain"];
    let out = ok(file("encrypt", &plain, &sealed)
        .args(["--local", "--key", KEY])
        .args(context));
    let said = String::from_utf8(out.stderr).unwrap();
    assert!(said.contains("on this machine"), "{said}");
    assert_eq!(leases(&daemon), 1, "three segments, one data key");
    let _ = ok(daemon.cli().args(["key", "rotate", KEY]));
    let _ = ok(&mut file("rewrap", &sealed, &moved));
    for from in [&sealed, &moved] {
        let _ = ok(file("decrypt", from, &opened).args(context));
        assert!(fs::read(&plain).unwrap() == fs::read(&opened).unwrap());
    }
    let _ = fails(&mut file("decrypt", &moved, &opened), 6);

    let lines = "one\n\ntwo\n".repeat(3_000);
    let local = ["encrypt", "--local", "--lines", "--key", KEY];
    let tokens = feed(daemon.cli().args(local), lines.as_bytes());
    assert!(tokens.status.success());
    assert!(tokens.stdout.starts_with(b"kw1."));
    let back = feed(daemon.cli().args(["decrypt", "--lines"]), &tokens.stdout);
    assert!(back.stdout == lines.as_bytes());
    assert_eq!(leases(&daemon), 2);
}

#[test]
fn a_key_that_lends_nothing_says_what_to_do() {
    let (dir, daemon) = start();
    create(&daemon);
    let plain = dir.path().join("plain");
    let sealed = dir.path().join("sealed");
    fs::write(&plain, "x").unwrap();
    let mut cli = daemon.cli();
    let _ = cli.args(["encrypt", "--local", "--key", KEY]);
    let _ = cli.arg("--in").arg(&plain).arg("--out").arg(&sealed);
    let said = fails(&mut cli, 8);
    assert!(
        said.contains(&format!("keywright key update {KEY} --lease-seconds 60")),
        "{said}"
    );
    assert!(!sealed.exists(), "nothing is left behind");
}

/// Encrypts the lines it is given.
fn encrypting(daemon: &Daemon) -> Child {
    let piped = Stdio::piped;
    let mut cli = daemon.cli();
    let _ = cli.args(["encrypt", "--local", "--lines", "--key", KEY]);
    let _ = cli.stdin(piped()).stdout(piped()).stderr(piped());
    cli.spawn().unwrap()
}

/// A program that encrypts without end, under a data key it has already.
#[test]
fn who_encrypts_here_stops_when_the_key_is_suspended() {
    let (_dir, daemon) = start();
    lending(&daemon);
    let mut child = encrypting(&daemon);
    let mut stdin = child.stdin.take().unwrap();
    let feeder = std::thread::spawn(move || {
        let page = "x\n".repeat(2_000);
        // Until the reader has had enough.
        while stdin.write_all(page.as_bytes()).is_ok() {
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let mut stdout = child.stdout.take().unwrap();
    let mut first = [0; 4];
    stdout.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"kw1.");
    let reader = std::thread::spawn(move || std::io::copy(&mut stdout, &mut std::io::sink()));
    let _ = ok(daemon.cli().args(["key", "suspend", KEY, "--version", "1"]));
    let suspended = Instant::now();
    let out = child.wait_with_output().unwrap();
    // Signs of life come once a second; what counts is that it does not go on for its minute.
    assert!(suspended.elapsed() < Duration::from_secs(30));
    let said = String::from_utf8(out.stderr).unwrap();
    assert_eq!(out.status.code(), Some(8), "{said}");
    assert!(said.contains("suspended"), "{said}");
    feeder.join().unwrap();
    let _ = reader.join().unwrap();
}

/// A lease needs no server to seal, and ends all the same when it is not heard.
#[test]
fn who_encrypts_here_stops_when_the_server_is_silent() {
    let (_dir, daemon) = start();
    lending(&daemon);
    let mut child = encrypting(&daemon);
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    // More than what it holds back before it writes.
    stdin.write_all("x\n".repeat(20_000).as_bytes()).unwrap();
    let mut first = [0; 4];
    stdout.read_exact(&mut first).unwrap();
    // Stands still: the connection is open, and nothing comes.
    daemon.signal(Signal::STOP);
    let reader = std::thread::spawn(move || {
        let mut all = Vec::new();
        stdout.read_to_end(&mut all).map(|_| all)
    });
    std::thread::sleep(Duration::from_secs(5));
    stdin.write_all("y\n".repeat(2_000).as_bytes()).unwrap();
    drop(stdin);
    std::thread::sleep(Duration::from_secs(1));
    assert!(child.try_wait().unwrap().is_none(), "it waits for a lease");
    daemon.signal(Signal::CONT);
    let out = child.wait_with_output().unwrap();
    let said = String::from_utf8(out.stderr).unwrap();
    assert!(out.status.success(), "{said}");
    let lines = reader.join().unwrap().unwrap();
    let lines = lines.iter().filter(|b| **b == b'\n').count();
    assert_eq!(lines, 22_000);
    assert_eq!(leases(&daemon), 2, "the second page wanted another one");
}
