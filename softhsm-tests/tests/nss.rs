//! A module that lets keys out is refused: NSS softokn wraps keys that are not
//! extractable and copies them with weaker attributes. Without this test the attack
//! suite would never be seen to find anything.
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
    path::PathBuf,
    process::{Command, ExitCode},
};

use keywright_hsm::{
    Kind, Pin, PinSource,
    pkcs11::{self, TokenConfig},
};
use keywright_softhsm_tests::{Case, dir, run};

const CASES: &[Case] = &[("nss_lets_keys_out_and_is_refused", nss_is_refused)];

fn main() -> ExitCode {
    run(CASES)
}

const PIN: &str = "correct horse";

fn nss_is_refused() {
    let module = [
        "/usr/lib/x86_64-linux-gnu/libsoftokn3.so",
        "/usr/lib/aarch64-linux-gnu/libsoftokn3.so",
    ]
    .iter()
    .map(PathBuf::from)
    .find(|p| p.exists())
    .expect("NSS softokn is missing; run: apt-get install libnss3 libnss3-tools");
    let db = dir().join("nss");
    fs::create_dir(&db).unwrap();
    let password = dir().join("password");
    fs::write(&password, PIN).unwrap();
    let made = Command::new("certutil")
        .args(["-N", "-d", &format!("sql:{}", db.display()), "-f"])
        .arg(&password)
        .status()
        .expect("certutil is missing; run: apt-get install libnss3-tools");
    assert!(made.success());
    let e = pkcs11::open(TokenConfig {
        module,
        init_reserved: Some(format!("configDir='sql:{}'", db.display())),
        label: Some("NSS Certificate DB".into()),
        serial: None,
        pin: PinSource::Given(Pin::new(PIN.into()), "the test"),
        pin_latch: None,
        scout: None,
    })
    .err()
    .expect("a module that lets keys out was accepted");
    println!("{e}");
    assert_eq!(e.kind(), Kind::Unsafe, "{e}");
    let text = e.to_string();
    // Wrapping under another key, and copying with weaker attributes.
    for attack in ["N2 ", "N8 "] {
        assert!(text.contains(attack), "{attack} is not among: {text}");
    }
}
