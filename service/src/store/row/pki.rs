//! Rows of the PKI to domain types and back.

use keywright_hsm::{KeyProof, KeyRef, ObjectId};
use keywright_pki::Serial;
use sqlx::{FromRow, Row, any::AnyRow};

use super::{corrupt, id, unsigned};
use crate::{
    authority::{
        AuthorityName, CertificateRecord, CertificateRef, CertificateState, CrlRecord, Intended,
        Issuer, IssuerId, ProfileRecord, Reason, Responder, Revocation, Stage, Usage,
    },
    key::{KeySpec, KeyUse, Revision, TenantId},
    store::{Result, Revoked},
};

rows! {
    struct IssuerRow {
        id: Vec<u8>,
        tenant_id: Vec<u8>,
        name: String,
        stage: String,
        text: String,
        object_id: Vec<u8>,
        spec: String,
        proof: Vec<u8>,
        token_serial: String,
        serial: Vec<u8>,
        digest: Vec<u8>,
        approvals: String,
        created_by: String,
        created_ms: i64,
        certificate: Vec<u8>,
        chain: Vec<u8>,
        may_issue: i64,
        may_sign_crls: i64,
        alarm: String,
        revision: i64,
        seal: Vec<u8>,
    }

    struct ProfileRow {
        tenant_id: Vec<u8>,
        name: String,
        version: i64,
        text: String,
        created_by: String,
        created_ms: i64,
        retired_ms: i64,
        seal: Vec<u8>,
    }

    struct CertificateRow {
        issuer_id: Vec<u8>,
        serial: Vec<u8>,
        tenant_id: Vec<u8>,
        state: String,
        profile: String,
        profile_version: i64,
        der: Vec<u8>,
        spki_sha256: Vec<u8>,
        names: String,
        not_before_ms: i64,
        not_after_ms: i64,
        shard: i64,
        requested_by: String,
        request_key: String,
        request_sha256: Vec<u8>,
        lineage: Vec<u8>,
        created_ms: i64,
        revoked_ms: i64,
        reason: i64,
        invalidity_ms: i64,
    }

    struct RevokedRow {
        serial: Vec<u8>,
        revoked_ms: i64,
        reason: i64,
        invalidity_ms: i64,
        not_after_ms: i64,
        shard: i64,
    }

    struct CrlRow {
        issuer_id: Vec<u8>,
        shard: i64,
        number: i64,
        this_update_ms: i64,
        next_update_ms: i64,
        entries: i64,
        sha256: Vec<u8>,
    }

    struct ResponderRow {
        issuer_id: Vec<u8>,
        object_id: Vec<u8>,
        spec: String,
        proof: Vec<u8>,
        token_serial: String,
        certificate: Vec<u8>,
        created_ms: i64,
    }
}

fn signing_key(object: Vec<u8>, spec: &str, proof: &[u8]) -> Result<KeyRef> {
    let spec = KeySpec::parse(spec, Some(KeyUse::Sign)).ok_or_else(|| corrupt("spec"))?;
    Ok(KeyRef {
        object: ObjectId(id(object, "object id")?),
        spec,
        proof: KeyProof::from_bytes(spec, proof).ok_or_else(|| corrupt("proof"))?,
    })
}

fn digest(bytes: Vec<u8>) -> Result<[u8; 32]> {
    bytes.try_into().map_err(|_| corrupt("digest"))
}

fn small(value: i64, what: &str) -> Result<u32> {
    u32::try_from(value).map_err(|_| corrupt(what))
}

fn name(text: &str) -> Result<AuthorityName> {
    AuthorityName::parse(text).map_err(|_| corrupt("name of an issuer or profile"))
}

fn serial(octets: &[u8]) -> Result<Serial> {
    Serial::from_bytes(octets).map_err(|_| corrupt("serial number"))
}

/// `length u32 | DER` for each.
pub(in crate::store) fn chain_bytes(chain: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    for der in chain {
        // A certificate has at most some kilobytes.
        out.extend_from_slice(&u32::try_from(der.len()).unwrap_or(u32::MAX).to_be_bytes());
        out.extend_from_slice(der);
    }
    out
}

fn chain(mut bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
    let mut out = Vec::new();
    while !bytes.is_empty() {
        let (length, rest) = bytes.split_first_chunk().ok_or_else(|| corrupt("chain"))?;
        let length = u32::from_be_bytes(*length) as usize;
        let (der, rest) = rest
            .split_at_checked(length)
            .ok_or_else(|| corrupt("chain"))?;
        out.push(der.to_vec());
        bytes = rest;
    }
    Ok(out)
}

/// JSON text; strings cannot fail.
pub(in crate::store) fn list_text(list: &[String]) -> String {
    serde_json::Value::from(list).to_string()
}

pub(in crate::store) fn list(text: &str) -> Result<Vec<String>> {
    serde_json::from_str(text).map_err(|_| corrupt("list"))
}

