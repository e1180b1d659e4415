//! Who a certificate speaks for: exactly one URI subject alternative name, and it is
//! a SPIFFE ID (SPIFFE-ID §2, X509-SVID §2 and §5.2).

use std::fmt;

use x509_cert::{
    Certificate,
    der::Decode,
    ext::pkix::{SubjectAltName, name::GeneralName},
};

/// `spiffe://trust-domain/path`, checked and never changed: no folding, no escapes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId {
    text: String,
    path_at: usize,
}

/// The authority part of a SPIFFE ID.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrustDomain(String);

/// Why a text is not a SPIFFE ID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SpiffeIdError {
    /// More than 2,048 bytes.
    #[error("is longer than 2,048 bytes")]
    TooLong,
    /// Does not begin with `spiffe://`.
    #[error("does not begin with spiffe://")]
    Scheme,
    /// Empty, too long, or a character outside `a-z 0-9 . - _`.
    #[error("has a trust domain outside a-z 0-9 . - _ or longer than 255")]
    TrustDomain,
    /// Missing, with an empty, `.` or `..` segment, or a character outside
    /// `A-Z a-z 0-9 . - _`.
    #[error("has no path, or one with an empty, . or .. segment or a foreign character")]
    Path,
}

/// Why a certificate names no caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not a certificate, or a subject alternative name that cannot be read.
    #[error("the client certificate cannot be read: {0}")]
    Malformed(String),
    /// No URI name.
    #[error("the client certificate has no URI name; it needs exactly one SPIFFE ID")]
    NoUri,
    /// Several URI names.
    #[error("the client certificate has {0} URI names; it must have exactly one SPIFFE ID")]
    SeveralUris(usize),
    /// One URI name, which is not a SPIFFE ID.
    #[error("the URI name of the client certificate {0}")]
    NotSpiffe(#[from] SpiffeIdError),
}

const SCHEME: &str = "spiffe://";
const MAX_LEN: usize = 2048;
const MAX_TRUST_DOMAIN_LEN: usize = 255;

