//! What we ask of a token: which key, and how we know it is still that key.

use std::{fmt, sync::Arc};

use crate::{
    Dek, KeyEvidence, PublicKey, Result, WrappedDek,
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

/// A hash function, as part of a key's or a signature's algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hash {
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

impl Hash {
    /// Bytes of a digest.
    #[must_use]
    pub fn bytes(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }
}

/// A NIST curve (SP 800-186).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Curve {
    /// P-256, signing SHA-256 digests.
    P256,
    /// P-384, signing SHA-384 digests.
    P384,
}

impl Curve {
    /// The hash this curve signs; FIPS 186-5 asks for one at least as strong, and ES256
    /// and ES384 name exactly these.
    #[must_use]
    pub fn hash(self) -> Hash {
        match self {
            Self::P256 => Hash::Sha256,
            Self::P384 => Hash::Sha384,
        }
    }

    /// Bytes of one coordinate, and of each half of a signature.
    #[must_use]
    pub fn field_len(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
        }
    }
}

/// Size of an RSA modulus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RsaBits {
    /// 2048 bits.
    B2048,
    /// 3072 bits.
    B3072,
    /// 4096 bits.
    B4096,
}

impl RsaBits {
    /// Bits of the modulus.
    #[must_use]
    pub fn bits(self) -> usize {
        match self {
            Self::B2048 => 2048,
            Self::B3072 => 3072,
            Self::B4096 => 4096,
        }
    }

    /// Bytes of the modulus, of a signature and of a ciphertext.
    #[must_use]
    pub fn bytes(self) -> usize {
        self.bits() / 8
    }
}

/// What a key is for; one use per key (SP 800-57 part 1 §5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyUse {
    /// Encrypt and decrypt through envelopes.
    Encrypt,
    /// Sign.
    Sign,
    /// Make MACs.
    Mac,
    /// Open what was encrypted to the public half.
    Decrypt,
}

impl KeyUse {
    /// Every one.
    pub const ALL: [Self; 4] = [Self::Encrypt, Self::Sign, Self::Mac, Self::Decrypt];

    /// As written in commands, policies and the store.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Encrypt => "encrypt",
            Self::Sign => "sign",
            Self::Mac => "mac",
            Self::Decrypt => "decrypt",
        }
    }

    /// The inverse of [`KeyUse::name`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|u| u.name() == text)
    }
}

/// Algorithm, size and the one use of a key. A key that could do two things does not
/// exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeySpec {
    /// AES-256 for wrapping DEKs: CKM_AES_KEY_GEN, used with CKM_AES_GCM only.
    Aes256,
    /// A secret as long as the hash, for HMAC (FIPS 198-1).
    Hmac(Hash),
    /// ECDSA (FIPS 186-5).
    Ec(Curve),
    /// Ed25519 (RFC 8032).
    Ed25519,
    /// RSA for signatures, PSS and PKCS#1 v1.5 (RFC 8017).
    RsaSign(RsaBits),
    /// RSA for OAEP decryption (RFC 8017).
    RsaDecrypt(RsaBits),
}

impl KeySpec {
    /// Every one.
    pub const ALL: [Self; 13] = [
        Self::Aes256,
        Self::Hmac(Hash::Sha256),
        Self::Hmac(Hash::Sha384),
        Self::Hmac(Hash::Sha512),
        Self::Ec(Curve::P256),
        Self::Ec(Curve::P384),
        Self::Ed25519,
        Self::RsaSign(RsaBits::B2048),
        Self::RsaSign(RsaBits::B3072),
        Self::RsaSign(RsaBits::B4096),
        Self::RsaDecrypt(RsaBits::B2048),
        Self::RsaDecrypt(RsaBits::B3072),
        Self::RsaDecrypt(RsaBits::B4096),
    ];

    /// As written in commands, policies and the store. The two uses of RSA share names.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Aes256 => "aes-256",
            Self::Hmac(Hash::Sha256) => "hmac-sha256",
            Self::Hmac(Hash::Sha384) => "hmac-sha384",
            Self::Hmac(Hash::Sha512) => "hmac-sha512",
            Self::Ec(Curve::P256) => "ec-p256",
            Self::Ec(Curve::P384) => "ec-p384",
            Self::Ed25519 => "ed25519",
            Self::RsaSign(RsaBits::B2048) | Self::RsaDecrypt(RsaBits::B2048) => "rsa-2048",
            Self::RsaSign(RsaBits::B3072) | Self::RsaDecrypt(RsaBits::B3072) => "rsa-3072",
            Self::RsaSign(RsaBits::B4096) | Self::RsaDecrypt(RsaBits::B4096) => "rsa-4096",
        }
    }

    /// The one use of a key of this spec.
    #[must_use]
    pub fn key_use(self) -> KeyUse {
        match self {
            Self::Aes256 => KeyUse::Encrypt,
            Self::Hmac(_) => KeyUse::Mac,
            Self::Ec(_) | Self::Ed25519 | Self::RsaSign(_) => KeyUse::Sign,
            Self::RsaDecrypt(_) => KeyUse::Decrypt,
        }
    }

    /// The spec of a name and a use; without one, the first use the name has.
    #[must_use]
    pub fn parse(name: &str, key_use: Option<KeyUse>) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|s| s.name() == name && key_use.is_none_or(|u| s.key_use() == u))
    }

    /// Has it a public half?
    #[must_use]
    pub fn is_pair(self) -> bool {
        match self {
            Self::Aes256 | Self::Hmac(_) => false,
            Self::Ec(_) | Self::Ed25519 | Self::RsaSign(_) | Self::RsaDecrypt(_) => true,
        }
    }
}

