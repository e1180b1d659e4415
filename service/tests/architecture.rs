//! The invariants of `ARCHITECTURE.md`, kept by looking at the sources.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::too_many_lines,
    clippy::useless_vec,
    reason = "this is a test"
)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

/// Rust files under a folder of the workspace, with their text up to the unit tests.
fn sources(folder: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let code = text
                    .split("#[cfg(test)]\nmod tests")
                    .next()
                    .unwrap()
                    .to_owned();
                let code = code
                    .split("#[cfg(test)]\npub(crate) mod tests")
                    .next()
                    .unwrap()
                    .to_owned();
                let name = path.strip_prefix(root()).unwrap().display().to_string();
                found.push((name, code));
            }
        }
    }
    assert!(!found.is_empty(), "{folder} has no sources");
    found
}

/// Lines of code, not of comment, that hold a word.
fn hits(sources: &[(String, String)], allowed: &[&str], words: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for (name, code) in sources {
        if allowed.iter().any(|a| name.starts_with(a)) {
            continue;
        }
        for (number, line) in code.lines().enumerate() {
            let line_code = line.split("//").next().unwrap();
            for word in words {
                if line_code.contains(word) {
                    found.push(format!("{name}:{}: {word}", number + 1));
                }
            }
        }
    }
    found
}

#[test]
fn only_the_doors_know_the_wire() {
    let words = [
        "tonic",
        "prost",
        "keywright_proto",
        "axum",
        "hyper",
        "http::",
    ];
    let allowed = ["service/src/api/"];
    assert_eq!(
        hits(&sources("service/src"), &allowed, &words),
        Vec::<String>::new()
    );
}

#[test]
fn only_the_store_knows_a_database() {
    let words = ["sqlx", "SELECT ", "INSERT "];
    let allowed = ["service/src/store/"];
    assert_eq!(
        hits(&sources("service/src"), &allowed, &words),
        Vec::<String>::new()
    );
}

#[test]
fn only_one_folder_knows_pkcs11() {
    let words = ["cryptoki", "CKA_", "CKM_", "CKR_"];
    let allowed = ["hsm/src/pkcs11/"];
    let mut all = sources("hsm/src");
    all.extend(sources("service/src"));
    let found = hits(&all, &allowed, &words);
    // Names of attributes and mechanisms appear as text in evidence, and in the fake.
    let left: Vec<String> = found
        .into_iter()
        .filter(|h| !h.starts_with("hsm/src/evidence.rs") && !h.starts_with("hsm/src/fake.rs"))
        .collect();
    assert_eq!(left, Vec::<String>::new());
    assert!(
        !hits(&all, &[], &["cryptoki"]).is_empty(),
        "the search finds what is there"
    );
}

#[test]
fn nouns_do_no_io_and_know_no_async() {
    let words = [
        "async ",
        "await",
        "tokio",
        "std::fs",
        "std::net",
        "std::env",
        "crate::store",
        "crate::ops",
        "crate::api",
        "crate::audit",
        "crate::keyring",
        "crate::app",
    ];
    let nouns = ["key", "job", "envelope", "signature", "authority", "error"]
        .map(|n| format!("service/src/{n}"));
    let all: Vec<_> = sources("service/src")
        .into_iter()
        .filter(|(name, _)| {
            nouns
                .iter()
                .any(|n| name.starts_with(&format!("{n}.rs")) || name.starts_with(&format!("{n}/")))
        })
        .collect();
    for noun in &nouns {
        assert!(all.iter().any(|(name, _)| name.starts_with(noun)), "{noun}");
    }
    assert_eq!(hits(&all, &[], &words), Vec::<String>::new());
    let pure = sources("pki/src");
    assert_eq!(
        hits(
            &pure,
            // Only for tests: files for the openssl command.
            &["pki/src/openssl.rs"],
            &[
                "async ",
                "tokio",
                "std::fs",
                "TcpStream",
                "UdpSocket",
                "ToSocketAddrs",
                "SystemTime"
            ]
        ),
        Vec::<String>::new()
    );
}

#[test]
fn arrows_only_go_down() {
    let up = ["crate::api", "crate::app", "crate::dev", "crate::init"];
    for folder in [
        "service/src/ops",
        "service/src/store",
        "service/src/audit",
        "service/src/policy",
    ] {
        assert_eq!(hits(&sources(folder), &[], &up), Vec::<String>::new());
    }
    for folder in [
        "service/src/store",
        "service/src/audit",
        "service/src/policy",
    ] {
        let holders = ["crate::ops", "crate::keyring"];
        assert_eq!(hits(&sources(folder), &[], &holders), Vec::<String>::new());
    }
}

#[test]
fn time_randomness_and_environment_come_from_one_place() {
    let allowed = [
        "service/src/clock.rs",
        "service/src/config/hsm.rs",
        "service/src/bin/keywrightd/develop.rs",
        "service/src/bin/keywrightd/logs.rs",
        "hsm/src/key.rs",
    ];
    let mut all = sources("service/src");
    all.extend(sources("hsm/src"));
    let words = [
        "SystemTime::now",
        "env::var",
        "getrandom::",
        "Timestamp::now",
    ];
    assert_eq!(hits(&all, &allowed, &words), Vec::<String>::new());
}

