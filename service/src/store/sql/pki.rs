//! The PKI's tables.

mod write;

use async_trait::async_trait;
use keywright_pki::KeyReuse;
use sqlx::{Any, FromRow, Row, Transaction};

use super::{SqlStore, nodes::What, taken, unavailable};
use crate::{
    authority::{
        AuthorityName, CertificateRecord, CertificateRef, CrlRecord, Issuer, IssuerId,
        ProfileRecord, Responder, Spki,
    },
    key::TenantId,
    store::{
        Authorities, KeyStanding, PkiStore, Result, Revoked, Search, StoreError, Write, Written,
        row::{
            pki::{
                CertificateRow, CrlRow, IssuerRow, ProfileRow, ResponderRow, RevokedRow,
                chain_bytes, list_text, reference,
            },
            signed,
        },
    },
};

const CERTIFICATE: &str = "SELECT issuer_id, serial, tenant_id, state, profile, profile_version,
    der, spki_sha256, names, not_before_ms, not_after_ms, shard, requested_by, request_key,
    request_sha256, lineage, created_ms, revoked_ms, reason, invalidity_ms
    FROM certificates";

pub(super) const ISSUERS: &str = "SELECT id, tenant_id, name, stage, text, object_id, spec, proof,
    token_serial, serial, digest, approvals, created_by, created_ms, certificate, chain, may_issue,
    may_sign_crls, alarm, revision, seal FROM issuers ORDER BY created_ms, id";

pub(super) const PROFILE: &str = "SELECT tenant_id, name, version, text, created_by, created_ms,
    retired_ms, seal FROM profiles ";

const RESPONDER: &str = "SELECT issuer_id, object_id, spec, proof, token_serial, certificate,
    created_ms FROM responders";

/// Ordered by who asks: with `ORDER BY serial` SQLite walks the primary key, over all
/// certificates of the issuer.
const REVOKED: &str = "SELECT serial, revoked_ms, reason, invalidity_ms, not_after_ms, shard
    FROM certificates WHERE issuer_id = $1 AND state = 'revoked'";

/// The first condition is that of the index.
const REVOKED_SINCE: &str = "SELECT issuer_id, serial FROM certificates
    WHERE status_epoch > 0 AND status_epoch > $1";

#[async_trait]
impl PkiStore for SqlStore {
    async fn load_authorities(&self) -> Result<Authorities> {
        // Another node may be at the newest ones.
        let old = if self.dialect.is_shared() {
            format!(" AND created_ms < {} - 60000", self.dialect.now_ms())
        } else {
            String::new()
        };
        let free = "UPDATE certificates SET request_key = '' WHERE state = 'intended'";
        sqlx::query(sql_text(free, &old))
            .execute(&self.pool.get())
            .await
            .map_err(unavailable)?;
        self.authorities(&mut self.read().await?).await
    }

