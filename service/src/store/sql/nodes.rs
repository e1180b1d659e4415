//! Nodes, their leases, and what is new. Leases are renewed by single statements over
//! connections of their own; whoever judges them locks their rows, so who is taken for gone
//! cannot have renewed at the same time.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::{Any, AssertSqlSafe, Transaction};

use super::{KEYS, SqlStore, VERSIONS, pki, unavailable};
use crate::{
    key::{Key, KeyId, VersionNumber},
    store::{
        Known, LogId, News, NodeId, NodeStore, Promoted, Result, StoreError,
        row::{self, KeyRow, VersionRow, signed},
        seal::Epochs,
    },
};

pub(super) const CLUSTER: &str = "SELECT epoch, authorities, seal FROM cluster WHERE id = 0";

/// What nodes must know of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    /// A key.
    Keys,
    /// An issuer, a profile or a CRL.
    Authorities,
    /// The status of a certificate.
    Certificates,
}

impl SqlStore {
    /// The next epoch. Its row is locked until the end of the transaction, so that who reads
    /// an epoch sees every change up to it.
    pub(super) async fn next_epoch(
        &self,
        tx: &mut Transaction<'static, Any>,
        what: What,
    ) -> Result<i64> {
        let mut now = self.epochs_for(tx, self.dialect.for_update()).await?;
        now.epoch += 1;
        if what == What::Authorities {
            now.authorities = now.epoch;
        }
        sqlx::query(
            "INSERT INTO cluster (id, epoch, authorities, seal) VALUES (0, $1, $2, $3)
             ON CONFLICT (id) DO UPDATE SET epoch = excluded.epoch,
                 authorities = excluded.authorities, seal = excluded.seal",
        )
        .bind(signed(now.epoch))
        .bind(signed(now.authorities))
        .bind(self.seal(&now))
        .execute(&mut **tx)
        .await
        .map_err(unavailable)?;
        Ok(signed(now.epoch))
    }

    /// The newest epoch, and that of the last change of issuers, profiles and CRLs.
    pub(super) async fn epochs(&self, tx: &mut Transaction<'static, Any>) -> Result<Epochs> {
        self.epochs_for(tx, "").await
    }

    async fn epochs_for(&self, tx: &mut Transaction<'static, Any>, lock: &str) -> Result<Epochs> {
        let text = format!("{CLUSTER}{lock}");
        let row: Option<(i64, i64, Vec<u8>)> = sqlx::query_as(AssertSqlSafe(text))
            .fetch_optional(&mut **tx)
            .await
            .map_err(unavailable)?;
        self.sealed_epochs(row)
    }

    fn sealed_epochs(&self, row: Option<(i64, i64, Vec<u8>)>) -> Result<Epochs> {
        let Some(row) = row else {
            return Ok(Epochs::default());
        };
        let (epochs, seal) = epochs_of(row)?;
        self.whole(&epochs, &seal)?;
        Ok(epochs)
    }
}

pub(super) fn epochs_of(
    (epoch, authorities, seal): (i64, i64, Vec<u8>),
) -> Result<(Epochs, Vec<u8>)> {
    let epochs = Epochs {
        epoch: row::unsigned(epoch)?,
        authorities: row::unsigned(authorities)?,
    };
    Ok((epochs, seal))
}

/// Long after its lease nobody asks for a node any more.
const FORGET_AFTER_MS: i64 = 60 * 60 * 1000;

#[async_trait]
impl NodeStore for SqlStore {
    fn is_shared(&self) -> bool {
        self.dialect.is_shared()
    }

