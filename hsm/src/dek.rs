//! The data-encrypting key in memory, and the same key wrapped by a token.
//!
//! A [`Dek`] is the only key material Keywright ever holds. It cannot be printed,
//! cloned or compared, and its bytes are overwritten when it is dropped.

use std::fmt;

use zeroize::{Zeroize, Zeroizing};

/// A data-encrypting key: 32 bytes, zeroised on drop.
///
/// ```compile_fail,E0382
/// fn twice(dek: keywright_hsm::Dek) -> [keywright_hsm::Dek; 2] {
///     [dek, dek]
/// }
/// ```
///
/// ```compile_fail,E0277
/// fn show(dek: &keywright_hsm::Dek) -> String {
///     format!("{dek}")
/// }
/// ```
///
/// ```compile_fail,E0369
/// fn guess(dek: &keywright_hsm::Dek, other: &keywright_hsm::Dek) -> bool {
///     dek == other
/// }
/// ```
pub struct Dek(Zeroizing<[u8; Dek::LEN]>);

impl Dek {
    /// Length in bytes.
    pub const LEN: usize = 32;

    /// Takes over 32 bytes and clears the place they came from.
    pub fn take(bytes: &mut [u8; Self::LEN]) -> Self {
        let dek = Self(Zeroizing::new(*bytes));
        bytes.zeroize();
        dek
    }

    /// The key bytes, for the key derivation and for wrapping. Named so that every
    /// place that looks at them can be found.
    #[must_use]
    pub fn expose(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}

impl fmt::Debug for Dek {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dek(..)")
    }
}

/// A DEK under a KEK version: `IV 12 | ciphertext 32 | tag 16`, 60 bytes
/// (`docs/envelope.md`, header bytes 76 to 135).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct WrappedDek(pub [u8; WrappedDek::LEN]);

impl WrappedDek {
    /// Length in bytes.
    pub const LEN: usize = Self::IV_LEN + Dek::LEN + Self::TAG_LEN;
    /// Length of the initialisation vector: the 96 bits of SP 800-38D §8.2.2.
    pub const IV_LEN: usize = 12;
    /// Length of the authentication tag.
    pub const TAG_LEN: usize = 16;

    /// IV and `ciphertext | tag`.
    #[must_use]
    pub fn parts(&self) -> (&[u8; Self::IV_LEN], &[u8; Dek::LEN + Self::TAG_LEN]) {
        let (iv, sealed) = self.0.split_first_chunk().unwrap_or((&[0; 12], &[]));
        (iv, sealed.first_chunk().unwrap_or(&[0; 48]))
    }

    /// Puts IV and `ciphertext | tag` together.
    #[must_use]
    pub fn join(iv: &[u8; Self::IV_LEN], sealed: &[u8; Dek::LEN + Self::TAG_LEN]) -> Self {
        let mut out = [0; Self::LEN];
        let (head, tail) = out.split_at_mut(Self::IV_LEN);
        head.copy_from_slice(iv);
        tail.copy_from_slice(sealed);
        Self(out)
    }
}

impl fmt::Debug for WrappedDek {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WrappedDek(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_byte() {
        let dek = Dek::take(&mut [0xab; 32]);
        assert_eq!(format!("{dek:?}"), "Dek(..)");
    }

    #[test]
    fn take_clears_the_source() {
        let mut bytes = [7; 32];
        let dek = Dek::take(&mut bytes);
        assert_eq!(bytes, [0; 32]);
        assert_eq!(dek.expose(), &[7; 32]);
    }

    #[test]
    fn parts_and_join_are_inverse() {
        let mut bytes = [0; 60];
        for (i, b) in bytes.iter_mut().enumerate() {
            *b = u8::try_from(i).unwrap();
        }
        let wrapped = WrappedDek(bytes);
        let (iv, sealed) = wrapped.parts();
        assert_eq!(WrappedDek::join(iv, sealed), wrapped);
    }
}
