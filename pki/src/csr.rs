//! A certificate signing request (PKCS#10, RFC 2986): read, proof of possession
//! checked, and reduced to what may be taken from it.
//!
//! What may be taken is the key, the requested names and, for profiles that ask, the
//! common name. Usages that are asked for are ignored, because the profile decides them;
//! everything else that is asked for is an error, so that nobody believes to have got it.
//! A challengePassword or unstructuredName is ignored and never kept.

use std::collections::BTreeSet;

use der::{
    Decode, Reader, SliceReader, Tag, Tagged,
    asn1::{AnyRef, BitStringRef, ObjectIdentifier, OctetStringRef},
};
use x509_cert::ext::pkix::BasicConstraints;

use crate::{
    key_kind::Shape,
    name::{NameError, San},
    signature::Algorithm,
    subject_key::{KeyError, SubjectKey},
};

/// A request whose sender has proved to hold the private key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Csr {
    key: SubjectKey,
    names: Vec<San>,
    common_name: Option<String>,
}

/// Why a request is refused. Whoever made it must make another.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CsrError {
    /// More than [`Csr::MAX_LEN`] bytes.
    #[error("the CSR has {0} bytes, at most {max} are read; ask for fewer names", max = Csr::MAX_LEN)]
    TooLarge(usize),
    /// More than [`Csr::MAX_NAMES`] names.
    #[error("the CSR asks for {0} names, at most {max} are issued; split it", max = Csr::MAX_NAMES)]
    TooManyNames(usize),
    /// Not PEM of a certificate request.
    #[error("the CSR is not one PEM block CERTIFICATE REQUEST; send that block alone, or DER")]
    NotPem,
    /// Not one CertificationRequest in DER.
    #[error("the CSR is not one PKCS#10 request in DER: {0}; make it again with a current tool")]
    Malformed(&'static str),
    /// A key that is not certified.
    #[error("the CSR's key is refused: {0}")]
    Key(#[from] KeyError),
    /// SHA-1, MD5, or parameters not as the standard writes them.
    #[error(
        "the CSR is signed with algorithm {0}; sign it with SHA-256, SHA-384, SHA-512 or Ed25519"
    )]
    Algorithm(String),
    /// The sender does not hold the private key, or the request was changed.
    #[error(
        "the CSR's signature does not verify with its own key; sign it with that key and send it unchanged"
    )]
    NotPossessed,
    /// An attribute beside extensionRequest.
    #[error("the CSR has attribute {0}, which is not understood; leave it out")]
    Attribute(ObjectIdentifier),
    /// An extension that is not issued on request.
    #[error("the CSR asks for extension {0}, which is not issued on request; leave it out")]
    Extension(ObjectIdentifier),
    /// An attribute or extension, or the common name, twice.
    #[error("the CSR has {0} twice; it must be there once")]
    Duplicate(ObjectIdentifier),
    /// Basic constraints with cA = TRUE.
    #[error("the CSR asks for a CA certificate, which no service gets; leave basicConstraints out")]
    AsksForCa,
    /// Names that are never issued, with the reason for each.
    #[error("the CSR asks for names that are never issued: {}", list(.0))]
    Names(Vec<(String, NameError)>),
}

fn list(names: &[(String, NameError)]) -> String {
    let line = |(name, error): &(String, NameError)| format!("{name:?}: {error}");
    names.iter().map(line).collect::<Vec<_>>().join("; ")
}

const fn oid(text: &str) -> ObjectIdentifier {
    ObjectIdentifier::new_unwrap(text)
}

/// PKCS#9 (RFC 2985 §5.4).
const EXTENSION_REQUEST: ObjectIdentifier = oid("1.2.840.113549.1.9.14");
const CHALLENGE_PASSWORD: ObjectIdentifier = oid("1.2.840.113549.1.9.7");
const UNSTRUCTURED_NAME: ObjectIdentifier = oid("1.2.840.113549.1.9.2");
/// RFC 5280 §4.2.1.
const SUBJECT_ALT_NAME: ObjectIdentifier = oid("2.5.29.17");
const BASIC_CONSTRAINTS: ObjectIdentifier = oid("2.5.29.19");
const KEY_USAGE: ObjectIdentifier = oid("2.5.29.15");
const EXT_KEY_USAGE: ObjectIdentifier = oid("2.5.29.37");
const COMMON_NAME: ObjectIdentifier = oid("2.5.4.3");

/// INTEGER 0, the only version there is.
const VERSION: &[u8] = b"\x02\x01\x00";

