//! Certificates on their way through their states. Beginning and finishing, which each
//! certificate does, take one statement for all of a group.

use std::collections::HashSet;

use keywright_pki::KeyReuse;
use sqlx::{Any, AssertSqlSafe, Transaction};

use super::{SqlStore, What, sql};
use crate::{
    authority::{CertificateRecord, CertificateRef, Intended, Revocation, Spki},
    key::TenantId,
    store::{
        KeyStanding, Result, Write, Written,
        row::pki::{CertificateRow, list_text, reference},
        sql::{places, unavailable},
    },
};

/// A certificate to begin.
#[derive(Clone, Copy)]
struct Begin<'a> {
    intended: &'a Intended,
    requests_since_ms: i64,
    reuse: KeyReuse,
}

/// A certificate that is signed, and its DER.
type Finish<'a> = (&'a CertificateRef, &'a [u8]);

/// What [`insert`] binds for each certificate.
const ASKED: &str = "issuer_id, serial, tenant_id, profile, profile_version, der, spki_sha256,
    names, not_before_ms, not_after_ms, shard, requested_by, request_key, request_sha256,
    lineage, created_ms, forbidding";
const ASKED_COLUMNS: usize = 17;
/// Leaves out whose key may not be certified, whose request is known or serial taken.
const INSERT: &str = "INSERT INTO certificates (issuer_id, serial, tenant_id, profile,
         profile_version, der, spki_sha256, names, not_before_ms, not_after_ms, shard,
         requested_by, request_key, request_sha256, lineage, created_ms, state, revoked_ms,
         reason, invalidity_ms)
     SELECT issuer_id, serial, tenant_id, profile, profile_version, der, spki_sha256, names,
         not_before_ms, not_after_ms, shard, requested_by, request_key, request_sha256,
         lineage, created_ms, 'intended', 0, 0, 0
     FROM asked
     WHERE NOT EXISTS (SELECT 1 FROM blocked_keys AS b
             WHERE b.tenant_id = asked.tenant_id AND b.spki_sha256 = asked.spki_sha256)
       AND NOT EXISTS (SELECT 1 FROM certificates AS c
             WHERE c.tenant_id = asked.tenant_id AND c.spki_sha256 = asked.spki_sha256
               AND c.state IN ('revoked', asked.forbidding))
     ON CONFLICT DO NOTHING RETURNING issuer_id, serial";
const FINISH: &str = "UPDATE certificates SET state = 'issued', der = done.der FROM done
     WHERE certificates.issuer_id = done.issuer_id AND certificates.serial = done.serial
       AND certificates.state = 'intended'
     RETURNING certificates.issuer_id, certificates.serial";
// A partial index serves only who repeats its condition.
const BY_REQUEST: &str =
    "WHERE tenant_id = $1 AND requested_by = $2 AND request_key = $3 AND request_key <> ''";
const KEY_USED: &str = "SELECT 1 FROM certificates WHERE tenant_id = $1 AND spki_sha256 = $2
     AND state IN ('revoked', $3) LIMIT 1";

/// All of a group, in order. What only begins and finishes concerns another certificate
/// each, and goes together.
pub(super) async fn write(
    store: &SqlStore,
    tx: &mut Transaction<'static, Any>,
    writes: &[Write],
) -> Result<Vec<Written>> {
    let apart = |w: &Write| matches!(w, Write::Begin { .. } | Write::Finish { .. });
    let step = if writes.iter().all(apart) {
        writes.len().max(1)
    } else {
        1
    };
    // One for the group, and before any certificate is touched: every change of a store
    // takes its epoch first, so that no two wait for each other.
    let epoch = if writes.iter().any(|w| matches!(w, Write::Revoke { .. })) {
        store.next_epoch(tx, What::Certificates).await?
    } else {
        0
    };
    let mut written = Vec::with_capacity(writes.len());
    for some in writes.chunks(step) {
        written.extend(together(tx, epoch, some).await?);
    }
    Ok(written)
}

async fn together(
    tx: &mut Transaction<'static, Any>,
    epoch: i64,
    writes: &[Write],
) -> Result<Vec<Written>> {
    let finishes: Vec<Finish<'_>> = writes.iter().filter_map(finish_of).collect();
    let mut finished = finish(tx, &finishes).await?;
    let begins: Vec<Begin<'_>> = writes.iter().filter_map(begin_of).collect();
    let mut begun = begin(tx, &begins).await?.into_iter();
    let mut written = Vec::with_capacity(writes.len());
    for one in writes {
        written.push(match one {
            Write::Begin { .. } => begun.next().unwrap_or(Written::NotThere),
            Write::Finish { name, .. } => done(finished.remove(name)),
            Write::Fail { name } => fail(tx, name).await?,
            Write::Lose { name } => {
                clear_request(tx, name).await?;
                Written::Done
            }
            Write::Revoke { name, revocation } => revoke(tx, epoch, name, revocation).await?,
        });
    }
    Ok(written)
}

