//! `keywright policy`: asks the keywrightd beside it, or on the PATH. Policies are judged
//! by the code that will enforce them, and by nothing else; this program knows no policy
//! language.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use keywright_client::{Failure, FailureKind};
use serde_json::{Value, json};

use crate::{
    args::{Output, Policy},
    output,
};

const DAEMON: &str = "keywrightd";

pub(crate) fn run(command: &Policy, output: Output) -> Result<(), Failure> {
    let (verb, dir) = match command {
        Policy::Check { dir } => ("check", dir),
        Policy::Test { dir } => ("test", dir),
    };
    let daemon = daemon();
    let mut asked = Command::new(&daemon);
    asked.args(["policy", verb]).arg(dir);
    let no_daemon = |e| {
        Failure::new(
            FailureKind::Usage,
            format!(
                "{}: {e}; policies are checked by the daemon that will enforce them: install {DAEMON} beside keywright, or where PATH finds it",
                daemon.display()
            ),
        )
    };
    let (good, why) = match output {
        Output::Table => {
            let status = asked.status().map_err(no_daemon)?;
            (status.success(), String::new())
        }
        Output::Json => {
            let said = asked.output().map_err(no_daemon)?;
            let text = String::from_utf8_lossy(&said.stdout);
            match command {
                Policy::Check { .. } => output::json(&checked(said.status.success(), &text))?,
                Policy::Test { .. } => output::json(&tested(said.status.success(), &text))?,
            }
            let why = String::from_utf8_lossy(&said.stderr).trim().to_owned();
            (said.status.success(), why)
        }
    };
    if good {
        return Ok(());
    }
    let failure = Failure::new(
        FailureKind::Data,
        format!("the policies in {} are not in order", dir.display()),
    );
    Err(if why.is_empty() {
        failure
    } else {
        failure.hint(format_args!(": {why}"))
    })
}

/// The digest of the set is the last word the daemon says.
fn checked(valid: bool, said: &str) -> Value {
    let set = said.split_whitespace().next_back().filter(|_| valid);
    json!({ "valid": valid, "set": set })
}

/// A test is a line; those that failed say why behind the name.
fn tested(passed: bool, said: &str) -> Value {
    let tests: Vec<Value> = said
        .lines()
        .filter_map(|line| {
            let (passed, said) = match line.split_once(' ')? {
                ("ok", said) => (true, said),
                ("FAILED", said) => (false, said),
                _ => return None,
            };
            Some(json!({ "passed": passed, "said": said.trim_start() }))
        })
        .collect();
    let failed = tests.iter().filter(|t| t["passed"] == false).count();
    json!({ "passed": passed, "failed": failed, "tests": tests })
}

/// The one beside us, which is of our release; else the one on the PATH.
fn daemon() -> PathBuf {
    std::env::current_exe()
        .ok()
        .and_then(|this| this.parent().map(|dir| dir.join(DAEMON)))
        .filter(|beside| beside.is_file())
        .unwrap_or_else(|| Path::new(DAEMON).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_the_daemon_become_json() {
        assert_eq!(
            checked(true, "the policies are valid; set ab12\n"),
            json!({ "valid": true, "set": "ab12" })
        );
        assert_eq!(checked(false, ""), json!({ "valid": false, "set": null }));
        let said = "ok      users: all\nFAILED  cards: allowed; by x (a.toml)\n2 tests, 1 failed\n";
        let tests = json!([
            { "passed": true, "said": "users: all" },
            { "passed": false, "said": "cards: allowed; by x (a.toml)" },
        ]);
        assert_eq!(
            tested(false, said),
            json!({ "passed": false, "failed": 1, "tests": tests })
        );
    }
}