    async fn add_issuer(&self, issuer: &Issuer) -> Result<()> {
        let _turn = self.turn().await;
        atomically!(self, tx => {
            self.next_epoch(&mut tx, What::Authorities).await?;
            sqlx::query(
                "INSERT INTO issuers (id, tenant_id, name, stage, text, object_id, spec, proof,
                     token_serial, serial, digest, approvals, created_by, created_ms, certificate,
                     chain, may_issue, may_sign_crls, alarm, revision, seal)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16,
                     $17, $18, $19, $20, $21)",
            )
            .bind(issuer.id.0.to_vec())
            .bind(issuer.tenant.0.to_vec())
            .bind(issuer.name.as_str().to_owned())
            .bind(issuer.stage.name().to_owned())
            .bind(issuer.text.clone())
            .bind(issuer.key.object.0.to_vec())
            .bind(issuer.key.spec.name().to_owned())
            .bind(issuer.key.proof.to_bytes())
            .bind(issuer.token_serial.clone())
            .bind(issuer.serial.as_bytes().to_vec())
            .bind(issuer.digest.to_vec())
            .bind(list_text(&issuer.approvals))
            .bind(issuer.created_by.clone())
            .bind(issuer.created_ms)
            .bind(issuer.certificate.clone())
            .bind(chain_bytes(&issuer.chain))
            .bind(i64::from(issuer.usage.issue))
            .bind(i64::from(issuer.usage.crl))
            .bind(issuer.alarm.clone())
            .bind(signed(issuer.revision.0))
            .bind(self.seal(issuer))
            .execute(&mut *tx)
            .await
            .map_err(taken)?;
            sqlx::query("DELETE FROM intents WHERE object_id = $1")
                .bind(issuer.key.object.0.to_vec())
                .execute(&mut *tx)
                .await
                .map_err(unavailable)?;
            Ok(())
        })
    }

    async fn change_issuer(&self, next: &Issuer) -> Result<()> {
        let _turn = self.turn().await;
        atomically!(self, tx => {
            self.next_epoch(&mut tx, What::Authorities).await?;
            let changed = sqlx::query(
                "UPDATE issuers SET stage = $1, approvals = $2, certificate = $3, chain = $4,
                     may_issue = $5, may_sign_crls = $6, alarm = $7, revision = $8,
                     seal = $11
                 WHERE id = $9 AND revision = $10",
            )
            .bind(next.stage.name().to_owned())
            .bind(list_text(&next.approvals))
            .bind(next.certificate.clone())
            .bind(chain_bytes(&next.chain))
            .bind(i64::from(next.usage.issue))
            .bind(i64::from(next.usage.crl))
            .bind(next.alarm.clone())
            .bind(signed(next.revision.0))
            .bind(next.id.0.to_vec())
            .bind(signed(next.revision.0) - 1)
            .bind(self.seal(next))
            .execute(&mut *tx)
            .await
            .map_err(unavailable)?;
            one(changed.rows_affected())
        })
    }

    async fn add_profile(&self, profile: &ProfileRecord) -> Result<()> {
        let _turn = self.turn().await;
        atomically!(self, tx => {
            self.next_epoch(&mut tx, What::Authorities).await?;
            sqlx::query(
                "INSERT INTO profiles (tenant_id, name, version, text, created_by, created_ms,
                     retired_ms, seal)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
            )
            .bind(profile.tenant.0.to_vec())
            .bind(profile.name.as_str().to_owned())
            .bind(i64::from(profile.version))
            .bind(profile.text.clone())
            .bind(profile.created_by.clone())
            .bind(profile.created_ms)
            .bind(profile.retired_ms.unwrap_or(0))
            .bind(self.seal(profile))
            .execute(&mut *tx)
            .await
            .map_err(taken)?;
            Ok(())
        })
    }

    async fn retire_profile(
        &self,
        tenant: TenantId,
        name: &AuthorityName,
        retired_ms: i64,
    ) -> Result<()> {
        let _turn = self.turn().await;
        atomically!(self, tx => {
            self.next_epoch(&mut tx, What::Authorities).await?;
            let text = "WHERE tenant_id = $1 AND name = $2 AND retired_ms = 0";
            let used: Vec<ProfileRow> = sqlx::query_as(sql_text(PROFILE, text))
                .bind(tenant.0.to_vec())
                .bind(name.as_str().to_owned())
                .fetch_all(&mut *tx)
                .await
                .map_err(unavailable)?;
            for mut profile in self.profiles(used)? {
                profile.retired_ms = Some(retired_ms);
                sqlx::query(
                    "UPDATE profiles SET retired_ms = $1, seal = $2
                     WHERE tenant_id = $3 AND name = $4 AND version = $5",
                )
                .bind(retired_ms)
                .bind(self.seal(&profile))
                .bind(tenant.0.to_vec())
                .bind(name.as_str().to_owned())
                .bind(i64::from(profile.version))
                .execute(&mut *tx)
                .await
                .map_err(unavailable)?;
            }
            Ok(())
        })
    }

    async fn write_certificates(&self, writes: &[Write]) -> Result<Vec<Written>> {
        let _turn = self.turn().await;
        atomically!(self, tx => { write::write(self, &mut tx, writes).await })
    }

    async fn key_standing(
        &self,
        tenant: TenantId,
        spki: &Spki,
        reuse: KeyReuse,
    ) -> Result<KeyStanding> {
        let mut tx = self.read().await?;
        write::key_standing(&mut tx, tenant, spki, reuse).await
    }

    async fn certificate(
        &self,
        tenant: TenantId,
        name: &CertificateRef,
    ) -> Result<Option<CertificateRecord>> {
        let row: Option<CertificateRow> = sqlx::query_as(sql(
            "WHERE tenant_id = $1 AND issuer_id = $2 AND serial = $3",
        ))
        .bind(tenant.0.to_vec())
        .bind(name.issuer.0.to_vec())
        .bind(name.serial.as_bytes().to_vec())
        .fetch_optional(&self.pool.get())
        .await
        .map_err(unavailable)?;
        row.map(CertificateRow::certificate).transpose()
    }

    async fn search(&self, tenant: TenantId, what: &Search) -> Result<Vec<CertificateRecord>> {
        let mut text = String::from(CERTIFICATE);
        // Numbered by hand: what is not asked for is not bound.
        text.push_str(" WHERE tenant_id = $1 AND not_after_ms > $2");
        let mut bytes: Vec<Bound> = Vec::new();
        let mut also = |clause: &str, value: Bound| {
            bytes.push(value);
            text.push_str(&clause.replace('?', &format!("${}", bytes.len() + 2)));
        };
        if let Some(name) = &what.name {
            also(
                " AND (issuer_id, serial) IN (SELECT issuer_id, serial FROM certificate_names
                   WHERE tenant_id = $1 AND name = ?)",
                Bound::Text(name.clone()),
            );
        }
        if let Some(spki) = &what.spki {
            also(" AND spki_sha256 = ?", Bound::Bytes(spki.to_vec()));
        }
        if let Some(profile) = &what.profile {
            also(" AND profile = ?", Bound::Text(profile.as_str().to_owned()));
        }
        if let Some(issuer) = &what.issuer {
            also(" AND issuer_id = ?", Bound::Bytes(issuer.0.to_vec()));
        }
        if let Some(state) = what.state {
            also(" AND state = ?", Bound::Text(state.name().to_owned()));
        }
        if let Some(before) = what.ends_before_ms {
            also(" AND not_after_ms < ?", Bound::Number(before));
        }
        if let Some((end, name)) = &what.after {
            also(" AND (not_after_ms > ?", Bound::Number(*end));
            also(" OR (not_after_ms = ?", Bound::Number(*end));
            also(" AND (issuer_id > ?", Bound::Bytes(name.issuer.0.to_vec()));
            also(" OR (issuer_id = ?", Bound::Bytes(name.issuer.0.to_vec()));
            also(
                " AND serial > ?))))",
                Bound::Bytes(name.serial.as_bytes().to_vec()),
            );
        }
        text.push_str(" ORDER BY not_after_ms, issuer_id, serial LIMIT ");
        text.push_str(&what.limit.to_string());
        // Only the clauses above are in the text; every value is bound.
        let mut query = sqlx::query_as::<_, CertificateRow>(sqlx::AssertSqlSafe(text))
            .bind(tenant.0.to_vec())
            .bind(what.ends_after_ms);
        for value in bytes {
            query = match value {
                Bound::Text(text) => query.bind(text),
                Bound::Bytes(bytes) => query.bind(bytes),
                Bound::Number(number) => query.bind(number),
            };
        }
        let rows = query
            .fetch_all(&self.pool.get())
            .await
            .map_err(unavailable)?;
        all(rows, CertificateRow::certificate)
    }

    async fn revoked(&self, issuer: IssuerId) -> Result<Vec<Revoked>> {
        let rows: Vec<RevokedRow> = sqlx::query_as(REVOKED)
            .bind(issuer.0.to_vec())
            .fetch_all(&self.pool.get())
            .await
            .map_err(unavailable)?;
        let mut revoked = all(rows, RevokedRow::revoked)?;
        revoked.sort_by(|a, b| a.serial.as_bytes().cmp(b.serial.as_bytes()));
        Ok(revoked)
    }

    async fn block_key(
        &self,
        tenant: TenantId,
        spki: &Spki,
        why: &str,
        created_ms: i64,
    ) -> Result<()> {
        sqlx::query(
            "INSERT INTO blocked_keys (tenant_id, spki_sha256, why, created_ms)
             VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
        )
        .bind(tenant.0.to_vec())
        .bind(spki.to_vec())
        .bind(why.to_owned())
        .bind(created_ms)
        .execute(&self.pool.get())
        .await
        .map_err(unavailable)?;
        Ok(())
    }

    async fn set_crl(&self, crl: &CrlRecord, before: u64, der: Option<&[u8]>) -> Result<()> {
        let _turn = self.turn().await;
        atomically!(self, tx => {
            self.next_epoch(&mut tx, What::Authorities).await?;
            let changed = sqlx::query(
                "INSERT INTO crls (issuer_id, shard, number, this_update_ms, next_update_ms,
                     entries, sha256, der)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
                 ON CONFLICT (issuer_id, shard) DO UPDATE SET number = excluded.number,
                     this_update_ms = excluded.this_update_ms,
                     next_update_ms = excluded.next_update_ms, entries = excluded.entries,
                     sha256 = excluded.sha256, der = excluded.der
                 WHERE excluded.number > crls.number AND crls.number <= $9",
            )
            .bind(crl.issuer.0.to_vec())
            .bind(i64::from(crl.shard))
            .bind(signed(crl.number))
            .bind(crl.this_update_ms)
            .bind(crl.next_update_ms)
            .bind(signed(crl.entries))
            .bind(crl.sha256.to_vec())
            .bind(der.unwrap_or_default().to_vec())
            .bind(signed(before))
            .execute(&mut *tx)
            .await
            .map_err(unavailable)?;
            one(changed.rows_affected())
        })
    }

    async fn newer_crl(
        &self,
        issuer: IssuerId,
        shard: u32,
        number: u64,
    ) -> Result<Option<(CrlRecord, Option<Vec<u8>>)>> {
        let row = sqlx::query(
            "SELECT issuer_id, shard, number, this_update_ms, next_update_ms, entries, sha256,
                 der
             FROM crls WHERE issuer_id = $1 AND shard = $2 AND number > $3",
        )
        .bind(issuer.0.to_vec())
        .bind(i64::from(shard))
        .bind(signed(number))
        .fetch_optional(&self.pool.get())
        .await
        .map_err(unavailable)?;
        let Some(row) = row else {
            return Ok(None);
        };
        let record = CrlRow::from_row(&row).map_err(unavailable)?.crl()?;
        let der: Vec<u8> = row.try_get("der").map_err(unavailable)?;
        Ok(Some((record, Some(der).filter(|der| !der.is_empty()))))
    }

    async fn responder(&self, issuer: IssuerId) -> Result<Option<Responder>> {
        let row: Option<ResponderRow> = sqlx::query_as(sql_text(
            RESPONDER,
            "WHERE issuer_id = $1 ORDER BY created_ms DESC LIMIT 1",
        ))
        .bind(issuer.0.to_vec())
        .fetch_optional(&self.pool.get())
        .await
        .map_err(unavailable)?;
        row.map(ResponderRow::responder).transpose()
    }

    async fn set_responder(&self, responder: &Responder) -> Result<()> {
        atomically!(self, tx => {
            sqlx::query(
                "INSERT INTO responders (object_id, issuer_id, spec, proof, token_serial,
                     certificate, created_ms)
                 VALUES ($1, $2, $3, $4, $5, $6, $7)
                 ON CONFLICT (object_id) DO UPDATE SET certificate = excluded.certificate",
            )
            .bind(responder.key.object.0.to_vec())
            .bind(responder.issuer.0.to_vec())
            .bind(responder.key.spec.name().to_owned())
            .bind(responder.key.proof.to_bytes())
            .bind(responder.token_serial.clone())
            .bind(responder.certificate.clone())
            .bind(responder.created_ms)
            .execute(&mut *tx)
            .await
            .map_err(taken)?;
            sqlx::query("DELETE FROM intents WHERE object_id = $1")
                .bind(responder.key.object.0.to_vec())
                .execute(&mut *tx)
                .await
                .map_err(unavailable)?;
            Ok(())
        })
    }
}