    async fn join(
        &self,
        node: NodeId,
        name: &str,
        log: LogId,
        lease: Duration,
    ) -> Result<Option<String>> {
        let now = self.dialect.now_ms();
        let pool = self.beats.get();
        let delete = format!("DELETE FROM nodes WHERE lease_until_ms < {now} - $1");
        sqlx::query(AssertSqlSafe(delete))
            .bind(FORGET_AFTER_MS)
            .execute(&pool)
            .await
            .map_err(unavailable)?;
        let twin = format!(
            "SELECT name FROM nodes WHERE log_id = $1 AND id <> $2 AND lease_until_ms > {now}"
        );
        let twin: Option<String> = sqlx::query_scalar(AssertSqlSafe(twin))
            .bind(log.0.to_vec())
            .bind(node.0.to_vec())
            .fetch_optional(&pool)
            .await
            .map_err(unavailable)?;
        if twin.is_some() {
            return Ok(twin);
        }
        let insert = format!(
            "INSERT INTO nodes (id, name, log_id, acknowledged, lease_until_ms)
             VALUES ($1, $2, $3, 0, {now} + $4)
             ON CONFLICT (id) DO UPDATE SET acknowledged = 0,
                 lease_until_ms = excluded.lease_until_ms"
        );
        sqlx::query(AssertSqlSafe(insert))
            .bind(node.0.to_vec())
            .bind(name.to_owned())
            .bind(log.0.to_vec())
            .bind(millis(lease))
            .execute(&pool)
            .await
            .map_err(unavailable)?;
        Ok(None)
    }

    async fn epoch(&self) -> Result<u64> {
        let row: Option<(i64, i64, Vec<u8>)> = sqlx::query_as(CLUSTER)
            .fetch_optional(&self.beats.get())
            .await
            .map_err(unavailable)?;
        Ok(self.sealed_epochs(row)?.epoch)
    }

    async fn renew(&self, node: NodeId, known: Known, lease: Duration) -> Result<bool> {
        let now = self.dialect.now_ms();
        let text = format!(
            "UPDATE nodes SET lease_until_ms = {now} + $1, acknowledged = $2
             WHERE id = $3 AND lease_until_ms > {now}"
        );
        let renewed = sqlx::query(AssertSqlSafe(text))
            .bind(millis(lease))
            .bind(signed(known.epoch))
            .bind(node.0.to_vec())
            .execute(&self.beats.get())
            .await
            .map_err(unavailable)?;
        Ok(renewed.rows_affected() == 1)
    }

    fn connect_anew(&self) {
        self.beats.anew();
        self.pool.anew();
    }

    async fn leave(&self, node: NodeId) -> Result<()> {
        sqlx::query("DELETE FROM nodes WHERE id = $1")
            .bind(node.0.to_vec())
            .execute(&self.pool.get())
            .await
            .map_err(unavailable)?;
        Ok(())
    }

    async fn news(&self, since: Known) -> Result<News> {
        let mut tx = self.read_from(&self.beats).await?;
        let Epochs { epoch, authorities } = self.epochs(&mut tx).await?;
        // What was stored before there were epochs has epoch 0.
        let new = "epoch > $1 OR $1 = 0";
        let keys: Vec<KeyRow> =
            sqlx::query_as(AssertSqlSafe(format!("{KEYS} WHERE {new} ORDER BY id")))
                .bind(signed(since.epoch))
                .fetch_all(&mut *tx)
                .await
                .map_err(unavailable)?;
        let versions = format!(
            "{VERSIONS} WHERE key_id IN (SELECT id FROM keys WHERE {new})
             ORDER BY key_id, number"
        );
        let versions: Vec<VersionRow> = sqlx::query_as(AssertSqlSafe(versions))
            .bind(signed(since.epoch))
            .fetch_all(&mut *tx)
            .await
            .map_err(unavailable)?;
        let authorities = if authorities > since.epoch || since.epoch == 0 {
            Some(self.authorities(&mut tx).await?)
        } else {
            None
        };
        Ok(News {
            known: Known { epoch },
            keys: self.with_versions(keys, versions)?,
            authorities,
            revoked: pki::revoked_since(&mut tx, since.epoch).await?,
        })
    }

    async fn key(&self, id: KeyId) -> Result<Option<Key>> {
        let mut tx = self.read().await?;
        let keys: Vec<KeyRow> = sqlx::query_as(AssertSqlSafe(format!("{KEYS} WHERE id = $1")))
            .bind(id.0.to_vec())
            .fetch_all(&mut *tx)
            .await
            .map_err(unavailable)?;
        let versions = format!("{VERSIONS} WHERE key_id = $1 ORDER BY key_id, number");
        let versions: Vec<VersionRow> = sqlx::query_as(AssertSqlSafe(versions))
            .bind(id.0.to_vec())
            .fetch_all(&mut *tx)
            .await
            .map_err(unavailable)?;
        Ok(self.with_versions(keys, versions)?.pop())
    }

