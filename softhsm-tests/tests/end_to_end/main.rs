//! The real daemon on a real SoftHSM2 token, the real command line, real files.
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

mod cli;
mod data;
mod kept;
mod lifecycle;
mod lines;
mod local;
mod openssl;
mod operation;
mod quorum;
mod start;
mod store;
mod tokens;
mod watched;

use std::{
    fs::{self, OpenOptions},
    io::Read,
    path::Path,
    process::{Child, Command, Stdio},
};

use keywright_softhsm_tests::daemon::{
    Daemon, binary, destruction_is_due, eventually, fails, feed, ok, recover_store,
};
use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};
use tempfile::tempdir;

const KEY: &str = "payments/cards";

fn start() -> (tempfile::TempDir, Daemon) {
    let dir = tempdir().unwrap();
    let daemon = Daemon::start(&dir.path().join("data"));
    (dir, daemon)
}

fn create(daemon: &Daemon) {
    let _ = ok(daemon
        .cli()
        .args(["key", "create", KEY, "--spec", "aes-256"]));
}

/// Bytes that do not repeat, the same every time.
fn bytes(len: usize) -> Vec<u8> {
    let mut x = 0x9e37_79b9_7f4a_7c15u64;
    (0..len)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            (x >> 32) as u8
        })
        .collect()
}

fn encrypt_file(daemon: &Daemon, from: &Path, to: &Path) {
    let _ = ok(daemon
        .cli()
        .args(["encrypt", "--key", KEY, "--context", "app=shop", "--in"])
        .arg(from)
        .arg("--out")
        .arg(to));
}

fn decrypt(daemon: &Daemon, from: &Path, to: &Path) -> Command {
    let mut command = daemon.cli();
    command
        .args(["decrypt", "--context", "app=shop", "--in"])
        .arg(from)
        .arg("--out")
        .arg(to);
    command
}
