//! Rules of one key: when it should be rotated, and how much a version may do.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::WrapCounter;

/// Rules of one key; none of them set is the default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rules {
    /// Rotate when the primary version is this old, in days.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rotate_after_days: Option<u32>,
    /// Rotate when the primary version has wrapped this often.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rotate_after_wraps: Option<u64>,
    /// A version refuses to wrap more often than this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wrap_limit: Option<u64>,
}

/// As in the audit log: the rules that are set.
impl fmt::Display for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rules = [
            ("rotate_after_days", self.rotate_after_days.map(u64::from)),
            ("rotate_after_wraps", self.rotate_after_wraps),
            ("wrap_limit", self.wrap_limit),
        ];
        let set = rules
            .iter()
            .filter_map(|(name, value)| Some((name, (*value)?)));
        let set: Vec<String> = set.map(|(name, value)| format!("{name}={value}")).collect();
        f.write_str(&set.join(" "))
    }
}

impl Rules {
    /// Longest time between two rotations.
    pub const MAX_DAYS: u32 = 3650;

    /// Checks the ranges.
    ///
    /// # Errors
    /// The field and a sentence.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        let Self {
            rotate_after_days: days,
            rotate_after_wraps: wraps,
            wrap_limit: limit,
        } = *self;
        if let Some(days) = days.filter(|d| !(1..=Self::MAX_DAYS).contains(d)) {
            let text = format!("{days} days; from 1 to {}", Self::MAX_DAYS);
            return Err(("rotate_after_days", text));
        }
        if let Some(wraps) = wraps.filter(|w| !(1..=WrapCounter::ROTATE_AT).contains(w)) {
            let text = format!("{wraps} wraps; from 1 to {}", WrapCounter::ROTATE_AT);
            return Err(("rotate_after_wraps", text));
        }
        let range = WrapCounter::BLOCK..=WrapCounter::REFUSE_AT;
        if let Some(limit) = limit.filter(|l| !range.contains(l)) {
            let text = format!("{limit} wraps; from {} to {}", range.start(), range.end());
            return Err(("wrap_limit", text));
        }
        Ok(())
    }

    /// The first rule about wraps that is set: only keys that encrypt ever wrap.
    #[must_use]
    pub fn about_wraps(&self) -> Option<&'static str> {
        let limit = self.wrap_limit.map(|_| "wrap_limit");
        self.rotate_after_wraps
            .map(|_| "rotate_after_wraps")
            .or(limit)
    }

    /// Should a version of this age that has wrapped so often be rotated?
    pub(super) fn rotation_due(&self, wraps: &WrapCounter, age_ms: i64) -> bool {
        const DAY_MS: i64 = 24 * 60 * 60 * 1000;
        let at = self.rotate_after_wraps.unwrap_or(WrapCounter::ROTATE_AT);
        let old = |days: u32| age_ms >= i64::from(days) * DAY_MS;
        wraps.used_at_most() >= at || self.rotate_after_days.is_some_and(old)
    }

    /// Wraps after which a version refuses.
    #[must_use]
    pub fn refuse_at(&self) -> u64 {
        self.wrap_limit.unwrap_or(WrapCounter::REFUSE_AT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_checked() {
        Rules::default().check().unwrap();
        let field = |rules: Rules| rules.check().unwrap_err().0;
        let days = |n| Rules {
            rotate_after_days: Some(n),
            ..Rules::default()
        };
        days(3650).check().unwrap();
        assert_eq!(field(days(0)), "rotate_after_days");
        assert_eq!(field(days(3651)), "rotate_after_days");
        let wraps = |n| Rules {
            rotate_after_wraps: Some(n),
            ..Rules::default()
        };
        wraps(1).check().unwrap();
        assert_eq!(field(wraps(0)), "rotate_after_wraps");
        assert_eq!(field(wraps((1 << 30) + 1)), "rotate_after_wraps");
        let limit = |n| Rules {
            wrap_limit: Some(n),
            ..Rules::default()
        };
        limit(1 << 16).check().unwrap();
        assert_eq!(field(limit((1 << 16) - 1)), "wrap_limit");
        assert_eq!(field(limit(1 << 32)), "wrap_limit");
    }

    #[test]
    fn a_rule_replaces_the_default() {
        let rules = Rules {
            rotate_after_wraps: Some(10),
            wrap_limit: Some(1 << 17),
            ..Rules::default()
        };
        let counter = WrapCounter::new(0);
        counter.grant(WrapCounter::BLOCK);
        counter.take(9);
        assert!(!rules.rotation_due(&counter, i64::MAX));
        counter.take(1);
        assert!(rules.rotation_due(&counter, 0));
        assert!(!Rules::default().rotation_due(&counter, i64::MAX));
        let daily = Rules {
            rotate_after_days: Some(1),
            ..Rules::default()
        };
        assert!(!daily.rotation_due(&counter, 86_399_999));
        assert!(daily.rotation_due(&counter, 86_400_000));
        assert_eq!(rules.refuse_at(), 1 << 17);
        assert_eq!(Rules::default().refuse_at(), WrapCounter::REFUSE_AT);
    }
}
