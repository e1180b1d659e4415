//! A signature that nobody has checked yet.

use crate::error::Result;

/// The bytes of a signature as the token made them. They are shown only to a check, because
/// a faulty signature can give the private key away (Boneh, DeMillo, Lipton 1997).
pub struct Unverified(Vec<u8>);

impl Unverified {
    pub(crate) fn new(signature: Vec<u8>) -> Self {
        Self(signature)
    }

    /// What `check` makes of the signature. It must verify it with the public key before
    /// anything of it leaves.
    ///
    /// # Errors
    /// Those of `check`.
    pub fn checked<T, E>(self, check: impl FnOnce(&[u8]) -> Result<T, E>) -> Result<T, E> {
        check(&self.0)
    }
}

impl std::fmt::Debug for Unverified {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unverified").finish_non_exhaustive()
    }
}
