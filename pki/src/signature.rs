//! Signature algorithms: their exact `AlgorithmIdentifier`, which one an issuer uses,
//! and verification. Nothing here signs.

use aws_lc_rs::signature::{self as verifier, UnparsedPublicKey, VerificationAlgorithm};

use crate::key_kind::{KeyKind, Shape};

/// A signature algorithm together with the key it belongs to. SHA-2 only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// ecdsa-with-SHA256 by a P-256 key.
    EcdsaP256Sha256,
    /// ecdsa-with-SHA384 by a P-384 key.
    EcdsaP384Sha384,
    /// ecdsa-with-SHA512 by a P-521 key.
    EcdsaP521Sha512,
    /// sha256WithRSAEncryption.
    RsaPkcs1Sha256,
    /// sha384WithRSAEncryption.
    RsaPkcs1Sha384,
    /// sha512WithRSAEncryption.
    RsaPkcs1Sha512,
    /// RSASSA-PSS, SHA-256, MGF1 with SHA-256, salt 32.
    RsaPssSha256,
    /// RSASSA-PSS, SHA-384, MGF1 with SHA-384, salt 48.
    RsaPssSha384,
    /// RSASSA-PSS, SHA-512, MGF1 with SHA-512, salt 64.
    RsaPssSha512,
    /// Ed25519.
    Ed25519,
}

/// The signature does not belong to this key, algorithm and message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the signature does not verify with this key")]
pub struct BadSignature;

impl Algorithm {
    /// Every algorithm.
    pub const ALL: [Self; 10] = [
        Self::EcdsaP256Sha256,
        Self::EcdsaP384Sha384,
        Self::EcdsaP521Sha512,
        Self::RsaPkcs1Sha256,
        Self::RsaPkcs1Sha384,
        Self::RsaPkcs1Sha512,
        Self::RsaPssSha256,
        Self::RsaPssSha384,
        Self::RsaPssSha512,
        Self::Ed25519,
    ];

