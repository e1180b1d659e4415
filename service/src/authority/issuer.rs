//! Who signs: a key in the HSM, its certificate, and what it may be used for. An issuer
//! begins as a plan that people approve.

use std::fmt;

use keywright_hsm::KeyRef;
use keywright_pki::Serial;

use super::AuthorityName;
use crate::key::{Revision, TenantId};

/// Permanent, 16 random bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IssuerId(pub [u8; 16]);

impl fmt::Display for IssuerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// How far a ceremony has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Drafted; waits for approvals.
    Planned,
    /// Its CSR is signed; waits for the certificate of an external root.
    Waiting,
    /// Has its certificate.
    Active,
}

impl Stage {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Planned, Self::Waiting, Self::Active];

    /// As in the store and on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Waiting => "waiting",
            Self::Active => "active",
        }
    }

    /// The inverse of [`Stage::name`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.name() == text)
    }
}

/// What an issuer may sign now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Certificates.
    pub issue: bool,
    /// CRLs and OCSP answers.
    pub crl: bool,
}

/// An issuer, from its plan on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issuer {
    /// Permanent id.
    pub id: IssuerId,
    /// Whose.
    pub tenant: TenantId,
    /// Name; in URLs and profiles.
    pub name: AuthorityName,
    /// How far it has come.
    pub stage: Stage,
    /// The TOML that was reviewed.
    pub text: String,
    /// Its key on the token.
    pub key: KeyRef,
    /// Which token.
    pub token_serial: String,
    /// Serial number of its own certificate; of no meaning under an external root.
    pub serial: Serial,
    /// SHA-256 of what approvals say yes to.
    pub digest: [u8; 32],
    /// Who approved, in order; the one who planned is not among them by itself.
    pub approvals: Vec<String>,
    /// Who planned.
    pub created_by: String,
    /// When, in milliseconds since the epoch: the certificate begins from here.
    pub created_ms: i64,
    /// Its certificate; empty until it is active.
    pub certificate: Vec<u8>,
    /// DER, from the one above up to and with the root; empty for a root.
    pub chain: Vec<Vec<u8>>,
    /// What it may sign.
    pub usage: Usage,
    /// Why it was stopped by itself; empty if it was not.
    pub alarm: String,
    /// For compare-and-swap.
    pub revision: Revision,
}

impl Issuer {
    /// Self-signed?
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.stage == Stage::Active && self.chain.is_empty()
    }
}
