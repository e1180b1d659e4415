//! `keywright policy`: asks the keywrightd beside it, or on the PATH. Policies are judged
//! by the code that will enforce them, and by nothing else; this program knows no policy
//! language.

use std::process::{Command, Stdio};

use keywright_client::{Failure, FailureKind};

use super::daemon::{DAEMON, daemon};
use crate::args::{Output, Policy};

pub(crate) fn run(command: &Policy, output: Output) -> Result<(), Failure> {
    let (verb, dir) = match command {
        Policy::Check { dir } => ("check", dir),
        Policy::Test { dir } => ("test", dir),
    };
    let daemon = daemon();
    let mut asked = Command::new(&daemon);
    let form = match output {
        Output::Table => "text",
        Output::Json => "json",
    };
    asked
        .args(["policy", verb])
        .arg(dir)
        .args(["--output", form]);
    let no_daemon = |e| {
        Failure::new(
            FailureKind::Usage,
            format!(
                "{}: {e}; policies are checked by the daemon that will enforce them: install {DAEMON} beside keywright, or where PATH finds it",
                daemon.display()
            ),
        )
    };
    // Only its errors are caught: on standard error stands one failure, in our form.
    let said = asked.stdout(Stdio::inherit()).output().map_err(no_daemon)?;
    if said.status.success() {
        return Ok(());
    }
    let failure = Failure::new(
        FailureKind::Data,
        format!("the policies in {} are not in order", dir.display()),
    );
    Err(match String::from_utf8_lossy(&said.stderr).trim() {
        "" => failure,
        why => failure.hint(format_args!(": {why}")),
    })
}