/// How a private key signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Signing {
    /// ECDSA of a digest; the signature is r‖s, each as long as the field.
    Ecdsa,
    /// Ed25519 of a message.
    Ed25519,
    /// RSASSA-PKCS1-v1_5 of a digest.
    RsaPkcs1(Hash),
    /// RSASSA-PSS of a digest, MGF1 with the same hash.
    RsaPss(Hash, PssSalt),
}

impl Signing {
    /// Is this a scheme of the key?
    #[must_use]
    pub fn is_of(self, spec: KeySpec) -> bool {
        matches!(
            (spec, self),
            (KeySpec::Ec(_), Self::Ecdsa)
                | (KeySpec::Ed25519, Self::Ed25519)
                | (KeySpec::RsaSign(_), Self::RsaPkcs1(_) | Self::RsaPss(..))
        )
    }

    /// The hash whose digest goes in; `None` where the message itself does.
    #[must_use]
    pub fn hash(self, spec: KeySpec) -> Option<Hash> {
        match (self, spec) {
            (Self::Ecdsa, KeySpec::Ec(curve)) => Some(curve.hash()),
            (Self::RsaPkcs1(hash) | Self::RsaPss(hash, _), _) => Some(hash),
            _ => None,
        }
    }

    /// Key and scheme fit, and the input has the length of the digest.
    #[must_use]
    pub fn takes(self, spec: KeySpec, input: &[u8]) -> bool {
        self.is_of(spec) && self.hash(spec).is_none_or(|h| h.bytes() == input.len())
    }
}

/// Length of the salt of a PSS signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PssSalt {
    /// As long as the hash: what RFC 8017 and everybody recommends.
    Hash,
    /// None: a deterministic signature.
    Empty,
    /// As long as the modulus allows; OpenSSL's old default.
    Max,
}

impl PssSalt {
    /// Bytes, for a modulus of `modulus` bytes.
    #[must_use]
    pub fn bytes(self, hash: Hash, modulus: usize) -> usize {
        match self {
            Self::Hash => hash.bytes(),
            Self::Empty => 0,
            // emLen - hLen - 2 (RFC 8017 §9.1.1); emLen is the modulus for our sizes.
            Self::Max => modulus.saturating_sub(hash.bytes() + 2),
        }
    }
}

/// What shows that a handle is still the key we mean, made once when the key was made.
///
/// Handles can silently address another key after a re-initialisation
/// (`pkcs11-provider#494`). The proof also tells a broken token from forged input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyProof {
    /// [`KeyProof::PLAINTEXT`], encrypted.
    Wrapped(WrappedDek),
    /// The MAC of [`KeyProof::PLAINTEXT`].
    Tag(Arc<[u8]>),
    /// The public half: the private one signs for it, or decrypts what it encrypted.
    Public(PublicKey),
}

impl KeyProof {
    /// What is encrypted, authenticated or signed. Constant and public.
    pub const PLAINTEXT: &'static [u8; Dek::LEN] = b"Keywright proof of key identity.";
    /// Keeps a wrapped proof from ever passing for a wrapped DEK.
    pub const AAD: &'static [u8; 16] = b"KW1 keyproof\0\0\0\0";

    /// For the store.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Wrapped(wrapped) => wrapped.0.to_vec(),
            Self::Tag(tag) => tag.to_vec(),
            Self::Public(key) => key.spki().to_vec(),
        }
    }

    /// What [`KeyProof::to_bytes`] gave; `None` when the bytes are not that.
    #[must_use]
    pub fn from_bytes(spec: KeySpec, bytes: &[u8]) -> Option<Self> {
        match spec {
            KeySpec::Aes256 => Some(Self::Wrapped(WrappedDek(bytes.try_into().ok()?))),
            KeySpec::Hmac(hash) => (bytes.len() == hash.bytes()).then(|| Self::Tag(bytes.into())),
            pair => PublicKey::from_spki(pair, bytes).ok().map(Self::Public),
        }
    }
}

/// A key on a token: its id, what it is, and the proof of its identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRef {
    /// CKA_ID.
    pub object: ObjectId,
    /// What it can do.
    pub spec: KeySpec,
    /// Checked before the first use of every new handle.
    pub proof: KeyProof,
}

impl KeyRef {
    /// The public half of a pair.
    #[must_use]
    pub fn public(&self) -> Option<&PublicKey> {
        match &self.proof {
            KeyProof::Public(key) => Some(key),
            KeyProof::Wrapped(_) | KeyProof::Tag(_) => None,
        }
    }
}

/// A key that was just generated, read back and checked.
#[derive(Debug, Clone)]
pub struct NewKey {
    /// How to address it.
    pub key: KeyRef,
    /// What the token says about it.
    pub evidence: KeyEvidence,
}

/// A secret or private key found on the token, ours or not.
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
