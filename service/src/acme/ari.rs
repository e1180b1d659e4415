//! When to renew (ACME Renewal Information, RFC 9773).

use keywright_pki::Serial;
use serde_json::{Value, json};

use super::{decode64, encode64};
use crate::clock::rfc3339;

/// `base64url(AKI keyIdentifier) "." base64url(serial)` (RFC 9773 §4.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenewalId {
    /// The issuer's key identifier.
    pub aki: Vec<u8>,
    /// The certificate's number.
    pub serial: Serial,
}

impl RenewalId {
    /// Reads one from a URL or from `replaces`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (aki, serial) = text.split_once('.')?;
        Some(Self {
            aki: decode64(aki).filter(|aki| !aki.is_empty() && aki.len() <= 64)?,
            serial: Serial::from_bytes(&decode64(serial)?).ok()?,
        })
    }
}

impl std::fmt::Display for RenewalId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}.{}",
            encode64(&self.aki),
            encode64(self.serial.as_bytes())
        )
    }
}

/// When a renewal is in time, in milliseconds since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// From.
    pub start_ms: i64,
    /// To; after `start_ms`.
    pub end_ms: i64,
}

impl Window {
    /// The last third begins the window, as `renew_from` of the gRPC answer does; a
    /// twelfth of the life is its width, so that many clients spread.
    #[must_use]
    pub fn of(not_before_ms: i64, not_after_ms: i64) -> Self {
        let life = (not_after_ms - not_before_ms).max(12);
        let start_ms = not_after_ms - life / 3;
        Self {
            start_ms,
            end_ms: start_ms + life / 12,
        }
    }

    /// For a certificate that was revoked: at once, whatever clock the client has
    /// (RFC 9773 §4.2: a window in the past).
    #[must_use]
    pub fn past(not_before_ms: i64) -> Self {
        Self {
            start_ms: not_before_ms,
            end_ms: not_before_ms + 1000,
        }
    }

    /// The answer.
    #[must_use]
    pub fn document(&self) -> Value {
        json!({"suggestedWindow": {"start": rfc3339(self.start_ms), "end": rfc3339(self.end_ms)}})
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The example of RFC 9773 §4.1.
    #[test]
    fn the_name_is_that_of_the_standard() {
        let id = RenewalId::parse("aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE").unwrap();
        assert_eq!(id.serial.to_string(), "0087654321");
        assert_eq!(id.aki[..2], [0x69, 0x88]);
        assert_eq!(id.to_string(), "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE");
    }

    proptest! {
        #[test]
        fn the_window_lies_within_the_life(from in 0..1_000_000_000_000i64, life in 12..1_000_000_000_000i64) {
            let window = Window::of(from, from + life);
            prop_assert!(from < window.start_ms && window.start_ms < window.end_ms);
            prop_assert!(window.end_ms < from + life);
        }

        #[test]
        fn no_text_panics(text: String) {
            let _ = RenewalId::parse(&text);
        }
    }
}
