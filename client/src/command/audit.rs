//! `keywright audit …`.

use keywright_client::{Failure, FailureKind, audit};

use crate::{
    args::{Audit, Output},
    output::json,
};

pub(crate) fn run(command: &Audit, output: Output) -> Result<(), Failure> {
    let Audit::Verify { dir } = command;
    let report = audit::verify(dir)?;
    if output == Output::Json {
        let value = serde_json::to_value(&report)
            .map_err(|e| Failure::new(FailureKind::Other, e.to_string()))?;
        return json(&value);
    }
    anstream::println!(
        "the audit log holds together: {} records in {} segments, {} to {}",
        report.records,
        report.segments,
        report.first_time,
        report.last_time
    );
    anstream::println!("head {}", report.head);
    if report.unfinished_bytes > 0 {
        anstream::println!(
            "an unfinished last line of {} bytes was left out: it is being written, or a crash cut it off; nobody was answered for it",
            report.unfinished_bytes
        );
    }
    Ok(())
}
