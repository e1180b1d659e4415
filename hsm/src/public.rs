//! The public half of a pair, and what is done with it: in process, never in the token.
//!
//! The one thing it is kept as is the SubjectPublicKeyInfo (RFC 5280 §4.1.2.7), which
//! every library reads.

use std::{fmt, sync::Arc};

use aws_lc_rs::{
    digest::{self, Digest},
    encoding::{AsDer, PublicKeyX509Der},
    rsa::{
        OAEP_SHA1_MGF1SHA1, OAEP_SHA256_MGF1SHA256, OAEP_SHA384_MGF1SHA384, OAEP_SHA512_MGF1SHA512,
        OaepAlgorithm, OaepPublicEncryptingKey, PublicEncryptingKey, PublicKeyComponents,
    },
    signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256,
        RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256,
        RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaParameters, RsaPssSaltLength,
        UnparsedPublicKey, VerificationAlgorithm,
    },
};

use crate::{
    Result,
    error::{Error, Kind},
    key::{Curve, Hash, KeySpec, PssSalt, Signing},
};

/// Hash of OAEP; the label is empty and MGF1 uses the same hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Oaep {
    /// SHA-1, for tokens that know no other. Not weak here: OAEP needs no collision
    /// resistance.
    Sha1,
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

impl Oaep {
    /// Name of the hash.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha1 => "SHA-1",
            Self::Sha256 => "SHA-256",
            Self::Sha384 => "SHA-384",
            Self::Sha512 => "SHA-512",
        }
    }

    /// Bytes of the hash.
    #[must_use]
    pub fn hash_len(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    pub(crate) fn algorithm(self) -> &'static OaepAlgorithm {
        match self {
            Self::Sha1 => &OAEP_SHA1_MGF1SHA1,
            Self::Sha256 => &OAEP_SHA256_MGF1SHA256,
            Self::Sha384 => &OAEP_SHA384_MGF1SHA384,
            Self::Sha512 => &OAEP_SHA512_MGF1SHA512,
        }
    }
}

/// A public key, checked to be one of its spec.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    spec: KeySpec,
    spki: Arc<[u8]>,
}

impl PublicKey {
    /// From a SubjectPublicKeyInfo in DER.
    ///
    /// # Errors
    /// [`Kind::Refused`] when it is none, or of another spec.
    pub fn from_spki(spec: KeySpec, spki: &[u8]) -> Result<Self> {
        let canonical = match spec {
            KeySpec::Aes256 | KeySpec::Hmac(_) => return Err(no_public(spec)),
            KeySpec::Ec(_) | KeySpec::Ed25519 => parsed(spec, spki)?,
            KeySpec::RsaSign(bits) | KeySpec::RsaDecrypt(bits) => {
                let key = PublicEncryptingKey::from_der(spki).map_err(|_| not_one(spec))?;
                if key.key_size_bits() != bits.bits() {
                    return Err(not_one(spec));
                }
                key.as_der().map_err(|_| not_one(spec))?
            }
        };
        // One spelling: what is compared and hashed elsewhere must not have two.
        if canonical.as_ref() != spki {
            return Err(not_one(spec));
        }
        Ok(Self {
            spec,
            spki: spki.into(),
        })
    }

    /// From the uncompressed point, or the 32 bytes of an Ed25519 key.
    pub(crate) fn from_point(spec: KeySpec, point: &[u8]) -> Result<Self> {
        let spki = parsed(spec, point)?;
        Self::from_spki(spec, spki.as_ref())
    }

    /// From modulus and exponent, big-endian.
    pub(crate) fn from_modulus(spec: KeySpec, n: &[u8], e: &[u8]) -> Result<Self> {
        fn strip(bytes: &[u8]) -> &[u8] {
            let zeros = bytes.iter().take_while(|b| **b == 0).count();
            bytes.get(zeros..).unwrap_or_default()
        }
        let parts = PublicKeyComponents {
            n: strip(n),
            e: strip(e),
        };
        let spki: PublicKeyX509Der<'_> = parts.as_der().map_err(|_| not_one(spec))?;
        Self::from_spki(spec, spki.as_ref())
    }

    /// SubjectPublicKeyInfo, DER.
    #[must_use]
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// What it is the public half of.
    #[must_use]
    pub fn spec(&self) -> KeySpec {
        self.spec
    }

    /// Checks a signature as [`Token::sign`](crate::Token::sign) makes it, over the same
    /// input: a digest, or the message for Ed25519.
    ///
    /// # Errors
    /// [`Kind::Refused`] for anything that is not exactly that.
    pub fn verify(&self, how: Signing, input: &[u8], signature: &[u8]) -> Result<()> {
        let refused = || Error::new(Kind::Refused, "this key did not make this signature");
        let (algorithm, hash): (&'static dyn VerificationAlgorithm, _) = match (self.spec, how) {
            (KeySpec::Ed25519, Signing::Ed25519) => {
                return UnparsedPublicKey::new(&ED25519, &self.spki)
                    .verify(input, signature)
                    .map_err(|_| refused());
            }
            (KeySpec::Ec(Curve::P256), Signing::Ecdsa) => (&ECDSA_P256_SHA256_FIXED, Hash::Sha256),
            (KeySpec::Ec(Curve::P384), Signing::Ecdsa) => (&ECDSA_P384_SHA384_FIXED, Hash::Sha384),
            (KeySpec::RsaSign(_), Signing::RsaPkcs1(hash)) => (pkcs1(hash), hash),
            (KeySpec::RsaSign(_), Signing::RsaPss(hash, salt)) => (pss(hash, salt), hash),
            _ => return Err(refused()),
        };
        let digest =
            Digest::import_less_safe(input, digest_algorithm(hash)).map_err(|_| refused())?;
        UnparsedPublicKey::new(algorithm, &self.spki)
            .verify_digest(&digest, signature)
            .map_err(|_| refused())
    }

