//! Lines on streams: that they are used, what is signed, and what is left when one breaks.

use std::{
    io::{BufRead, BufReader, Write},
    sync::mpsc,
};

use super::*;

/// The RPCs in the audit log so far.
fn rpcs(daemon: &Daemon) -> Vec<String> {
    let mut files: Vec<_> = fs::read_dir(daemon.dir.join("audit"))
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "jsonl"))
        .collect();
    files.sort();
    let text: String = files
        .iter()
        .map(|p| fs::read_to_string(p).unwrap())
        .collect();
    text.lines()
        .map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap())
        .map(|r| r["action"].as_str().unwrap().to_owned())
        .collect()
}

fn run(daemon: &Daemon, args: &[&str], input: &[u8]) -> std::process::Output {
    let output = feed(daemon.cli().args(args), input);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {said}");
    output
}

fn error(stderr: &[u8]) -> serde_json::Value {
    serde_json::from_slice::<serde_json::Value>(stderr).unwrap()["error"].clone()
}

#[test]
fn lines_travel_on_streams() {
    let (_dir, daemon) = start();
    create(&daemon);
    let text = "x\n".repeat(9_000);
    let sealed = run(
        &daemon,
        &["encrypt", "--lines", "--key", KEY],
        text.as_bytes(),
    )
    .stdout;
    let _ = ok(daemon.cli().args(["key", "rotate", KEY]));
    // Who decrypts is told that something is to be done, and then that nothing is.
    let decrypt = ["decrypt", "--lines"];
    let opened = run(&daemon, &decrypt, &sealed);
    let said = String::from_utf8(opened.stderr).unwrap();
    assert!(
        said.contains("9000 lines are under an old version") && said.contains("keywright rewrap"),
        "{said}"
    );
    let moved = run(&daemon, &["rewrap", "--lines"], &sealed).stdout;
    let opened = run(&daemon, &["decrypt", "--lines", "--output", "json"], &moved);
    let summary: serde_json::Value = serde_json::from_slice(&opened.stderr).unwrap();
    assert_eq!(
        (&summary["batches"], &summary["rewrap_due"]),
        (&5.into(), &0.into())
    );
    assert!(opened.stdout == text.as_bytes());
    let rpcs = rpcs(&daemon);
    for stream in ["EncryptStream", "DecryptStream", "RewrapStream"] {
        assert!(rpcs.iter().any(|r| r == stream), "{stream}: {rpcs:?}");
    }
}

#[test]
fn signatures_of_lines_verify() {
    let (dir, daemon) = start();
    let path = |name: &str| dir.path().join(name);
    for spec in ["ec-p256", "ed25519"] {
        let _ = ok(daemon.cli().args(["key", "create", spec, "--spec", spec]));
        let mut text = "one\n\n".to_owned();
        text.extend((0..2_500).map(|n| format!("receipt {n}\n")));
        text.push_str("the last line has no end");
        // Who may sign, and nothing else is needed.
        let sign = ["sign", "--lines", "--key", spec, "--in", "-"];
        let signed = run(&daemon, &sign, text.as_bytes()).stdout;
        let signed = String::from_utf8(signed).unwrap();
        assert!(!signed.ends_with('\n'));
        let lines: Vec<&str> = text.split('\n').collect();
        let signatures: Vec<&str> = signed.split('\n').collect();
        assert_eq!(lines.len(), signatures.len());
        for at in [0, 1, 2_400, lines.len() - 1] {
            let decoded = Command::new("python3")
                .args([
                    "-c",
                    "import base64,sys; sys.stdout.buffer.write(base64.b64decode(sys.argv[1]))",
                ])
                .arg(signatures[at])
                .output()
                .unwrap();
            fs::write(path("sig"), decoded.stdout).unwrap();
            let mut verify = daemon.cli();
            verify
                .args(["verify", "--key", spec, "--sig"])
                .arg(path("sig"));
            let output = feed(&mut verify, lines[at].as_bytes());
            assert!(output.status.success(), "{spec} line {at}");
            let output = feed(
                verify.args(["--output", "json"]),
                format!("{}!", lines[at]).as_bytes(),
            );
            assert_eq!(output.status.code(), Some(6), "{spec} line {at}");
            assert_eq!(error(&output.stderr)["reason"], "NOT_VALID");
        }
    }
    assert!(rpcs(&daemon).iter().any(|r| r == "SignStream"));
    assert!(!rpcs(&daemon).iter().any(|r| r == "GetPublicKey"));
}

