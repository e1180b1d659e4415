//! `keywright admin`: what administrators do while the daemon stands still. Stores are moved
//! by the keywrightd beside us, this program opens none; approvals are signed here.

use std::{
    fs::{self, File},
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use keywright_client::{Failure, FailureKind, Settings, recovery};

use super::daemon::{DAEMON, daemon};
use crate::{args::Admin, output::print};

pub(crate) fn run(command: &Admin, settings: &Settings) -> Result<(), Failure> {
    match command {
        Admin::MigrateStore {
            config,
            to_postgres,
            password_file,
        } => migrate_store(config, to_postgres, password_file.as_deref()),
        Admin::ApproveRecovery { plan, out, yes } => approve(plan, out, *yes, settings),
    }
}

/// Shows the plan, and signs it when somebody has said that they have read it.
fn approve(plan: &Path, out: &Path, yes: bool, settings: &Settings) -> Result<(), Failure> {
    let text = fs::read_to_string(plan).map_err(|e| Failure::io(plan.display(), &e))?;
    recovery::check_plan(&text)?;
    print(&text)?;
    if !yes {
        let text = "nothing was signed; when all of this may be accepted, the same command with --yes signs it";
        return Err(Failure::new(FailureKind::Usage, text));
    }
    let approval = recovery::approve(&text, settings)?;
    let written = File::create_new(out).and_then(|mut new| new.write_all(approval.as_bytes()));
    written.map_err(|e| Failure::io(out.display(), &e))?;
    let out = out.display();
    print(&format!(
        "\napproved: {out}; hand it to the operator: keywrightd recover-store --plan PLAN --approval {out} …\n"
    ))
}

fn migrate_store(
    config: &Path,
    to_postgres: &str,
    password_file: Option<&Path>,
) -> Result<(), Failure> {
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
