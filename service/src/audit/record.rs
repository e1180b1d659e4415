//! What one record says, and the line it becomes.

use std::collections::BTreeMap;

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::{clock::rfc3339, error::Reason};

/// `prev` of the first record.
pub const GENESIS_HASH: [u8; 32] = [0; 32];

/// Most keys named in one record; a batch that touched more says how many.
const MAX_KEYS: usize = 32;

/// What a request did. Filled in as the request goes on; whatever stage it reaches,
/// there is something to write down.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Entry {
    /// Also sent to the caller, also in the log; empty for events.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub request_id: String,
    /// Remote address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// SPIFFE id of the caller; absent when there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub caller: Option<String>,
    /// SHA-256 of the client certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// Name of the tenant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// The RPC, or the event.
    pub action: String,
    /// Keys and versions touched.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<KeyNote>,
    /// How many more keys than listed.
    #[serde(skip_serializing_if = "is_zero")]
    pub more_keys: usize,
    /// What the policies said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decision: Option<Decision>,
    /// The policies that decided, by id.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<String>,
    /// The state that versions were moved to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<&'static str>,
    /// What a change of a key was, or what was asked about: labels, rules, dates. Nothing
    /// secret is ever among it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub detail: BTreeMap<&'static str, String>,
    /// `OK` or a [`Reason`].
    pub outcome: &'static str,
    /// Items that succeeded.
    #[serde(skip_serializing_if = "is_zero")]
    pub items_ok: usize,
    /// Items that failed.
    #[serde(skip_serializing_if = "is_zero")]
    pub items_failed: usize,
    /// Payload bytes in.
    #[serde(skip_serializing_if = "is_zero")]
    pub bytes: usize,
    /// How many pairs of context came along; never what they say.
    #[serde(skip_serializing_if = "is_zero")]
    pub context_pairs: usize,
    /// Id (salt) of the envelope made or opened; with several, SHA-256 over their ids.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub envelope: Option<String>,
    /// How many envelopes.
    #[serde(skip_serializing_if = "is_zero")]
    pub envelopes: usize,
    /// From arrival to this record.
    pub duration_us: u64,
    /// For records that are not requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event: Option<Event>,
}

/// A key in a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeyNote {
    /// Name at that time.
    pub name: String,
    /// Permanent id.
    pub id: String,
    /// Version used; absent where it did not come to that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
}

/// What the policies said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    /// Allowed.
    Allow,
    /// Denied, or not allowed by any policy.
    Deny,
}

/// What happened to the appliance itself.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// First record ever.
    Genesis {
        /// Release that wrote it.
        release: &'static str,
        /// Token the appliance belongs to.
        token_serial: String,
        /// Tenants at that time, by name.
        tenants: Vec<String>,
        /// Who may administer keys.
        admins: Vec<String>,
    },
    /// First record of another node of the same appliance.
    Joined {
        /// Release that wrote it.
        release: &'static str,
        /// Token the appliance belongs to, as this node sees it.
        token_serial: String,
        /// The log that begins here.
        log: String,
    },
    /// The daemon came up.
    Started {
        /// Release.
        release: &'static str,
        /// Token in use.
        token_serial: String,
        /// SHA-256 of the policies in force.
        policy_set: String,
        /// Keys in the store.
        keys: usize,
        /// Objects on the token that belong to no key.
        orphans: usize,
        /// Versions whose object the token does not show.
        missing: usize,
        /// Bytes of an unfinished last line, cut off because nobody had an answer for it.
        torn_bytes: u64,
    },
    /// Policies or roles were read again.
    PoliciesReloaded {
        /// SHA-256 of the policies in force.
        policy_set: String,
    },
    /// Requests without identity that were not recorded one by one.
    Suppressed {
        /// How many.
        requests: u64,
    },
    /// Records can be written again.
    AuditResumed,
    /// A scheduled destruction is about to be carried out.
    Destroying,
    /// It is done: the material is gone from the HSM.
    Destroyed,
    /// A key is about to be rotated by one of its rules.
    Rotating {
        /// Which rule: age, wraps, bytes.
        due: &'static str,
    },
    /// It is done.
    Rotated,
    /// An old version of a key is about to be deactivated by a rule.
    Deactivating,
    /// A version that did nothing for a try is about to do again what it did.
    BrownOutEnding,
    /// Some of the data keys that are kept are about to move to the primary version of their
    /// key, or were looked at.
    MovingKept {
        /// For which job.
        job: String,
        /// Which step of it.
        step: u64,
    },
    /// A signer of OCSP answers has a new certificate.
    ResponderIssued,
    /// A store that the daemon refused is about to be taken as it is.
    StoreRecovering {
        /// Why, in the operator's words.
        reason: String,
        /// How far the store is.
        epoch: u64,
        /// How far the token had seen it.
        token_epoch: u64,
        /// SHA-256 of the plan that was approved; absent where the operator decides alone.
        #[serde(skip_serializing_if = "Option::is_none")]
        plan: Option<String>,
        /// SPIFFE ids of the key administrators who approved it.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        approved_by: Vec<String>,
    },
    /// It is done.
    StoreRecovered {
        /// What somebody else had written.
        rows: Vec<String>,
    },
    /// The daemon went down in good order.
    Stopped,
}

