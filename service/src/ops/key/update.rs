//! Change what stands beside the versions of a key: labels, rules, the minimum version.

use std::sync::Arc;

use super::change::change;
use crate::{
    error::Result,
    key::{Key, KeyName, Labels, Rules},
    ops::{App, Call},
    policy::act,
};

/// What to change; what is absent stays.
#[derive(Debug)]
pub struct UpdateKey {
    /// Which key.
    pub name: KeyName,
    /// All labels anew.
    pub labels: Option<Labels>,
    /// All rules anew.
    pub rules: Option<Rules>,
    /// Versions below this one process nothing any more.
    pub minimum: Option<u32>,
    /// The revision the caller has seen; none: whatever it is now.
    pub seen: Option<u64>,
}

/// Changes labels, rules or the minimum version. The policies must allow it on the key as
/// it is and as it would be: labels decide who may do what.
///
/// # Errors
/// [`KeyVersionNotFound`](crate::error::Reason::KeyVersionNotFound),
/// [`Conflict`](crate::error::Reason::Conflict), permission, store.
pub async fn update_key(app: &Arc<App>, call: &mut Call, request: UpdateKey) -> Result<Arc<Key>> {
    let UpdateKey {
        name,
        labels,
        rules,
        minimum,
        seen,
    } = request;
    change::<act::UpdateKey>(app, call, &name, seen, |call, key| {
        let detail = &mut call.entry.detail;
        if let Some(labels) = &labels {
            detail.insert("labels", written(labels));
            detail.insert("labels_before", written(&key.labels));
        }
        if let Some(rules) = &rules {
            detail.insert("rules", rules.to_string());
        }
        if let Some(minimum) = minimum {
            detail.insert("minimum_version", minimum.to_string());
        }
        let next = key.updated(labels, rules, minimum)?;
        let (asking, entry) = call.asks();
        app.keyring
            .still_allowed::<act::UpdateKey>(&asking, &next, entry)?;
        Ok((next, Vec::new()))
    })
    .await
}

/// As in a command: `team=pay tier=1`.
fn written(labels: &Labels) -> String {
    let pairs = labels.pairs().iter();
    let pairs: Vec<String> = pairs.map(|(k, v)| format!("{k}={v}")).collect();
    pairs.join(" ")
}
