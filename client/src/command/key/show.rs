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
            state_of(&key, v),
            time(v.created_unix_ms),
            last_protected(v),
            time_or_never(v.last_process_unix_ms),
        ];
        if wraps {
            row.push(v.wraps_reserved.to_string());
        }
        row.push(match v.destroy_unix_ms {
            0 if v.brown_out_until_unix_ms != 0 => {
                format!("does nothing until {}", time(v.brown_out_until_unix_ms))
            }
            0 if v.last_refused_unix_ms != 0 => {
                format!("last wanted in vain {}", time(v.last_refused_unix_ms))
            }
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
        rotate_after_bytes,
        rotate_by_hand,
        deactivate_after_days,
        wrap_limit,
        lease_seconds,
    } = rules;
    [
        ("rotate after days", rotate_after_days.into()),
        ("rotate after wraps", rotate_after_wraps),
        ("rotate after bytes", rotate_after_bytes),
        ("rotate by hand", rotate_by_hand.into()),
        ("deactivate after days", deactivate_after_days.into()),
        ("wrap limit", wrap_limit),
        ("lease seconds", lease_seconds.into()),
    ]
    .into_iter()
    .filter(|(_, value)| *value != 0)
}

pub(in crate::command) fn table(header: &[&str]) -> Table {
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

/// The state, and whether the minimum version of the key forbids more than it does.
pub(super) fn state_of(key: &proto::Key, version: &proto::KeyVersion) -> String {
    let state = state(version.state);
    if below_minimum(key, version) {
        format!("{state}, below minimum")
    } else {
        state.to_owned()
    }
}

/// It processes nothing. What is destroyed could not anyway.
fn below_minimum(key: &proto::Key, version: &proto::KeyVersion) -> bool {
    version.number < key.minimum_version && version.state() != KeyState::Destroyed
}

/// Wraps are reserved before they are made, the time of the last one is stored about once
/// a minute: a daemon that was killed in between has lost it.
fn last_protected(version: &proto::KeyVersion) -> String {
    match (version.last_protect_unix_ms, version.wraps_reserved) {
        (0, 1..) => "not known; not since the last save".into(),
        (at, _) => time_or_never(at),
    }
}

pub(in crate::command) fn time(unix_ms: i64) -> String {
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
pub(super) fn time_json(unix_ms: i64) -> Option<String> {
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
                "below_minimum": below_minimum(key, v),
                "created": time(v.created_unix_ms),
                "wraps_reserved": v.wraps_reserved,
                "rotation_due": v.rotation_due,
                "last_protected": time_json(v.last_protect_unix_ms),
                "last_processed": time_json(v.last_process_unix_ms),
                "destroy": time_json(v.destroy_unix_ms),
                "brown_out_until": time_json(v.brown_out_until_unix_ms),
                "last_refused": time_json(v.last_refused_unix_ms),
                "sealed_bytes": v.sealed_bytes,
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
            "rotate_after_bytes": (r.rotate_after_bytes != 0).then_some(r.rotate_after_bytes),
            "rotate_by_hand": r.rotate_by_hand,
            "deactivate_after_days": (r.deactivate_after_days != 0).then_some(r.deactivate_after_days),
            "wrap_limit": (r.wrap_limit != 0).then_some(r.wrap_limit),
            "lease_seconds": (r.lease_seconds != 0).then_some(r.lease_seconds),
        })),
        "next_rotation": time_json(key.rotation_unix_ms),
        "created": time(key.created_unix_ms),
        "revision": key.revision,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(number: u32, wraps_reserved: u64, last_protect_unix_ms: i64) -> proto::KeyVersion {
        proto::KeyVersion {
            number,
            state: KeyState::Active.into(),
            wraps_reserved,
            last_protect_unix_ms,
            ..Default::default()
        }
    }

    #[test]
    fn a_version_below_the_minimum_says_so() {
        let key = proto::Key {
            minimum_version: 2,
            ..Default::default()
        };
        assert_eq!(state_of(&key, &version(1, 0, 0)), "active, below minimum");
        assert_eq!(state_of(&key, &version(2, 0, 0)), "active");
    }

    #[test]
    fn never_is_said_of_what_never_wrapped() {
        assert_eq!(last_protected(&version(1, 0, 0)), "never");
        assert!(last_protected(&version(1, 65_536, 0)).starts_with("not known"));
        assert!(last_protected(&version(1, 65_536, 1)).starts_with("1970-"));
    }
}
