//! What the store keeps of the PKI: issuers, profiles, certificates, blocked keys, CRLs.
//!
//! Certificates are written in groups, many for one flush of the disk; a certificate is
//! on record before the HSM signs it.

use async_trait::async_trait;
use keywright_pki::{KeyReuse, Serial};

use super::Result;
use crate::{
    authority::{
        AuthorityName, CertificateRecord, CertificateRef, CertificateState, CrlRecord, Intended,
        Issuer, IssuerId, ProfileRecord, Responder, Revocation, Spki,
    },
    key::TenantId,
};

/// Everything that is held in memory, read at start.
#[derive(Debug, Default)]
pub struct Authorities {
    /// All issuers, from their plans on.
    pub issuers: Vec<Issuer>,
    /// All versions of all profiles.
    pub profiles: Vec<ProfileRecord>,
    /// The newest CRLs.
    pub crls: Vec<CrlRecord>,
    /// All keys that sign OCSP answers, also those no longer in use.
    pub responders: Vec<Responder>,
    /// When the last certificate or CRL was made, in milliseconds since the epoch.
    pub latest_ms: i64,
}

/// One change of one certificate, for a group.
#[derive(Debug, Clone)]
pub enum Write {
    /// Before the HSM signs. Idempotency keys older than `requests_since_ms` are free.
    Begin {
        /// What will be signed.
        intended: Box<Intended>,
        /// Milliseconds since the epoch.
        requests_since_ms: i64,
        /// May its key have been certified before?
        reuse: KeyReuse,
    },
    /// The signed certificate.
    Finish {
        /// Which.
        name: CertificateRef,
        /// DER.
        certificate: Vec<u8>,
    },
    /// It was certainly not signed.
    Fail {
        /// Which.
        name: CertificateRef,
    },
    /// It is not known whether it was signed: it stays as it is, and its idempotency key
    /// is free again.
    Lose {
        /// Which.
        name: CertificateRef,
    },
    /// From now on it is revoked; what is revoked already stays as it was, but for its reason
    /// when the new one is that the key was compromised.
    Revoke {
        /// Which.
        name: CertificateRef,
        /// When and why.
        revocation: Revocation,
    },
}

/// What came of a [`Write`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Written {
    /// Done.
    Done,
    /// Begin: this caller's idempotency key has a certificate already.
    Known(Box<CertificateRecord>),
    /// Begin: the serial number is taken.
    SerialTaken,
    /// Begin: this key is never certified.
    Blocked,
    /// Begin: the key was certified before, and that may not be again.
    KeyUsed,
    /// Finish, Fail, Revoke: there is no such certificate in a state for it.
    NotThere,
}

/// May a key be certified?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyStanding {
    /// Yes.
    Free,
    /// It was certified before, and that may not be again.
    Used,
    /// Never.
    Blocked,
}

/// Which certificates; what is `None` does not matter.
#[derive(Debug, Clone, Default)]
pub struct Search {
    /// A name in it.
    pub name: Option<String>,
    /// Its key.
    pub spki: Option<Spki>,
    /// Its profile.
    pub profile: Option<AuthorityName>,
    /// Its issuer.
    pub issuer: Option<IssuerId>,
    /// Where it stands.
    pub state: Option<CertificateState>,
    /// Its last moment is after this.
    pub ends_after_ms: i64,
    /// Its last moment is before this.
    pub ends_before_ms: Option<i64>,
    /// Only what comes after this one: last moment, issuer, serial.
    pub after: Option<(i64, CertificateRef)>,
    /// At most so many.
    pub limit: u32,
}

/// A revoked certificate, for a CRL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revoked {
    /// Its number.
    pub serial: Serial,
    /// When and why.
    pub revocation: Revocation,
    /// Its last moment.
    pub not_after_ms: i64,
    /// Which shard names it.
    pub shard: u32,
}

/// The PKI's half of a store. All writes are durable when they return.
#[async_trait]
pub trait PkiStore: Send + Sync {
    /// Reads what is held in memory. Certificates that were begun and never finished give
    /// their idempotency keys back: nobody has them. Where others use the store too, not
    /// those of the last minute.
    async fn load_authorities(&self) -> Result<Authorities>;

    /// Stores a planned issuer and clears the intent of its key, all or nothing.
    /// [`StoreError::Exists`](super::StoreError) when the name is taken.
    async fn add_issuer(&self, issuer: &Issuer) -> Result<()>;

    /// Stores stage, approvals, certificate, chain, usage and alarm. `next` is the issuer
    /// after the change; [`StoreError::Conflict`](super::StoreError) when the stored
    /// revision is not the one before.
    async fn change_issuer(&self, next: &Issuer) -> Result<()>;

    /// Stores one more version of a profile.
    /// [`StoreError::Exists`](super::StoreError) when it is there.
    async fn add_profile(&self, profile: &ProfileRecord) -> Result<()>;

    /// Retires all versions of a profile that are in use.
    async fn retire_profile(
        &self,
        tenant: TenantId,
        name: &AuthorityName,
        retired_ms: i64,
    ) -> Result<()>;

    /// Does all of them, in order, in one transaction.
    async fn write_certificates(&self, writes: &[Write]) -> Result<Vec<Written>>;

    /// What [`Write::Begin`] would say of a key.
    async fn key_standing(
        &self,
        tenant: TenantId,
        spki: &Spki,
        reuse: KeyReuse,
    ) -> Result<KeyStanding>;

    /// One certificate of a tenant.
    async fn certificate(
        &self,
        tenant: TenantId,
        name: &CertificateRef,
    ) -> Result<Option<CertificateRecord>>;

    /// Certificates of a tenant, by their last moment, issuer and serial.
    async fn search(&self, tenant: TenantId, what: &Search) -> Result<Vec<CertificateRecord>>;

    /// Everything revoked under an issuer, by serial.
    async fn revoked(&self, issuer: IssuerId) -> Result<Vec<Revoked>>;

    /// A key that is never certified again. Blocking it twice is no error.
    async fn block_key(
        &self,
        tenant: TenantId,
        spki: &Spki,
        why: &str,
        created_ms: i64,
    ) -> Result<()>;

    /// The newest CRL, and its bytes where other nodes take it from here. Its number must
    /// be above that of the one before, and the one before no newer than number `before`,
    /// which it was held against; else [`StoreError::Conflict`](super::StoreError).
    async fn set_crl(&self, crl: &CrlRecord, before: u64, der: Option<&[u8]>) -> Result<()>;

    /// The newest CRL if its number is above this one, with its bytes if they are here.
    async fn newer_crl(
        &self,
        issuer: IssuerId,
        shard: u32,
        number: u64,
    ) -> Result<Option<(CrlRecord, Option<Vec<u8>>)>>;

    /// Who signs OCSP answers for an issuer: the newest key.
    async fn responder(&self, issuer: IssuerId) -> Result<Option<Responder>>;

    /// Stores a new key and clears its intent, or exchanges the certificate of one that
    /// is there.
    async fn set_responder(&self, responder: &Responder) -> Result<()>;
}
