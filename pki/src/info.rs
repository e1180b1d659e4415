//! Reading a certificate: for renewal, revocation by certificate and search.

use x509_parser::{
    certificate::X509Certificate,
    extensions::{GeneralName, ParsedExtension},
    prelude::FromDer,
    time::ASN1Time,
};

use crate::{
    Algorithm, BadSignature, IssuerCert, San, Serial, key_kind::Shape, subject_key, unsigned::Parts,
};

/// What others want to know of a certificate. Nothing of it is verified; see
/// [`verify_signed_by`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateInfo {
    /// Its number.
    pub serial: Serial,
    /// The issuer's name in DER.
    pub issuer_der: Vec<u8>,
    /// The subject's name in DER.
    pub subject_der: Vec<u8>,
    /// The authority key identifier.
    pub aki: Option<Vec<u8>>,
    /// The subject key identifier.
    pub ski: Option<Vec<u8>>,
    /// Subject alternative names that we might have issued.
    pub sans: Vec<San>,
    /// How many alternative names it has of other kinds, or that we would not issue.
    pub other_names: usize,
    /// Unix seconds.
    pub not_before: u64,
    /// Unix seconds; the last second of validity.
    pub not_after: u64,
    /// Its SubjectPublicKeyInfo, DER.
    pub spki: Vec<u8>,
    /// SHA-256 of its SubjectPublicKeyInfo.
    pub spki_sha256: [u8; 32],
    /// basicConstraints says cA.
    pub is_ca: bool,
}

/// Not one certificate in DER with a usable serial and times since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is not one X.509 certificate in DER")]
pub struct NotACertificate;

impl CertificateInfo {
    /// Reads one certificate.
    ///
    /// # Errors
    /// [`NotACertificate`].
    pub fn from_der(der: &[u8]) -> Result<Self, NotACertificate> {
        let certificate = read(der)?;
        let mut info = Self {
            serial: Serial::from_bytes(certificate.raw_serial()).map_err(|_| NotACertificate)?,
            issuer_der: certificate.issuer().as_raw().to_vec(),
            subject_der: certificate.subject().as_raw().to_vec(),
            aki: None,
            ski: None,
            sans: Vec::new(),
            other_names: 0,
            not_before: seconds(certificate.validity().not_before)?,
            not_after: seconds(certificate.validity().not_after)?,
            spki: certificate.public_key().raw.to_vec(),
            spki_sha256: subject_key::sha256(certificate.public_key().raw),
            is_ca: false,
        };
        for extension in certificate.extensions() {
            match extension.parsed_extension() {
                ParsedExtension::AuthorityKeyIdentifier(id) => {
                    info.aki = id.key_identifier.as_ref().map(|id| id.0.to_vec());
                }
                ParsedExtension::SubjectKeyIdentifier(id) => info.ski = Some(id.0.to_vec()),
                ParsedExtension::BasicConstraints(basic) => info.is_ca = basic.ca,
                ParsedExtension::SubjectAlternativeName(names) => {
                    info.sans = names.general_names.iter().filter_map(san).collect();
                    info.other_names = names.general_names.len() - info.sans.len();
                }
                _ => {}
            }
        }
        Ok(info)
    }
}

/// One certificate and nothing behind it; the same algorithm inside and outside (RFC 5280
/// §4.1.1.2), no extension twice (§4.2), none of a known kind that cannot be read.
pub(crate) fn read(der: &[u8]) -> Result<X509Certificate<'_>, NotACertificate> {
    let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| NotACertificate)?;
    let sound = rest.is_empty()
        && certificate.signature_algorithm == certificate.tbs_certificate.signature
        && certificate.extensions_map().is_ok()
        && certificate
            .extensions()
            .iter()
            .all(|e| !matches!(e.parsed_extension(), ParsedExtension::ParseError { .. }));
    if sound {
        Ok(certificate)
    } else {
        Err(NotACertificate)
    }
}

/// A name as we would issue it; another form of it is another name.
pub(crate) fn san(name: &GeneralName<'_>) -> Option<San> {
    match name {
        GeneralName::DNSName(text) => San::dns(text)
            .ok()
            .filter(|name| matches!(name, San::Dns(dns) if dns.as_str() == *text)),
        GeneralName::URI(text) => San::uri(text).ok(),
        GeneralName::IPAddress(octets) => San::ip(octets).ok(),
        _ => None,
    }
}

pub(crate) fn seconds(time: ASN1Time) -> Result<u64, NotACertificate> {
    u64::try_from(time.timestamp()).map_err(|_| NotACertificate)
}

/// Did this issuer sign this certificate? Its name, its key identifier where the
/// certificate has one, and the signature over the bytes as they are; not the validity.
///
/// # Errors
/// [`BadSignature`] in every other case.
pub fn verify_signed_by(der: &[u8], issuer: &IssuerCert) -> Result<(), BadSignature> {
    let info = CertificateInfo::from_der(der).map_err(|_| BadSignature)?;
    let parts = Parts::read(der).ok_or(BadSignature)?;
    let named =
        info.issuer_der == issuer.subject_der() && info.aki.is_none_or(|aki| aki == issuer.ski());
    let algorithm = Algorithm::from_der(parts.algorithm).ok_or(BadSignature)?;
    if !named || !parts.behind.is_empty() {
        return Err(BadSignature);
    }
    // Others may choose a hash for their curve; what we sign ourselves follows the key.
    let key = Shape::of(issuer.key().spki()).map_err(|_| BadSignature)?;
    algorithm.verify_any_curve(key, parts.tbs, parts.signature)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        Draft, KeyKind,
        testing::{NOW, TestKey, leaf_plan, root},
    };

    #[test]
    fn a_certificate_says_what_its_plan_said() {
        let key = TestKey::new(KeyKind::EcP256);
        let (root_cert, issuer) = root(&key);
        let plan = leaf_plan(TestKey::new(KeyKind::EcP384).public());
        let draft = Draft::new(plan.clone(), &issuer).unwrap();
        let der = key.sign(draft.lint(NOW).unwrap()).der().to_vec();
        let info = CertificateInfo::from_der(&der).unwrap();
        assert_eq!((info.serial, &info.sans), (plan.serial, &plan.sans));
        assert_eq!(
            (info.not_before, info.not_after),
            (plan.not_before, plan.not_after)
        );
        assert_eq!(info.spki_sha256, plan.key.spki_sha256());
        assert_eq!(info.aki.as_deref(), Some(issuer.ski()));
        assert_eq!((info.is_ca, info.other_names), (false, 0));
        assert!(CertificateInfo::from_der(root_cert.der()).unwrap().is_ca);

        assert_eq!(verify_signed_by(&der, &issuer), Ok(()));
        let (_, stranger) = root(&TestKey::new(KeyKind::EcP256));
        assert_eq!(verify_signed_by(&der, &stranger), Err(BadSignature));
        for at in 0..der.len() {
            let mut bad = der.clone();
            bad[at] ^= 1;
            assert_eq!(
                verify_signed_by(&bad, &issuer),
                Err(BadSignature),
                "octet {at}"
            );
            let _ = (CertificateInfo::from_der(&bad), IssuerCert::from_der(&bad));
        }
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = CertificateInfo::from_der(&bytes);
            let _ = IssuerCert::from_der(&bytes);
        }
    }
}
