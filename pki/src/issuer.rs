//! What a certificate authority is to those it signs: read from its certificate once.

use x509_parser::extensions::{GeneralName, ParsedExtension};

use crate::{
    Algorithm, KeyKind, Kind, NameConstraints, Plan, SubjectKey, constraints,
    info::{self, NotACertificate},
    subject_key::KeyError,
    verify_signed_by,
};

/// A CA certificate, its names as bytes, and how it signs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerCert {
    subject_der: Vec<u8>,
    ski: Vec<u8>,
    key: SubjectKey,
    algorithm: Algorithm,
    not_before: u64,
    not_after: u64,
    /// How many CAs may follow, by its own word and that of those above.
    path_len: Option<u8>,
    /// Its own and those above; each must agree to a name (RFC 5280 §6.1).
    constraints: Vec<NameConstraints>,
}

/// Why a certificate is no issuer.
#[derive(Debug, thiserror::Error)]
pub enum IssuerError {
    /// Cannot be read.
    #[error(transparent)]
    NotACertificate(#[from] NotACertificate),
    /// basicConstraints, keyUsage or the subject key identifier are not a CA's.
    #[error("the certificate cannot issue: {0}; give the certificate of a CA")]
    NotACa(&'static str),
    /// The key is not one we certify.
    #[error("the CA's key: {0}")]
    Key(#[from] KeyError),
    /// We could not keep to them.
    #[error(
        "the CA has name constraints of a kind that this software cannot check; it cannot issue here"
    )]
    Constraints,
    /// The chain does not hold together.
    #[error(
        "the CA's certificate was not issued by the next one of its chain; give the chain in order, the issuer's own first"
    )]
    Chain,
    /// The key cannot sign so.
    #[error("a key of kind {0} does not sign with this algorithm")]
    Algorithm(KeyKind),
}

impl IssuerCert {
    /// A CA's own certificate. What those above it constrain is added with
    /// [`under`](Self::under).
    ///
    /// # Errors
    /// Why it is no issuer.
    pub fn from_der(der: &[u8]) -> Result<Self, IssuerError> {
        let certificate = info::read(der)?;
        let mut issuer = Self {
            subject_der: certificate.subject().as_raw().to_vec(),
            ski: Vec::new(),
            key: SubjectKey::from_spki(certificate.public_key().raw)?,
            algorithm: Algorithm::Ed25519,
            not_before: info::seconds(certificate.validity().not_before)?,
            not_after: info::seconds(certificate.validity().not_after)?,
            path_len: None,
            constraints: Vec::new(),
        };
        issuer.algorithm = Algorithm::for_key(issuer.key.kind());
        let (mut is_ca, mut signs) = (false, false);
        for extension in certificate.extensions() {
            match extension.parsed_extension() {
                ParsedExtension::BasicConstraints(basic) => {
                    is_ca = basic.ca;
                    issuer.path_len = basic
                        .path_len_constraint
                        .map(|n| u8::try_from(n).unwrap_or(u8::MAX));
                }
                ParsedExtension::KeyUsage(usage) => {
                    signs = usage.key_cert_sign() && usage.crl_sign();
                }
                ParsedExtension::SubjectKeyIdentifier(id) => issuer.ski = id.0.to_vec(),
                ParsedExtension::NameConstraints(names) => {
                    issuer.constraints.push(read_constraints(names)?);
                }
                ParsedExtension::AuthorityKeyIdentifier(_)
                | ParsedExtension::CertificatePolicies(_)
                | ParsedExtension::ExtendedKeyUsage(_) => {}
                _ if extension.critical => {
                    return Err(IssuerError::NotACa(
                        "it has a critical extension that is not known here",
                    ));
                }
                _ => {}
            }
        }
        if !is_ca {
            return Err(IssuerError::NotACa("basicConstraints does not say cA"));
        }
        if !signs {
            return Err(IssuerError::NotACa(
                "keyUsage does not have keyCertSign and cRLSign",
            ));
        }
        if issuer.ski.is_empty() {
            return Err(IssuerError::NotACa("it has no subject key identifier"));
        }
        Ok(issuer)
    }