/// The three parts of a request, and the four of its info, as received.
struct Parts<'a> {
    info: &'a [u8],
    algorithm: &'a [u8],
    signature: &'a [u8],
    subject: AnyRef<'a>,
    spki: &'a [u8],
    attributes: AnyRef<'a>,
}

impl Csr {
    /// Bytes of DER.
    pub const MAX_LEN: usize = 16 * 1024;
    /// Names in one certificate.
    pub const MAX_NAMES: usize = 100;

    /// Reads a request in DER.
    ///
    /// # Errors
    /// The first thing that is wrong; for names, all of them.
    pub fn from_der(der: &[u8]) -> Result<Self, CsrError> {
        if der.len() > Self::MAX_LEN {
            return Err(CsrError::TooLarge(der.len()));
        }
        let parts = split(der)?;
        let key = SubjectKey::from_spki(parts.spki)?;
        possessed(&parts, &key)?;
        Ok(Self {
            names: names(parts.attributes)?,
            common_name: common_name(parts.subject)?,
            key,
        })
    }

    /// Reads a request in PEM (RFC 7468 §7).
    ///
    /// # Errors
    /// As [`from_der`](Self::from_der), and [`CsrError::NotPem`].
    pub fn from_pem(pem: &str) -> Result<Self, CsrError> {
        // Base64 and line ends make 3 bytes into about 4.2.
        if pem.len() > 2 * Self::MAX_LEN {
            return Err(CsrError::TooLarge(pem.len()));
        }
        match der::Document::from_pem(pem.trim()) {
            // RFC 7468 §7: readers may take the older label too.
            Ok(("CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST", der)) => {
                Self::from_der(der.as_bytes())
            }
            _ => Err(CsrError::NotPem),
        }
    }

    /// The key, which passed the key policy.
    #[must_use]
    pub fn key(&self) -> &SubjectKey {
        &self.key
    }

    /// The names of the requested subject alternative name, each once, in their order.
    #[must_use]
    pub fn names(&self) -> &[San] {
        &self.names
    }

    /// The subject's common name as text. It never becomes a name by itself: a profile
    /// may take it when it is one of the names.
    #[must_use]
    pub fn common_name(&self) -> Option<&str> {
        self.common_name.as_deref()
    }
}

/// Cuts a request into its parts without decoding and encoding them again: the
/// signature is over the bytes that came.
fn split(der: &[u8]) -> Result<Parts<'_>, CsrError> {
    let read = || -> der::Result<_> {
        let mut reader = SliceReader::new(der)?;
        let outer = reader.sequence(|r| {
            let (info, algorithm) = (r.tlv_bytes()?, r.tlv_bytes()?);
            der::Result::Ok((info, algorithm, BitStringRef::decode(r)?))
        })?;
        reader.finish()?;
        let mut reader = SliceReader::new(outer.0)?;
        let inner = reader.sequence(|r| {
            let version = r.tlv_bytes()?;
            let subject = AnyRef::decode(r)?;
            let spki = r.tlv_bytes()?;
            der::Result::Ok((version, subject, spki, AnyRef::decode(r)?))
        })?;
        Ok((outer, inner))
    };
    let ((info, algorithm, signature), (version, subject, spki, attributes)) =
        read().map_err(|_| CsrError::Malformed("its outline cannot be read"))?;
    if version != VERSION {
        return Err(CsrError::Malformed("its version is not 1"));
    }
    let signature = signature
        .as_bytes()
        .ok_or(CsrError::Malformed("its signature is not whole bytes"))?;
    Ok(Parts {
        info,
        algorithm,
        signature,
        subject,
        spki,
        attributes,
    })
}

/// Proof of possession over the received bytes.
fn possessed(parts: &Parts<'_>, key: &SubjectKey) -> Result<(), CsrError> {
    let Some(algorithm) = Algorithm::from_der(parts.algorithm) else {
        let mut reader = SliceReader::new(parts.algorithm)
            .map_err(|_| CsrError::Malformed("its signature algorithm cannot be read"))?;
        let oid = reader.sequence(|r| {
            let oid: ObjectIdentifier = r.decode()?;
            r.drain(r.remaining_len())?;
            der::Result::Ok(oid)
        });
        let name = oid.map_or_else(|_| "that cannot be read".to_owned(), |oid| oid.to_string());
        return Err(CsrError::Algorithm(name));
    };
    let shape = Shape::of(key.spki()).map_err(KeyError::from)?;
    algorithm
        .verify_any_curve(shape, parts.info, parts.signature)
        .map_err(|_| CsrError::NotPossessed)
}

