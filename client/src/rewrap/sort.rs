//! What a value is, told from its header alone (`docs/envelope.md`).

use super::place::Value;
use crate::HEADER_LEN;

/// Bytes of a header that rewrap must not change.
pub(super) const FIXED_LEN: usize = 68;

/// What was found, from the point of view of one key and one version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    Empty,
    Foreign,
    OtherKey,
    /// At the target or above.
    Current(u32),
    Old(u32),
    Unreadable,
}

/// The version a header stands under.
pub(super) fn version(header: &[u8]) -> Option<u32> {
    let bytes = header.get(72..76)?.try_into().ok()?;
    Some(u32::from_be_bytes(bytes))
}

/// Sorts one value. Only what cannot be an envelope is foreign: one of ours with damage in
/// it is old, and the server says what is wrong with it.
pub(super) fn sort(value: &Value, key_id: &[u8], target: u32) -> Sort {
    let header = match value {
        Value::Empty => return Sort::Empty,
        Value::Foreign => return Sort::Foreign,
        Value::Unreadable(_) => return Sort::Unreadable,
        Value::Envelope(header) => header,
    };
    // Format, suite, kind, zero; then the id of the key.
    let ours = matches!(header.get(..4), Some([1, 1 | 2, 1 | 2, 0]));
    match version(header) {
        Some(version) if ours && header.len() == HEADER_LEN => {
            if header.get(4..20) != Some(key_id) {
                Sort::OtherKey
            } else if version >= target {
                Sort::Current(version)
            } else {
                Sort::Old(version)
            }
        }
        _ => Sort::Foreign,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(change: impl FnOnce(&mut Vec<u8>)) -> Value {
        let mut header = vec![1, 1, 1, 0];
        header.extend([7; 16]);
        header.extend([0; 48]);
        header.extend([1, 0, 0, 0]);
        header.extend(3u32.to_be_bytes());
        header.extend([9; 60]);
        change(&mut header);
        Value::Envelope(header.into())
    }

    #[test]
    fn values_are_told_apart_by_their_headers() {
        let sorted = |v: &Value, target| sort(v, &[7; 16], target);
        assert_eq!(sorted(&value(|_| ()), 4), Sort::Old(3));
        assert_eq!(sorted(&value(|_| ()), 3), Sort::Current(3));
        assert_eq!(sorted(&value(|h| h[2] = 2), 4), Sort::Old(3));
        assert_eq!(sorted(&value(|h| h[4] = 8), 4), Sort::OtherKey);
        assert_eq!(sorted(&value(|h| h[0] = 2), 4), Sort::Foreign);
        assert_eq!(sorted(&value(|h| h[3] = 1), 4), Sort::Foreign);
        assert_eq!(sorted(&value(|h| h.truncate(135)), 4), Sort::Foreign);
        assert_eq!(sorted(&value(Vec::clear), 4), Sort::Foreign);
        assert_eq!(sorted(&Value::Empty, 4), Sort::Empty);
        // Damaged behind the id: the server has the word.
        assert_eq!(sorted(&value(|h| h[70] = 1), 4), Sort::Old(3));
    }
}
