//! Names of issuers and profiles: they stand in URLs, policies and files.

use std::fmt;

/// 1 to 63 of `a-z 0-9 -`, beginning and ending with a letter or digit.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AuthorityName(String);

impl AuthorityName {
    /// Checks a name.
    ///
    /// # Errors
    /// What a name must be like.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let edge = text.starts_with('-') || text.ends_with('-');
        if text.is_empty() || text.len() > 63 || edge || !text.bytes().all(legal) {
            return Err("a name is 1 to 63 of a-z 0-9 - and has no - at its ends");
        }
        Ok(Self(text.to_owned()))
    }

    /// As written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AuthorityName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_into_urls() {
        for good in ["a", "int-p256-a", "root-2026", &"x".repeat(63)] {
            assert_eq!(AuthorityName::parse(good).unwrap().as_str(), good);
        }
        for bad in [
            "",
            "-a",
            "a-",
            "A",
            "a/b",
            "a.b",
            "ä",
            "a b",
            &"x".repeat(64),
        ] {
            assert!(AuthorityName::parse(bad).is_err(), "{bad}");
        }
    }
}
