//! Signatures, public keys, MACs and data keys of a real token, checked by OpenSSL.

use super::*;

fn openssl(args: &[&str], dir: &Path) -> std::process::Output {
    let mut command = Command::new("openssl");
    command.args(args).current_dir(dir);
    ok(&mut command)
}

fn keywright(daemon: &Daemon, dir: &Path, args: &[&str]) -> Vec<u8> {
    ok(daemon.cli().args(args).current_dir(dir)).stdout
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

#[test]
fn openssl_verifies_every_kind_of_signature() {
    let (dir, daemon) = start();
    let dir = dir.path();
    fs::write(dir.join("m"), bytes(100_000)).unwrap();
    fs::write(dir.join("other"), b"other").unwrap();
    let digest = |hash| vec!["dgst", hash, "-verify", "pub.pem", "-signature", "sig", "m"];
    let raw = vec![
        "pkeyutl", "-verify", "-pubin", "-inkey", "pub.pem", "-rawin", "-in", "m", "-sigfile",
        "sig",
    ];
    let mut pss = digest("-sha256");
    pss.splice(
        2..2,
        [
            "-sigopt",
            "rsa_padding_mode:pss",
            "-sigopt",
            "rsa_pss_saltlen:32",
        ],
    );
    let mut pss_max = digest("-sha512");
    pss_max.splice(
        2..2,
        [
            "-sigopt",
            "rsa_padding_mode:pss",
            "-sigopt",
            "rsa_pss_saltlen:max",
        ],
    );
    let rows: [(&str, &[&str], Vec<&str>); 8] = [
        ("ec-p256", &[], digest("-sha256")),
        ("ec-p384", &[], digest("-sha384")),
        ("ed25519", &[], raw),
        ("rsa-2048", &[], pss.clone()),
        ("rsa-3072", &["--hash", "sha512", "--salt", "max"], pss_max),
        (
            "rsa-3072",
            &["--scheme", "pkcs1", "--hash", "sha384"],
            digest("-sha384"),
        ),
        ("rsa-4096", &["--scheme", "pkcs1"], digest("-sha256")),
        ("rsa-4096", &["--scheme", "pss"], pss),
    ];
    for (n, (spec, how, check)) in rows.iter().enumerate() {
        let key = format!("sign/k{n}");
        let _ = keywright(&daemon, dir, &["key", "create", &key, "--spec", spec]);
        fs::write(
            dir.join("pub.pem"),
            keywright(&daemon, dir, &["key", "public", &key]),
        )
        .unwrap();
        let common = [&["--key", &key], *how].concat();
        let args = [&["sign", "--in", "m", "--out", "sig"], common.as_slice()].concat();
        let _ = keywright(&daemon, dir, &args);
        let _ = openssl(check, dir);
        let args = [&["verify", "--in", "m", "--sig", "sig"], common.as_slice()].concat();
        assert!(text(keywright(&daemon, dir, &args)).contains("valid: made with version 1"));
        // Of another file, and with a byte changed: exit code 6.
        let args = [
            &["verify", "--in", "other", "--sig", "sig"],
            common.as_slice(),
        ]
        .concat();
        let said = fails(daemon.cli().args(args).current_dir(dir), 6);
        assert!(said.contains("not valid"), "{said}");
        let der = keywright(&daemon, dir, &["key", "public", &key, "--format", "der"]);
        fs::write(dir.join("pub.der"), der).unwrap();
        let again = openssl(&["pkey", "-pubin", "-inform", "DER", "-in", "pub.der"], dir).stdout;
        assert_eq!(again, fs::read(dir.join("pub.pem")).unwrap(), "{spec}");
    }
    let evidence = text(keywright(&daemon, dir, &["key", "evidence", "sign/k0"]));
    assert!(evidence.contains("CKM_EC_KEY_PAIR_GEN"), "{evidence}");
    let _ = keywright(
        &daemon,
        dir,
        &["audit", "verify", daemon.dir.to_str().unwrap()],
    );
}

#[test]
fn what_openssl_encrypts_to_the_public_key_opens() {
    let (dir, daemon) = start();
    let dir = dir.path();
    let create = [
        "key", "create", "inbox", "--spec", "rsa-2048", "--use", "decrypt",
    ];
    let _ = keywright(&daemon, dir, &create);
    fs::write(
        dir.join("pub.pem"),
        keywright(&daemon, dir, &["key", "public", "inbox"]),
    )
    .unwrap();
    fs::write(dir.join("secret"), b"for you only").unwrap();
    let seal = |hash: &str| {
        let hash = format!("rsa_oaep_md:{hash}");
        let args = [
            "pkeyutl",
            "-encrypt",
            "-pubin",
            "-inkey",
            "pub.pem",
            "-pkeyopt",
            "rsa_padding_mode:oaep",
            "-pkeyopt",
            &hash,
            "-in",
            "secret",
            "-out",
            "sealed",
        ];
        openssl(&args, dir)
    };
    let _ = seal("sha1");
    let open = [
        "asymmetric-decrypt",
        "--key",
        "inbox",
        "--hash",
        "sha1",
        "--in",
        "sealed",
    ];
    assert_eq!(keywright(&daemon, dir, &open), b"for you only");
    // SoftHSM2 knows no other hash; it is named.
    let _ = seal("sha256");
    let open = ["asymmetric-decrypt", "--key", "inbox", "--in", "sealed"];
    let said = fails(daemon.cli().args(open).current_dir(dir), 1);
    assert!(
        said.contains("cannot do CKM_RSA_PKCS_OAEP with SHA-256"),
        "{said}"
    );
    // A signing key of the same size is not for this.
    let _ = keywright(
        &daemon,
        dir,
        &["key", "create", "signs", "--spec", "rsa-2048"],
    );
    let open = [
        "asymmetric-decrypt",
        "--key",
        "signs",
        "--hash",
        "sha1",
        "--in",
        "sealed",
    ];
    let said = fails(daemon.cli().args(open).current_dir(dir), 8);
    assert!(
        said.contains("the key is for sign, not for decrypt"),
        "{said}"
    );
}

#[test]
fn macs_and_data_keys_come_and_go_by_hand() {
    let (dir, daemon) = start();
    let dir = dir.path();
    fs::write(dir.join("m"), b"message").unwrap();
    for spec in ["hmac-sha256", "hmac-sha384", "hmac-sha512"] {
        let _ = keywright(&daemon, dir, &["key", "create", spec, "--spec", spec]);
        let mac = text(keywright(
            &daemon,
            dir,
            &["mac", "--key", spec, "--in", "m"],
        ));
        let check = [
            "verify-mac",
            "--key",
            spec,
            "--in",
            "m",
            "--mac",
            mac.trim(),
        ];
        assert!(text(keywright(&daemon, dir, &check)).contains("valid"));
        let first = if mac.starts_with('0') { "1" } else { "0" };
        let wrong = format!("{first}{}", &mac.trim()[1..]);
        let check = ["verify-mac", "--key", spec, "--in", "m", "--mac", &wrong];
        let _ = fails(daemon.cli().args(check).current_dir(dir), 6);
    }
    create(&daemon);
    let make = [
        "data-key",
        "generate",
        "--key",
        KEY,
        "--context",
        "a=b",
        "--output",
        "json",
    ];
    let made: serde_json::Value = serde_json::from_slice(&keywright(&daemon, dir, &make)).unwrap();
    let _ = keywright(&daemon, dir, &["key", "rotate", KEY]);
    let wrapped = made["wrapped"].as_str().unwrap();
    let open = ["data-key", "open", wrapped, "--context", "a=b"];
    let opened = text(keywright(&daemon, dir, &open));
    assert!(
        opened.contains(made["plaintext"].as_str().unwrap()),
        "{opened}"
    );
    let said = fails(daemon.cli().args(["data-key", "open", wrapped]), 6);
    assert!(said.contains("do not belong together"), "{said}");
}
