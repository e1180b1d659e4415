//! What we ask of a token: which key, and how we know it is still that key.

use std::fmt;

use crate::{
    Dek, KeyEvidence, Result, WrappedDek,
    error::{Error, Kind},
};

/// CKA_ID of a key: 16 random bytes, the same for the life of the object.
///
/// Handles and slot numbers move; this does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectId(pub [u8; 16]);

impl ObjectId {
    /// A fresh id from the operating system's generator.
    ///
    /// # Errors
    /// [`Kind::Fault`] when the operating system has no randomness to give.
    pub fn random() -> Result<Self> {
        let mut id = [0; 16];
        os_random(&mut id)?;
        Ok(Self(id))
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// Algorithm and size of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeySpec {
    /// AES-256 for wrapping DEKs: CKM_AES_KEY_GEN, used with CKM_AES_GCM only.
    Aes256,
}

/// A known plaintext under the key, made once when the key was made.
///
/// Handles can silently address another key after a re-initialisation
/// (`pkcs11-provider#494`). Opening the proof shows that a handle is the key we
/// mean; it also tells a broken token from a forged ciphertext.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyProof(pub WrappedDek);

impl KeyProof {
    /// What is encrypted. Constant and public: AES-GCM hides nothing that matters here.
    pub const PLAINTEXT: &'static [u8; Dek::LEN] = b"Keywright proof of key identity.";
    /// Keeps a proof from ever passing for a wrapped DEK.
    pub const AAD: &'static [u8; 16] = b"KW1 keyproof\0\0\0\0";
}

/// A key on a token: its id and the proof of its identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyRef {
    /// CKA_ID.
    pub object: ObjectId,
    /// Opened before the first use of every new handle.
    pub proof: KeyProof,
}

/// A key that was just generated, read back and checked.
#[derive(Debug, Clone)]
pub struct NewKey {
    /// How to address it.
    pub key: KeyRef,
    /// What the token says about it.
    pub evidence: KeyEvidence,
}

/// A secret key found on the token, ours or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenObject {
    /// CKA_ID when it has the length of ours.
    pub id: Option<ObjectId>,
    /// CKA_LABEL; for people only.
    pub label: String,
}

pub(crate) fn os_random(out: &mut [u8]) -> Result<()> {
    getrandom::fill(out).map_err(|e| {
        Error::new(
            Kind::Fault,
            format!("the operating system gave no random bytes: {e}"),
        )
    })
}
