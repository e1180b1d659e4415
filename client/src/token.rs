//! The text form of an attached item: `kw1.` and unpadded base64url
//! (`docs/envelope.md`).

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};

use crate::{HEADER_LEN, ITEM_OVERHEAD};

const PREFIX: &str = "kw1.";

/// Header and item as text.
#[must_use]
pub fn encode(header: &[u8], item: &[u8]) -> String {
    encode_attached(&[header, item].concat())
}

/// An attached item as text.
#[must_use]
pub fn encode_attached(attached: &[u8]) -> String {
    format!("{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(attached))
}

/// Why a text is not a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Nothing there.
    #[error("empty, not a kw1. token")]
    Empty,
    /// Does not begin with `kw1.`.
    #[error("not a kw1. token")]
    Prefix,
    /// Not base64url without padding.
    #[error("a kw1. token with characters that are not base64url")]
    Base64,
    /// Shorter than an empty item.
    #[error("a kw1. token that was cut short")]
    Short,
}

/// The attached item behind a token. Blanks around it are ignored.
///
/// # Errors
/// What is wrong with the text.
pub fn decode(text: &[u8]) -> Result<Vec<u8>, TokenError> {
    let text = text.trim_ascii();
    if text.is_empty() {
        return Err(TokenError::Empty);
    }
    let body = text
        .strip_prefix(PREFIX.as_bytes())
        .ok_or(TokenError::Prefix)?;
    let bytes = BASE64_URL_SAFE_NO_PAD
        .decode(body)
        .map_err(|_| TokenError::Base64)?;
    if bytes.len() < HEADER_LEN + ITEM_OVERHEAD {
        return Err(TokenError::Short);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn strange_texts_are_named() {
        let good = encode(&[1; 136], &[2; 20]);
        assert!(decode(good.as_bytes()).is_ok());
        assert_eq!(decode(b" \r"), Err(TokenError::Empty));
        assert_eq!(decode(b"vault:v1:abc"), Err(TokenError::Prefix));
        assert_eq!(
            decode(format!("{good}=").as_bytes()),
            Err(TokenError::Base64)
        );
        assert_eq!(decode(&good.as_bytes()[..100]), Err(TokenError::Short));
    }

    proptest! {
        #[test]
        fn what_was_encoded_decodes(bytes in proptest::collection::vec(any::<u8>(), 156..400)) {
            let token = encode_attached(&bytes);
            prop_assert_eq!(decode(format!("{token}\r").as_bytes()).unwrap(), bytes);
        }

        #[test]
        fn any_bytes_are_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode(&bytes);
        }
    }
}