impl SqlStore {
    /// Issuers, profiles, CRLs and responders as they are now.
    pub(super) async fn authorities(
        &self,
        tx: &mut Transaction<'static, Any>,
    ) -> Result<Authorities> {
        let issuers: Vec<IssuerRow> = sqlx::query_as(ISSUERS)
            .fetch_all(&mut **tx)
            .await
            .map_err(unavailable)?;
        let order = "ORDER BY tenant_id, name, version";
        let profiles: Vec<ProfileRow> = sqlx::query_as(sql_text(PROFILE, order))
            .fetch_all(&mut **tx)
            .await
            .map_err(unavailable)?;
        let crls: Vec<CrlRow> = sqlx::query_as(
            "SELECT issuer_id, shard, number, this_update_ms, next_update_ms, entries, sha256
             FROM crls ORDER BY issuer_id, shard",
        )
        .fetch_all(&mut **tx)
        .await
        .map_err(unavailable)?;
        let responders: Vec<ResponderRow> = sqlx::query_as(sql_text(RESPONDER, ""))
            .fetch_all(&mut **tx)
            .await
            .map_err(unavailable)?;
        let latest: Option<i64> = sqlx::query_scalar("SELECT MAX(created_ms) FROM certificates")
            .fetch_one(&mut **tx)
            .await
            .map_err(unavailable)?;
        let crls = all(crls, CrlRow::crl)?;
        let published = crls.iter().map(|crl| crl.this_update_ms).max();
        Ok(Authorities {
            issuers: self.issuers(issuers)?,
            profiles: self.profiles(profiles)?,
            crls,
            responders: all(responders, ResponderRow::responder)?,
            latest_ms: latest.max(published).unwrap_or(0),
        })
    }

