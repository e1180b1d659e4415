//! Rows to domain types and back; the same shapes for every engine.
//!
//! `sqlx::Any` knows 64-bit integers, text and bytes: ids are bytes, times are integer
//! milliseconds, labels are JSON text.

use std::{collections::BTreeMap, sync::Arc};

use keywright_hsm::{KeyProof, KeyRef, ObjectId, WrappedDek};
use sqlx::{FromRow, Row, any::AnyRow};

use super::{Anchor, Intent, LogId, Result, StoreError, Tenant};
use crate::key::{
    Key, KeyId, KeyName, KeySpec, KeyState, KeyUse, KeyVersion, Labels, LastUsed, Revision, Rules,
    TenantId, UseTimes, VersionNumber, WrapCounter,
};

/// A row struct whose fields are the columns of the same name. By hand, because
/// sqlx's derive would build SQLite a second time for the compiler.
macro_rules! rows {
    ($(struct $row:ident { $($column:ident: $kind:ty,)* })*) => {$(
        pub(in crate::store) struct $row { $($column: $kind,)* }

        impl FromRow<'_, AnyRow> for $row {
            fn from_row(row: &AnyRow) -> sqlx::Result<Self> {
                Ok(Self { $($column: row.try_get(stringify!($column))?,)* })
            }
        }
    )*};
}

pub(super) mod acme;
pub(super) mod data_keys;
pub(super) mod jobs;
pub(super) mod pki;

rows! {
    struct TenantRow {
        id: Vec<u8>,
        name: String,
        seal: Vec<u8>,
    }

    struct KeyRow {
        id: Vec<u8>,
        tenant_id: Vec<u8>,
        name: String,
        spec: String,
        key_use: String,
        labels: String,
        rules: String,
        primary_version: i64,
        minimum_version: i64,
        created_ms: i64,
        promoted_ms: i64,
        revision: i64,
        seal: Vec<u8>,
    }

    struct VersionRow {
        key_id: Vec<u8>,
        number: i64,
        state: String,
        object_id: Vec<u8>,
        proof: Vec<u8>,
        token_serial: String,
        created_ms: i64,
        wraps_reserved: i64,
        destroy_at_ms: i64,
        protected_ms: i64,
        processed_ms: i64,
        refused_ms: i64,
        brown_out_until_ms: i64,
        sealed_bytes: i64,
    }

    struct IntentRow {
        object_id: Vec<u8>,
        tenant_id: Vec<u8>,
        key_id: Vec<u8>,
        key_name: String,
        number: i64,
        created_ms: i64,
    }
}

fn corrupt(what: &str) -> StoreError {
    StoreError::Corrupt(what.to_owned())
}

fn id(bytes: Vec<u8>, what: &str) -> Result<[u8; 16]> {
    bytes.try_into().map_err(|_| corrupt(what))
}

pub(super) fn number(value: i64) -> Result<VersionNumber> {
    u32::try_from(value)
        .ok()
        .and_then(VersionNumber::new)
        .ok_or_else(|| corrupt("version number"))
}

/// Counters are far below 2^63; what is not was not written by us.
pub(super) fn unsigned(value: i64) -> Result<u64> {
    u64::try_from(value).map_err(|_| corrupt("negative counter"))
}

/// For writing; the highest counter is 2^32.
pub(super) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(super) fn labels_text(labels: &Labels) -> Result<String> {
    serde_json::to_string(labels.pairs()).map_err(|e| StoreError::Corrupt(e.to_string()))
}

pub(super) fn rules_text(rules: &Rules) -> Result<String> {
    serde_json::to_string(rules).map_err(|e| StoreError::Corrupt(e.to_string()))
}

impl TenantRow {
    /// The tenant and its seal.
    pub(super) fn tenant(self) -> Result<(Tenant, Vec<u8>)> {
        let tenant = Tenant {
            id: TenantId(id(self.id, "tenant id")?),
            name: self.name,
        };
        Ok((tenant, self.seal))
    }
}

impl VersionRow {
    pub(super) fn key_id(&self) -> &[u8] {
        &self.key_id
    }

    fn version(self, spec: KeySpec) -> Result<KeyVersion> {
        Ok(KeyVersion {
            number: number(self.number)?,
            state: KeyState::parse(&self.state).ok_or_else(|| corrupt("state"))?,
            on_token: KeyRef {
                object: ObjectId(id(self.object_id, "object id")?),
                spec,
                proof: KeyProof::from_bytes(spec, &self.proof).ok_or_else(|| corrupt("proof"))?,
            },
            token_serial: self.token_serial,
            created_ms: self.created_ms,
            destroy_at_ms: Some(self.destroy_at_ms).filter(|ms| *ms != 0),
            brown_out_until_ms: Some(self.brown_out_until_ms).filter(|ms| *ms != 0),
            wraps: Arc::new(WrapCounter::new(unsigned(self.wraps_reserved)?)),
            lease: Arc::default(),
            used: Arc::new(LastUsed::new(
                UseTimes {
                    protected_ms: self.protected_ms,
                    processed_ms: self.processed_ms,
                    refused_ms: self.refused_ms,
                },
                unsigned(self.sealed_bytes)?,
            )),
        })
    }
}