/// Longer than an item: the digest travels, whichever the key takes.
#[test]
fn long_files_are_signed_without_the_public_key() {
    let (dir, daemon) = start();
    let path = |name: &str| dir.path().join(name);
    fs::write(path("long"), bytes(3 << 20)).unwrap();
    for spec in ["ec-p256", "ec-p384", "rsa-2048"] {
        let _ = ok(daemon.cli().args(["key", "create", spec, "--spec", spec]));
        for verb in ["sign", "verify"] {
            let mut command = daemon.cli();
            command
                .args([verb, "--key", spec, "--in"])
                .arg(path("long"));
            command.arg(if verb == "sign" { "--out" } else { "--sig" });
            let _ = ok(command.arg(path("sig")));
        }
    }
    assert!(!rpcs(&daemon).iter().any(|r| r == "GetPublicKey"));
    let _ = ok(daemon
        .cli()
        .args(["key", "create", "ed", "--spec", "ed25519"]));
    let text = fails(
        daemon
            .cli()
            .args(["sign", "--key", "ed", "--in"])
            .arg(path("long")),
        6,
    );
    assert!(text.contains("1048576"), "{text}");
}

/// What was written can be gone on with; a file appears whole or not at all.
#[test]
fn a_bad_line_says_how_far_it_went() {
    let (dir, daemon) = start();
    create(&daemon);
    let text = "x\n".repeat(4_500);
    let encrypt = ["encrypt", "--lines", "--key", KEY];
    let mut sealed = run(&daemon, &encrypt, text.as_bytes()).stdout;
    sealed.extend_from_slice(b"hello\n");
    let decrypt = ["decrypt", "--lines", "--output", "json"];
    let output = feed(daemon.cli().args(decrypt), &sealed);
    assert_eq!(output.status.code(), Some(6));
    let e = error(&output.stderr);
    assert_eq!(e["complete_lines"], 4_000);
    assert_eq!(output.stdout.len(), 8_000);
    let said = e["message"].as_str().unwrap();
    assert!(
        said.contains("line 4501: not a kw1. token") && said.contains("tail -n +4001"),
        "{said}"
    );
    let out = dir.path().join("out");
    let output = feed(daemon.cli().args(decrypt).arg("--out").arg(&out), &sealed);
    let e = error(&output.stderr);
    assert_eq!(e["complete_lines"], serde_json::Value::Null);
    assert!(!out.exists());
    // The reason of the server stays, whatever we say around it.
    let wrong = [&decrypt[..], &["--context", "a=b"]].concat();
    let output = feed(daemon.cli().args(wrong), &sealed);
    let e = error(&output.stderr);
    assert_eq!(e["reason"], "DECRYPTION_FAILED");
    let said = e["message"].as_str().unwrap();
    assert!(said.starts_with("lines 1 to 2000: "), "{said}");
}

/// The daemon is killed between two batches.
#[test]
fn a_stream_that_breaks_says_up_to_which_line() {
    let (_dir, daemon) = start();
    create(&daemon);
    let mut cli = daemon
        .cli()
        .args(["encrypt", "--lines", "--key", KEY])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = cli.stdin.take().unwrap();
    let (lines, seen) = mpsc::channel();
    let stdout = BufReader::new(cli.stdout.take().unwrap());
    let reader = std::thread::spawn(move || {
        for line in stdout.lines() {
            lines.send(line.unwrap()).unwrap();
        }
    });
    // Batches until the first lines come out; the others wait for more input.
    let batch = format!("{}\n", "y".repeat(200)).repeat(2_000);
    let mut count = 0;
    while count == 0 {
        stdin.write_all(batch.as_bytes()).unwrap();
        count += seen.try_iter().count();
    }
    daemon.kill();
    // It may have ended by itself already.
    let _ = stdin.write_all(batch.as_bytes());
    drop(stdin);
    let mut said = String::new();
    cli.stderr
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();
    assert_eq!(cli.wait().unwrap().code(), Some(3), "{said}");
    reader.join().unwrap();
    count += seen.try_iter().count();
    assert!(
        said.contains(&format!("complete up to line {count};")),
        "{count} lines: {said}"
    );
}
