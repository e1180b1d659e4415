//! What is on record: certificates, profiles, revocations, CRLs.

use keywright_pki::Serial;

use super::{AuthorityName, IssuerId};
use crate::key::TenantId;

/// SHA-256 of a SubjectPublicKeyInfo.
pub type Spki = [u8; 32];

/// Names one certificate.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CertificateRef {
    /// Who signed.
    pub issuer: IssuerId,
    /// Its number there.
    pub serial: Serial,
}

/// Where a certificate stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertificateState {
    /// On record, not seen signed.
    Intended,
    /// Good, as far as we know.
    Issued,
    /// Not any more.
    Revoked,
    /// Never signed.
    Failed,
}

impl CertificateState {
    /// Every one.
    pub const ALL: [Self; 4] = [Self::Intended, Self::Issued, Self::Revoked, Self::Failed];

    /// As in the store.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Intended => "intended",
            Self::Issued => "issued",
            Self::Revoked => "revoked",
            Self::Failed => "failed",
        }
    }

    /// The inverse of [`CertificateState::name`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.name() == text)
    }
}

/// Why a certificate was revoked (RFC 5280 §5.3.1). No holds: they end in doubt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Not said.
    Unspecified,
    /// Somebody else has the key.
    KeyCompromise,
    /// Somebody else has the issuer's key.
    CaCompromise,
    /// The names changed hands.
    AffiliationChanged,
    /// There is a newer one.
    Superseded,
    /// Not needed any more.
    CessationOfOperation,
    /// A right was taken away.
    PrivilegeWithdrawn,
}

impl Reason {
    /// Every one.
    pub const ALL: [Self; 7] = [
        Self::Unspecified,
        Self::KeyCompromise,
        Self::CaCompromise,
        Self::AffiliationChanged,
        Self::Superseded,
        Self::CessationOfOperation,
        Self::PrivilegeWithdrawn,
    ];

    /// CRLReason.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Unspecified => 0,
            Self::KeyCompromise => 1,
            Self::CaCompromise => 2,
            Self::AffiliationChanged => 3,
            Self::Superseded => 4,
            Self::CessationOfOperation => 5,
            Self::PrivilegeWithdrawn => 9,
        }
    }

    /// The inverse of [`Reason::code`].
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|r| r.code() == code)
    }
}

/// When and why a certificate was revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Revocation {
    /// Milliseconds since the epoch.
    pub revoked_ms: i64,
    /// Why.
    pub reason: Reason,
    /// When the key is thought to have been lost.
    pub invalidity_ms: Option<i64>,
}

/// What is written down before the HSM signs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intended {
    /// Which certificate it will be.
    pub name: CertificateRef,
    /// Whose.
    pub tenant: TenantId,
    /// Under which profile.
    pub profile: AuthorityName,
    /// Which version of it.
    pub profile_version: u32,
    /// TBSCertificate, DER.
    pub tbs: Vec<u8>,
    /// Of the subject's key.
    pub spki: Spki,
    /// Subject alternative names, as text.
    pub names: Vec<String>,
    /// Milliseconds since the epoch.
    pub not_before_ms: i64,
    /// The last millisecond of its last second.
    pub not_after_ms: i64,
    /// Which shard of the CRL would name it; 0: the issuer has none.
    pub shard: u32,
    /// Who asked: a SPIFFE id, or an ACME account.
    pub requested_by: String,
    /// Idempotency key; empty: none.
    pub request_key: String,
    /// SHA-256 of what was asked.
    pub request_sha256: [u8; 32],
    /// The first certificate of the line: issuer id and serial. Its own for the first.
    pub lineage: Vec<u8>,
    /// When, in milliseconds since the epoch.
    pub created_ms: i64,
}

/// A certificate on record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateRecord {
    /// What was intended; `tbs` is empty once it is signed.
    pub intended: Intended,
    /// Where it stands.
    pub state: CertificateState,
    /// DER; empty unless it was signed.
    pub certificate: Vec<u8>,
    /// If it is revoked.
    pub revocation: Option<Revocation>,
}

/// One version of a profile on record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProfileRecord {
    /// Whose.
    pub tenant: TenantId,
    /// Its name.
    pub name: AuthorityName,
    /// From 1.
    pub version: u32,
    /// TOML, as it was put.
    pub text: String,
    /// Who put it.
    pub created_by: String,
    /// When.
    pub created_ms: i64,
    /// Since when nothing is issued under it.
    pub retired_ms: Option<i64>,
}

/// The newest CRL of one issuer and shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrlRecord {
    /// Whose.
    pub issuer: IssuerId,
    /// 0: the full one.
    pub shard: u32,
    /// Rises strictly.
    pub number: u64,
    /// Milliseconds since the epoch.
    pub this_update_ms: i64,
    /// The next one is there by then.
    pub next_update_ms: i64,
    /// Revoked certificates in it.
    pub entries: u64,
    /// Of the file.
    pub sha256: [u8; 32],
}
