//! A fresh SoftHSM2 token for every test case, and a process for each, because a
//! PKCS#11 module exists once in a process.
//!
//! A missing module fails loudly with what to install; nothing is skipped.
#![forbid(unsafe_code)]
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

pub mod daemon;
pub mod kills;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use keywright_hsm::{
    Pin, PinSource,
    pkcs11::{NewToken, TokenConfig, provision},
};

/// A test case: its name and what it does.
pub type Case = (&'static str, fn());

/// Runs every case whose name contains the first argument, each in a process of its
/// own with an empty SoftHSM2 token directory.
#[must_use]
pub fn run(cases: &[Case]) -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    if let [flag, name] = args.as_slice()
        && flag == "--case"
    {
        let (_, case) = cases.iter().find(|(n, _)| n == name).expect("a known case");
        case();
        return ExitCode::SUCCESS;
    }
    let filter = args
        .iter()
        .find(|a| !a.starts_with('-'))
        .cloned()
        .unwrap_or_default();
    let mut failed = Vec::new();
    for (name, _) in cases.iter().filter(|(n, _)| n.contains(&filter)) {
        let dir = tempfile::tempdir().unwrap();
        let output = Command::new(env::current_exe().unwrap())
            .args(["--case", name])
            .env("SOFTHSM2_CONF", softhsm_conf(dir.path()))
            .env(DIR, dir.path())
            .output()
            .unwrap();
        if output.status.success() {
            // What was measured or skipped is shown on success too.
            print!("{}", String::from_utf8_lossy(&output.stdout));
            println!("test {name} ... ok");
        } else {
            println!("test {name} ... FAILED ({})", output.status);
            println!("{}", String::from_utf8_lossy(&output.stdout));
            println!("{}", String::from_utf8_lossy(&output.stderr));
            failed.push(*name);
        }
    }
    if failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        println!("failed: {}", failed.join(", "));
        ExitCode::FAILURE
    }
}

const DIR: &str = "KEYWRIGHT_TEST_DIR";
/// Where Debian and others put SoftHSM2.
const PLACES: [&str; 4] = [
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
];

/// The directory of this case.
#[must_use]
pub fn dir() -> PathBuf {
    PathBuf::from(env::var_os(DIR).expect("run through softhsm_tests::run"))
}

/// Path of libsofthsm2.so; `KEYWRIGHT_SOFTHSM2` wins.
///
/// # Panics
/// When SoftHSM2 is not installed.
#[must_use]
pub fn softhsm() -> PathBuf {
    env::var_os("KEYWRIGHT_SOFTHSM2")
        .map(PathBuf::from)
        .or_else(|| PLACES.iter().map(PathBuf::from).find(|p| p.exists()))
        .unwrap_or_else(|| panic!("SoftHSM2 is missing; run: apt-get install softhsm2"))
}

/// Writes a SoftHSM2 configuration whose tokens live under `dir`.
pub fn softhsm_conf(dir: &Path) -> PathBuf {
    let tokens = dir.join("tokens");
    fs::create_dir_all(&tokens).unwrap();
    let conf = dir.join("softhsm2.conf");
    fs::write(
        &conf,
        format!(
            "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
            tokens.display()
        ),
    )
    .unwrap();
    conf
}

/// A new token `t1` with PIN 123456, ready to be opened.
pub fn token() -> TokenConfig {
    let new = NewToken {
        label: "t1".into(),
        so_pin: Pin::new("87654321".into()),
        user_pin: Pin::new("123456".into()),
    };
    let serial = provision(&softhsm(), &new).unwrap();
    TokenConfig {
        module: softhsm(),
        init_reserved: None,
        label: Some("t1".into()),
        serial: Some(serial),
        pin: PinSource::Given(Pin::new("123456".into()), "the test"),
        pin_latch: Some(dir().join("pin-latch")),
        scout: None,
    }
}
