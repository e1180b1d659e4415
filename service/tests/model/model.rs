//! The specification once more, small and by itself: pictures of keys, the table of
//! states (SP 800-57 part 1, section 7), who may do what, and what comes of a request.
//! Written from the comments of the .proto files and the policies; it calls no code of
//! the service.

use std::collections::BTreeMap;

use keywright_client::proto::{self, KeyState as S};

/// Labels of a key, or the context of a request.
pub(crate) type Pairs = BTreeMap<String, String>;

/// Reason of a refusal.
pub(crate) type Why = &'static str;

pub(crate) const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// A version: its state, and when it is to be destroyed (0: never).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) state: S,
    pub(crate) destroy: i64,
}

/// All that a change can change, and nothing that moves by itself. Version n is at n - 1:
/// numbers have no gaps, records are never deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Picture {
    pub(crate) id: Vec<u8>,
    pub(crate) revision: u64,
    pub(crate) primary: u32,
    pub(crate) minimum: u32,
    pub(crate) labels: Pairs,
    pub(crate) rules: (u32, u64, u64),
    pub(crate) versions: Vec<Version>,
}

/// What a key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    Encrypt,
    Sign,
    Mac,
}

/// A change that somebody asks for.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    Create {
        labels: Pairs,
    },
    Rotate,
    State {
        version: u32,
        to: S,
        seen: u64,
    },
    Update {
        labels: Option<Pairs>,
        rules: Option<(u32, u64, u64)>,
        minimum: u32,
        seen: u64,
    },
    Schedule {
        version: u32,
        days: u32,
        seen: u64,
    },
    Cancel {
        version: u32,
        seen: u64,
    },
}

/// May a version in the first state go to the second? Rows: from. Columns: to active,
/// suspended, deactivated, compromised, destroyed. Nothing in use is destroyed.
const MOVES: [(S, [u8; 5]); 6] = [
    (S::PreActivation, [1, 0, 0, 1, 1]),
    (S::Active, [0, 1, 1, 1, 0]),
    (S::Suspended, [1, 0, 1, 1, 1]),
    (S::Deactivated, [1, 1, 0, 1, 1]),
    (S::Compromised, [0, 0, 0, 0, 1]),
    (S::Destroyed, [0, 0, 0, 0, 0]),
];

fn may_move(from: S, to: S) -> bool {
    let columns = [
        S::Active,
        S::Suspended,
        S::Deactivated,
        S::Compromised,
        S::Destroyed,
    ];
    let row = MOVES.iter().find(|(s, _)| *s == from).unwrap().1;
    columns
        .iter()
        .position(|s| *s == to)
        .is_some_and(|c| row[c] == 1)
}

impl Picture {
    pub(crate) fn of(key: &proto::Key) -> Self {
        let rules = key.rules.unwrap_or_default();
        for (i, v) in key.versions.iter().enumerate() {
            assert_eq!(v.number as usize, i + 1, "a gap in the versions");
        }
        Self {
            id: key.id.to_vec(),
            revision: key.revision,
            primary: key.primary_version,
            minimum: key.minimum_version,
            labels: key.labels.clone().into_iter().collect(),
            rules: (
                rules.rotate_after_days,
                rules.rotate_after_wraps,
                rules.wrap_limit,
            ),
            versions: key
                .versions
                .iter()
                .map(|v| Version {
                    state: S::try_from(v.state).unwrap(),
                    destroy: v.destroy_unix_ms,
                })
                .collect(),
        }
    }

    pub(crate) fn version(&self, number: u32) -> Option<&Version> {
        self.versions.get((number as usize).checked_sub(1)?)
    }

    /// The version that protects: the primary one, while it is active.
    pub(crate) fn protect(&self, is: Use, wanted: Use) -> Result<u32, Why> {
        if is != wanted {
            return Err("KEY_USE");
        }
        match self.version(self.primary).unwrap().state {
            S::Active => Ok(self.primary),
            _ => Err("KEY_STATE"),
        }
    }