impl TrustDomain {
    /// Checks the characters of a trust domain.
    ///
    /// # Errors
    /// [`SpiffeIdError::TrustDomain`].
    pub fn parse(text: &str) -> Result<Self, SpiffeIdError> {
        let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-_".contains(&b);
        if text.is_empty() || text.len() > MAX_TRUST_DOMAIN_LEN || !text.bytes().all(legal) {
            return Err(SpiffeIdError::TrustDomain);
        }
        Ok(Self(text.to_owned()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl SpiffeId {
    /// Checks a SPIFFE ID of a workload: trust domain and path.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, SpiffeIdError> {
        if text.len() > MAX_LEN {
            return Err(SpiffeIdError::TooLong);
        }
        let rest = text.strip_prefix(SCHEME).ok_or(SpiffeIdError::Scheme)?;
        let (domain, path) = rest.split_once('/').ok_or(SpiffeIdError::Path)?;
        TrustDomain::parse(domain)?;
        let legal = |b: u8| b.is_ascii_alphanumeric() || b".-_".contains(&b);
        let segment = |s: &str| !s.is_empty() && s != "." && s != ".." && s.bytes().all(legal);
        if !path.split('/').all(segment) {
            return Err(SpiffeIdError::Path);
        }
        Ok(Self {
            text: text.to_owned(),
            path_at: SCHEME.len() + domain.len(),
        })
    }

    /// The whole id.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The trust domain.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        self.text
            .get(SCHEME.len()..self.path_at)
            .unwrap_or_default()
    }

    /// The path, with its leading slash.
    #[must_use]
    pub fn path(&self) -> &str {
        self.text.get(self.path_at..).unwrap_or_default()
    }

    /// Is this id `prefix` itself or below it? `prefix` is an id without a trailing
    /// slash; only whole segments count.
    #[must_use]
    pub fn is_under(&self, prefix: &str) -> bool {
        self.text
            .strip_prefix(prefix)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The one SPIFFE ID of an end-entity certificate in DER.
///
/// The chain must have been verified before; this only reads.
///
/// # Errors
/// When there is not exactly one URI name, or it is not a SPIFFE ID.
pub fn client_id(certificate: &[u8]) -> Result<SpiffeId, Error> {
    let malformed = |e: x509_cert::der::Error| Error::Malformed(e.to_string());
    let certificate = Certificate::from_der(certificate).map_err(malformed)?;
    let names = certificate
        .tbs_certificate()
        .get_extension::<SubjectAltName>()
        .map_err(malformed)?;
    let uris: Vec<&str> = names
        .iter()
        .flat_map(|(_, san)| &san.0)
        .filter_map(|name| match name {
            GeneralName::UniformResourceIdentifier(uri) => Some(uri.as_str()),
            _ => None,
        })
        .collect();
    match uris.as_slice() {
        [] => Err(Error::NoUri),
        [one] => Ok(SpiffeId::parse(one)?),
        several => Err(Error::SeveralUris(several.len())),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    fn certificate(names: Vec<SanType>) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    fn uri(text: &str) -> SanType {
        SanType::URI(text.try_into().unwrap())
    }

    #[test]
    fn one_uri_among_other_names_is_the_caller() {
        let der = certificate(vec![
            SanType::DnsName("host.example".try_into().unwrap()),
            uri("spiffe://dev.keywright/user"),
        ]);
        let id = client_id(&der).unwrap();
        assert_eq!(id.as_str(), "spiffe://dev.keywright/user");
        assert_eq!(id.trust_domain(), "dev.keywright");
    }

    #[test]
    fn none_two_or_a_foreign_uri_is_nobody() {
        assert_eq!(client_id(&certificate(vec![])), Err(Error::NoUri));
        let two = certificate(vec![uri("spiffe://a/b"), uri("spiffe://a/c")]);
        assert_eq!(client_id(&two), Err(Error::SeveralUris(2)));
        let web = certificate(vec![uri("https://a/b")]);
        assert_eq!(
            client_id(&web),
            Err(Error::NotSpiffe(SpiffeIdError::Scheme))
        );
        assert!(matches!(client_id(b"junk"), Err(Error::Malformed(_))));
    }

    #[test]
    fn strange_ids_are_refused() {
        for (text, error) in [
            ("spiffe://a", SpiffeIdError::Path),
            ("spiffe://a/", SpiffeIdError::Path),
            ("spiffe://a/b/", SpiffeIdError::Path),
            ("spiffe://a//b", SpiffeIdError::Path),
            ("spiffe://a/../b", SpiffeIdError::Path),
            ("spiffe://a/b?c", SpiffeIdError::Path),
            ("spiffe://a/b#c", SpiffeIdError::Path),
            ("spiffe://a/%2e", SpiffeIdError::Path),
            ("spiffe://A/b", SpiffeIdError::TrustDomain),
            ("spiffe://a:1/b", SpiffeIdError::TrustDomain),
            ("spiffe://u@a/b", SpiffeIdError::TrustDomain),
            ("spiffe:///b", SpiffeIdError::TrustDomain),
            ("SPIFFE://a/b", SpiffeIdError::Scheme),
        ] {
            assert_eq!(SpiffeId::parse(text), Err(error), "{text}");
        }
        let long = format!("spiffe://a/{}", "b".repeat(2048));
        assert_eq!(SpiffeId::parse(&long), Err(SpiffeIdError::TooLong));
    }

    #[test]
    fn under_counts_whole_segments() {
        let id = SpiffeId::parse("spiffe://a/pay/cards").unwrap();
        assert!(id.is_under("spiffe://a/pay") && id.is_under("spiffe://a/pay/cards"));
        assert!(!id.is_under("spiffe://a/pa") && !id.is_under("spiffe://a/pay/cards/x"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        /// Either refused, or exactly the bytes that came in.
        #[test]
        fn nothing_is_normalised(text in "(spiffe://)?[a-zA-Z0-9./:%@_-]{0,40}") {
            if let Ok(id) = SpiffeId::parse(&text) {
                prop_assert_eq!(id.as_str(), &text);
                prop_assert!(!text.contains("/../") && !text.contains("//a//"));
            }
        }

        #[test]
        fn any_bytes_are_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(client_id(&bytes).is_err());
        }
    }
}
