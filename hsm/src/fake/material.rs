//! What the fake token holds, and what it does with it.

use aws_lc_rs::{
    digest,
    encoding::{AsDer, PublicKeyX509Der},
    hmac, rsa,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
        Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512,
        RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512, RsaSignatureEncoding,
    },
};

use crate::{
    Curve, Hash, KeySpec, PssSalt, PublicKey, Result, RsaBits, Signing,
    error::{Error, Kind},
    key::os_random,
};

pub(super) enum Material {
    Secret(Vec<u8>),
    Ec(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
    RsaSign(rsa::KeyPair),
    RsaDecrypt(rsa::PrivateDecryptingKey),
}

impl Material {
    pub(super) fn generate(spec: KeySpec) -> Result<(Self, Option<PublicKey>)> {
        let secret = |len: usize| {
            let mut bytes = vec![0; len];
            os_random(&mut bytes).map(|()| (Self::Secret(bytes), None))
        };
        match spec {
            KeySpec::Aes256 => secret(32),
            KeySpec::Hmac(hash) => secret(hash.bytes()),
            KeySpec::Ec(curve) => {
                let algorithm = match curve {
                    Curve::P256 => &ECDSA_P256_SHA256_FIXED_SIGNING,
                    Curve::P384 => &ECDSA_P384_SHA384_FIXED_SIGNING,
                };
                let pair = EcdsaKeyPair::generate(algorithm).map_err(|_| broken())?;
                let public = PublicKey::from_point(spec, pair.public_key().as_ref())?;
                Ok((Self::Ec(pair), Some(public)))
            }
            KeySpec::Ed25519 => {
                let pair = Ed25519KeyPair::generate().map_err(|_| broken())?;
                let public = PublicKey::from_point(spec, pair.public_key().as_ref())?;
                Ok((Self::Ed25519(pair), Some(public)))
            }
            KeySpec::RsaSign(bits) => {
                let pair = rsa::KeyPair::generate(rsa_size(bits)).map_err(|_| broken())?;
                let spki: PublicKeyX509Der<'_> =
                    pair.public_key().as_der().map_err(|_| broken())?;
                let public = PublicKey::from_spki(spec, spki.as_ref())?;
                Ok((Self::RsaSign(pair), Some(public)))
            }
            KeySpec::RsaDecrypt(bits) => {
                let key =
                    rsa::PrivateDecryptingKey::generate(rsa_size(bits)).map_err(|_| broken())?;
                let spki: PublicKeyX509Der<'_> = key.public_key().as_der().map_err(|_| broken())?;
                let public = PublicKey::from_spki(spec, spki.as_ref())?;
                Ok((Self::RsaDecrypt(key), Some(public)))
            }
        }
    }

    pub(super) fn sign(&self, how: Signing, input: &[u8]) -> Result<Vec<u8>> {
        let digest = |hash: Hash| {
            let algorithm = match hash {
                Hash::Sha256 => &digest::SHA256,
                Hash::Sha384 => &digest::SHA384,
                Hash::Sha512 => &digest::SHA512,
            };
            digest::Digest::import_less_safe(input, algorithm)
                .map_err(|_| Error::new(Kind::Unsupported, "a digest of the wrong length"))
        };
        match (self, how) {
            (Self::Ec(pair), Signing::Ecdsa) => {
                let hash = if input.len() == Hash::Sha256.bytes() {
                    Hash::Sha256
                } else {
                    Hash::Sha384
                };
                let signature = pair.sign_digest(&digest(hash)?).map_err(|_| broken())?;
                Ok(signature.as_ref().to_vec())
            }
            (Self::Ed25519(pair), Signing::Ed25519) => Ok(pair.sign(input).as_ref().to_vec()),
            (Self::RsaSign(pair), Signing::RsaPkcs1(hash)) => {
                let padding = match hash {
                    Hash::Sha256 => &RSA_PKCS1_SHA256,
                    Hash::Sha384 => &RSA_PKCS1_SHA384,
                    Hash::Sha512 => &RSA_PKCS1_SHA512,
                };
                let mut out = vec![0; pair.public_modulus_len()];
                pair.sign_digest(padding, &digest(hash)?, &mut out)
                    .map_err(|_| broken())?;
                Ok(out)
            }
            (Self::RsaSign(pair), Signing::RsaPss(hash, salt)) => {
                let padding = pss(hash, salt)?;
                let mut out = vec![0; pair.public_modulus_len()];
                pair.sign_digest(padding, &digest(hash)?, &mut out)
                    .map_err(|_| broken())?;
                Ok(out)
            }
            _ => Err(Error::new(Kind::Unsupported, "scheme and key do not fit")),
        }
    }
}

/// The fake knows salts as long as the hash; a token that does not is worth testing too.
fn pss(hash: Hash, salt: PssSalt) -> Result<&'static RsaSignatureEncoding> {
    match (hash, salt) {
        (Hash::Sha256, PssSalt::Hash) => Ok(&RSA_PSS_SHA256),
        (Hash::Sha384, PssSalt::Hash) => Ok(&RSA_PSS_SHA384),
        (Hash::Sha512, PssSalt::Hash) => Ok(&RSA_PSS_SHA512),
        _ => Err(Error::new(
            Kind::Unsupported,
            "this token knows no such salt",
        )),
    }
}

fn rsa_size(bits: RsaBits) -> rsa::KeySize {
    match bits {
        RsaBits::B2048 => rsa::KeySize::Rsa2048,
        RsaBits::B3072 => rsa::KeySize::Rsa3072,
        RsaBits::B4096 => rsa::KeySize::Rsa4096,
    }
}

pub(super) fn broken() -> Error {
    Error::new(Kind::Fault, "the fake's own cryptography failed")
}

pub(super) fn mac(spec: KeySpec, secret: &[u8], message: &[u8]) -> Result<Vec<u8>> {
    let algorithm = match spec {
        KeySpec::Hmac(Hash::Sha256) => hmac::HMAC_SHA256,
        KeySpec::Hmac(Hash::Sha384) => hmac::HMAC_SHA384,
        KeySpec::Hmac(Hash::Sha512) => hmac::HMAC_SHA512,
        _ => return Err(Error::new(Kind::Unsupported, "this key makes no MAC")),
    };
    let key = hmac::Key::new(algorithm, secret);
    Ok(hmac::sign(&key, message).as_ref().to_vec())
}
