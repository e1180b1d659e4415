//! `keywright policy`: asks the keywrightd beside it, or on the PATH. Policies are judged
//! by the code that will enforce them, and by nothing else; this program knows no policy
//! language.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use keywright_client::{Failure, FailureKind};

use crate::args::Policy;

const DAEMON: &str = "keywrightd";

pub(crate) fn run(command: &Policy) -> Result<(), Failure> {
    let (verb, dir) = match command {
        Policy::Check { dir } => ("check", dir),
        Policy::Test { dir } => ("test", dir),
    };
    let daemon = daemon();
    let status = Command::new(&daemon)
        .args(["policy", verb])
        .arg(dir)
        .status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => Err(Failure::new(
            FailureKind::Data,
            format!("the policies in {} are not in order", dir.display()),
        )),
        Err(e) => Err(Failure::new(
            FailureKind::Usage,
            format!(
                "{}: {e}; policies are checked by the daemon that will enforce them: install {DAEMON} beside keywright, or where PATH finds it",
                daemon.display()
            ),
        )),
    }
}

/// The one beside us, which is of our release; else the one on the PATH.
fn daemon() -> PathBuf {
    std::env::current_exe()
        .ok()
        .and_then(|this| this.parent().map(|dir| dir.join(DAEMON)))
        .filter(|beside| beside.is_file())
        .unwrap_or_else(|| Path::new(DAEMON).to_owned())
}
