//! Change what stands beside the versions of a key: labels, rules, the minimum version.

use std::sync::Arc;

use super::change::change;
use crate::{
    error::{Error, Reason, Result},
    key::{Key, KeyName, KeyUse, Labels, Rules},
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
/// [`Reason::KeyVersionNotFound`], [`Reason::InvalidArgument`] for a rule about wraps of a
/// key that never wraps, [`Reason::Conflict`], permission, store.
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
            fits(rules, key)?;
        }
        if let Some(minimum) = minimum {
            detail.insert("minimum_version", minimum.to_string());
        }
        let next = key.updated(labels.clone(), rules, minimum)?;
        let (asking, entry) = call.asks();
        app.keyring
            .still_allowed::<act::UpdateKey>(&asking, &next, entry)?;
        Ok((next, Vec::new()))
    })
    .await
}

/// A rule that could never come into force would only calm people.
fn fits(rules: &Rules, key: &Key) -> Result<()> {
    let key_use = key.spec.key_use();
    match rules.about_wraps() {
        Some(field) if key_use != KeyUse::Encrypt => Err(Error::field(
            Reason::InvalidArgument,
            field,
            format!(
                "this key is for {} and never wraps; leave {field} at 0, only rotate_after_days \
                 has a meaning here",
                key_use.name()
            ),
        )),
        _ => Ok(()),
    }
}

/// As in a command: `team=pay tier=1`.
fn written(labels: &Labels) -> String {
    let pairs = labels.pairs().iter();
    let pairs: Vec<String> = pairs.map(|(k, v)| format!("{k}={v}")).collect();
    pairs.join(" ")
}