    /// Only what is active, deactivated or about to be active, not scheduled, and not below
    /// the minimum.
    pub(crate) fn process(&self, is: Use, wanted: Use, number: u32) -> Result<u32, Why> {
        if is != wanted {
            return Err("KEY_USE");
        }
        let version = self.version(number).ok_or("KEY_VERSION_NOT_FOUND")?;
        let state = matches!(version.state, S::PreActivation | S::Active | S::Deactivated);
        match state && version.destroy == 0 && number >= self.minimum {
            true => Ok(number),
            false => Err("KEY_STATE"),
        }
    }

    /// May the one who made it be found? `made_by` 0: nobody. `only` 0: any version.
    pub(crate) fn check(&self, is: Use, wanted: Use, only: u32, made_by: u32) -> Result<u32, Why> {
        if is != wanted {
            return Err("KEY_USE");
        }
        let may = |n: u32| self.process(is, wanted, n);
        if only != 0 {
            may(only)?;
            return Ok(if only == made_by { only } else { 0 });
        }
        let count = self.versions.len() as u32;
        if !(1..=count).any(|n| may(n).is_ok()) {
            may(self.primary)?;
        }
        match (wanted, may(made_by)) {
            // A public key says whose it was; a MAC would take the key that may not.
            (Use::Sign, Err(why)) if made_by != 0 => Err(why),
            (_, found) => Ok(found.unwrap_or(0)),
        }
    }

    /// The next picture. `at`: when a destruction scheduled now is due.
    pub(crate) fn changed(&self, change: &Change, at: i64) -> Result<Self, Why> {
        let mut next = self.clone();
        next.revision += 1;
        let only = match change {
            Change::Create { .. } => return Err("KEY_EXISTS"),
            Change::Rotate => {
                // The second phase, and the first one where it is not the picture before.
                if self.versions.last().unwrap().state != S::PreActivation {
                    next = self.half_rotated();
                }
                next.versions.last_mut().unwrap().state = S::Active;
                next.primary = next.versions.len() as u32;
                return Ok(next);
            }
            Change::Update {
                labels,
                rules,
                minimum,
                seen,
            } => {
                self.seen(*seen)?;
                if *minimum != 0 {
                    self.version(*minimum).ok_or("KEY_VERSION_NOT_FOUND")?;
                    next.minimum = *minimum;
                }
                next.labels = labels.clone().unwrap_or(next.labels);
                next.rules = rules.unwrap_or(next.rules);
                return Ok(next);
            }
            Change::State { version, seen, .. }
            | Change::Schedule { version, seen, .. }
            | Change::Cancel { version, seen } => {
                self.seen(*seen)?;
                *version
            }
        };
        if only != 0 {
            self.version(only).ok_or("KEY_VERSION_NOT_FOUND")?;
        }
        let mut changed = 0;
        for (i, v) in next.versions.iter_mut().enumerate() {
            if only != 0 && only as usize != i + 1 {
                continue;
            }
            let free = v.destroy == 0;
            match change {
                // What is scheduled stays as it is; a compromise is a fact.
                Change::State { to, .. }
                    if (free || *to == S::Compromised) && may_move(v.state, *to) =>
                {
                    v.state = *to;
                }
                Change::Schedule { .. } if v.state == S::Active => return Err("KEY_STATE"),
                Change::Schedule { .. } if free && may_move(v.state, S::Destroyed) => {
                    v.destroy = at;
                }
                Change::Cancel { .. } if !free => v.destroy = 0,
                _ => continue,
            }
            changed += 1;
        }
        if changed == 0 {
            return Err("KEY_STATE");
        }
        Ok(next)
    }

    /// The first phase of a rotation: a version that protects nothing yet.
    pub(crate) fn half_rotated(&self) -> Self {
        let mut next = self.clone();
        next.revision += 1;
        next.versions.push(Version {
            state: S::PreActivation,
            destroy: 0,
        });
        next
    }

    /// The appliance destroys a version that is due.
    pub(crate) fn destroyed(&self, index: usize) -> Self {
        let mut next = self.clone();
        next.revision += 1;
        next.versions[index] = Version {
            state: S::Destroyed,
            destroy: 0,
        };
        next
    }

    pub(crate) fn seen(&self, seen: u64) -> Result<(), Why> {
        match seen == 0 || seen == self.revision {
            true => Ok(()),
            false => Err("CONFLICT"),
        }
    }
}

