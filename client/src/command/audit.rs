//! `keywright audit …`.

use keywright_client::{Failure, FailureKind, audit};

use crate::{
    args::{Audit, Output},
    output::{json, print},
};

pub(crate) fn run(command: &Audit, output: Output) -> Result<(), Failure> {
    let Audit::Verify { dir, head } = command;
    let report = audit::verify(dir, head.as_deref())?;
    if output == Output::Json {
        let value = serde_json::to_value(&report)
            .map_err(|e| Failure::new(FailureKind::Other, e.to_string()))?;
        return json(&value);
    }
    print(&format!(
        "the audit log holds together: {} records in {} segments, {} to {}\n",
        report.records, report.segments, report.first_time, report.last_time
    ))?;
    print(&format!("head {}\n", report.head))?;
    if report.unfinished_bytes > 0 {
        print(&format!(
            "an unfinished last line of {} bytes was left out: it is being written, or something cut it off. The daemon cuts off what nobody was answered for, and does not start without what somebody was\n",
            report.unfinished_bytes
        ))?;
    }
    Ok(())
}
