//! Key names: paths of lower-case segments. Checked once at the door and never
//! changed: no folding, no escapes, no globs, nothing that could mean two things.

use std::fmt;

/// A path such as `payments/cards`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyName(String);

/// Why a text is not a key name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing.
    #[error("a key name is needed")]
    Empty,
    /// More than 255 bytes.
    #[error("a key name has at most 255 bytes")]
    TooLong,
    /// An empty or too long segment, or a character outside the alphabet.
    #[error(
        "a key name is a path like payments/cards: segments of 1 to 63 of a-z 0-9 - _, beginning with a letter or digit, separated by single slashes"
    )]
    Segment,
}

impl KeyName {
    /// Longest name in bytes.
    pub const MAX_BYTES: usize = 255;
    const MAX_SEGMENT_BYTES: usize = 63;

    /// Checks a name.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.len() > Self::MAX_BYTES {
            return Err(NameError::TooLong);
        }
        if !text.split('/').all(segment) {
            return Err(NameError::Segment);
        }
        Ok(Self(text.to_owned()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn segment(text: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    text.len() <= KeyName::MAX_SEGMENT_BYTES
        && text.bytes().next().is_some_and(alphanumeric)
        && text
            .bytes()
            .all(|b| alphanumeric(b) || b == b'-' || b == b'_')
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_are_names() {
        for text in ["a", "payments/cards", "0/1-2_3", &"a".repeat(63)] {
            assert_eq!(KeyName::parse(text).unwrap().as_str(), text);
        }
        let longest = [&"a".repeat(63) as &str; 4].join("/");
        assert_eq!(longest.len(), 255);
        assert!(KeyName::parse(&longest).is_ok());
    }

    #[test]
    fn everything_else_is_not() {
        assert_eq!(KeyName::parse(""), Err(NameError::Empty));
        assert_eq!(KeyName::parse(&"a/".repeat(128)), Err(NameError::TooLong));
        for text in [
            "/a",
            "a/",
            "a//b",
            ".",
            "..",
            "a/../b",
            "A",
            "a b",
            "a*",
            "a?",
            "-a",
            "_a",
            "ä",
            "a\0",
            "a\n",
            "a.b",
            "a%2fb",
            "a\\b",
            &"a".repeat(64),
        ] {
            assert_eq!(KeyName::parse(text), Err(NameError::Segment), "{text:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(50_000))]

        #[test]
        fn a_name_is_the_bytes_it_was_made_of(text in "[a-zA-Z0-9/._ *+-]{0,30}") {
            if let Ok(name) = KeyName::parse(&text) {
                prop_assert_eq!(name.as_str(), &text);
                prop_assert!(!text.contains("//") && !text.contains('.'));
            }
        }
    }
}