    fn issuers(&self, rows: Vec<IssuerRow>) -> Result<Vec<Issuer>> {
        all(rows, |row| {
            let (issuer, seal) = row.issuer()?;
            self.whole(&issuer, &seal)?;
            Ok(issuer)
        })
    }

    fn profiles(&self, rows: Vec<ProfileRow>) -> Result<Vec<ProfileRecord>> {
        all(rows, |row| {
            let (profile, seal) = row.profile()?;
            self.whole(&profile, &seal)?;
            Ok(profile)
        })
    }
}

/// Whose status changed after this epoch.
pub(super) async fn revoked_since(
    tx: &mut Transaction<'static, Any>,
    since: u64,
) -> Result<Vec<CertificateRef>> {
    let rows = sqlx::query_as(REVOKED_SINCE)
        .bind(signed(since))
        .fetch_all(&mut **tx)
        .await
        .map_err(unavailable)?;
    all(rows, reference)
}

enum Bound {
    Text(String),
    Bytes(Vec<u8>),
    Number(i64),
}

fn all<R, T>(rows: Vec<R>, read: impl Fn(R) -> Result<T>) -> Result<Vec<T>> {
    rows.into_iter().map(read).collect()
}

pub(super) fn one(rows: u64) -> Result<()> {
    if rows == 1 {
        Ok(())
    } else {
        Err(StoreError::Conflict)
    }
}

fn sql(condition: &str) -> sqlx::AssertSqlSafe<String> {
    sql_text(CERTIFICATE, condition)
}

fn sql_text(select: &str, condition: &str) -> sqlx::AssertSqlSafe<String> {
    // Both halves are constants of this file.
    sqlx::AssertSqlSafe(format!("{select} {condition}"))
}
