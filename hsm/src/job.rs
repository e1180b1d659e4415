//! What can be asked of the token in batches: one item each.

use bytes::Bytes;

use crate::{KeyRef, Oaep, Signing, WrappedDek};

/// Something that is done with keys: the token must hold them.
pub(crate) trait OnKeys {
    fn keys(&self) -> impl Iterator<Item = &KeyRef>;
}

macro_rules! on_keys {
    ($($job:ty: |$it:ident| $keys:expr;)*) => {
        $(impl OnKeys for $job {
            fn keys(&self) -> impl Iterator<Item = &KeyRef> {
                let $it = self;
                $keys.into_iter()
            }
        })*
    };
}

on_keys! {
    Unwrap: |job| [&job.key];
    Rewrap: |job| [&job.from.key, &job.to];
    Sign: |job| [&job.key];
    Mac: |job| [&job.key];
    Decrypt: |job| [&job.key];
    (KeyRef, [u8; 56]): |job| [&job.0];
    Option<KeyRef>: |job| job.as_ref();
    usize: |_job| None;
}

/// One wrapped DEK to open.
#[derive(Debug, Clone)]
pub struct Unwrap {
    /// The version it was wrapped under.
    pub key: KeyRef,
    /// `docs/envelope.md`, wrap AAD.
    pub aad: [u8; 56],
    /// What to open.
    pub wrapped: WrappedDek,
}

/// One wrapped DEK to move to another key version.
#[derive(Debug, Clone)]
pub struct Rewrap {
    /// What to open, and under what.
    pub from: Unwrap,
    /// The version to wrap under.
    pub to: KeyRef,
    /// The wrap AAD of that version.
    pub to_aad: [u8; 56],
    /// Open what was wrapped, and compare? One more call.
    pub verify: bool,
}

/// One digest or message to sign.
#[derive(Debug, Clone)]
pub struct Sign {
    /// A private key.
    pub key: KeyRef,
    /// The scheme.
    pub how: Signing,
    /// A digest, or the message for Ed25519.
    pub input: Bytes,
}

/// One message to authenticate.
#[derive(Debug, Clone)]
pub struct Mac {
    /// An HMAC key.
    pub key: KeyRef,
    /// Any length.
    pub message: Bytes,
}

/// One RSA-OAEP ciphertext to open.
#[derive(Debug, Clone)]
pub struct Decrypt {
    /// An RSA key for decryption.
    pub key: KeyRef,
    /// Hash of OAEP.
    pub how: Oaep,
    /// As long as the modulus.
    pub ciphertext: Bytes,
}
