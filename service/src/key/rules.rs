//! Rules of one key: when it should be rotated, and how much a version may do.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{KeyVersion, WrapCounter};

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
    /// Rotate when the primary version has sealed so many bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rotate_after_bytes: Option<u64>,
    /// Is it only said that the key is due, and left to people? Default: the appliance
    /// rotates.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub rotate_by_hand: bool,
    /// So many days after another version became primary an old one processes only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deactivate_after_days: Option<u32>,
    /// A version refuses to wrap more often than this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wrap_limit: Option<u64>,
    /// A data key seals more than one batch, and data keys are lent to callers that seal for
    /// themselves, for so many seconds each. Default: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease_seconds: Option<u32>,
}

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// Which rule says that a key is to be rotated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// `rotate_after_days`.
    Age,
    /// `rotate_after_wraps`.
    Wraps,
    /// `rotate_after_bytes`.
    Bytes,
}

impl Due {
    /// As in the audit log.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Age => "age",
            Self::Wraps => "wraps",
            Self::Bytes => "bytes",
        }
    }
}

/// As in the audit log: the rules that are set.
impl fmt::Display for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rules = [
            ("rotate_after_days", self.rotate_after_days.map(u64::from)),
            ("rotate_after_wraps", self.rotate_after_wraps),
            ("rotate_after_bytes", self.rotate_after_bytes),
            ("rotate_by_hand", self.rotate_by_hand.then_some(1)),
            (
                "deactivate_after_days",
                self.deactivate_after_days.map(u64::from),
            ),
            ("wrap_limit", self.wrap_limit),
            ("lease_seconds", self.lease_seconds.map(u64::from)),
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
    /// Fewest bytes between two rotations: 1 MiB.
    pub const MIN_BYTES: u64 = 1 << 20;
    /// Longest lease of a data key: what was stolen from a caller's memory, or what a caller
    /// does who hears no revocation, ends with it.
    pub const MAX_LEASE_SECONDS: u32 = 60;

    /// Checks the ranges.
    ///
    /// # Errors
    /// The field and a sentence.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        let Self {
            rotate_after_days: days,
            rotate_after_wraps: wraps,
            rotate_after_bytes: bytes,
            rotate_by_hand: _,
            deactivate_after_days: old_days,
            wrap_limit: limit,
            lease_seconds: lease,
        } = *self;
        for (field, days) in [
            ("rotate_after_days", days),
            ("deactivate_after_days", old_days),
        ] {
            if let Some(days) = days.filter(|d| !(1..=Self::MAX_DAYS).contains(d)) {
                return Err((field, format!("{days} days; from 1 to {}", Self::MAX_DAYS)));
            }
        }
        if let Some(wraps) = wraps.filter(|w| !(1..=WrapCounter::ROTATE_AT).contains(w)) {
            let text = format!("{wraps} wraps; from 1 to {}", WrapCounter::ROTATE_AT);
            return Err(("rotate_after_wraps", text));
        }
        if let Some(bytes) = bytes.filter(|b| *b < Self::MIN_BYTES) {
            let text = format!("{bytes} bytes; at least {}", Self::MIN_BYTES);
            return Err(("rotate_after_bytes", text));
        }
        let range = WrapCounter::BLOCK..=WrapCounter::REFUSE_AT;
        if let Some(limit) = limit.filter(|l| !range.contains(l)) {
            let text = format!("{limit} wraps; from {} to {}", range.start(), range.end());
            return Err(("wrap_limit", text));
        }
        match lease {
            Some(seconds) if !(1..=Self::MAX_LEASE_SECONDS).contains(&seconds) => {
                let text = format!("{seconds} seconds; from 1 to {}", Self::MAX_LEASE_SECONDS);
                Err(("lease_seconds", text))
            }
            // Nobody counts what is sealed elsewhere.
            Some(_) if bytes.is_some() => Err((
                "lease_seconds",
                "what is sealed under a lease is not counted; not together with rotate_after_bytes"
                    .to_owned(),
            )),
            _ => Ok(()),
        }
    }

    /// The first rule about wraps that is set: only keys that encrypt ever wrap.
    #[must_use]
    pub fn about_wraps(&self) -> Option<&'static str> {
        let limit = self.wrap_limit.map(|_| "wrap_limit");
        let bytes = self.rotate_after_bytes.map(|_| "rotate_after_bytes");
        let lease = self.lease_seconds.map(|_| "lease_seconds");
        self.rotate_after_wraps
            .map(|_| "rotate_after_wraps")
            .or(bytes)
            .or(limit)
            .or(lease)
    }

    /// Why a version that protects since then should be rotated by now; `None`: it need not.
    pub(super) fn rotation_due(
        &self,
        version: &KeyVersion,
        since_ms: i64,
        now_ms: i64,
    ) -> Option<Due> {
        let wraps = self.rotate_after_wraps.unwrap_or(WrapCounter::ROTATE_AT);
        let bytes = self.rotate_after_bytes.unwrap_or(u64::MAX);
        if self.rotation_ms(since_ms).is_some_and(|at| at <= now_ms) {
            Some(Due::Age)
        } else if version.wraps.used_at_most() >= wraps {
            Some(Due::Wraps)
        } else if version.used.sealed_bytes() >= bytes {
            Some(Due::Bytes)
        } else {
            None
        }
    }

    /// When a version that protects since then is to be rotated, in milliseconds since the
    /// epoch; `None`: never by age.
    pub(super) fn rotation_ms(&self, since_ms: i64) -> Option<i64> {
        let days = self.rotate_after_days?;
        Some(since_ms.saturating_add(i64::from(days) * DAY_MS))
    }

    /// Is a version that was followed by another one then to process only by now?
    pub(super) fn deactivation_due(&self, followed_ms: i64, now_ms: i64) -> bool {
        self.deactivate_after_days
            .is_some_and(|days| followed_ms.saturating_add(i64::from(days) * DAY_MS) <= now_ms)
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
    use crate::key::{KeyState, tests::version};

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
        let lease = |n| Rules {
            lease_seconds: Some(n),
            ..Rules::default()
        };
        lease(60).check().unwrap();
        assert_eq!(field(lease(0)), "lease_seconds");
        assert_eq!(field(lease(61)), "lease_seconds");
        let counted = Rules {
            rotate_after_bytes: Some(1 << 20),
            ..lease(1)
        };
        assert_eq!(field(counted), "lease_seconds");
    }

    #[test]
    fn a_rule_replaces_the_default() {
        let rules = Rules {
            rotate_after_wraps: Some(10),
            wrap_limit: Some(1 << 17),
            ..Rules::default()
        };
        let version = version(1, KeyState::Active);
        version.wraps.grant(WrapCounter::BLOCK);
        version.wraps.take(9);
        assert_eq!(rules.rotation_due(&version, 0, i64::MAX), None);
        version.wraps.take(1);
        assert_eq!(rules.rotation_due(&version, 0, 0), Some(Due::Wraps));
        assert_eq!(Rules::default().rotation_due(&version, 0, i64::MAX), None);
        let daily = Rules {
            rotate_after_days: Some(1),
            ..Rules::default()
        };
        assert_eq!(daily.rotation_due(&version, 0, 86_399_999), None);
        assert_eq!(daily.rotation_due(&version, 0, 86_400_000), Some(Due::Age));
        let mebibyte = Rules {
            rotate_after_bytes: Some(1 << 20),
            ..Rules::default()
        };
        mebibyte.check().unwrap();
        version.used.seals((1 << 20) - 1);
        assert_eq!(mebibyte.rotation_due(&version, 0, 0), None);
        version.used.seals(1);
        assert_eq!(mebibyte.rotation_due(&version, 0, 0), Some(Due::Bytes));
        assert_eq!(rules.refuse_at(), 1 << 17);
        assert_eq!(Rules::default().refuse_at(), WrapCounter::REFUSE_AT);
    }
}
