//! The delegated signer of answers (RFC 6960 §4.2.2.2, R9).

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use x509_parser::extensions::ParsedExtension;

use super::request::key_bits;
use crate::{
    Algorithm, IssuerCert, KeyError, NotACertificate, SubjectKey, info, oid, verify_signed_by,
};

/// A certificate that may sign answers for its issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OcspResponder {
    der: Vec<u8>,
    key: SubjectKey,
    key_hash: [u8; 20],
    pub(super) not_before: u64,
    pub(super) not_after: u64,
}

/// Why a certificate cannot sign answers.
#[derive(Debug, thiserror::Error)]
pub enum ResponderError {
    /// Cannot be read.
    #[error(transparent)]
    NotACertificate(#[from] NotACertificate),
    /// Its key.
    #[error("the OCSP responder's key: {0}")]
    Key(#[from] KeyError),
    /// Not signed by the CA it is to speak for.
    #[error("the OCSP responder's certificate was not issued by this CA itself")]
    Issuer,
    /// Not for OCSP alone.
    #[error(
        "the certificate is not an OCSP responder's: it needs digitalSignature, OCSPSigning alone and nocheck"
    )]
    Usage,
}

impl OcspResponder {
    /// A responder's certificate and the CA that issued it.
    ///
    /// # Errors
    /// Why it cannot sign answers.
    pub fn from_der(der: &[u8], issuer: &IssuerCert) -> Result<Self, ResponderError> {
        verify_signed_by(der, issuer).map_err(|_| ResponderError::Issuer)?;
        let certificate = info::read(der)?;
        let (mut usage, mut purpose, mut no_check) = (false, false, false);
        for extension in certificate.extensions() {
            match extension.parsed_extension() {
                ParsedExtension::KeyUsage(bits) => usage = bits.digital_signature(),
                ParsedExtension::ExtendedKeyUsage(eku) => {
                    let others = eku.any || eku.server_auth || eku.client_auth || eku.code_signing;
                    purpose = eku.ocsp_signing && !others && eku.other.is_empty();
                }
                _ => no_check |= extension.oid.as_bytes() == oid::OCSP_NO_CHECK,
            }
        }
        if !(usage && purpose && no_check) || certificate.is_ca() {
            return Err(ResponderError::Usage);
        }
        let key = SubjectKey::from_spki(certificate.public_key().raw)?;
        let bits = key_bits(key.spki()).ok_or(NotACertificate)?;
        let mut key_hash = [0; 20];
        let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, bits);
        key_hash
            .iter_mut()
            .zip(hash.as_ref())
            .for_each(|(to, from)| *to = *from);
        Ok(Self {
            der: der.to_vec(),
            key,
            key_hash,
            not_before: info::seconds(certificate.validity().not_before)?,
            not_after: info::seconds(certificate.validity().not_after)?,
        })
    }

    /// Its certificate, which goes with every answer.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// Its public key.
    #[must_use]
    pub fn key(&self) -> &SubjectKey {
        &self.key
    }

    /// What it signs with.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        Algorithm::for_key(self.key.kind())
    }

    /// When its certificate begins, in Unix seconds.
    #[must_use]
    pub fn not_before(&self) -> u64 {
        self.not_before
    }

    /// The last second of its certificate, in Unix seconds.
    #[must_use]
    pub fn not_after(&self) -> u64 {
        self.not_after
    }

    /// `KeyHash`: SHA-1 of the key bits, by definition (RFC 6960 §4.2.1).
    #[must_use]
    pub fn key_hash(&self) -> [u8; 20] {
        self.key_hash
    }
}