    /// The DER of the `AlgorithmIdentifier`: parameters NULL for RSA PKCS#1 (RFC 4055
    /// §5), all of them written for PSS (§3.1), absent for ECDSA (RFC 5758 §3.2) and
    /// Ed25519 (RFC 8410 §3).
    #[must_use]
    pub const fn der(&self) -> &'static [u8] {
        match self {
            Self::EcdsaP256Sha256 => b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02",
            Self::EcdsaP384Sha384 => b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x03",
            Self::EcdsaP521Sha512 => b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x04",
            Self::RsaPkcs1Sha256 => b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b\x05\x00",
            Self::RsaPkcs1Sha384 => b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0c\x05\x00",
            Self::RsaPkcs1Sha512 => b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0d\x05\x00",
            Self::RsaPssSha256 => {
                b"\x30\x41\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0a\x30\x34\
                  \xa0\x0f\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\
                  \xa1\x1c\x30\x1a\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x08\
                  \x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\
                  \xa2\x03\x02\x01\x20"
            }
            Self::RsaPssSha384 => {
                b"\x30\x41\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0a\x30\x34\
                  \xa0\x0f\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x02\x05\x00\
                  \xa1\x1c\x30\x1a\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x08\
                  \x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x02\x05\x00\
                  \xa2\x03\x02\x01\x30"
            }
            Self::RsaPssSha512 => {
                b"\x30\x41\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0a\x30\x34\
                  \xa0\x0f\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x03\x05\x00\
                  \xa1\x1c\x30\x1a\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x08\
                  \x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x03\x05\x00\
                  \xa2\x03\x02\x01\x40"
            }
            Self::Ed25519 => b"\x30\x05\x06\x03\x2b\x65\x70",
        }
    }

    /// The algorithm with exactly this `AlgorithmIdentifier`. ECDSA identifiers do not
    /// name the curve; the one that belongs to the hash is meant.
    #[must_use]
    pub fn from_der(der: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|a| a.der() == der)
    }

    /// What an issuer with such a key signs with: the hash follows the key.
    #[must_use]
    pub const fn for_key(kind: KeyKind) -> Self {
        match kind {
            KeyKind::EcP256 => Self::EcdsaP256Sha256,
            KeyKind::EcP384 => Self::EcdsaP384Sha384,
            KeyKind::EcP521 => Self::EcdsaP521Sha512,
            KeyKind::Rsa2048 | KeyKind::Rsa3072 | KeyKind::Rsa4096 => Self::RsaPkcs1Sha256,
            KeyKind::Ed25519 => Self::Ed25519,
        }
    }

    /// May an issuer with such a key sign so? The hash follows an EC key; RSA may choose.
    #[must_use]
    pub const fn fits(self, kind: KeyKind) -> bool {
        match self {
            Self::EcdsaP256Sha256 => matches!(kind, KeyKind::EcP256),
            Self::EcdsaP384Sha384 => matches!(kind, KeyKind::EcP384),
            Self::EcdsaP521Sha512 => matches!(kind, KeyKind::EcP521),
            Self::Ed25519 => matches!(kind, KeyKind::Ed25519),
            _ => kind.is_rsa(),
        }
    }

    /// Verifies with the key in `spki_der`. A key of another kind than the algorithm's
    /// is a bad signature; its quality is not judged here.
    ///
    /// # Errors
    /// [`BadSignature`], with no further reason.
    pub fn verify(
        &self,
        spki_der: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), BadSignature> {
        let shape = Shape::of(spki_der).map_err(|_| BadSignature)?;
        if !self.fits(shape.kind) {
            return Err(BadSignature);
        }
        self.verify_any_curve(shape, message, signature)
    }

    /// As [`verify`](Self::verify), but an ECDSA hash may meet any of our curves: what
    /// others sign with is theirs to choose, and OpenSSL signs SHA-256 with every curve.
    pub(crate) fn verify_any_curve(
        self,
        key: Shape<'_>,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), BadSignature> {
        let with = self.verifier(key.kind).ok_or(BadSignature)?;
        UnparsedPublicKey::new(with, key.key)
            .verify(message, signature)
            .map_err(|_| BadSignature)
    }

    fn verifier(self, kind: KeyKind) -> Option<&'static dyn VerificationAlgorithm> {
        use KeyKind::{EcP256, EcP384, EcP521, Ed25519};
        Some(match (self, kind) {
            (Self::EcdsaP256Sha256, EcP256) => &verifier::ECDSA_P256_SHA256_ASN1,
            (Self::EcdsaP256Sha256, EcP384) => &verifier::ECDSA_P384_SHA256_ASN1,
            (Self::EcdsaP256Sha256, EcP521) => &verifier::ECDSA_P521_SHA256_ASN1,
            (Self::EcdsaP384Sha384, EcP256) => &verifier::ECDSA_P256_SHA384_ASN1,
            (Self::EcdsaP384Sha384, EcP384) => &verifier::ECDSA_P384_SHA384_ASN1,
            (Self::EcdsaP384Sha384, EcP521) => &verifier::ECDSA_P521_SHA384_ASN1,
            (Self::EcdsaP521Sha512, EcP256) => &verifier::ECDSA_P256_SHA512_ASN1,
            (Self::EcdsaP521Sha512, EcP384) => &verifier::ECDSA_P384_SHA512_ASN1,
            (Self::EcdsaP521Sha512, EcP521) => &verifier::ECDSA_P521_SHA512_ASN1,
            (Self::RsaPkcs1Sha256, k) if k.is_rsa() => &verifier::RSA_PKCS1_2048_8192_SHA256,
            (Self::RsaPkcs1Sha384, k) if k.is_rsa() => &verifier::RSA_PKCS1_2048_8192_SHA384,
            (Self::RsaPkcs1Sha512, k) if k.is_rsa() => &verifier::RSA_PKCS1_2048_8192_SHA512,
            (Self::RsaPssSha256, k) if k.is_rsa() => &verifier::RSA_PSS_2048_8192_SHA256,
            (Self::RsaPssSha384, k) if k.is_rsa() => &verifier::RSA_PSS_2048_8192_SHA384,
            (Self::RsaPssSha512, k) if k.is_rsa() => &verifier::RSA_PSS_2048_8192_SHA512,
            (Self::Ed25519, Ed25519) => &verifier::ED25519,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::{
        encoding::AsDer,
        rand::SystemRandom,
        rsa::KeySize,
        signature::{self as signer, EcdsaKeyPair, KeyPair as _, RsaKeyPair},
    };

    use super::*;

    /// Written with another tool's output beside: RFC 4055 §5 and §6, RFC 5758 §3.2.
    #[test]
    fn identifiers_are_these_bytes() {
        let hex = |a: Algorithm| {
            a.der()
                .iter()
                .map(|b| format!("{b:02x}"))
                .collect::<String>()
        };
        assert_eq!(hex(Algorithm::EcdsaP256Sha256), "300a06082a8648ce3d040302");
        assert_eq!(hex(Algorithm::EcdsaP384Sha384), "300a06082a8648ce3d040303");
        assert_eq!(hex(Algorithm::EcdsaP521Sha512), "300a06082a8648ce3d040304");
        assert_eq!(
            hex(Algorithm::RsaPkcs1Sha256),
            "300d06092a864886f70d01010b0500"
        );
        assert_eq!(
            hex(Algorithm::RsaPkcs1Sha384),
            "300d06092a864886f70d01010c0500"
        );
        assert_eq!(
            hex(Algorithm::RsaPkcs1Sha512),
            "300d06092a864886f70d01010d0500"
        );
        assert_eq!(hex(Algorithm::Ed25519), "300506032b6570");
        assert_eq!(
            hex(Algorithm::RsaPssSha256),
            "304106092a864886f70d01010a3034a00f300d06096086480165030402010500a11c301a06092a864886f70d010108300d06096086480165030402010500a203020120"
        );
        assert_eq!(
            hex(Algorithm::RsaPssSha384),
            "304106092a864886f70d01010a3034a00f300d06096086480165030402020500a11c301a06092a864886f70d010108300d06096086480165030402020500a203020130"
        );
        assert_eq!(
            hex(Algorithm::RsaPssSha512),
            "304106092a864886f70d01010a3034a00f300d06096086480165030402030500a11c301a06092a864886f70d010108300d06096086480165030402030500a203020140"
        );
        for algorithm in Algorithm::ALL {
            assert_eq!(Algorithm::from_der(algorithm.der()), Some(algorithm));
        }
        // SHA-256 with RSA, parameters absent.
        let absent = b"\x30\x0b\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b";
        assert_eq!(Algorithm::from_der(absent), None);
    }

    #[test]
    fn a_signature_verifies_with_its_key_and_algorithm_only() {
        let rng = SystemRandom::new();
        let ec = EcdsaKeyPair::generate(&signer::ECDSA_P384_SHA384_ASN1_SIGNING).unwrap();
        let ec_spki = AsDer::as_der(ec.public_key()).unwrap().as_ref().to_vec();
        let ec_signature = ec.sign(&rng, b"m").unwrap().as_ref().to_vec();
        let rsa = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let rsa_spki = AsDer::as_der(rsa.public_key()).unwrap().as_ref().to_vec();
        let rsa_sign = |with: &'static dyn signer::RsaEncoding| {
            let mut out = vec![0; rsa.public_modulus_len()];
            rsa.sign(with, &rng, b"m", &mut out).unwrap();
            out
        };
        for (own, spki, signature) in [
            (Algorithm::EcdsaP384Sha384, &ec_spki, ec_signature),
            (
                Algorithm::RsaPkcs1Sha256,
                &rsa_spki,
                rsa_sign(&signer::RSA_PKCS1_SHA256),
            ),
            (
                Algorithm::RsaPkcs1Sha512,
                &rsa_spki,
                rsa_sign(&signer::RSA_PKCS1_SHA512),
            ),
            (
                Algorithm::RsaPssSha256,
                &rsa_spki,
                rsa_sign(&signer::RSA_PSS_SHA256),
            ),
            (
                Algorithm::RsaPssSha384,
                &rsa_spki,
                rsa_sign(&signer::RSA_PSS_SHA384),
            ),
        ] {
            for algorithm in Algorithm::ALL {
                let got = algorithm.verify(spki, b"m", &signature);
                assert_eq!(got.is_ok(), algorithm == own, "{algorithm:?} {own:?}");
            }
            assert_eq!(own.verify(spki, b"n", &signature), Err(BadSignature));
        }
    }
}
