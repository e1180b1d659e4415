//! Is it DER? A second reader, strict and with types of its own, reads everything down to
//! the extensions' values and must write the same bytes (X.690 §10, §11).

use der::{Decode, Encode};
use x509_cert::{
    TbsCertificate,
    ext::pkix::{
        AuthorityInfoAccessSyntax, AuthorityKeyIdentifier, BasicConstraints, CertificatePolicies,
        CrlDistributionPoints, ExtendedKeyUsage, KeyUsage, NameConstraints, SubjectAltName,
        SubjectKeyIdentifier,
    },
};

use crate::oid;

/// Every octet of a `TBSCertificate`.
pub(super) fn certificate(tbs: &[u8]) -> Result<(), String> {
    let read = same::<TbsCertificate>(tbs)
        .ok_or("the TBSCertificate is not the one DER of its content")?;
    for extension in read.extensions().into_iter().flatten() {
        let value = extension.extn_value.as_bytes();
        let id = extension.extn_id.as_bytes();
        let canonical = if id == oid::AUTHORITY_KEY_ID {
            same::<AuthorityKeyIdentifier>(value).is_some()
        } else if id == oid::SUBJECT_KEY_ID {
            same::<SubjectKeyIdentifier>(value).is_some()
        } else if id == oid::KEY_USAGE {
            same::<KeyUsage>(value).is_some()
        } else if id == oid::CERTIFICATE_POLICIES {
            same::<CertificatePolicies>(value).is_some()
        } else if id == oid::SUBJECT_ALT_NAME {
            same::<SubjectAltName>(value).is_some()
        } else if id == oid::BASIC_CONSTRAINTS {
            same::<BasicConstraints>(value).is_some()
        } else if id == oid::NAME_CONSTRAINTS {
            same::<NameConstraints>(value).is_some()
        } else if id == oid::EXT_KEY_USAGE {
            same::<ExtendedKeyUsage>(value).is_some()
        } else if id == oid::CRL_DISTRIBUTION_POINTS {
            same::<CrlDistributionPoints>(value).is_some()
        } else if id == oid::AUTHORITY_INFO_ACCESS {
            same::<AuthorityInfoAccessSyntax>(value).is_some()
        } else {
            // noRevAvail and nocheck: NULL.
            value == [crate::wire::tag::NULL, 0]
        };
        if !canonical {
            return Err(format!(
                "the extension {} is not the one DER of its content",
                extension.extn_id
            ));
        }
    }
    Ok(())
}

/// Decoded, if encoding gives the same bytes.
fn same<'a, T: Decode<'a> + Encode>(bytes: &'a [u8]) -> Option<T> {
    let value = T::from_der(bytes).ok()?;
    (value.to_der().ok()? == bytes).then_some(value)
}
