//! The request (RFC 2986) with which a CA key in the HSM asks an external root for its
//! certificate, and the check of the certificate that comes back.

use crate::{
    Algorithm, CertificateInfo, Findings, IssuerCert, IssuerError, Subject, SubjectKey, Unsigned,
    extension, lint, oid, pem,
    unsigned::{Document, Sealed},
    wire::{Cursor, Writer, tag},
};

/// A signed request, read again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaRequest {
    der: Vec<u8>,
}

/// Why the certificate that came back is not the one of this key.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// No CA's certificate.
    #[error(transparent)]
    Issuer(#[from] IssuerError),
    /// Another key.
    #[error(
        "the certificate has another public key than the CA's key in the HSM; import it for the key it was requested with"
    )]
    Key,
    /// Not yet valid, or expired.
    #[error("the certificate is not valid now; check the clock, or have it issued again")]
    Validity,
    /// SHA-1, or an algorithm that is not known here.
    #[error(
        "the certificate is signed with an algorithm that is not SHA-2 or Ed25519; have it issued again"
    )]
    Algorithm,
}

impl CaRequest {
    /// What the HSM must sign: subject, key, and as extensions a CA's basic constraints
    /// and key usage. The external CA decides what it grants.
    ///
    /// # Errors
    /// The subject is empty.
    pub fn draft(subject: &Subject, key: &SubjectKey) -> Result<Unsigned<Self>, Findings> {
        let algorithm = Algorithm::for_key(key.kind());
        let info = info(subject, key);
        let read = check(&info, subject, key).map_err(|message| Findings::one("C7", message));
        read.map(|()| Unsigned::new(info, algorithm, key.clone(), ()))
    }

    /// The DER.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// `-----BEGIN CERTIFICATE REQUEST-----` (RFC 7468 §7).
    #[must_use]
    pub fn pem(&self) -> String {
        pem::encode("CERTIFICATE REQUEST", &self.der)
    }
}

/// `CertificationRequestInfo` (RFC 2986 §4.1).
fn info(subject: &Subject, key: &SubjectKey) -> Vec<u8> {
    let mut writer = Writer::with_capacity(512);
    writer.nest(tag::SEQUENCE, |w| {
        w.put(tag::INTEGER, &[0]);
        w.raw(subject.as_der());
        w.raw(key.spki());
        w.nest(tag::constructed(0), |w| {
            w.nest(tag::SEQUENCE, |w| {
                w.put(tag::OID, &oid::EXTENSION_REQUEST);
                w.nest(tag::SET, |w| w.nest(tag::SEQUENCE, extension::ca_request));
            });
        });
    });
    writer.finish()
}

/// Reads the bytes with x509-cert's types: what was asked for is what stands there.
fn check(info: &[u8], subject: &Subject, key: &SubjectKey) -> lint::Verdict {
    use der::{Decode, Encode};
    lint::ensure(!subject.is_empty(), "a CA must have a subject")?;
    let mut fields = Cursor::within(tag::SEQUENCE, info).ok_or("the request is not DER")?;
    let same = fields.take(tag::INTEGER) == Some(&[0])
        && fields.element() == Some(subject.as_der())
        && fields.element() == Some(key.spki());
    lint::ensure(same, "the request has not the planned subject and key")?;
    let canonical = x509_cert::request::CertReqInfo::from_der(info)
        .and_then(|read| read.to_der())
        .is_ok_and(|der| der == info);
    lint::ensure(canonical, "the request is not the one DER of its content")
}

/// An imported certificate for a CA key in the HSM: the same public key, a CA that may
/// sign certificates and CRLs, valid at `now` (Unix seconds), signed with SHA-2 or
/// Ed25519. The signature itself is checked with the chain:
/// [`IssuerCert::from_chain`].
///
/// # Errors
/// Why it does not belong to this key, or cannot issue.
pub fn check_import(der: &[u8], key: &SubjectKey, now: u64) -> Result<IssuerCert, ImportError> {
    let info = CertificateInfo::from_der(der).map_err(IssuerError::from)?;
    if info.spki_sha256 != key.spki_sha256() {
        return Err(ImportError::Key);
    }
    if now < info.not_before || now > info.not_after {
        return Err(ImportError::Validity);
    }
    let parts = crate::unsigned::Parts::read(der).ok_or(ImportError::Algorithm)?;
    Algorithm::from_der(parts.algorithm).ok_or(ImportError::Algorithm)?;
    Ok(IssuerCert::from_der(der)?)
}

impl Sealed for CaRequest {}

impl Document for CaRequest {
    type Rest = ();

    fn finish(der: Vec<u8>, (): ()) -> Option<Self> {
        Some(Self { der })
    }

    fn signed(&self) -> Option<&[u8]> {
        Some(&self.der)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Draft, KeyKind,
        testing::{DAY, NOW, TestKey, ca_plan, leaf_plan, root, subject},
    };

    #[test]
    fn an_import_must_be_a_ca_with_this_key_valid_now() {
        let (root_key, key) = (TestKey::new(KeyKind::EcP256), TestKey::new(KeyKind::EcP384));
        let (_, root) = root(&root_key);
        let sign = |plan| root_key.sign(Draft::new(plan, &root).unwrap().lint(NOW).unwrap());
        let ca = sign(ca_plan(key.public(), Some(0)));
        let issuer = check_import(ca.der(), &key.public(), NOW).unwrap();
        assert_eq!(issuer.path_len(), Some(0));
        let import = |der: &[u8], key: &SubjectKey, now| check_import(der, key, now).unwrap_err();
        assert!(matches!(
            import(ca.der(), root.key(), NOW),
            ImportError::Key
        ));
        for now in [0, NOW + 4000 * DAY] {
            assert!(matches!(
                import(ca.der(), &key.public(), now),
                ImportError::Validity
            ));
        }
        let leaf = sign(leaf_plan(key.public()));
        let refused = import(leaf.der(), &key.public(), NOW);
        assert!(matches!(
            refused,
            ImportError::Issuer(IssuerError::NotACa(_))
        ));
    }

    #[test]
    fn only_a_named_ca_asks() {
        let key = TestKey::new(KeyKind::EcP256);
        assert!(CaRequest::draft(&Subject::empty(), &key.public()).is_err());
        let request = key.sign(CaRequest::draft(&subject("CA"), &key.public()).unwrap());
        assert!(
            request
                .pem()
                .starts_with("-----BEGIN CERTIFICATE REQUEST-----\n")
        );
    }
}
