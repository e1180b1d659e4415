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
    pkcs11::{NewToken, Scout, TokenConfig, provision},
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

/// What a vendor's cloning does: another token with the same keys and PINs. Of a module
/// that is not running; gives the serial of the copy.
///
/// # Panics
/// When there is no such token, or no such SoftHSM2: its file backend keeps label and
/// serial as they are shown.
pub fn copy_token(tokens: &Path, from: &str, to: &str) -> String {
    let padded = |label: &str| format!("{label:<32}").into_bytes();
    let folder = token_folder(tokens, from);
    let copy = tokens.join(format!("copy-{to}"));
    fs::create_dir(&copy).unwrap();
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "spare") {
            fs::copy(&path, copy.join(path.file_name().unwrap())).unwrap();
        }
    }
    // The folder is called after the serial, which is 16 hexadecimal digits.
    let name = folder.file_name().unwrap().to_str().unwrap();
    let digits = name.replace('-', "");
    let serial = &digits[digits.len() - 16..];
    // The slot's number is made of the end.
    let mut other = serial.to_owned();
    other.replace_range(8.., &format!("{:08x}", 0x1000_0000 + copy_number(to)));
    let record = copy.join("token.object");
    let bytes = fs::read(&record).unwrap();
    let bytes = replaced(&bytes, &padded(from), &padded(to));
    let bytes = replaced(&bytes, serial.as_bytes(), other.as_bytes());
    fs::write(&record, bytes).unwrap();
    other
}

/// Where SoftHSM2 keeps a token.
///
/// # Panics
/// When there is none with this label.
#[must_use]
pub fn token_folder(tokens: &Path, label: &str) -> PathBuf {
    let shown = format!("{label:<32}").into_bytes();
    let is_it = |folder: &PathBuf| {
        let record = fs::read(folder.join("token.object")).unwrap_or_default();
        record.windows(shown.len()).any(|w| w == shown)
    };
    let folders = fs::read_dir(tokens).unwrap().map(|e| e.unwrap().path());
    let mut found = folders.filter(is_it);
    found.next().unwrap_or_else(|| panic!("no token {label}"))
}

fn copy_number(label: &str) -> u32 {
    label
        .bytes()
        .fold(0, |n, b| n * 31 % 0xff_ffff + u32::from(b))
}

fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut at = bytes.windows(from.len()).enumerate();
    let (at, _) = at.find(|(_, w)| *w == from).expect("what is replaced");
    let mut new = bytes.to_vec();
    new[at..at + to.len()].copy_from_slice(to);
    new
}

/// Looks with SoftHSM2's own tool, which is a process of its own.
#[must_use]
pub fn scout() -> Scout {
    Scout::new(|_, serial| {
        let shown = Command::new("softhsm2-util").arg("--show-slots").output();
        let shown = String::from_utf8(shown.unwrap().stdout).unwrap();
        shown.contains(serial.unwrap())
    })
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
