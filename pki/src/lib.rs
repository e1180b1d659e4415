//! Pure X.509: bytes in, bytes out, no clock, no network, and no private key: this
//! crate never signs.
//!
//! In: a [`Csr`] is read and judged by a [`Profile`], which makes a [`Plan`]. Out: a
//! [`Draft`] writes the plan's bytes, its lint reads them again, and what comes out is
//! [`Unsigned`]; whoever holds the key signs it, and [`Unsigned::attach`] checks what came
//! back. CRLs, OCSP answers and requests for CA certificates go the same way out.
//!
//! Beside it stands what the data path needs: the [`SpiffeId`] that a client certificate
//! carries, public keys and ECDSA signatures as others read them.
#![forbid(unsafe_code)]

mod certificate;
mod constraints;
mod crl;
mod csr;
mod csr_out;
mod draft;
mod ecdsa;
mod extension;
mod identity;
mod info;
mod issuer;
mod key_kind;
mod key_policy;
mod lint;
mod name;
mod ocsp;
mod oid;
#[cfg(test)]
mod openssl;
mod pem;
mod plan;
mod profile;
mod public_key;
mod serial;
mod signature;
mod spiffe;
mod subject;
mod subject_key;
#[cfg(test)]
mod testing;
mod unsigned;
mod wire;

pub use certificate::Certificate;
pub use crl::{Crl, CrlDraft, CrlPlan, NotACrl, Reason, Revoked, Scope, revoked_serials};
pub use csr::{Csr, CsrError};
pub use csr_out::{CaRequest, ImportError, check_import};
pub use draft::{Draft, DraftError};
pub use ecdsa::{ecdsa_from_der, ecdsa_to_der};
pub use identity::{Identity, NoValue, Placeholder};
pub use info::{CertificateInfo, NotACertificate, verify_signed_by};
pub use issuer::{IssuerCert, IssuerError};
pub use key_kind::{KeyKind, ShapeError};
pub use key_policy::WeakKey;
pub use lint::{Finding, Findings};
pub use name::{DnsName, NameError, San, Uri};
pub use ocsp::{
    Answer, CertId, CertStatus, Malformed, Nonce, OcspDraft, OcspError, OcspPlan, OcspRequest,
    OcspResponder, OcspResponse, ResponderError,
};
pub use pem::certificate_to_pem;
pub use plan::{Eku, KeyUsage, Kind, NO_EXPIRY, NameConstraints, Plan, Subtree, Urls};
pub use profile::{
    Approval, AuthMethod, Authz, CaRules, Cidr, CommonName, IssuerFacts, KeyReuse, LintIgnore,
    Match, Profile, ProfileError, Rate, Refusal, Request, Violation, dev_service, spiffe_svid,
};
pub use public_key::{spki_to_jwk, spki_to_pem};
pub use serial::{NotASerial, Serial};
pub use signature::{Algorithm, BadSignature};
pub use spiffe::{Error, SpiffeId, SpiffeIdError, TrustDomain, client_id};
pub use subject::{Attribute, Subject, SubjectError};
pub use subject_key::{KeyError, SubjectKey};
pub use unsigned::{Document, SelfCheckFailed, Unsigned};
