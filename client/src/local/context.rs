//! The canonical form of a context, hashed (`docs/envelope.md`).

use sha2::{Digest, Sha256};

use crate::{Context, Failure, FailureKind};

const MAX_PAIRS: usize = 64;
const MAX_BYTES: usize = 8 << 10;

/// SHA-256 of `count u16`, then `length u16 | key | length u16 | value` for each pair in
/// ascending byte order of the key, as it stands in the map.
pub(super) fn digest(context: &Context) -> Result<[u8; 32], Failure> {
    let bytes: usize = context.iter().map(|(k, v)| k.len() + v.len()).sum();
    let pairs = context.len();
    if pairs > MAX_PAIRS || bytes > MAX_BYTES {
        let text = format!(
            "the context has {pairs} pairs and {bytes} bytes; at most {MAX_PAIRS} and {MAX_BYTES}"
        );
        return Err(Failure::new(FailureKind::Data, text));
    }
    // All fit: 64 pairs and 8 KiB were checked above.
    let length = |n: usize| u16::try_from(n).unwrap_or(u16::MAX).to_be_bytes();
    let mut hash = Sha256::new();
    hash.update(length(pairs));
    for (key, value) in context {
        for part in [key, value] {
            hash.update(length(part.len()));
            hash.update(part);
        }
    }
    Ok(hash.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_would_refuse_is_refused_here() {
        let pairs = |n: usize| (0..n).map(|i| (i.to_string(), String::new())).collect();
        digest(&pairs(64)).unwrap();
        assert_eq!(digest(&pairs(65)).unwrap_err().kind(), FailureKind::Data);
        let long = |n: usize| Context::from([("k".to_owned(), "v".repeat(n))]);
        digest(&long((8 << 10) - 1)).unwrap();
        assert_eq!(
            digest(&long(8 << 10)).unwrap_err().kind(),
            FailureKind::Data
        );
    }
}
