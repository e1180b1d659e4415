//! Files and lines through the command line.

use super::*;

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
