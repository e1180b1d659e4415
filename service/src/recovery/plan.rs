//! What is to be accepted, as a text that people read and sign. It speaks of one state of
//! one store at one time: it is no good for another.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::clock::rfc3339;

/// A plan; its bytes are what approvals sign.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Version of this format: 1.
    pub keywright_recovery_plan: u32,
    /// Id of the appliance's own key.
    pub appliance: String,
    /// Why, in the operator's words.
    pub reason: String,
    /// How far the store is.
    pub store_epoch: u64,
    /// How far the token had seen it.
    pub token_epoch: u64,
    /// Rows that somebody else wrote.
    pub rows: Vec<String>,
    /// SHA-256 over all rows that carry a seal, as they are: hexadecimal.
    pub state: String,
    /// Not good after this time: RFC 3339, for people.
    pub expires: String,
    /// The same in milliseconds since the epoch, which counts.
    pub expires_unix_ms: i64,
    /// 16 random bytes, hexadecimal: no two plans are the same.
    pub nonce: String,
}

impl Plan {
    /// The version of the format.
    pub const FORMAT: u32 = 1;
    /// How long a plan is good: a day.
    pub const LIFE_MS: i64 = 24 * 60 * 60 * 1000;
    /// Longer texts are no plans.
    pub const MAX_BYTES: usize = 1 << 20;

    /// Until when, said in both ways.
    #[must_use]
    pub fn until(self, expires_unix_ms: i64) -> Self {
        Self {
            expires: rfc3339(expires_unix_ms),
            expires_unix_ms,
            ..self
        }
    }

    /// The text.
    ///
    /// # Errors
    /// Only if TOML cannot say it, which it always can.
    pub fn text(&self) -> Result<String, String> {
        toml::to_string(self).map_err(|e| e.to_string())
    }

    /// Reads a text.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > Self::MAX_BYTES {
            return Err(format!("longer than {} bytes", Self::MAX_BYTES));
        }
        let plan: Self = toml::from_str(text).map_err(|e| format!("not a recovery plan: {e}"))?;
        if plan.keywright_recovery_plan != Self::FORMAT {
            return Err("a plan of another release of Keywright; make a new one".to_owned());
        }
        Ok(plan)
    }

    /// What approvals name.
    #[must_use]
    pub fn digest(text: &str) -> [u8; 32] {
        Sha256::digest(text).into()
    }

    /// Is it still what would be accepted? `now` is how things are.
    ///
    /// # Errors
    /// What is no longer so.
    pub fn still_true(&self, now: &Self, now_ms: i64) -> Result<(), String> {
        let differs = [
            ("appliance", self.appliance != now.appliance),
            ("epoch of the store", self.store_epoch != now.store_epoch),
            ("epoch of the token", self.token_epoch != now.token_epoch),
            ("list of rows", self.rows != now.rows),
            ("state of the rows", self.state != now.state),
        ];
        if let Some((what, _)) = differs.iter().find(|(_, differs)| *differs) {
            return Err(format!(
                "the {what} is not what the plan says: something has changed since, or the plan was carried out already"
            ));
        }
        // Whoever wrote the text may have written any time into it.
        if !(now_ms..=now_ms + Self::LIFE_MS).contains(&self.expires_unix_ms) {
            return Err(format!(
                "the plan was good until {} (this machine's clock says {})",
                rfc3339(self.expires_unix_ms),
                rfc3339(now_ms)
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn plan() -> Plan {
        Plan {
            keywright_recovery_plan: 1,
            appliance: "00".repeat(16),
            reason: "disk lost".into(),
            store_epoch: 17,
            token_epoch: 25,
            rows: vec!["key a/b".into()],
            state: "11".repeat(32),
            expires: String::new(),
            expires_unix_ms: 0,
            nonce: "22".repeat(16),
        }
        .until(1_000_000)
    }

    #[test]
    fn a_plan_reads_back() {
        let text = plan().text().unwrap();
        assert_eq!(Plan::parse(&text).unwrap(), plan());
        let newer = text.replace("recovery_plan = 1", "recovery_plan = 2");
        assert!(Plan::parse(&newer).unwrap_err().contains("another release"));
        let more = format!("{text}more = 1\n");
        Plan::parse(&more).unwrap_err();
        let long = format!("{text}#{}", "x".repeat(Plan::MAX_BYTES));
        assert!(Plan::parse(&long).unwrap_err().contains("longer"));
    }

    #[test]
    fn a_plan_is_of_one_state_and_one_day() {
        let now = plan();
        plan().still_true(&now, 999_000).unwrap();
        let not = |change: fn(&mut Plan), word: &str| {
            let mut other = plan();
            change(&mut other);
            let why = plan().still_true(&other, 999_000).unwrap_err();
            assert!(why.contains(word), "{why}");
        };
        not(|p| p.appliance.clear(), "appliance");
        not(|p| p.store_epoch = 18, "epoch of the store");
        not(|p| p.token_epoch = 17, "epoch of the token");
        not(|p| p.rows.clear(), "list of rows");
        not(|p| p.state.clear(), "state of the rows");
        let late = plan().still_true(&now, 1_000_001).unwrap_err();
        assert!(late.contains("was good until"), "{late}");
        // One that says it is good for longer than any plan.
        let early = plan().still_true(&now, 1_000_000 - Plan::LIFE_MS - 1);
        assert!(early.is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_refused_or_read(text in ".{0,200}") {
            if let Ok(plan) = Plan::parse(&text) {
                prop_assert_eq!(Plan::parse(&plan.text().unwrap()).unwrap(), plan);
            }
        }
    }
}
