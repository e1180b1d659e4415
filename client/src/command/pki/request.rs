//! Keys that are made here and stay here, and the requests (RFC 2986) they sign.

use aws_lc_rs::signature::Ed25519KeyPair;
use keywright_client::{Failure, FailureKind};
use rcgen::{
    CertificateParams, DistinguishedName, DnType, KeyPair, RsaKeySize, SignatureAlgorithm,
};

use super::files;
use crate::args::pki::KeyType;

/// A new key pair.
pub(super) fn new_key(kind: KeyType) -> Result<KeyPair, Failure> {
    let rsa = |size| KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, size);
    let made = match kind {
        KeyType::EcP256 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256),
        KeyType::EcP384 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384),
        KeyType::EcP521 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512),
        KeyType::Ed25519 => KeyPair::generate_for(&rcgen::PKCS_ED25519),
        KeyType::Rsa2048 => rsa(RsaKeySize::_2048),
        KeyType::Rsa3072 => rsa(RsaKeySize::_3072),
        KeyType::Rsa4096 => rsa(RsaKeySize::_4096),
    };
    made.map_err(|e| failed("no key could be made", &e))
}

/// PKCS#8 in PEM. Ed25519 in version 1 (RFC 8410 §7): openssl does not read version 2.
pub(super) fn private_pem(key: &KeyPair) -> Result<String, Failure> {
    if key.algorithm() != &rcgen::PKCS_ED25519 {
        return Ok(key.serialize_pem());
    }
    let written = Ed25519KeyPair::from_pkcs8(key.serialized_der())
        .ok()
        .and_then(|pair| pair.to_pkcs8v1().ok());
    let written = written
        .ok_or_else(|| Failure::new(FailureKind::Other, "the new key could not be written"))?;
    Ok(files::pem("PRIVATE KEY", written.as_ref()))
}

/// Of which type a key is.
pub(super) fn kind_of(key: &KeyPair) -> Result<KeyType, Failure> {
    let is = |algorithm: &'static SignatureAlgorithm| key.algorithm() == algorithm;
    // The bits of the modulus, which is what makes a PKCS#1 public key long (RFC 8017).
    let octets = key.public_key_raw().len();
    match octets {
        _ if is(&rcgen::PKCS_ECDSA_P256_SHA256) => Ok(KeyType::EcP256),
        _ if is(&rcgen::PKCS_ECDSA_P384_SHA384) => Ok(KeyType::EcP384),
        _ if is(&rcgen::PKCS_ECDSA_P521_SHA512) => Ok(KeyType::EcP521),
        _ if is(&rcgen::PKCS_ED25519) => Ok(KeyType::Ed25519),
        256..384 => Ok(KeyType::Rsa2048),
        384..512 => Ok(KeyType::Rsa3072),
        512..600 => Ok(KeyType::Rsa4096),
        _ => Err(Failure::new(
            FailureKind::Data,
            "no new key of this type is made here; make one with openssl, and use sign",
        )),
    }
}

/// A request that names nothing: the names are said beside it.
pub(super) fn csr(key: &KeyPair) -> Result<Vec<u8>, Failure> {
    signed(key, DistinguishedName::new())
}

/// Proof that the holder of the certificate's key wants it revoked, and nothing else: its
/// common name says so.
pub(super) fn revocation_proof(key: &KeyPair, serial: &[u8]) -> Result<Vec<u8>, Failure> {
    let mut subject = DistinguishedName::new();
    let name = format!("keywright revoke {}", hex::encode(serial));
    subject.push(DnType::CommonName, name);
    signed(key, subject)
}

fn signed(key: &KeyPair, subject: DistinguishedName) -> Result<Vec<u8>, Failure> {
    let mut params = CertificateParams::default();
    params.distinguished_name = subject;
    let csr = params
        .serialize_request(key)
        .map_err(|e| failed("no request could be signed", &e))?;
    Ok(csr.der().to_vec())
}

fn failed(what: &str, e: &rcgen::Error) -> Failure {
    Failure::new(FailureKind::Other, format!("{what}: {e}"))
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;
    use x509_parser::prelude::{FromDer, X509CertificationRequest};

    use super::*;

    #[test]
    fn every_type_of_key_can_be_made_and_is_known_again() {
        for kind in KeyType::value_variants() {
            // Slow without optimisation; the code is that of 2048 bits.
            if matches!(kind, KeyType::Rsa3072 | KeyType::Rsa4096) {
                continue;
            }
            let key = new_key(*kind).unwrap();
            assert_eq!(kind_of(&key).unwrap(), *kind);
            let again = KeyPair::from_pem(&private_pem(&key).unwrap()).unwrap();
            let public = rcgen::PublicKeyData::subject_public_key_info;
            assert_eq!(public(&again), public(&key));
            assert_eq!(kind_of(&again).unwrap(), *kind);
            let der = csr(&key).unwrap();
            let (rest, read) = X509CertificationRequest::from_der(&der).unwrap();
            assert!(rest.is_empty());
            assert_eq!(read.certification_request_info.subject.to_string(), "");
            assert_eq!(read.certification_request_info.iter_attributes().count(), 0);
        }
    }

    #[test]
    fn the_proof_names_the_serial_and_is_signed_with_the_key() {
        let key = new_key(KeyType::EcP256).unwrap();
        let der = revocation_proof(&key, &[0x00, 0xfa, 0x5f]).unwrap();
        let (_, read) = X509CertificationRequest::from_der(&der).unwrap();
        let info = &read.certification_request_info;
        assert_eq!(info.subject.to_string(), "CN=keywright revoke 00fa5f");
        let spki = rcgen::PublicKeyData::subject_public_key_info(&key);
        assert_eq!(info.subject_pki.raw, spki);
    }
}
