//! One certificate's way through its states, each step a statement of a transaction.

use keywright_pki::KeyReuse;
use sqlx::{Any, Transaction};

use super::sql;
use crate::{
    authority::{CertificateRecord, CertificateRef, Intended, Revocation, Spki},
    key::TenantId,
    store::{
        KeyStanding, Result, Written,
        row::pki::{CertificateRow, list_text},
        sqlite::unavailable,
    },
};

/// Does nothing when the key may not be certified, the request is known or the serial taken.
const INSERT: &str = "INSERT INTO certificates (issuer_id, serial, tenant_id, state, profile,
         profile_version, der, spki_sha256, names, not_before_ms, not_after_ms, shard,
         requested_by, request_key, request_sha256, lineage, created_ms, revoked_ms,
         reason, invalidity_ms)
     SELECT $1, $2, $3, 'intended', $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15,
         $16, 0, 0, 0
     WHERE NOT EXISTS (SELECT 1 FROM blocked_keys WHERE tenant_id = $3 AND spki_sha256 = $7)
       AND NOT EXISTS (SELECT 1 FROM certificates WHERE tenant_id = $3 AND spki_sha256 = $7
                         AND state IN ('revoked', $17))
     ON CONFLICT DO NOTHING";
// A partial index serves only who repeats its condition.
const BY_REQUEST: &str =
    "WHERE tenant_id = $1 AND requested_by = $2 AND request_key = $3 AND request_key <> ''";
const KEY_USED: &str = "SELECT 1 FROM certificates WHERE tenant_id = $1 AND spki_sha256 = $2
     AND state IN ('revoked', $3) LIMIT 1";
const FINISH: &str = "UPDATE certificates SET state = 'issued', der = $1
     WHERE issuer_id = $2 AND serial = $3 AND state = 'intended'";

/// One statement where all is well; why it did nothing is asked only when it did.
pub(super) async fn begin(
    tx: &mut Transaction<'static, Any>,
    intended: &Intended,
    requests_since_ms: i64,
    reuse: KeyReuse,
) -> Result<Written> {
    if insert(tx, intended, reuse).await? {
        return Ok(Written::Done);
    }
    if let Some(known) = known(tx, intended).await? {
        // One that is over is no answer to who asks now.
        if known.intended.created_ms >= requests_since_ms
            && known.intended.not_after_ms >= intended.created_ms
        {
            return Ok(Written::Known(Box::new(known)));
        }
        clear_request(tx, &known.intended.name).await?;
        if insert(tx, intended, reuse).await? {
            return Ok(Written::Done);
        }
    }
    Ok(
        match key_standing(tx, intended.tenant, &intended.spki, reuse).await? {
            KeyStanding::Free => Written::SerialTaken,
            KeyStanding::Used => Written::KeyUsed,
            KeyStanding::Blocked => Written::Blocked,
        },
    )
}

async fn known(
    tx: &mut Transaction<'static, Any>,
    intended: &Intended,
) -> Result<Option<CertificateRecord>> {
    if intended.request_key.is_empty() {
        return Ok(None);
    }
    let known: Option<CertificateRow> = sqlx::query_as(sql(BY_REQUEST))
        .bind(intended.tenant.0.to_vec())
        .bind(intended.requested_by.clone())
        .bind(intended.request_key.clone())
        .fetch_optional(&mut **tx)
        .await
        .map_err(unavailable)?;
    known.map(CertificateRow::certificate).transpose()
}

/// Certificates in this state stand in the way of another one for their key.
fn forbidding(reuse: KeyReuse) -> String {
    match reuse {
        KeyReuse::Forbid => "issued".to_owned(),
        KeyReuse::ForbidAfterRevocation => "revoked".to_owned(),
    }
}

/// What was only begun does not count: a request that failed may come again.
pub(super) async fn key_standing(
    tx: &mut Transaction<'static, Any>,
    tenant: TenantId,
    spki: &Spki,
    reuse: KeyReuse,
) -> Result<KeyStanding> {
    let blocked: Option<i64> = sqlx::query_scalar(
        "SELECT created_ms FROM blocked_keys WHERE tenant_id = $1 AND spki_sha256 = $2",
    )
    .bind(tenant.0.to_vec())
    .bind(spki.to_vec())
    .fetch_optional(&mut **tx)
    .await
    .map_err(unavailable)?;
    if blocked.is_some() {
        return Ok(KeyStanding::Blocked);
    }
    let used: Option<i64> = sqlx::query_scalar(KEY_USED)
        .bind(tenant.0.to_vec())
        .bind(spki.to_vec())
        .bind(forbidding(reuse))
        .fetch_optional(&mut **tx)
        .await
        .map_err(unavailable)?;
    Ok(used.map_or(KeyStanding::Free, |_| KeyStanding::Used))
}

