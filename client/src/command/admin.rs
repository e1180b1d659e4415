//! `keywright admin`: what is done beside the daemon, on its machine. The keywrightd beside
//! us does it; this program opens no store.

use std::process::{Command, Stdio};

use keywright_client::{Failure, FailureKind};

use super::daemon::{DAEMON, daemon};
use crate::args::Admin;

pub(crate) fn run(command: &Admin) -> Result<(), Failure> {
    let Admin::MigrateStore {
        config,
        to_postgres,
        password_file,
    } = command;
    let daemon = daemon();
    let mut asked = Command::new(&daemon);
    asked.arg("migrate-store").arg("--config").arg(config);
    asked.arg("--to-postgres").arg(to_postgres);
    if let Some(file) = password_file {
        asked.arg("--password-file").arg(file);
    }
    let no_daemon = |e| {
        Failure::new(
            FailureKind::Usage,
            format!(
                "{}: {e}; stores are moved by the daemon of this release: install {DAEMON} beside keywright, or where PATH finds it",
                daemon.display()
            ),
        )
    };
    let said = asked.stdout(Stdio::inherit()).output().map_err(no_daemon)?;
    if said.status.success() {
        return Ok(());
    }
    let failure = Failure::new(FailureKind::Data, "the store was not moved");
    Err(match String::from_utf8_lossy(&said.stderr).trim() {
        "" => failure,
        why => failure.hint(format_args!(": {why}")),
    })
}