/// Which certificate: issuer and serial.
pub(in crate::store) fn reference(row: (Vec<u8>, Vec<u8>)) -> Result<CertificateRef> {
    Ok(CertificateRef {
        issuer: IssuerId(id(row.0, "issuer id")?),
        serial: serial(&row.1)?,
    })
}

impl IssuerRow {
    /// The issuer and its seal.
    pub(in crate::store) fn issuer(self) -> Result<(Issuer, Vec<u8>)> {
        let issuer = Issuer {
            id: IssuerId(id(self.id, "issuer id")?),
            tenant: TenantId(id(self.tenant_id, "tenant id")?),
            name: name(&self.name)?,
            stage: Stage::parse(&self.stage).ok_or_else(|| corrupt("stage"))?,
            text: self.text,
            key: signing_key(self.object_id, &self.spec, &self.proof)?,
            token_serial: self.token_serial,
            serial: serial(&self.serial)?,
            digest: digest(self.digest)?,
            approvals: list(&self.approvals)?,
            created_by: self.created_by,
            created_ms: self.created_ms,
            certificate: self.certificate,
            chain: chain(&self.chain)?,
            usage: Usage {
                issue: self.may_issue != 0,
                crl: self.may_sign_crls != 0,
            },
            alarm: self.alarm,
            revision: Revision(unsigned(self.revision)?),
        };
        Ok((issuer, self.seal))
    }
}

impl ProfileRow {
    /// The profile and its seal.
    pub(in crate::store) fn profile(self) -> Result<(ProfileRecord, Vec<u8>)> {
        let profile = ProfileRecord {
            tenant: TenantId(id(self.tenant_id, "tenant id")?),
            name: name(&self.name)?,
            version: small(self.version, "profile version")?,
            text: self.text,
            created_by: self.created_by,
            created_ms: self.created_ms,
            retired_ms: Some(self.retired_ms).filter(|ms| *ms != 0),
        };
        Ok((profile, self.seal))
    }
}

fn revocation(revoked_ms: i64, reason: i64, invalidity_ms: i64) -> Result<Revocation> {
    let reason = u8::try_from(reason).ok().and_then(Reason::from_code);
    Ok(Revocation {
        revoked_ms,
        reason: reason.ok_or_else(|| corrupt("reason"))?,
        invalidity_ms: Some(invalidity_ms).filter(|ms| *ms != 0),
    })
}

impl CertificateRow {
    pub(in crate::store) fn certificate(self) -> Result<CertificateRecord> {
        let state = CertificateState::parse(&self.state).ok_or_else(|| corrupt("state"))?;
        let signed = matches!(state, CertificateState::Issued | CertificateState::Revoked);
        let revocation = (state == CertificateState::Revoked)
            .then(|| revocation(self.revoked_ms, self.reason, self.invalidity_ms))
            .transpose()?;
        let (tbs, certificate) = if signed {
            (Vec::new(), self.der)
        } else {
            (self.der, Vec::new())
        };
        Ok(CertificateRecord {
            intended: Intended {
                name: reference((self.issuer_id, self.serial))?,
                tenant: TenantId(id(self.tenant_id, "tenant id")?),
                profile: name(&self.profile)?,
                profile_version: small(self.profile_version, "profile version")?,
                tbs,
                spki: digest(self.spki_sha256)?,
                names: list(&self.names)?,
                not_before_ms: self.not_before_ms,
                not_after_ms: self.not_after_ms,
                shard: small(self.shard, "shard")?,
                requested_by: self.requested_by,
                request_key: self.request_key,
                request_sha256: digest(self.request_sha256)?,
                lineage: self.lineage,
                created_ms: self.created_ms,
            },
            state,
            certificate,
            revocation,
        })
    }
}

impl RevokedRow {
    pub(in crate::store) fn revoked(self) -> Result<Revoked> {
        Ok(Revoked {
            serial: serial(&self.serial)?,
            revocation: revocation(self.revoked_ms, self.reason, self.invalidity_ms)?,
            not_after_ms: self.not_after_ms,
            shard: small(self.shard, "shard")?,
        })
    }
}

impl CrlRow {
    pub(in crate::store) fn crl(self) -> Result<CrlRecord> {
        Ok(CrlRecord {
            issuer: IssuerId(id(self.issuer_id, "issuer id")?),
            shard: small(self.shard, "shard")?,
            number: unsigned(self.number)?,
            this_update_ms: self.this_update_ms,
            next_update_ms: self.next_update_ms,
            entries: unsigned(self.entries)?,
            sha256: digest(self.sha256)?,
        })
    }
}

impl ResponderRow {
    pub(in crate::store) fn responder(self) -> Result<Responder> {
        Ok(Responder {
            issuer: IssuerId(id(self.issuer_id, "issuer id")?),
            key: signing_key(self.object_id, &self.spec, &self.proof)?,
            token_serial: self.token_serial,
            certificate: self.certificate,
            created_ms: self.created_ms,
        })
    }
}