/// `AttributeTypeAndValue`, `Attribute` and `Extension` all begin with what they are.
fn common_name(subject: AnyRef<'_>) -> Result<Option<String>, CsrError> {
    let malformed = |_| CsrError::Malformed("its subject cannot be read");
    let mut found = None;
    for rdn in subject.decode_as::<Vec<AnyRef<'_>>>().map_err(malformed)? {
        for pair in elements(rdn, Tag::Set).map_err(malformed)? {
            let (kind, value) = pair
                .sequence(|r| der::Result::Ok((ObjectIdentifier::decode(r)?, AnyRef::decode(r)?)))
                .map_err(malformed)?;
            if kind != COMMON_NAME {
                continue;
            }
            let text = String::from_utf8_lossy(value.value()).into_owned();
            if found.replace(text).is_some() {
                return Err(CsrError::Duplicate(COMMON_NAME));
            }
        }
    }
    Ok(found)
}

/// What stands inside a constructed value with this tag, in the order received: SET OF
/// need not be sorted to be read.
fn elements(value: AnyRef<'_>, tag: Tag) -> der::Result<Vec<AnyRef<'_>>> {
    value.tag().assert_eq(tag)?;
    let mut reader = SliceReader::new(value.value())?;
    let mut found = Vec::new();
    while !reader.is_finished() {
        found.push(AnyRef::decode(&mut reader)?);
    }
    Ok(found)
}

/// The names in the one extensionRequest, when there is one.
fn names(attributes: AnyRef<'_>) -> Result<Vec<San>, CsrError> {
    let malformed = |_| CsrError::Malformed("its attributes cannot be read");
    let tag = Tag::ContextSpecific {
        constructed: true,
        number: der::TagNumber(0),
    };
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for attribute in elements(attributes, tag).map_err(malformed)? {
        let (kind, values) = attribute
            .sequence(|r| der::Result::Ok((ObjectIdentifier::decode(r)?, AnyRef::decode(r)?)))
            .map_err(malformed)?;
        if !seen.insert(kind) {
            return Err(CsrError::Duplicate(kind));
        }
        match kind {
            CHALLENGE_PASSWORD | UNSTRUCTURED_NAME => {}
            EXTENSION_REQUEST => match elements(values, Tag::Set).map_err(malformed)?.as_slice() {
                [one] => found = requested(*one)?,
                _ => return Err(CsrError::Duplicate(kind)),
            },
            other => return Err(CsrError::Attribute(other)),
        }
    }
    Ok(found)
}

fn requested(extensions: AnyRef<'_>) -> Result<Vec<San>, CsrError> {
    let malformed = |_| CsrError::Malformed("its requested extensions cannot be read");
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for extension in elements(extensions, Tag::Sequence).map_err(malformed)? {
        let (kind, value) = extension
            .sequence(|r| {
                let kind = ObjectIdentifier::decode(r)?;
                // Whether it would be critical is not the requester's to say.
                let _critical = Option::<bool>::decode(r)?;
                der::Result::Ok((kind, <&OctetStringRef>::decode(r)?.as_bytes()))
            })
            .map_err(malformed)?;
        if !seen.insert(kind) {
            return Err(CsrError::Duplicate(kind));
        }
        match kind {
            SUBJECT_ALT_NAME => found = alternative_names(value)?,
            BASIC_CONSTRAINTS => {
                if BasicConstraints::from_der(value).map_err(malformed)?.ca {
                    return Err(CsrError::AsksForCa);
                }
            }
            KEY_USAGE | EXT_KEY_USAGE => {}
            other => return Err(CsrError::Extension(other)),
        }
    }
    Ok(found)
}

fn alternative_names(value: &[u8]) -> Result<Vec<San>, CsrError> {
    let malformed = |_| CsrError::Malformed("its subject alternative name cannot be read");
    let names = AnyRef::from_der(value)
        .and_then(|names| elements(names, Tag::Sequence))
        .map_err(malformed)?;
    if names.len() > Csr::MAX_NAMES {
        return Err(CsrError::TooManyNames(names.len()));
    }
    let (mut found, mut refused) = (Vec::new(), Vec::new());
    for name in &names {
        match San::from_general_name(name) {
            Ok(san) if found.contains(&san) => {}
            Ok(san) => found.push(san),
            Err(error) => {
                let text = String::from_utf8_lossy(name.value())
                    .chars()
                    .take(64)
                    .collect();
                refused.push((text, error));
            }
        }
    }
    if refused.is_empty() {
        Ok(found)
    } else {
        Err(CsrError::Names(refused))
    }
}

#[cfg(test)]
mod tests;
