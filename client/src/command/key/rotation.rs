//! `keywright key rotation-status`: when keys are rotated next, and why.

use keywright_client::{
    Failure,
    proto::{self, KeySpec, KeyState},
};
use serde_json::{Value, json};

use super::show::{table, time, time_json};
use crate::{
    args::Output,
    output::{self, print},
};

/// Wraps after which every key is rotated, if its rules name no other number.
const WRAPS: u64 = 1 << 30;

/// Where the primary version of a key stands.
struct Status<'a> {
    key: &'a proto::Key,
    primary: proto::KeyVersion,
    rules: proto::KeyRules,
}

impl<'a> Status<'a> {
    fn of(key: &'a proto::Key) -> Self {
        let primary = key
            .versions
            .iter()
            .find(|v| v.number == key.primary_version);
        Self {
            key,
            primary: primary.cloned().unwrap_or_default(),
            rules: key.rules.unwrap_or_default(),
        }
    }

    fn wraps(&self) -> Option<(u64, u64)> {
        let at = match self.rules.rotate_after_wraps {
            0 => WRAPS,
            at => at,
        };
        (self.key.spec() == KeySpec::Aes256).then_some((self.primary.wraps_reserved, at))
    }

    fn bytes(&self) -> Option<(u64, u64)> {
        let at = self.rules.rotate_after_bytes;
        (at != 0).then_some((self.primary.sealed_bytes, at))
    }

    /// What comes next, in words.
    fn next(&self) -> String {
        let by_hand = self.rules.rotate_by_hand;
        match (self.primary.rotation_due, self.key.rotation_unix_ms) {
            _ if self.primary.state() != KeyState::Active => {
                "the primary version is not active".into()
            }
            (true, _) if by_hand => "due: keywright key rotate".into(),
            (true, _) => "due: within a minute".into(),
            (false, 0) => "by use".into(),
            (false, at) if by_hand => format!("{} by hand", time(at)),
            (false, at) => time(at),
        }
    }

    fn json(&self) -> Value {
        let of = |done: Option<(u64, u64)>| {
            done.map(|(so_far, at)| json!({ "so_far": so_far, "rotate_at": at }))
        };
        json!({
            "name": self.key.name,
            "primary_version": self.key.primary_version,
            "since": time_json(self.primary.created_unix_ms),
            "due": self.primary.rotation_due,
            "automatic": !self.rules.rotate_by_hand,
            "next_rotation": time_json(self.key.rotation_unix_ms),
            "wraps": of(self.wraps()),
            "bytes": of(self.bytes()),
            "old_versions": self.old(),
        })
    }

    /// Versions before the primary one that still have material.
    fn old(&self) -> usize {
        let old = |v: &&proto::KeyVersion| {
            v.number < self.key.primary_version && v.state() != KeyState::Destroyed
        };
        self.key.versions.iter().filter(old).count()
    }
}

pub(super) fn status(keys: &[proto::Key], output: Output) -> Result<(), Failure> {
    let all: Vec<Status<'_>> = keys.iter().map(Status::of).collect();
    if output == Output::Json {
        return output::json(&Value::Array(all.iter().map(Status::json).collect()));
    }
    let mut table = table(&[
        "name",
        "primary",
        "since",
        "next rotation",
        "wraps (at most)",
        "bytes",
        "old versions",
    ]);
    let share = |done: Option<(u64, u64)>| {
        done.map_or_else(String::new, |(so_far, at)| format!("{so_far} of {at}"))
    };
    for one in &all {
        table.add_row([
            one.key.name.clone(),
            one.key.primary_version.to_string(),
            time(one.primary.created_unix_ms),
            one.next(),
            share(one.wraps()),
            share(one.bytes()),
            one.old().to_string(),
        ]);
    }
    print(&format!("{table}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(due: bool, by_hand: bool, rotation_unix_ms: i64) -> proto::Key {
        proto::Key {
            primary_version: 2,
            versions: vec![proto::KeyVersion {
                number: 2,
                state: KeyState::Active.into(),
                rotation_due: due,
                ..Default::default()
            }],
            rules: Some(proto::KeyRules {
                rotate_by_hand: by_hand,
                ..Default::default()
            }),
            rotation_unix_ms,
            ..Default::default()
        }
    }

    #[test]
    fn it_says_what_comes_and_who_must_act() {
        let next = |due, by_hand, at| Status::of(&key(due, by_hand, at)).next();
        assert_eq!(next(true, false, 5), "due: within a minute");
        assert_eq!(next(true, true, 5), "due: keywright key rotate");
        assert_eq!(next(false, false, 0), "by use");
        assert!(next(false, false, 1).starts_with("1970-"));
        assert!(next(false, true, 1).ends_with("by hand"));
        let mut stopped = key(true, false, 0);
        stopped.versions[0].state = KeyState::Suspended.into();
        assert!(Status::of(&stopped).next().contains("not active"));
    }
}
