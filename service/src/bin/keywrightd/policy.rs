//! `policy check` and `policy test`, for people and for tools.

use std::path::Path;

use keywright_service::{
    app::StartError,
    policy::{Engine, Outcome, PolicyError, run_tests},
};
use serde_json::json;

use crate::args::{Format, PolicyCmd};

pub(crate) fn policy(command: &PolicyCmd) -> Result<(), StartError> {
    let (PolicyCmd::Check { output, .. } | PolicyCmd::Test { output, .. }) = command;
    let result = match command {
        PolicyCmd::Check { dir, .. } => policy_check(dir, *output),
        PolicyCmd::Test { dir, .. } => policy_test(dir, *output),
    };
    let wrong = match result {
        Ok(done) => return done,
        Err(wrong) => wrong,
    };
    match output {
        Format::Text => Err(StartError::Setup(wrong.to_string())),
        Format::Json => {
            let findings = wrong.findings();
            anstream::println!("{}", json!({ "ok": false, "findings": findings }));
            let text = "the policies or their tests are not valid; standard output says why";
            Err(StartError::Setup(text.into()))
        }
    }
}

/// The outer error is about the policies, the inner one about what came of them.
type Judged = Result<Result<(), StartError>, PolicyError>;

fn policy_check(dir: &Path, output: Format) -> Judged {
    let set = hex::encode(Engine::read(dir)?.digest());
    match output {
        Format::Text => anstream::println!("the policies are valid; set {set}"),
        Format::Json => {
            anstream::println!("{}", json!({ "ok": true, "findings": [], "set": set }));
        }
    }
    Ok(Ok(()))
}

fn policy_test(dir: &Path, output: Format) -> Judged {
    let outcomes = run_tests(dir)?;
    let failed = outcomes.iter().filter(|o| o.failure.is_some()).count();
    let ok = failed == 0 && !outcomes.is_empty();
    match output {
        Format::Text => {
            for Outcome {
                file,
                name,
                failure,
            } in &outcomes
            {
                match failure {
                    None => anstream::println!("ok      {name}"),
                    Some(why) => anstream::println!("FAILED  {name}: {why} ({file})"),
                }
            }
            anstream::println!("{} tests, {failed} failed", outcomes.len());
        }
        Format::Json => {
            let tests = outcomes.len();
            let said = json!({ "ok": ok, "tests": tests, "failed": failed, "results": outcomes });
            anstream::println!("{said}");
        }
    }
    let folder = dir.join("tests");
    Ok(match (outcomes.len(), failed) {
        (0, _) => Err(StartError::Setup(format!("{}: no tests", folder.display()))),
        (_, 0) => Ok(()),
        _ => Err(StartError::Other("a policy test failed".into())),
    })
}