async fn insert(
    tx: &mut Transaction<'static, Any>,
    intended: &Intended,
    reuse: KeyReuse,
) -> Result<bool> {
    let inserted = sqlx::query(INSERT)
        .bind(intended.name.issuer.0.to_vec())
        .bind(intended.name.serial.as_bytes().to_vec())
        .bind(intended.tenant.0.to_vec())
        .bind(intended.profile.as_str().to_owned())
        .bind(i64::from(intended.profile_version))
        .bind(intended.tbs.clone())
        .bind(intended.spki.to_vec())
        .bind(list_text(&intended.names))
        .bind(intended.not_before_ms)
        .bind(intended.not_after_ms)
        .bind(i64::from(intended.shard))
        .bind(intended.requested_by.clone())
        .bind(intended.request_key.clone())
        .bind(intended.request_sha256.to_vec())
        .bind(intended.lineage.clone())
        .bind(intended.created_ms)
        .bind(forbidding(reuse))
        .execute(&mut **tx)
        .await
        .map_err(unavailable)?;
    if inserted.rows_affected() != 1 {
        return Ok(false);
    }
    for name in &intended.names {
        sqlx::query(
            "INSERT INTO certificate_names (tenant_id, name, issuer_id, serial)
             VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
        )
        .bind(intended.tenant.0.to_vec())
        .bind(name.clone())
        .bind(intended.name.issuer.0.to_vec())
        .bind(intended.name.serial.as_bytes().to_vec())
        .execute(&mut **tx)
        .await
        .map_err(unavailable)?;
    }
    Ok(true)
}

pub(super) async fn clear_request(
    tx: &mut Transaction<'static, Any>,
    name: &CertificateRef,
) -> Result<()> {
    sqlx::query("UPDATE certificates SET request_key = '' WHERE issuer_id = $1 AND serial = $2")
        .bind(name.issuer.0.to_vec())
        .bind(name.serial.as_bytes().to_vec())
        .execute(&mut **tx)
        .await
        .map_err(unavailable)?;
    Ok(())
}

pub(super) async fn finish(
    tx: &mut Transaction<'static, Any>,
    name: &CertificateRef,
    certificate: &[u8],
) -> Result<Written> {
    let changed = sqlx::query(FINISH)
        .bind(certificate.to_vec())
        .bind(name.issuer.0.to_vec())
        .bind(name.serial.as_bytes().to_vec())
        .execute(&mut **tx)
        .await
        .map_err(unavailable)?;
    Ok(done(changed.rows_affected()))
}

pub(super) async fn fail(
    tx: &mut Transaction<'static, Any>,
    name: &CertificateRef,
) -> Result<Written> {
    let changed = sqlx::query(
        "UPDATE certificates SET state = 'failed', request_key = ''
         WHERE issuer_id = $1 AND serial = $2 AND state = 'intended'",
    )
    .bind(name.issuer.0.to_vec())
    .bind(name.serial.as_bytes().to_vec())
    .execute(&mut **tx)
    .await
    .map_err(unavailable)?;
    Ok(done(changed.rows_affected()))
}

pub(super) async fn revoke(
    tx: &mut Transaction<'static, Any>,
    name: &CertificateRef,
    revocation: &Revocation,
) -> Result<Written> {
    let changed = sqlx::query(
        // One that was begun and never finished may have been signed all the same.
        "UPDATE certificates SET state = 'revoked', revoked_ms = $1, reason = $2,
             invalidity_ms = $3, der = CASE state WHEN 'issued' THEN der ELSE x'' END
         WHERE issuer_id = $4 AND serial = $5 AND state IN ('issued', 'intended')",
    )
    .bind(revocation.revoked_ms)
    .bind(i64::from(revocation.reason.code()))
    .bind(revocation.invalidity_ms.unwrap_or(0))
    .bind(name.issuer.0.to_vec())
    .bind(name.serial.as_bytes().to_vec())
    .execute(&mut **tx)
    .await
    .map_err(unavailable)?;
    Ok(done(changed.rows_affected()))
}

fn done(rows: u64) -> Written {
    if rows == 1 {
        Written::Done
    } else {
        Written::NotThere
    }
}

#[cfg(test)]
mod tests {
    use sqlx::Row;

    use super::super::{CERTIFICATE, SqliteStore};
    use super::*;

    #[tokio::test]
    async fn issuing_never_walks_over_the_certificates_on_record() {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&dir.path().join("db")).await.unwrap();
        let by_request = format!("{CERTIFICATE} {BY_REQUEST}");
        let key = "certificates_spki (tenant_id=? AND spki_sha256=? AND state=?)";
        for (statement, way) in [
            (INSERT, key),
            (KEY_USED, key),
            (
                &*by_request,
                "certificates_request (tenant_id=? AND requested_by=? AND request_key=?)",
            ),
            (FINISH, "(issuer_id=? AND serial=?)"),
        ] {
            let explain = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}"));
            let mut query = sqlx::query(explain);
            for _ in 0..statement.matches('$').count().min(17) {
                query = query.bind("");
            }
            let steps = query.fetch_all(&store.pool).await.unwrap();
            let plan: Vec<String> = steps.iter().map(|step| step.get("detail")).collect();
            let walks = |step: &String| step.starts_with("SCAN certificates");
            assert!(!plan.iter().any(walks), "{plan:?}");
            assert!(plan.iter().any(|step| step.ends_with(way)), "{plan:?}");
        }
    }
}