    /// RSA-OAEP with an empty label.
    ///
    /// # Errors
    /// [`Kind::Refused`] when the plaintext is too long, or the key not for decryption.
    pub fn encrypt(&self, oaep: Oaep, plaintext: &[u8]) -> Result<Vec<u8>> {
        let refused = || Error::new(Kind::Refused, "too long for this key and hash");
        let KeySpec::RsaDecrypt(bits) = self.spec else {
            return Err(no_public(self.spec));
        };
        let key = PublicEncryptingKey::from_der(&self.spki).map_err(|_| not_one(self.spec))?;
        let key = OaepPublicEncryptingKey::new(key).map_err(|_| not_one(self.spec))?;
        let mut out = vec![0; bits.bytes()];
        let n = key
            .encrypt(oaep.algorithm(), plaintext, &mut out, None)
            .map_err(|_| refused())?
            .len();
        out.truncate(n);
        Ok(out)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({:?}, {})", self.spec, hex::encode(&self.spki))
    }
}

fn parsed(spec: KeySpec, bytes: &[u8]) -> Result<PublicKeyX509Der<'static>> {
    let algorithm: &'static dyn VerificationAlgorithm = match spec {
        KeySpec::Ec(Curve::P256) => &ECDSA_P256_SHA256_FIXED,
        KeySpec::Ec(Curve::P384) => &ECDSA_P384_SHA384_FIXED,
        KeySpec::Ed25519 => &ED25519,
        _ => return Err(no_public(spec)),
    };
    UnparsedPublicKey::new(algorithm, bytes)
        .parse()
        .map_err(|_| not_one(spec))?
        .as_der()
        .map_err(|_| not_one(spec))
}

fn no_public(spec: KeySpec) -> Error {
    Error::new(
        Kind::Refused,
        format!("{spec:?} has no such public operation"),
    )
}

fn not_one(spec: KeySpec) -> Error {
    Error::new(Kind::Refused, format!("not a public key of {spec:?}"))
}

fn digest_algorithm(hash: Hash) -> &'static digest::Algorithm {
    match hash {
        Hash::Sha256 => &digest::SHA256,
        Hash::Sha384 => &digest::SHA384,
        Hash::Sha512 => &digest::SHA512,
    }
}

fn pkcs1(hash: Hash) -> &'static RsaParameters {
    match hash {
        Hash::Sha256 => &RSA_PKCS1_2048_8192_SHA256,
        Hash::Sha384 => &RSA_PKCS1_2048_8192_SHA384,
        Hash::Sha512 => &RSA_PKCS1_2048_8192_SHA512,
    }
}

fn pss(hash: Hash, salt: PssSalt) -> &'static RsaParameters {
    const EMPTY: RsaPssSaltLength = RsaPssSaltLength::Custom(0);
    const MAX: RsaPssSaltLength = RsaPssSaltLength::Max;
    static EMPTY_256: RsaParameters = RSA_PSS_2048_8192_SHA256.with_pss_salt_length(EMPTY);
    static EMPTY_384: RsaParameters = RSA_PSS_2048_8192_SHA384.with_pss_salt_length(EMPTY);
    static EMPTY_512: RsaParameters = RSA_PSS_2048_8192_SHA512.with_pss_salt_length(EMPTY);
    static MAX_256: RsaParameters = RSA_PSS_2048_8192_SHA256.with_pss_salt_length(MAX);
    static MAX_384: RsaParameters = RSA_PSS_2048_8192_SHA384.with_pss_salt_length(MAX);
    static MAX_512: RsaParameters = RSA_PSS_2048_8192_SHA512.with_pss_salt_length(MAX);
    match (hash, salt) {
        (Hash::Sha256, PssSalt::Hash) => &RSA_PSS_2048_8192_SHA256,
        (Hash::Sha384, PssSalt::Hash) => &RSA_PSS_2048_8192_SHA384,
        (Hash::Sha512, PssSalt::Hash) => &RSA_PSS_2048_8192_SHA512,
        (Hash::Sha256, PssSalt::Empty) => &EMPTY_256,
        (Hash::Sha384, PssSalt::Empty) => &EMPTY_384,
        (Hash::Sha512, PssSalt::Empty) => &EMPTY_512,
        (Hash::Sha256, PssSalt::Max) => &MAX_256,
        (Hash::Sha384, PssSalt::Max) => &MAX_384,
        (Hash::Sha512, PssSalt::Max) => &MAX_512,
    }
}