impl Entry {
    /// A record that is not a request.
    #[must_use]
    pub fn event(event: Event) -> Self {
        let action = match &event {
            Event::Genesis { .. } => "genesis",
            Event::Joined { .. } => "joined",
            Event::Started { .. } => "started",
            Event::PoliciesReloaded { .. } => "policies_reloaded",
            Event::Suppressed { .. } => "suppressed",
            Event::AuditResumed => "audit_resumed",
            Event::Destroying => "destroying",
            Event::Destroyed => "destroyed",
            Event::Rotating { .. } => "rotating",
            Event::Rotated => "rotated",
            Event::Deactivating => "deactivating",
            Event::BrownOutEnding => "brown_out_ending",
            Event::MovingKept { .. } => "moving_kept",
            Event::ResponderIssued => "responder_issued",
            Event::StoreRecovering { .. } => "store_recovering",
            Event::StoreRecovered { .. } => "store_recovered",
            Event::Stopped => "stopped",
        };
        Self {
            action: action.into(),
            outcome: "OK",
            event: Some(event),
            ..Self::default()
        }
    }

    /// Notes a key; the list is bounded.
    pub fn note(&mut self, key: KeyNote) {
        if self.keys.contains(&key) {
            return;
        }
        if self.keys.len() < MAX_KEYS {
            self.keys.push(key);
        } else {
            self.more_keys += 1;
        }
    }

    /// Notes what the policies said; a deny is not overwritten by a later allow.
    pub fn decide(&mut self, decision: Decision, policies: &[String]) {
        if self.decision != Some(Decision::Deny) {
            self.decision = Some(decision);
        }
        for policy in policies {
            if !self.policies.contains(policy) {
                self.policies.push(policy.clone());
            }
        }
    }

    /// Notes how it ended.
    pub fn finish(&mut self, outcome: Result<(), Reason>) {
        self.outcome = match outcome {
            Ok(()) => "OK",
            Err(reason) => reason.name(),
        };
    }
}

fn is_zero(n: &usize) -> bool {
    *n == 0
}

#[derive(Serialize)]
struct Line<'a> {
    seq: u64,
    time: String,
    #[serde(flatten)]
    entry: &'a Entry,
    prev: String,
}

/// The line of a record, with its newline. `prev` is the hash of the line before.
///
/// # Errors
/// Only if JSON cannot say it, which our types always can.
pub(super) fn line(
    entry: &Entry,
    seq: u64,
    now_ms: i64,
    prev: &[u8; 32],
) -> serde_json::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(&Line {
        seq,
        time: rfc3339(now_ms),
        entry,
        prev: hex::encode(prev),
    })?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// SHA-256 of a line without its newline: what the next line carries as `prev`.
#[must_use]
pub fn line_hash(line: &[u8]) -> [u8; 32] {
    Sha256::digest(line.strip_suffix(b"\n").unwrap_or(line)).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_line_whatever_a_name_holds() {
        let mut entry = Entry {
            action: "Encrypt".into(),
            outcome: "OK",
            ..Entry::default()
        };
        entry.request_id = "a\nb\"\u{2028}".into();
        let line = line(&entry, 7, 0, &[1; 32]).unwrap();
        assert_eq!(line.iter().filter(|b| **b == b'\n').count(), 1);
        let value: serde_json::Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(value["seq"], 7);
        assert_eq!(value["prev"], hex::encode([1; 32]));
        assert_eq!(value["request_id"], "a\nb\"\u{2028}");
    }

    #[test]
    fn the_list_of_keys_is_bounded() {
        let mut entry = Entry::default();
        for i in 0..100 {
            let key = KeyNote {
                name: format!("k{i}"),
                id: String::new(),
                version: None,
            };
            entry.note(key.clone());
            entry.note(key);
        }
        assert_eq!((entry.keys.len(), entry.more_keys), (32, 136));
    }

    #[test]
    fn a_deny_stays_a_deny() {
        let mut entry = Entry::default();
        entry.decide(Decision::Deny, &["a".into()]);
        entry.decide(Decision::Allow, &["a".into(), "b".into()]);
        assert_eq!(entry.decision, Some(Decision::Deny));
        assert_eq!(entry.policies, ["a", "b"]);
    }
}