fn begin_of(write: &Write) -> Option<Begin<'_>> {
    let Write::Begin {
        intended,
        requests_since_ms,
        reuse,
    } = write
    else {
        return None;
    };
    Some(Begin {
        intended,
        requests_since_ms: *requests_since_ms,
        reuse: *reuse,
    })
}

fn finish_of(write: &Write) -> Option<Finish<'_>> {
    match write {
        Write::Finish { name, certificate } => Some((name, certificate)),
        _ => None,
    }
}

fn insert_text(rows: usize) -> String {
    let places = places(rows, ASKED_COLUMNS);
    format!("WITH asked ({ASKED}) AS (VALUES {places}) {INSERT}")
}

fn finish_text(rows: usize) -> String {
    let places = places(rows, 3);
    format!("WITH done (issuer_id, serial, der) AS (VALUES {places}) {FINISH}")
}

/// Why a certificate could not begin is asked only then.
async fn begin(tx: &mut Transaction<'static, Any>, begins: &[Begin<'_>]) -> Result<Vec<Written>> {
    let mut inserted = insert(tx, begins).await?;
    let mut written = Vec::with_capacity(begins.len());
    for one in begins {
        // Once: a twin in the same group has its serial taken.
        written.push(if inserted.remove(&one.intended.name) {
            Written::Done
        } else {
            not_inserted(tx, *one).await?
        });
    }
    Ok(written)
}

