//! A public key that may be certified: read, checked once, then carried as a type.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};

use crate::{
    key_kind::{KeyKind, Shape, ShapeError},
    key_policy::{self, WeakKey},
};

/// A public key that passed the key policy, with the DER it came in.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SubjectKey {
    spki: Vec<u8>,
    kind: KeyKind,
    spki_sha256: [u8; 32],
    key_id: [u8; 20],
}

/// Why a key cannot be certified. Whoever made the key must make another.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not a key of a kind we certify.
    #[error("the public key is not one we certify: {0}; make another key")]
    Shape(#[from] ShapeError),
    /// Right kind, but breakable.
    #[error("the public key is weak: {0}; make another key with a current tool")]
    Weak(#[from] WeakKey),
}

impl SubjectKey {
    /// Reads a SubjectPublicKeyInfo and judges the key.
    ///
    /// # Errors
    /// What is wrong with the key.
    pub fn from_spki(spki: &[u8]) -> Result<Self, KeyError> {
        let shape = Shape::of(spki)?;
        key_policy::check(shape)?;
        let [spki_sha256, key_sha256] = [sha256(spki), sha256(shape.key)];
        let mut key_id = [0; 20];
        key_id
            .iter_mut()
            .zip(key_sha256)
            .for_each(|(to, from)| *to = from);
        Ok(Self {
            spki: spki.to_vec(),
            kind: shape.kind,
            spki_sha256,
            key_id,
        })
    }

    /// The SubjectPublicKeyInfo in DER, as received.
    #[must_use]
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// Kind and size.
    #[must_use]
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// SHA-256 of the SubjectPublicKeyInfo: how a key is looked up and blocked.
    #[must_use]
    pub fn spki_sha256(&self) -> [u8; 32] {
        self.spki_sha256
    }

    /// The subject key identifier: the left 160 bits of the SHA-256 of the BIT STRING's
    /// value (RFC 7093 §2, method 1).
    #[must_use]
    pub fn key_id(&self) -> [u8; 20] {
        self.key_id
    }
}

impl fmt::Debug for SubjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SubjectKey({}, ", self.kind)?;
        self.key_id.iter().try_for_each(|b| write!(f, "{b:02x}"))?;
        f.write_str(")")
    }
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.iter_mut()
        .zip(digest(&SHA256, bytes).as_ref())
        .for_each(|(to, from)| *to = *from);
    out
}