    /// Adds what the CA above says: its path length and name constraints hold here too.
    ///
    /// # Errors
    /// [`IssuerError::Chain`] when `own_der`, this CA's certificate, was not issued by it.
    pub fn under(mut self, own_der: &[u8], above: &Self) -> Result<Self, IssuerError> {
        verify_signed_by(own_der, above).map_err(|_| IssuerError::Chain)?;
        if Self::from_der(own_der)?.key != self.key {
            return Err(IssuerError::Chain);
        }
        self.path_len = match (self.path_len, above.path_len) {
            (_, Some(0)) => return Err(IssuerError::Chain),
            (own, Some(n)) => Some(own.map_or(n - 1, |own| own.min(n - 1))),
            (own, None) => own,
        };
        self.constraints.extend(above.constraints.iter().cloned());
        Ok(self)
    }

    /// A chain, the issuer's own certificate first.
    ///
    /// # Errors
    /// Why the first is no issuer, or that one does not follow from the next.
    pub fn from_chain(chain: &[&[u8]]) -> Result<Self, IssuerError> {
        let (own, above) = chain.split_first().ok_or(NotACertificate)?;
        match above {
            [] => Self::from_der(own),
            above => Self::from_der(own)?.under(own, &Self::from_chain(above)?),
        }
    }

    /// Another algorithm of the same key, such as RSA-PSS.
    ///
    /// # Errors
    /// [`IssuerError::Algorithm`].
    pub fn signing_with(mut self, algorithm: Algorithm) -> Result<Self, IssuerError> {
        let kind = self.key.kind();
        if !algorithm.fits(kind) {
            return Err(IssuerError::Algorithm(kind));
        }
        self.algorithm = algorithm;
        Ok(self)
    }

    /// The issuer that a root is to itself. Its own constraints do not bind it.
    pub(crate) fn of_root(plan: &Plan, algorithm: Algorithm) -> Self {
        Self {
            subject_der: plan.subject.as_der().to_vec(),
            ski: plan.key.key_id().to_vec(),
            key: plan.key.clone(),
            algorithm,
            not_before: plan.not_before,
            not_after: plan.not_after,
            path_len: match plan.kind {
                Kind::Ca { path_len, .. } => path_len,
                _ => None,
            },
            constraints: Vec::new(),
        }
    }

    /// The subject, in the bytes of its certificate.
    #[must_use]
    pub fn subject_der(&self) -> &[u8] {
        &self.subject_der
    }

    /// The value of its subject key identifier.
    #[must_use]
    pub fn ski(&self) -> &[u8] {
        &self.ski
    }

    /// Its public key.
    #[must_use]
    pub fn key(&self) -> &SubjectKey {
        &self.key
    }

    /// What it signs with.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Unix seconds.
    #[must_use]
    pub fn not_before(&self) -> u64 {
        self.not_before
    }

    /// Unix seconds; the last second of its validity.
    #[must_use]
    pub fn not_after(&self) -> u64 {
        self.not_after
    }

    /// How many CAs may follow; `None` is any number.
    #[must_use]
    pub fn path_len(&self) -> Option<u8> {
        self.path_len
    }

    /// Its own name constraints, then those of the CAs above that were given.
    #[must_use]
    pub fn constraints(&self) -> &[NameConstraints] {
        &self.constraints
    }
}

/// Constraints that [`constraints::refuses`] can keep to. Email is left out: no email
/// name is ever issued.
fn read_constraints(
    names: &x509_parser::extensions::NameConstraints<'_>,
) -> Result<NameConstraints, IssuerError> {
    let read = |list: &Option<Vec<x509_parser::extensions::GeneralSubtree<'_>>>| {
        list.iter()
            .flatten()
            .filter(|subtree| !matches!(subtree.base, GeneralName::RFC822Name(_)))
            .map(|subtree| constraints::subtree(&subtree.base).ok_or(IssuerError::Constraints))
            .collect::<Result<Vec<_>, _>>()
    };
    Ok(NameConstraints {
        permitted: read(&names.permitted_subtrees)?,
        excluded: read(&names.excluded_subtrees)?,
    })
}
