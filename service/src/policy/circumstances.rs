//! Which circumstances of a request the policies look at: the pairs of its context, and
//! the time. What no policy looks at need not be asked again: the verdict of the last
//! time still holds.

use cedar_policy::{ActionConstraint, PolicySet};
use serde_json::Value;

use super::Action;

/// What the policies about one action look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Looks {
    /// Only at caller, action and key.
    #[default]
    Nowhere,
    /// Also at the pairs of the context.
    AtPairs,
    /// Also at the time, or at the context in a way we do not see through.
    AtTime,
}

/// What the policies look at, action by action in the order of [`Action::ALL`].
#[derive(Debug)]
pub(super) struct Circumstances([Looks; Action::ALL.len()]);

impl Circumstances {
    pub(super) fn of(policies: &PolicySet) -> Self {
        let mut all = [Looks::default(); Action::ALL.len()];
        for policy in policies.policies() {
            // What cannot be read back is taken to look at everything.
            let looks = policy.to_json().map_or(Looks::AtTime, |json| looks(&json));
            for (place, action) in all.iter_mut().zip(Action::ALL) {
                if looks != Looks::Nowhere && names(&policy.action_constraint(), action) {
                    *place = match (*place, looks) {
                        (Looks::AtTime, _) | (_, Looks::AtTime) => Looks::AtTime,
                        _ => Looks::AtPairs,
                    };
                }
            }
        }
        Self(all)
    }

    pub(super) fn looks(&self, action: Action) -> Looks {
        let place = Action::ALL.iter().position(|a| *a == action);
        place
            .and_then(|i| self.0.get(i))
            .copied()
            .unwrap_or(Looks::AtTime)
    }
}

fn names(constraint: &ActionConstraint, action: Action) -> bool {
    let is = |uid: &cedar_policy::EntityUid| uid.id().unescaped() == action.name();
    match constraint {
        ActionConstraint::Any => true,
        ActionConstraint::Eq(uid) => is(uid),
        ActionConstraint::In(uids) => uids.iter().any(is),
    }
}

fn looks(policy: &Value) -> Looks {
    let (mut context, mut pairs) = (0, 0);
    count(policy, &mut context, &mut pairs);
    match context {
        0 => Looks::Nowhere,
        n if n == pairs => Looks::AtPairs,
        _ => Looks::AtTime,
    }
}

/// Counts the places that name the context, and those of them that read `pairs` from it.
fn count(value: &Value, context: &mut usize, pairs: &mut usize) {
    let is_context = |v: &Value| v.get("Var").is_some_and(|var| var == "context");
    if is_context(value) {
        *context += 1;
    }
    if value.get("attr").is_some_and(|attr| attr == "pairs")
        && value.get("left").is_some_and(is_context)
    {
        *pairs += 1;
    }
    match value {
        Value::Array(items) => items.iter().for_each(|v| count(v, context, pairs)),
        Value::Object(fields) => fields.values().for_each(|v| count(v, context, pairs)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use super::*;

    #[test]
    fn policies_are_looked_through() {
        let of = |policy: &str, action| {
            Circumstances::of(&PolicySet::from_str(policy).unwrap()).looks(action)
        };
        let tenant = "permit (principal, action == Action::\"encrypt\", resource) when { context.pairs.hasTag(\"t\") && context.pairs.getTag(\"t\") == \"x\" };";
        assert_eq!(of(tenant, Action::Encrypt), Looks::AtPairs);
        assert_eq!(of(tenant, Action::Decrypt), Looks::Nowhere);
        for time in [
            "permit (principal, action, resource) when { context.now > datetime(\"2026-01-01\") };",
            "forbid (principal, action in [Action::\"decrypt\"], resource) unless { context == {pairs: context.pairs, now: context.now} };",
        ] {
            assert_eq!(of(time, Action::Decrypt), Looks::AtTime, "{time}");
        }
        let plain =
            "permit (principal, action, resource) when { resource.name == \"context.now\" };";
        assert_eq!(of(plain, Action::Decrypt), Looks::Nowhere);
        let both = format!(
            "{tenant} permit (principal, action, resource) when {{ context.now > datetime(\"2026-01-01\") }};"
        );
        assert_eq!(of(&both, Action::Encrypt), Looks::AtTime);
    }
}