/// A signature is verified before it leaves: by the HSM crate, or with the document it
/// belongs to, in one place.
#[test]
fn one_place_takes_a_signature_that_nobody_has_checked() {
    let words = ["sign_unverified"];
    let allowed = ["service/src/ops/pki/signer.rs"];
    let all = sources("service/src");
    assert_eq!(hits(&all, &allowed, &words), Vec::<String>::new());
    assert_eq!(
        hits(&all, &[], &words).len(),
        1,
        "the search finds what is there"
    );
}

/// A permit is made in one place, and every operation on a key opens one.
#[test]
fn no_operation_without_a_permit() {
    let makes = hits(
        &sources("service/src"),
        &["service/src/policy/"],
        &["Permit {", "Grant {"],
    );
    assert_eq!(makes, Vec::<String>::new());
    for (name, code) in sources("service/src/ops") {
        let operation = code.contains("pub async fn") || code.contains("\npub fn ");
        let helper = [
            "ops/mod.rs",
            "ops/batch.rs",
            "ops/decrypt.rs",
            "key/last_use.rs",
            // Of the nodes among each other.
            "ops/nodes.rs",
            // By the rules of the keys themselves.
            "key/rules.rs",
            // Who began the job had the permit; the appliance works on it.
            "job/kept.rs",
            // Public by nature: lists, certificates and their status.
            "pki/lists.rs",
            "pki/ocsp.rs",
            // About the caller's own certificate, before anything is asked for.
            "pki/standing.rs",
        ]
        .iter()
        .any(|h| name.ends_with(h));
        // ACME is authorised by the account and the operator's key behind it; what signs
        // is `pki::sign_csr_as`, and that opens the profile.
        let acme = name.contains("/ops/acme/") && !code.contains("signer::");
        if operation && !helper && !acme {
            let code: String = code.split_whitespace().collect();
            let opens = [
                "call.open::<",
                "call.open_profile::<",
                "call.grant::<",
                "call.open_profile::<",
                "Keys::<act::",
                "change::<act::",
                "alone_now::<act::",
                "found::<act::",
            ];
            assert!(
                opens.iter().any(|o| code.contains(o)),
                "{name} opens no permit"
            );
        }
    }
}

#[test]
fn every_file_says_what_it_is_for() {
    let mut all = Vec::new();
    for folder in [
        "proto/src",
        "hsm",
        "pki",
        "service",
        "client",
        "benches",
        "softhsm-tests",
        "fuzz",
    ] {
        all.extend(sources(folder));
    }
    let silent: Vec<&String> = all
        .iter()
        .filter(|(name, _)| !name.contains("/target/"))
        .filter(|(_, text)| !text.starts_with("//!"))
        .map(|(name, _)| name)
        .collect();
    assert!(silent.is_empty(), "{silent:?}");
}

#[test]
fn unsafe_code_lives_in_one_file() {
    let mut all = Vec::new();
    for folder in [
        "hsm/src",
        "pki/src",
        "service/src",
        "client/src",
        "proto/src",
    ] {
        all.extend(sources(folder));
    }
    let found = hits(
        &all,
        &["hsm/src/pkcs11/raw.rs"],
        &["unsafe {", "unsafe fn", "unsafe impl"],
    );
    assert_eq!(found, Vec::<String>::new());
    for root_file in [
        "pki/src/lib.rs",
        "service/src/lib.rs",
        "service/src/bin/keywrightd/main.rs",
        "client/src/lib.rs",
        "client/src/main.rs",
        "proto/src/lib.rs",
    ] {
        let text = fs::read_to_string(root().join(root_file)).unwrap();
        assert!(text.contains("#![forbid(unsafe_code)]"), "{root_file}");
    }
}

/// The token in memory and the door for known keys are for tests. Cargo itself is asked
/// what the HSM crate of a build has: of `cargo build`, and of the daemon alone.
#[test]
fn the_daemon_has_no_door_for_tests() {
    let features = |build: &[&str]| {
        let output = Command::new(env!("CARGO"))
            .current_dir(root())
            .args(["tree", "--locked", "--offline", "--prefix", "none"])
            .args(["--edges", "no-dev", "--format", "{p} has:{f}"])
            .args(build)
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let line = text.lines().find(|l| l.starts_with("keywright-hsm "));
        let why = String::from_utf8_lossy(&output.stderr).into_owned();
        let (_, features) = line.expect(&why).split_once("has:").unwrap();
        features.trim_end_matches(" (*)").to_owned()
    };
    assert_eq!(features(&[]), "", "cargo build");
    assert_eq!(features(&["-p", "keywright-service"]), "", "the daemon");
    assert_eq!(
        features(&["-p", "keywright-softhsm-tests"]),
        "fake,vectors",
        "the search finds what is there"
    );
}

/// The words of the glossary that code does not use.
#[test]
fn one_word_per_thing() {
    let words = [
        "master_key",
        "keystore",
        "Keystore",
        "namespace",
        "Namespace",
        "facade",
    ];
    let mut all = sources("service/src");
    all.extend(sources("hsm/src"));
    assert_eq!(hits(&all, &[], &words), Vec::<String>::new());
}
