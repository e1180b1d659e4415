//! The kinds of public key this crate knows, and what their SubjectPublicKeyInfo looks
//! like, byte for byte.
//!
//! Reading one here checks shape only. Whether a key may be certified is said by
//! [`crate::key_policy`].

use std::fmt;

use der::{Decode, Encode, Sequence, asn1::UintRef};
use x509_cert::spki::SubjectPublicKeyInfoRef;

/// Kind and size of a key; the words are those of a key spec.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum KeyKind {
    /// NIST P-256.
    EcP256,
    /// NIST P-384.
    EcP384,
    /// NIST P-521.
    EcP521,
    /// RSA with 2048 bits.
    Rsa2048,
    /// RSA with 3072 bits.
    Rsa3072,
    /// RSA with 4096 bits.
    Rsa4096,
    /// Ed25519 (RFC 8410).
    Ed25519,
}

impl KeyKind {
    /// Every kind.
    pub const ALL: [Self; 7] = [
        Self::EcP256,
        Self::EcP384,
        Self::EcP521,
        Self::Rsa2048,
        Self::Rsa3072,
        Self::Rsa4096,
        Self::Ed25519,
    ];

    /// The word in profiles and messages, such as `ec-p256`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::EcP256 => "ec-p256",
            Self::EcP384 => "ec-p384",
            Self::EcP521 => "ec-p521",
            Self::Rsa2048 => "rsa-2048",
            Self::Rsa3072 => "rsa-3072",
            Self::Rsa4096 => "rsa-4096",
            Self::Ed25519 => "ed25519",
        }
    }

    /// The kind with this [`name`](Self::name).
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Is it an RSA key?
    #[must_use]
    pub const fn is_rsa(self) -> bool {
        matches!(self, Self::Rsa2048 | Self::Rsa3072 | Self::Rsa4096)
    }

    /// Is it a key on a NIST curve?
    #[must_use]
    pub const fn is_ec(self) -> bool {
        matches!(self, Self::EcP256 | Self::EcP384 | Self::EcP521)
    }
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why bytes are not a SubjectPublicKeyInfo of a kind we know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    /// Not one DER SubjectPublicKeyInfo, or bytes after it.
    #[error("it is not one SubjectPublicKeyInfo in DER")]
    Malformed,
    /// Another algorithm, another curve, or parameters not as the standard writes them.
    #[error(
        "its algorithm {0} is not rsaEncryption with NULL, P-256, P-384 or P-521 by name, or Ed25519"
    )]
    Algorithm(String),
    /// An EC point or Ed25519 key that does not have the one length.
    #[error("a {0} key must be {1} bytes, an EC point uncompressed")]
    Length(KeyKind, usize),
    /// RSA of another size.
    #[error("RSA keys have 2048, 3072 or 4096 bits, this one has {0}")]
    RsaSize(usize),
}

/// A SubjectPublicKeyInfo of one of our kinds; borrowed, shape checked, nothing more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape<'a> {
    pub(crate) kind: KeyKind,
    /// The value of the BIT STRING: point, Ed25519 key or `RSAPublicKey`.
    pub(crate) key: &'a [u8],
}

/// `RSAPublicKey` (RFC 8017 appendix A.1.1).
#[derive(Sequence)]
pub(crate) struct RsaPublicKey<'a> {
    pub(crate) modulus: UintRef<'a>,
    pub(crate) exponent: UintRef<'a>,
}

/// `AlgorithmIdentifier`s, whole: parameters are part of the rule (RFC 3279 §2.3.1,
/// RFC 5480 §2.1.1, RFC 8410 §3).
const RSA: &[u8] = b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00";
const EC_P256: &[u8] =
    b"\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07";
const EC_P384: &[u8] = b"\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x22";
const EC_P521: &[u8] = b"\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x23";
const ED25519: &[u8] = b"\x30\x05\x06\x03\x2b\x65\x70";

impl<'a> Shape<'a> {
    /// Reads `spki`, which must be DER and nothing else.
    pub(crate) fn of(spki: &'a [u8]) -> Result<Self, ShapeError> {
        let malformed = |_| ShapeError::Malformed;
        let info = SubjectPublicKeyInfoRef::from_der(spki).map_err(malformed)?;
        // What is not the one DER of its content would hash to another key id.
        if info.to_der().map_err(malformed)? != spki {
            return Err(ShapeError::Malformed);
        }
        let algorithm = info.algorithm.to_der().map_err(malformed)?;
        let key = info
            .subject_public_key
            .as_bytes()
            .ok_or(ShapeError::Malformed)?;
        let kind = match algorithm.as_slice() {
            EC_P256 => fixed(KeyKind::EcP256, key, 65)?,
            EC_P384 => fixed(KeyKind::EcP384, key, 97)?,
            EC_P521 => fixed(KeyKind::EcP521, key, 133)?,
            ED25519 => fixed(KeyKind::Ed25519, key, 32)?,
            RSA => rsa(key)?,
            _ => return Err(ShapeError::Algorithm(info.algorithm.oid.to_string())),
        };
        Ok(Self { kind, key })
    }
}

/// Keys of one length; an EC point begins with 04 (RFC 5480 §2.2: uncompressed).
fn fixed(kind: KeyKind, key: &[u8], len: usize) -> Result<KeyKind, ShapeError> {
    if key.len() != len || (kind.is_ec() && key.first() != Some(&4)) {
        return Err(ShapeError::Length(kind, len));
    }
    Ok(kind)
}

fn rsa(key: &[u8]) -> Result<KeyKind, ShapeError> {
    let public = RsaPublicKey::from_der(key).map_err(|_| ShapeError::Malformed)?;
    if public.to_der().map_err(|_| ShapeError::Malformed)? != key {
        return Err(ShapeError::Malformed);
    }
    let modulus = public.modulus.as_bytes();
    let zeros = modulus.first().map_or(8, |byte| byte.leading_zeros());
    let bits = (8 * modulus.len()).saturating_sub(zeros as usize);
    match bits {
        2048 => Ok(KeyKind::Rsa2048),
        3072 => Ok(KeyKind::Rsa3072),
        4096 => Ok(KeyKind::Rsa4096),
        _ => Err(ShapeError::RsaSize(bits)),
    }
}
