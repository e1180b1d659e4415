//! The context: the caller's non-secret pairs, bound to every item of a batch.

use std::{collections::BTreeMap, sync::Arc};

use sha2::{Digest, Sha256};

/// The canonical form, hashed: `count u16`, then for each pair in ascending byte order
/// of the key `length u16 | key | length u16 | value`. No normalisation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    digest: [u8; 32],
    pairs: Arc<BTreeMap<String, String>>,
}

/// Why pairs are not a context.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ContextError {
    /// More than 64 pairs.
    #[error("the context has {0} pairs; at most {max}", max = Context::MAX_PAIRS)]
    Pairs(usize),
    /// More than 8 KiB.
    #[error("the context has {0} bytes; at most {max}", max = Context::MAX_BYTES)]
    Bytes(usize),
}

impl Context {
    /// Most pairs.
    pub const MAX_PAIRS: usize = 64;
    /// Most bytes of keys and values together.
    pub const MAX_BYTES: usize = 8 << 10;

    /// Checks the limits and hashes the canonical form.
    ///
    /// # Errors
    /// Which limit was passed.
    pub fn new(pairs: &BTreeMap<String, String>) -> Result<Self, ContextError> {
        if pairs.len() > Self::MAX_PAIRS {
            return Err(ContextError::Pairs(pairs.len()));
        }
        let bytes: usize = pairs.iter().map(|(k, v)| k.len() + v.len()).sum();
        if bytes > Self::MAX_BYTES {
            return Err(ContextError::Bytes(bytes));
        }
        let mut hash = Sha256::new();
        // Both fit: 64 pairs and 8 KiB were checked above.
        let length = |n: usize| u16::try_from(n).unwrap_or(u16::MAX).to_be_bytes();
        hash.update(length(pairs.len()));
        for (key, value) in pairs {
            hash.update(length(key.len()));
            hash.update(key);
            hash.update(length(value.len()));
            hash.update(value);
        }
        Ok(Self {
            digest: hash.finalize().into(),
            pairs: Arc::new(pairs.clone()),
        })
    }

    /// SHA-256 of the canonical form.
    #[must_use]
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// The pairs, for policies to look at; never written down.
    #[must_use]
    pub fn pairs(&self) -> &BTreeMap<String, String> {
        &self.pairs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(pairs: &[(&str, &str)]) -> Result<Context, ContextError> {
        Context::new(
            &pairs
                .iter()
                .map(|(k, v)| ((*k).into(), (*v).into()))
                .collect(),
        )
    }

    #[test]
    fn the_border_between_key_and_value_counts() {
        assert_ne!(context(&[("ab", "c")]), context(&[("a", "bc")]));
        assert_ne!(context(&[]), context(&[("", "")]));
    }

    #[test]
    fn no_context_is_the_hash_of_count_zero() {
        let expected: [u8; 32] = Sha256::digest([0, 0]).into();
        assert_eq!(context(&[]).unwrap().digest(), &expected);
    }

    #[test]
    fn limits() {
        let pairs = |n: usize| (0..n).map(|i| (format!("k{i}"), String::new())).collect();
        assert!(Context::new(&pairs(64)).is_ok());
        assert_eq!(Context::new(&pairs(65)), Err(ContextError::Pairs(65)));
        let bytes = |n: usize| BTreeMap::from([("k".to_owned(), "v".repeat(n - 1))]);
        assert!(Context::new(&bytes(8192)).is_ok());
        assert_eq!(Context::new(&bytes(8193)), Err(ContextError::Bytes(8193)));
    }
}