impl KeyRow {
    pub(super) fn id(&self) -> &[u8] {
        &self.id
    }

    /// The key with its versions, and its seal.
    pub(super) fn key(self, versions: Vec<VersionRow>) -> Result<(Key, Vec<u8>)> {
        let labels: BTreeMap<String, String> =
            serde_json::from_str(&self.labels).map_err(|_| corrupt("labels"))?;
        let name = KeyName::parse(&self.name).map_err(|_| corrupt("key name"))?;
        let spec = KeyUse::parse(&self.key_use)
            .and_then(|key_use| KeySpec::parse(&self.spec, Some(key_use)))
            .ok_or_else(|| corrupt("spec"))?;
        let mut versions = versions.into_iter().map(|v| v.version(spec));
        let first = versions
            .next()
            .ok_or_else(|| corrupt("a key without a version"))??;
        let mut key = Key::new(
            KeyId(id(self.id, "key id")?),
            TenantId(id(self.tenant_id, "tenant id")?),
            name,
            spec,
            Labels::new(labels).map_err(|_| corrupt("labels"))?,
            first,
        );
        for version in versions {
            if !key.restore(version?) {
                return Err(corrupt("a version stored twice"));
            }
        }
        key.rules = serde_json::from_str(&self.rules).map_err(|_| corrupt("rules"))?;
        key.primary = number(self.primary_version)?;
        key.minimum = number(self.minimum_version)?;
        key.created_ms = self.created_ms;
        key.promoted_ms = self.promoted_ms;
        key.revision = Revision(unsigned(self.revision)?);
        if key.version(key.primary.get()).is_none() {
            return Err(corrupt("a key whose primary version is missing"));
        }
        Ok((key, self.seal))
    }
}

impl IntentRow {
    pub(super) fn intent(self) -> Result<Intent> {
        Ok(Intent {
            object: ObjectId(id(self.object_id, "object id")?),
            tenant: TenantId(id(self.tenant_id, "tenant id")?),
            key: KeyId(id(self.key_id, "key id")?),
            name: KeyName::parse(&self.key_name).map_err(|_| corrupt("key name"))?,
            number: number(self.number)?,
            created_ms: self.created_ms,
        })
    }
}

/// `object id 16 | proof 60`.
pub(super) fn canary_bytes(key: &KeyRef) -> Vec<u8> {
    let mut out = key.object.0.to_vec();
    out.extend_from_slice(&key.proof.to_bytes());
    out
}

pub(super) fn canary(bytes: &[u8]) -> Result<KeyRef> {
    let (object, proof) = bytes.split_first_chunk().ok_or_else(|| corrupt("canary"))?;
    Ok(KeyRef {
        object: ObjectId(*object),
        spec: KeySpec::Aes256,
        proof: KeyProof::from_bytes(KeySpec::Aes256, proof).ok_or_else(|| corrupt("canary"))?,
    })
}

/// The key that rows are sealed with, under the canary.
pub(super) fn rows_key(bytes: &[u8]) -> Result<WrappedDek> {
    let bytes = bytes.try_into().map_err(|_| corrupt("rows key"))?;
    Ok(WrappedDek(bytes))
}

/// `seq u64 | hash 32`.
pub(super) fn anchor_bytes(anchor: &Anchor) -> Vec<u8> {
    let mut out = anchor.seq.to_be_bytes().to_vec();
    out.extend_from_slice(&anchor.hash);
    out
}

/// Nothing for the first log, `/<hex>` for others.
pub(super) fn log_suffix(log: LogId) -> String {
    if log == LogId::FIRST {
        String::new()
    } else {
        format!("/{log}")
    }
}

pub(super) fn anchor(suffix: &str, bytes: &[u8]) -> Result<(LogId, Anchor)> {
    let mut log = LogId::FIRST;
    if let Some(id) = suffix.strip_prefix('/') {
        hex::decode_to_slice(id, &mut log.0).map_err(|_| corrupt("anchor"))?;
    }
    let (seq, hash) = bytes.split_first_chunk().ok_or_else(|| corrupt("anchor"))?;
    let anchor = Anchor {
        seq: u64::from_be_bytes(*seq),
        hash: hash.try_into().map_err(|_| corrupt("anchor"))?,
    };
    Ok((log, anchor))
}
