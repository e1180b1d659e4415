//! The data keys' table.

use async_trait::async_trait;
use sqlx::AssertSqlSafe;

use super::{SqlStore, taken, unavailable};
use crate::{
    envelope::{DataKeyId, Header, Kept},
    key::{KeyId, TenantId, VersionNumber},
    store::{
        DataKeyStore, Result, StoreError,
        row::{self, data_keys::KeptRow, unsigned},
    },
};

/// `$from, $(from+1), …`: `count` places for values.
fn places(from: usize, count: usize) -> String {
    let places: Vec<String> = (from..from + count).map(|n| format!("${n}")).collect();
    places.join(", ")
}

/// Values of one statement; a database takes more, and plans longer.
const AT_ONCE: usize = 500;

#[async_trait]
impl DataKeyStore for SqlStore {
    async fn keep(&self, data_keys: &[Kept]) -> Result<()> {
        atomically!(self, tx => {
            for kept in data_keys {
                let Kept { tenant, header, created_ms } = kept;
                sqlx::query(
                    "INSERT INTO data_keys (id, tenant_id, key_id, version, header, created_ms)
                     VALUES ($1, $2, $3, $4, $5, $6)",
                )
                .bind(kept.id().0.to_vec())
                .bind(tenant.0.to_vec())
                .bind(header.key_id().0.to_vec())
                .bind(i64::from(header.key_version()))
                .bind(header.as_bytes().to_vec())
                .bind(*created_ms)
                .execute(&mut *tx)
                .await
                .map_err(taken)?;
            }
            Ok(())
        })
    }

    async fn kept(&self, tenant: TenantId, ids: &[DataKeyId]) -> Result<Vec<Kept>> {
        let mut found = Vec::with_capacity(ids.len());
        for some in ids.chunks(AT_ONCE) {
            let sql = format!(
                "SELECT tenant_id, header, created_ms FROM data_keys
                 WHERE tenant_id = $1 AND id IN ({})",
                places(2, some.len())
            );
            let mut query = sqlx::query_as(AssertSqlSafe(sql)).bind(tenant.0.to_vec());
            for id in some {
                query = query.bind(id.0.to_vec());
            }
            let rows: Vec<KeptRow> = query
                .fetch_all(&self.pool.get())
                .await
                .map_err(unavailable)?;
            for row in rows {
                found.push(row.kept()?);
            }
        }
        Ok(found)
    }

    async fn kept_under(
        &self,
        key: KeyId,
        after: Option<DataKeyId>,
        limit: u32,
    ) -> Result<Vec<Kept>> {
        // An empty id comes before every other.
        let rows: Vec<KeptRow> = sqlx::query_as(
            "SELECT tenant_id, header, created_ms FROM data_keys
             WHERE key_id = $1 AND id > $2 ORDER BY id LIMIT $3",
        )
        .bind(key.0.to_vec())
        .bind(after.map_or_else(Vec::new, |id| id.0.to_vec()))
        .bind(i64::from(limit))
        .fetch_all(&self.pool.get())
        .await
        .map_err(unavailable)?;
        rows.into_iter().map(KeptRow::kept).collect()
    }

    async fn kept_versions(&self, key: KeyId) -> Result<Vec<(VersionNumber, u64)>> {
        let rows: Vec<(i64, i64)> = sqlx::query_as(
            "SELECT version, count(*) FROM data_keys WHERE key_id = $1
             GROUP BY version ORDER BY version",
        )
        .bind(key.0.to_vec())
        .fetch_all(&self.pool.get())
        .await
        .map_err(unavailable)?;
        rows.into_iter()
            .map(|(version, count)| Ok((row::number(version)?, unsigned(count)?)))
            .collect()
    }

    async fn move_kept(&self, moves: &[(Header, Header)]) -> Result<Vec<bool>> {
        atomically!(self, tx => {
            let mut moved = Vec::with_capacity(moves.len());
            for (from, to) in moves {
                let changed = sqlx::query(
                    "UPDATE data_keys SET header = $1, version = $2
                     WHERE id = $3 AND header = $4",
                )
                .bind(to.as_bytes().to_vec())
                .bind(i64::from(to.key_version()))
                .bind(from.salt().to_vec())
                .bind(from.as_bytes().to_vec())
                .execute(&mut *tx)
                .await
                .map_err(unavailable)?;
                moved.push(changed.rows_affected() == 1);
            }
            Ok(moved)
        })
    }

    async fn forget(&self, key: KeyId, ids: &[DataKeyId]) -> Result<u64> {
        atomically!(self, tx => {
            let mut gone = 0;
            for id in ids {
                let changed = sqlx::query("DELETE FROM data_keys WHERE id = $1 AND key_id = $2")
                    .bind(id.0.to_vec())
                    .bind(key.0.to_vec())
                    .execute(&mut *tx)
                    .await
                    .map_err(unavailable)?;
                gone += changed.rows_affected();
            }
            Ok(gone)
        })
    }
}
