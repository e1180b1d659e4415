//! `plan-recovery` and `recover-store`: a store older than the token has seen it.

use std::{
    fs::OpenOptions,
    io::Write,
    path::{Path, PathBuf},
};

use keywright_service::{
    app::StartError,
    config::Config,
    recover::{By, Recovered, plan_recovery, recover_store},
};

use crate::block_on;

pub(crate) fn plan(config: &Path, reason: &str, out: &Path) -> Result<(), StartError> {
    let file = |e: std::io::Error| StartError::Setup(format!("{}: {e}", out.display()));
    let config = Config::read(config)?;
    if out.exists() {
        return Err(file(std::io::ErrorKind::AlreadyExists.into()));
    }
    let text = block_on(plan_recovery(&config, reason))?;
    let mut new = OpenOptions::new().write(true).create_new(true).open(out);
    new.as_mut()
        .map_err(|e| e.kind().into())
        .and_then(|new| new.write_all(text.as_bytes()))
        .map_err(file)?;
    let (out, needed) = (out.display(), config.limits.recovery_approvals);
    anstream::print!("{text}");
    anstream::println!(
        "\nNext, within a day: {needed} key administrators read {out} and approve it, each with their own certificate: keywright admin approve-recovery {out} --out NAME.toml\nThen: keywrightd recover-store --config FILE --plan {out} --approval NAME.toml …"
    );
    Ok(())
}

pub(crate) fn recover(
    config: &Path,
    reason: Option<&str>,
    plan: Option<&Path>,
    approvals: &[PathBuf],
) -> Result<(), StartError> {
    let read = |path: &Path| {
        let text = std::fs::read_to_string(path);
        text.map_err(|e| StartError::Setup(format!("{}: {e}", path.display())))
    };
    let config = Config::read(config)?;
    let plan = plan.map(read).transpose()?;
    let approvals: Vec<(String, String)> = approvals
        .iter()
        .map(|path| Ok((path.display().to_string(), read(path)?)))
        .collect::<Result<_, StartError>>()?;
    let by = match &plan {
        Some(plan) => By::Approvers {
            plan,
            approvals: &approvals,
        },
        None => By::Operator(reason.unwrap_or_default()),
    };
    let recovered = block_on(recover_store(&config, by))?;
    let Recovered {
        epoch,
        token_epoch,
        rows,
        approved_by,
    } = recovered;
    for approver in approved_by {
        anstream::println!("Approved by {approver}.");
    }
    let lost = token_epoch.saturating_sub(epoch);
    anstream::println!(
        "The store is at change {epoch}; the token had seen {token_epoch}: {lost} lost."
    );
    anstream::println!(
        "Rows that were not sealed by this appliance, and are now: {}",
        rows.len()
    );
    for row in &rows {
        anstream::println!("  {row}");
    }
    anstream::println!(
        "Next: start the daemon, and look at the state of each key: keywright key list"
    );
    Ok(())
}