/// The first picture of a key.
pub(crate) fn created(id: Vec<u8>, labels: Pairs) -> Picture {
    Picture {
        id,
        revision: 1,
        primary: 1,
        minimum: 1,
        labels,
        rules: (0, 0, 0),
        versions: vec![Version {
            state: S::Active,
            destroy: 0,
        }],
    }
}

/// Callers by role: U key-user, A key-admin, R rewrapper, T auditor, E everything,
/// N nobody.
pub(crate) type Role = char;

/// Who may do what to a key.
const MATRIX: [(&str, &str); 23] = [
    ("encrypt", "UE"),
    ("decrypt", "UE"),
    ("rewrap", "RE"),
    ("reencrypt_from", "UE"),
    ("reencrypt_to", "UE"),
    ("sign", "UE"),
    ("verify", "UTE"),
    ("mac", "UE"),
    ("verify_mac", "UE"),
    ("asymmetric_decrypt", "UE"),
    ("generate_data_key", "UE"),
    ("decrypt_data_key", "UE"),
    ("create_key", "AE"),
    ("get_key", "UARTE"),
    ("rotate_key", "AE"),
    ("change_state", "AE"),
    ("update_key", "AE"),
    ("schedule_destruction", "AE"),
    ("cancel_destruction", "AE"),
    ("explain", "UARTE"),
    ("explain_other", "ATE"),
    ("get_public_key", "UATE"),
    ("get_key_evidence", "ATE"),
];

/// Roles that may list the keys of their tenant, and have random bytes.
pub(crate) const LIST: &str = "UARTE";
pub(crate) const RANDOM: &str = "UE";

/// In force at all times: a key with a desk is decrypted by its users at that desk only.
const DESK: &str = r#"
forbid (principal in Role::"key-user", action == Action::"decrypt", resource is Key)
when { resource.hasTag("desk") }
unless { context.pairs.hasTag("desk") && context.pairs.getTag("desk") == resource.getTag("desk") };
"#;

/// Policies that come and go; `allows` knows what each says.
const EXTRA: [&str; 4] = [
    "",
    r#"forbid (principal, action in [Action::"encrypt", Action::"sign", Action::"mac", Action::"rotate_key"],
       resource is Key) when { resource.hasTag("frozen") };"#,
    r#"forbid (principal in Role::"key-user", action, resource is Key) when { resource.hasTag("hidden") };"#,
    r#"forbid (principal, action == Action::"update_key", resource is Key) when { resource.hasTag("frozen") };"#,
];

/// How many sets of policies there are.
pub(crate) const POLICIES: usize = EXTRA.len();

/// The text of one.
pub(crate) fn policy_text(policy: usize) -> String {
    format!("{DESK}{}", EXTRA[policy])
}

/// What the policies say about a key with these labels.
pub(crate) fn allows(
    role: Role,
    action: &str,
    labels: &Pairs,
    policy: usize,
    context: &Pairs,
) -> bool {
    let (_, roles) = MATRIX.iter().find(|(a, _)| *a == action).unwrap();
    let frozen = labels.contains_key("frozen");
    let elsewhere = labels
        .get("desk")
        .is_some_and(|desk| context.get("desk") != Some(desk));
    let forbidden = (role == 'U' && action == "decrypt" && elsewhere)
        || match policy {
            1 => frozen && ["encrypt", "sign", "mac", "rotate_key"].contains(&action),
            2 => role == 'U' && labels.contains_key("hidden"),
            3 => frozen && action == "update_key",
            _ => false,
        };
    roles.contains(role) && !forbidden
}

/// Allowed, refused, or not even seen.
pub(crate) fn judge(
    role: Role,
    action: &str,
    key: Option<&Picture>,
    policy: usize,
    context: &Pairs,
) -> Result<(), Why> {
    let labels = &key.ok_or("KEY_NOT_FOUND")?.labels;
    if allows(role, action, labels, policy, context) {
        return Ok(());
    }
    match allows(role, "get_key", labels, policy, context) {
        true => Err("PERMISSION_DENIED"),
        false => Err("KEY_NOT_FOUND"),
    }
}
