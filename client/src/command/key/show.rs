//! A key, for people and for machines.

use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};
use keywright_client::{
    Failure, FailureKind,
    proto::{self, KeyRules, KeyState},
};
use serde_json::{Value, json};

use crate::{
    args::{Output, Spec, Use},
    output::{self, print},
};

pub(super) fn show(key: Option<proto::Key>, output: Output) -> Result<(), Failure> {
    let key =
        key.ok_or_else(|| Failure::new(FailureKind::Other, "the server's answer makes no sense"))?;
    if output == Output::Json {
        return output::json(&key_json(&key));
    }
    print(&format!("name     {}\n", key.name))?;
    print(&format!("id       {}\n", hex::encode(&key.id)))?;
    print(&format!("spec     {}\n", Spec::name(key.spec())))?;
    print(&format!("use      {}\n", Use::name(key.r#use())))?;
    print(&format!("primary  {}\n", key.primary_version))?;
    for (label, value) in &key.labels {
        print(&format!("label    {label}={value}\n"))?;
    }
    if key.minimum_version > 1 {
        print(&format!("minimum  {}\n", key.minimum_version))?;
    }
    for (rule, value) in rules(key.rules.unwrap_or_default()) {
        print(&format!("rule     {rule} {value}\n"))?;
    }
    // Only these wrap.
    let wraps = key.spec() == proto::KeySpec::Aes256;
    let mut header = vec![
        "version",
        "state",
        "created",
        "last protected",
        "last processed",
    ];
    if wraps {
        header.push("wraps (at most)");
    }
    header.push("");
    let mut table = table(&header);
    for v in &key.versions {
        let mut row = vec![
            v.number.to_string(),
            state(v.state).to_owned(),
            time(v.created_unix_ms),
            time_or_never(v.last_protect_unix_ms),
            time_or_never(v.last_process_unix_ms),
        ];
        if wraps {
            row.push(v.wraps_reserved.to_string());
        }
        row.push(match v.destroy_unix_ms {
            0 if v.rotation_due && v.number == key.primary_version => "rotate now".into(),
            0 => String::new(),
            at => format!("to be destroyed {}", time(at)),
        });
        table.add_row(row);
    }
    print(&format!("{table}\n"))?;
    Ok(())
}

fn rules(rules: KeyRules) -> impl Iterator<Item = (&'static str, u64)> {
    let KeyRules {
        rotate_after_days,
        rotate_after_wraps,
        wrap_limit,
    } = rules;
    [
        ("rotate after days", rotate_after_days.into()),
        ("rotate after wraps", rotate_after_wraps),
        ("wrap limit", wrap_limit),
    ]
    .into_iter()
    .filter(|(_, value)| *value != 0)
}

pub(super) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(UTF8_FULL_CONDENSED)
        .set_header(header.iter().copied());
    table
}

fn state(state: i32) -> &'static str {
    match KeyState::try_from(state) {
        Ok(KeyState::PreActivation) => "pre-activation",
        Ok(KeyState::Active) => "active",
        Ok(KeyState::Suspended) => "suspended",
        Ok(KeyState::Deactivated) => "deactivated",
        Ok(KeyState::Compromised) => "compromised",
        Ok(KeyState::Destroyed) => "destroyed",
        Ok(KeyState::Unspecified) | Err(_) => "unknown",
    }
}

pub(super) fn time(unix_ms: i64) -> String {
    jiff::Timestamp::from_millisecond(unix_ms)
        .map_or_else(|_| unix_ms.to_string(), |t| format!("{t:.0}"))
}

fn time_or_never(unix_ms: i64) -> String {
    if unix_ms == 0 {
        "never".into()
    } else {
        time(unix_ms)
    }
}

/// For machines: absent is absent.
fn time_json(unix_ms: i64) -> Option<String> {
    (unix_ms != 0).then(|| time(unix_ms))
}

pub(super) fn key_json(key: &proto::Key) -> Value {
    let versions: Vec<Value> = key
        .versions
        .iter()
        .map(|v| {
            json!({
                "number": v.number,
                "state": state(v.state),
                "created": time(v.created_unix_ms),
                "wraps_reserved": v.wraps_reserved,
                "rotation_due": v.rotation_due,
                "last_protected": time_json(v.last_protect_unix_ms),
                "last_processed": time_json(v.last_process_unix_ms),
                "destroy": time_json(v.destroy_unix_ms),
            })
        })
        .collect();
    json!({
        "name": key.name,
        "id": hex::encode(&key.id),
        "spec": Spec::name(key.spec()),
        "use": Use::name(key.r#use()),
        "primary_version": key.primary_version,
        "versions": versions,
        "labels": key.labels,
        "minimum_version": key.minimum_version,
        "rules": key.rules.map(|r| json!({
            "rotate_after_days": (r.rotate_after_days != 0).then_some(r.rotate_after_days),
            "rotate_after_wraps": (r.rotate_after_wraps != 0).then_some(r.rotate_after_wraps),
            "wrap_limit": (r.wrap_limit != 0).then_some(r.wrap_limit),
        })),
        "created": time(key.created_unix_ms),
        "revision": key.revision,
    })
}
