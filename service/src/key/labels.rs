//! Labels: the operator's notes on a key.

use std::collections::BTreeMap;

/// Operator's notes on a key; seen by policies, never secret.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels(BTreeMap<String, String>);

impl Labels {
    /// Most labels of one key.
    pub const MAX_COUNT: usize = 64;
    /// Longest label key in bytes.
    pub const MAX_KEY_BYTES: usize = 63;
    /// Longest label value in bytes.
    pub const MAX_VALUE_BYTES: usize = 255;

    /// Checks count, sizes and characters.
    ///
    /// # Errors
    /// A sentence that says which label is wrong and how.
    pub fn new(pairs: BTreeMap<String, String>) -> Result<Self, String> {
        if pairs.len() > Self::MAX_COUNT {
            return Err(format!(
                "{} labels; at most {}",
                pairs.len(),
                Self::MAX_COUNT
            ));
        }
        for (key, value) in &pairs {
            let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b);
            if key.is_empty() || key.len() > Self::MAX_KEY_BYTES || !key.bytes().all(legal) {
                return Err(format!(
                    "label {key:?}: a label key is 1 to {} of a-z 0-9 - _ .",
                    Self::MAX_KEY_BYTES
                ));
            }
            if value.len() > Self::MAX_VALUE_BYTES || value.chars().any(char::is_control) {
                return Err(format!(
                    "label {key:?}: a value has at most {} bytes and no control characters",
                    Self::MAX_VALUE_BYTES
                ));
            }
        }
        Ok(Self(pairs))
    }

    /// The pairs in key order.
    #[must_use]
    pub fn pairs(&self) -> &BTreeMap<String, String> {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_have_limits() {
        let one = |k: &str, v: &str| Labels::new(BTreeMap::from([(k.to_owned(), v.to_owned())]));
        assert!(one("team", "payments").is_ok());
        assert!(one("Team", "x").is_err() && one("", "x").is_err());
        assert!(one(&"k".repeat(63), &"v".repeat(255)).is_ok());
        assert!(one(&"k".repeat(64), "v").is_err() && one("k", &"v".repeat(256)).is_err());
        assert!(one("k", "a\nb").is_err());
        let many = (0..65).map(|i| (format!("k{i}"), String::new())).collect();
        assert!(Labels::new(many).is_err());
    }
}