    async fn promote(&self, node: NodeId, next: &Key, number: VersionNumber) -> Result<Promoted> {
        let state = next.version(number.get()).map(|v| v.state.name());
        let state = state.ok_or_else(|| StoreError::Corrupt("no version to promote".into()))?;
        let now = self.dialect.now_ms();
        // Also of those who are taken for gone: one of them may be renewing.
        let behind = format!(
            "SELECT name, CAST(CASE WHEN lease_until_ms > {now}
                     AND acknowledged < (SELECT epoch FROM keys WHERE id = $2)
                 THEN 1 ELSE 0 END AS BIGINT)
             FROM nodes WHERE id <> $1 ORDER BY name{}",
            self.dialect.for_share()
        );
        let _turn = self.turn().await;
        atomically!(self, tx => {
            let others: Vec<(String, i64)> = sqlx::query_as(AssertSqlSafe(behind.clone()))
                .bind(node.0.to_vec())
                .bind(next.id.0.to_vec())
                .fetch_all(&mut *tx)
                .await
                .map_err(unavailable)?;
            let behind = others.into_iter().filter(|(_, is)| *is == 1);
            let behind: Vec<String> = behind.map(|(name, _)| name).collect();
            if !behind.is_empty() {
                return Ok(Promoted::Waits(behind));
            }
            let epoch = self.next_epoch(&mut tx, What::Keys).await?;
            let changed = sqlx::query(
                "UPDATE keys SET primary_version = $1, promoted_ms = $2, promoted_epoch = $3,
                     epoch = $3, revision = $4, seal = $7
                 WHERE id = $5 AND revision = $6",
            )
            .bind(i64::from(next.primary.get()))
            .bind(next.promoted_ms)
            .bind(epoch)
            .bind(signed(next.revision.0))
            .bind(next.id.0.to_vec())
            .bind(signed(next.revision.0) - 1)
            .bind(self.seal(next))
            .execute(&mut *tx)
            .await
            .map_err(unavailable)?;
            pki::one(changed.rows_affected())?;
            sqlx::query("UPDATE key_versions SET state = $1 WHERE key_id = $2 AND number = $3")
                .bind(state.to_owned())
                .bind(next.id.0.to_vec())
                .bind(i64::from(number.get()))
                .execute(&mut *tx)
                .await
                .map_err(unavailable)?;
            Ok(Promoted::Done)
        })
    }

    async fn unaware(&self, id: KeyId) -> Result<Vec<String>> {
        let now = self.dialect.now_ms();
        let text = format!(
            "SELECT name FROM nodes WHERE lease_until_ms > {now}
                 AND acknowledged < (SELECT promoted_epoch FROM keys WHERE id = $1)
             ORDER BY name"
        );
        sqlx::query_scalar(AssertSqlSafe(text))
            .bind(id.0.to_vec())
            .fetch_all(&self.pool.get())
            .await
            .map_err(unavailable)
    }

    async fn behind(&self, node: NodeId, id: KeyId) -> Result<Vec<String>> {
        let now = self.dialect.now_ms();
        let text = format!(
            "SELECT name FROM nodes WHERE lease_until_ms > {now} AND id <> $1
                 AND acknowledged < (SELECT epoch FROM keys WHERE id = $2)
             ORDER BY name"
        );
        sqlx::query_scalar(AssertSqlSafe(text))
            .bind(node.0.to_vec())
            .bind(id.0.to_vec())
            .fetch_all(&self.pool.get())
            .await
            .map_err(unavailable)
    }

    async fn is_first(&self, node: NodeId) -> Result<bool> {
        let now = self.dialect.now_ms();
        let text = format!("SELECT id FROM nodes WHERE lease_until_ms > {now} ORDER BY id LIMIT 1");
        let first: Option<Vec<u8>> = sqlx::query_scalar(AssertSqlSafe(text))
            .fetch_optional(&self.beats.get())
            .await
            .map_err(unavailable)?;
        // Where nobody takes leases there is nobody else.
        Ok(first.is_none_or(|first| first == node.0))
    }
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}
