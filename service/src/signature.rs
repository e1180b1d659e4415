//! Signature algorithms as callers ask for them: a scheme that fits the key, a message
//! or its digest, DER or raw. Pure.

use std::borrow::Cow;

use bytes::Bytes;
use keywright_hsm::{Hash, PssSalt, Signing};
use keywright_pki::{ecdsa_from_der, ecdsa_to_der};
use sha2::{Digest, Sha256, Sha384, Sha512};

use crate::{
    error::{Error, Reason, Result},
    key::KeySpec,
};

/// A family of signatures with its hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// ECDSA over a digest.
    Ecdsa(Hash),
    /// Ed25519 over a message.
    Ed25519,
    /// RSASSA-PSS.
    RsaPss(Hash),
    /// RSASSA-PKCS1-v1_5.
    RsaPkcs1(Hash),
}

/// What a caller asked for.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    /// `None`: what the key has.
    pub scheme: Option<Scheme>,
    /// r‖s instead of DER.
    pub raw: Option<bool>,
    /// For RSA-PSS.
    pub salt: Option<PssSalt>,
    /// The inputs are digests.
    pub digests: bool,
}

/// An algorithm that fits a key.
#[derive(Debug, Clone, Copy)]
pub struct Algorithm {
    /// The scheme that was asked for or chosen.
    pub scheme: Scheme,
    /// What the token is told.
    pub how: Signing,
    hash: Option<Hash>,
    /// Field length when DER is wanted.
    der: Option<usize>,
    digests: bool,
}

impl Algorithm {
    /// What was asked, for a key of `spec`.
    ///
    /// # Errors
    /// [`Reason::InvalidArgument`] when the two do not fit.
    pub fn of(spec: KeySpec, asked: Asked) -> Result<Self> {
        let wrong = |text: String| Err(Error::field(Reason::InvalidArgument, "algorithm", text));
        let native = match spec {
            KeySpec::Ec(curve) => Scheme::Ecdsa(curve.hash()),
            KeySpec::Ed25519 => Scheme::Ed25519,
            _ => Scheme::RsaPss(Hash::Sha256),
        };
        let scheme = asked.scheme.unwrap_or(native);
        let how = match scheme {
            Scheme::Ecdsa(_) => Signing::Ecdsa,
            Scheme::Ed25519 => Signing::Ed25519,
            Scheme::RsaPss(hash) => Signing::RsaPss(hash, asked.salt.unwrap_or(PssSalt::Hash)),
            Scheme::RsaPkcs1(hash) => Signing::RsaPkcs1(hash),
        };
        let hash = how.hash(spec);
        let fits = match scheme {
            Scheme::Ecdsa(wanted) => hash == Some(wanted),
            _ => how.is_of(spec),
        };
        if !fits {
            return wrong(format!("a key of {} does not sign this way", spec.name()));
        }
        if asked.salt.is_some() && !matches!(scheme, Scheme::RsaPss(_)) {
            return wrong("only RSA-PSS has a salt; leave pss_salt out".into());
        }
        if asked.raw.is_some() && !matches!(scheme, Scheme::Ecdsa(_)) {
            return wrong("only ECDSA signatures have two encodings; leave encoding out".into());
        }
        if asked.digests && hash.is_none() {
            return wrong("Ed25519 signs messages, not digests".into());
        }
        let der = match spec {
            KeySpec::Ec(curve) if asked.raw != Some(true) => Some(curve.field_len()),
            _ => None,
        };
        Ok(Self {
            scheme,
            how,
            hash,
            der,
            digests: asked.digests,
        })
    }

    /// What goes into the token: the digest, or the message for Ed25519.
    ///
    /// # Errors
    /// [`Reason::InvalidArgument`] for a digest of the wrong length.
    pub fn input(&self, given: &[u8]) -> Result<Bytes> {
        match self.hash {
            None => Ok(Bytes::copy_from_slice(given)),
            Some(hash) if self.digests => {
                if given.len() == hash.bytes() {
                    Ok(Bytes::copy_from_slice(given))
                } else {
                    Err(Error::field(
                        Reason::InvalidArgument,
                        "inputs",
                        format!(
                            "a digest of {} bytes; this scheme takes {}",
                            given.len(),
                            hash.bytes()
                        ),
                    ))
                }
            }
            Some(Hash::Sha256) => Ok(Bytes::copy_from_slice(&Sha256::digest(given))),
            Some(Hash::Sha384) => Ok(Bytes::copy_from_slice(&Sha384::digest(given))),
            Some(Hash::Sha512) => Ok(Bytes::copy_from_slice(&Sha512::digest(given))),
        }
    }

    /// A signature of the token in the encoding that was asked for.
    ///
    /// # Errors
    /// When the token made one that cannot be written.
    pub fn encode(&self, signature: Vec<u8>) -> Result<Vec<u8>> {
        match self.der {
            None => Ok(signature),
            Some(_) => ecdsa_to_der(&signature)
                .ok_or_else(|| Error::internal("a signature that is not r‖s")),
        }
    }

    /// A caller's signature as the token would have made it; `None` when it is not even
    /// written like one.
    #[must_use]
    pub fn decode<'a>(&self, signature: &'a [u8]) -> Option<Cow<'a, [u8]>> {
        match self.der {
            None => Some(Cow::Borrowed(signature)),
            Some(field) => ecdsa_from_der(signature, field).map(Cow::Owned),
        }
    }
}

#[cfg(test)]
mod tests {
    use keywright_hsm::{Curve, RsaBits};

    use super::*;

    fn asked(scheme: Option<Scheme>) -> Asked {
        Asked {
            scheme,
            raw: None,
            salt: None,
            digests: false,
        }
    }

    #[test]
    fn a_scheme_fits_its_keys_and_no_others() {
        let schemes = [
            Scheme::Ecdsa(Hash::Sha256),
            Scheme::Ecdsa(Hash::Sha384),
            Scheme::Ed25519,
            Scheme::RsaPss(Hash::Sha512),
            Scheme::RsaPkcs1(Hash::Sha256),
        ];
        let fitting: [(KeySpec, &[usize]); 5] = [
            (KeySpec::Ec(Curve::P256), &[0]),
            (KeySpec::Ec(Curve::P384), &[1]),
            (KeySpec::Ed25519, &[2]),
            (KeySpec::RsaSign(RsaBits::B2048), &[3, 4]),
            (KeySpec::RsaDecrypt(RsaBits::B2048), &[]),
        ];
        for (spec, fit) in fitting {
            for (i, scheme) in schemes.iter().enumerate() {
                let got = Algorithm::of(spec, asked(Some(*scheme))).is_ok();
                assert_eq!(got, fit.contains(&i), "{spec:?} {scheme:?}");
            }
        }
        for spec in [KeySpec::Aes256, KeySpec::Hmac(Hash::Sha256)] {
            assert!(Algorithm::of(spec, asked(None)).is_err());
        }
    }

    #[test]
    fn digests_have_the_length_of_the_hash() {
        let digests = Asked {
            digests: true,
            ..asked(None)
        };
        let p384 = Algorithm::of(KeySpec::Ec(Curve::P384), digests).unwrap();
        for len in [0, 32, 47, 49, 64] {
            assert!(p384.input(&vec![1; len]).is_err(), "{len}");
        }
        assert_eq!(p384.input(&[1; 48]).unwrap().as_ref(), [1; 48]);
        assert!(Algorithm::of(KeySpec::Ed25519, digests).is_err());
    }
}
