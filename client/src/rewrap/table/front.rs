//! The front of a value: all that has to travel of it.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use bytes::Bytes;

use crate::{HEADER_LEN, ITEM_OVERHEAD, rewrap::Value};

const PREFIX: &[u8] = b"kw1.";
/// Three bytes are four characters: 138 bytes are the first whole group behind a header.
const DECODED: usize = 138;
/// The prefix and those bytes.
const TEXT: usize = 4 + DECODED / 3 * 4;

/// How values are written in the column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// `bytea`: attached items, bare headers, wrapped data keys.
    Binary,
    /// `text`: `kw1.` tokens.
    Text,
}

impl Form {
    /// Bytes or characters of the front.
    pub(super) fn length(self) -> usize {
        match self {
            Self::Binary => HEADER_LEN,
            Self::Text => TEXT,
        }
    }

    /// What a value is, by its front and its whole length in bytes; and what the front has
    /// behind the header.
    pub(super) fn parse(self, front: Option<&[u8]>, length: usize) -> (Value, Bytes) {
        let nothing = Bytes::new();
        let Some(front) = front.filter(|f| !f.is_empty()) else {
            return (Value::Empty, nothing);
        };
        let foreign = (Value::Foreign, Bytes::new());
        match self {
            Self::Binary => match length {
                // Between a bare header and the smallest item there is nothing of ours.
                HEADER_LEN => {}
                n if n >= HEADER_LEN + ITEM_OVERHEAD => {}
                _ => return foreign,
            },
            Self::Text if length < 4 + ((HEADER_LEN + ITEM_OVERHEAD) * 4).div_ceil(3) => {
                return foreign;
            }
            Self::Text => {}
        }
        let decoded = match self {
            Self::Binary => Some(Bytes::copy_from_slice(front)),
            Self::Text => front
                .strip_prefix(PREFIX)
                .and_then(|body| BASE64_URL_SAFE_NO_PAD.decode(body).ok())
                .filter(|bytes| bytes.len() == DECODED)
                .map(Bytes::from),
        };
        match decoded {
            Some(bytes) if bytes.len() >= HEADER_LEN => (
                Value::Envelope(bytes.slice(..HEADER_LEN)),
                bytes.slice(HEADER_LEN..),
            ),
            _ => foreign,
        }
    }

    /// A front as it is in the column.
    pub(super) fn write(self, header: &[u8], behind: &[u8]) -> Vec<u8> {
        let bytes = [header, behind].concat();
        match self {
            Self::Binary => bytes,
            Self::Text => [PREFIX, BASE64_URL_SAFE_NO_PAD.encode(bytes).as_bytes()].concat(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token;

    #[test]
    fn a_token_gets_a_new_header_and_keeps_its_payload() {
        let (old, new, item) = ([1; 136], [2; 136], [3; 41]);
        let text = token::encode(&old, &item);
        let (front, rest) = text.split_at(Form::Text.length());
        let (value, behind) = Form::Text.parse(Some(front.as_bytes()), text.len());
        assert_eq!(value, Value::Envelope(Bytes::copy_from_slice(&old)));
        assert_eq!(Form::Text.write(&old, &behind), front.as_bytes());
        let moved = [&Form::Text.write(&new, &behind), rest.as_bytes()].concat();
        assert_eq!(
            token::decode(&moved).unwrap(),
            [&new[..], &item[..]].concat()
        );
    }

    #[test]
    fn what_cannot_be_ours_is_foreign() {
        let sort = |form: Form, text: &[u8]| {
            form.parse(text.get(..form.length()).or(Some(text)), text.len())
                .0
        };
        let ours = |v: Value| matches!(v, Value::Envelope(_));
        assert_eq!(Form::Text.parse(None, 0).0, Value::Empty);
        assert_eq!(sort(Form::Binary, b""), Value::Empty);
        for (length, is) in [
            (135, false),
            (136, true),
            (137, false),
            (155, false),
            (156, true),
        ] {
            assert_eq!(ours(sort(Form::Binary, &vec![1; length])), is, "{length}");
        }
        let token = token::encode(&[1; 136], &[2; 20]);
        assert!(ours(sort(Form::Text, token.as_bytes())));
        assert_eq!(sort(Form::Text, &token.as_bytes()[..211]), Value::Foreign);
        assert_eq!(
            sort(Form::Text, token.replace("kw1", "kw2").as_bytes()),
            Value::Foreign
        );
        assert_eq!(
            sort(Form::Text, token.replace('A', "+").as_bytes()),
            Value::Foreign
        );
        assert_eq!(
            sort(Form::Text, "\u{e9}".repeat(300).as_bytes()),
            Value::Foreign
        );
    }
}