async fn not_inserted(tx: &mut Transaction<'static, Any>, one: Begin<'_>) -> Result<Written> {
    let intended = one.intended;
    if let Some(known) = known(tx, intended).await? {
        // One that is over is no answer to who asks now.
        if known.intended.created_ms >= one.requests_since_ms
            && known.intended.not_after_ms >= intended.created_ms
        {
            return Ok(Written::Known(Box::new(known)));
        }
        clear_request(tx, &known.intended.name).await?;
        if !insert(tx, &[one]).await?.is_empty() {
            return Ok(Written::Done);
        }
    }
    let standing = key_standing(tx, intended.tenant, &intended.spki, one.reuse).await?;
    Ok(match standing {
        KeyStanding::Free => Written::SerialTaken,
        KeyStanding::Used => Written::KeyUsed,
        KeyStanding::Blocked => Written::Blocked,
    })
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

/// Which of them are begun now.
async fn insert(
    tx: &mut Transaction<'static, Any>,
    begins: &[Begin<'_>],
) -> Result<HashSet<CertificateRef>> {
    if begins.is_empty() {
        return Ok(HashSet::new());
    }
    let mut query = sqlx::query_as(AssertSqlSafe(insert_text(begins.len())));
    for Begin {
        intended, reuse, ..
    } in begins
    {
        query = query
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
            .bind(forbidding(*reuse));
    }
    let rows: Vec<(Vec<u8>, Vec<u8>)> = query.fetch_all(&mut **tx).await.map_err(unavailable)?;
    let inserted: HashSet<CertificateRef> =
        rows.into_iter().map(reference).collect::<Result<_>>()?;
    let mut names = Vec::new();
    for Begin { intended, .. } in begins {
        if inserted.contains(&intended.name) {
            names.extend(intended.names.iter().map(|name| (*intended, name)));
        }
    }
    insert_names(tx, &names).await?;
    Ok(inserted)
}

async fn insert_names(
    tx: &mut Transaction<'static, Any>,
    names: &[(&Intended, &String)],
) -> Result<()> {
    // Far below what a statement may bind.
    for some in names.chunks(1000) {
        let places = places(some.len(), 4);
        let mut query = sqlx::query(AssertSqlSafe(format!(
            "INSERT INTO certificate_names (tenant_id, name, issuer_id, serial)
             VALUES {places} ON CONFLICT DO NOTHING"
        )));
        for (intended, name) in some {
            query = query
                .bind(intended.tenant.0.to_vec())
                .bind((*name).clone())
                .bind(intended.name.issuer.0.to_vec())
                .bind(intended.name.serial.as_bytes().to_vec());
        }
        query.execute(&mut **tx).await.map_err(unavailable)?;
    }
    Ok(())
}

async fn clear_request(tx: &mut Transaction<'static, Any>, name: &CertificateRef) -> Result<()> {
    sqlx::query("UPDATE certificates SET request_key = '' WHERE issuer_id = $1 AND serial = $2")
        .bind(name.issuer.0.to_vec())
        .bind(name.serial.as_bytes().to_vec())
        .execute(&mut **tx)
        .await
        .map_err(unavailable)?;
    Ok(())
}

/// Which of them were begun and are issued now.
async fn finish(
    tx: &mut Transaction<'static, Any>,
    finishes: &[Finish<'_>],
) -> Result<HashSet<CertificateRef>> {
    if finishes.is_empty() {
        return Ok(HashSet::new());
    }
    let mut query = sqlx::query_as(AssertSqlSafe(finish_text(finishes.len())));
    for (name, certificate) in finishes {
        query = query
            .bind(name.issuer.0.to_vec())
            .bind(name.serial.as_bytes().to_vec())
            .bind(certificate.to_vec());
    }
    let rows: Vec<(Vec<u8>, Vec<u8>)> = query.fetch_all(&mut **tx).await.map_err(unavailable)?;
    rows.into_iter().map(reference).collect()
}

async fn fail(tx: &mut Transaction<'static, Any>, name: &CertificateRef) -> Result<Written> {
    let changed = sqlx::query(
        "UPDATE certificates SET state = 'failed', request_key = ''
         WHERE issuer_id = $1 AND serial = $2 AND state = 'intended'",
    )
    .bind(name.issuer.0.to_vec())
    .bind(name.serial.as_bytes().to_vec())
    .execute(&mut **tx)
    .await
    .map_err(unavailable)?;
    Ok(done(changed.rows_affected() == 1))
}

async fn revoke(
    tx: &mut Transaction<'static, Any>,
    epoch: i64,
    name: &CertificateRef,
    revocation: &Revocation,
) -> Result<Written> {
    let changed = sqlx::query(
        // One that was begun and never finished may have been signed all the same.
        // A key that turns out to be lost makes an earlier reason worse, never better
        // (1 of RFC 5280 5.3.1), and takes no date away.
        "UPDATE certificates SET state = 'revoked', reason = $2,
             invalidity_ms = CASE $3 WHEN 0 THEN invalidity_ms ELSE $3 END,
             revoked_ms = CASE state WHEN 'revoked' THEN revoked_ms ELSE $1 END,
             der = CASE state WHEN 'intended' THEN $6 ELSE der END, status_epoch = $7
         WHERE issuer_id = $4 AND serial = $5
           AND (state IN ('issued', 'intended')
                OR (state = 'revoked' AND $2 = 1 AND reason <> 1))",
    )
    .bind(revocation.revoked_ms)
    .bind(i64::from(revocation.reason.code()))
    .bind(revocation.invalidity_ms.unwrap_or(0))
    .bind(name.issuer.0.to_vec())
    .bind(name.serial.as_bytes().to_vec())
    .bind(Vec::new())
    .bind(epoch)
    .execute(&mut **tx)
    .await
    .map_err(unavailable)?;
    Ok(done(changed.rows_affected() == 1))
}

fn done(changed: bool) -> Written {
    if changed {
        Written::Done
    } else {
        Written::NotThere
    }
}

#[cfg(test)]
mod tests {
    use sqlx::Row;

    use super::super::{CERTIFICATE, REVOKED, REVOKED_SINCE};
    use super::*;
    use crate::store::SqliteStore;

    #[tokio::test]
    async fn nobody_walks_over_the_certificates_on_record() {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&dir.path().join("db")).await.unwrap();
        let by_request = format!("{CERTIFICATE} {BY_REQUEST}");
        let key = "certificates_spki (tenant_id=? AND spki_sha256=? AND state=?)";
        for (statement, way) in [
            (&*insert_text(2), key),
            (KEY_USED, key),
            (
                &*by_request,
                "certificates_request (tenant_id=? AND requested_by=? AND request_key=?)",
            ),
            (&*finish_text(2), "(issuer_id=? AND serial=?)"),
            (REVOKED, "certificates_revoked (issuer_id=?)"),
            (REVOKED_SINCE, "certificates_status (status_epoch>?)"),
        ] {
            let explain = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}"));
            let mut query = sqlx::query(explain);
            for _ in 0..statement.matches('$').count() {
                query = query.bind("");
            }
            let steps = query.fetch_all(&store.pool.get()).await.unwrap();
            let plan: Vec<String> = steps.iter().map(|step| step.get("detail")).collect();
            let walks = |step: &String| step.starts_with("SCAN c");
            assert!(!plan.iter().any(walks), "{plan:?}");
            assert!(plan.iter().any(|step| step.ends_with(way)), "{plan:?}");
        }
    }
}
