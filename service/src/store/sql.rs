//! The tables, in statements that SQLite, PostgreSQL and what speaks like it all run.
//! What an engine does differently is a word of [`Dialect`], its migrations, or its
//! opener beside this file.

#[macro_use]
mod change;

mod acme;
mod data_keys;
mod jobs;
mod nodes;
mod pki;
mod pool;
mod seals;
mod transfer;

use change::taken;
pub(super) use change::unavailable;
use nodes::What;
pub(super) use pool::Pool;
pub use transfer::{Counted, TransferError, compare, copy};

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use keywright_hsm::{KeyRef, ObjectId, WrappedDek};
use sqlx::{
    AssertSqlSafe, SqlSafeStr, Transaction,
    any::Any,
    migrate::{MigrateError, Migration, MigrationType, Migrator},
};

use super::{
    Anchor, Contents, Intent, Known, LogId, Result, SealedState, Store, StoreError, Tenant, Use,
    row::{self, IntentRow, KeyRow, TenantRow, VersionRow, signed},
    seal::{Sealed, Sealer},
};
use crate::key::{Key, KeyId, KeyVersion, VersionNumber};

/// A store in an SQL database, opened by [`SqliteStore`](super::SqliteStore) or
/// [`PostgresStore`](super::PostgresStore).
#[derive(Debug, Clone)]
pub struct SqlStore {
    pub(super) pool: Pool,
    /// For leases: they must not wait behind everything else.
    beats: Pool,
    pub(super) dialect: Dialect,
    /// Changes of one process that take an epoch go one after the other: at the same time
    /// all but one of them would have to begin again.
    turn: Arc<tokio::sync::Mutex<()>>,
    /// From when the HSM has unwrapped its key.
    sealer: Arc<OnceLock<Sealer>>,
}

/// The few things that engines say differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    Sqlite,
    Postgres,
}

impl Dialect {
    /// Changes. SQLite: a plain transaction that reads first fails at once when another
    /// writer is quicker. PostgreSQL: whoever would not see another's change is told to
    /// come again.
    const fn begin_write(self) -> &'static str {
        match self {
            Self::Sqlite => "BEGIN IMMEDIATE",
            Self::Postgres => "BEGIN ISOLATION LEVEL SERIALIZABLE",
        }
    }

    /// Several statements that see one moment.
    const fn begin_read(self) -> &'static str {
        match self {
            Self::Sqlite => "BEGIN",
            Self::Postgres => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        }
    }

    /// The database's clock: one for all nodes, whatever theirs say.
    const fn now_ms(self) -> &'static str {
        match self {
            Self::Sqlite => "CAST(unixepoch('subsec') * 1000 AS INTEGER)",
            Self::Postgres => "(extract(epoch from clock_timestamp()) * 1000)::bigint",
        }
    }

    /// Behind a query: the rows stay as they are until the end of the transaction. The
    /// embedded store has one writer anyway.
    const fn for_share(self) -> &'static str {
        match self {
            Self::Sqlite => "",
            Self::Postgres => " FOR SHARE",
        }
    }

    /// Behind a query: nobody else changes the rows until the end of the transaction.
    const fn for_update(self) -> &'static str {
        match self {
            Self::Sqlite => "",
            Self::Postgres => " FOR UPDATE",
        }
    }

    /// May several nodes use it? The embedded store is behind a lock.
    const fn is_shared(self) -> bool {
        matches!(self, Self::Postgres)
    }
}

const KEYS: &str = "SELECT id, tenant_id, name, spec, key_use, labels, rules, primary_version,
    minimum_version, created_ms, promoted_ms, revision, seal FROM keys";

const TENANTS: &str = "SELECT id, name, seal FROM tenants ORDER BY name";

const VERSIONS: &str = "SELECT key_id, number, state, object_id, proof, token_serial, created_ms,
    wraps_reserved, destroy_at_ms, protected_ms, processed_ms, refused_ms, brown_out_until_ms,
    sealed_bytes FROM key_versions";

const CANARY: &str = "canary";
const ROWS_KEY: &str = "rows_key";
/// The log that the appliance began with; those of other nodes have their id behind it.
const ANCHOR: &str = "audit_anchor";

impl SqlStore {
    pub(super) fn new(dialect: Dialect, pool: Pool, beats: Pool) -> Self {
        Self {
            pool,
            beats,
            dialect,
            turn: Arc::default(),
            sealer: Arc::default(),
        }
    }

    async fn write(&self) -> Result<Transaction<'static, Any>> {
        let pool = self.pool.get();
        let begin = pool.begin_with(self.dialect.begin_write());
        begin.await.map_err(unavailable)
    }

    pub(super) async fn read(&self) -> Result<Transaction<'static, Any>> {
        self.read_from(&self.pool).await
    }

    async fn read_from(&self, pool: &Pool) -> Result<Transaction<'static, Any>> {
        let pool = pool.get();
        let begin = pool.begin_with(self.dialect.begin_read());
        begin.await.map_err(unavailable)
    }

    /// The seal of a row; none before the HSM has unwrapped the key.
    fn seal(&self, row: &dyn Sealed) -> Vec<u8> {
        let sealer = self.sealer.get();
        sealer.map_or_else(Vec::new, |sealer| sealer.seal(row))
    }

    /// A row as it was read: did somebody else write it?
    fn whole(&self, row: &dyn Sealed, seal: &[u8]) -> Result<()> {
        let sealer = self.sealer.get();
        sealer.map_or(Ok(()), |sealer| sealer.check(row, seal))
    }

    /// Both lists come ordered by key id.
    fn with_versions(&self, keys: Vec<KeyRow>, versions: Vec<VersionRow>) -> Result<Vec<Key>> {
        let keys = with_versions(keys, versions)?;
        for (key, seal) in &keys {
            self.whole(key, seal)?;
        }
        Ok(keys.into_iter().map(|(key, _)| key).collect())
    }

    fn tenants(&self, rows: Vec<TenantRow>) -> Result<Vec<Tenant>> {
        let tenant = |row: TenantRow| {
            let (tenant, seal) = row.tenant()?;
            self.whole(&tenant, &seal)?;
            Ok(tenant)
        };
        rows.into_iter().map(tenant).collect()
    }

    /// To be held by whoever takes an epoch.
    async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.turn.lock().await
    }
}

#[async_trait]
impl Store for SqlStore {
    async fn load(&self) -> Result<Contents> {
        // One transaction, so that keys and versions are of one moment.
        let mut tx = self.read().await?;
        let tenants: Vec<TenantRow> = sqlx::query_as(TENANTS)
            .fetch_all(&mut *tx)
            .await
            .map_err(unavailable)?;
        let keys: Vec<KeyRow> = sqlx::query_as(AssertSqlSafe(format!("{KEYS} ORDER BY id")))
            .fetch_all(&mut *tx)
            .await
            .map_err(unavailable)?;
        let versions = AssertSqlSafe(format!("{VERSIONS} ORDER BY key_id, number"));
        let versions: Vec<VersionRow> = sqlx::query_as(versions)
            .fetch_all(&mut *tx)
            .await
            .map_err(unavailable)?;
        let intents: Vec<IntentRow> = sqlx::query_as(
            "SELECT object_id, tenant_id, key_id, key_name, number, created_ms
             FROM intents ORDER BY created_ms",
        )
        .fetch_all(&mut *tx)
        .await
        .map_err(unavailable)?;
        let canary = fact(&mut tx, CANARY).await?;
        let rows_key = fact(&mut tx, ROWS_KEY).await?;
        let anchors: Vec<(String, Vec<u8>)> =
            sqlx::query_as("SELECT name, value FROM facts WHERE name LIKE $1")
                .bind(format!("{ANCHOR}%"))
                .fetch_all(&mut *tx)
                .await
                .map_err(unavailable)?;
        let epoch = self.epochs(&mut tx).await?.epoch;
        Ok(Contents {
            tenants: self.tenants(tenants)?,
            keys: self.with_versions(keys, versions)?,
            intents: intents
                .into_iter()
                .map(IntentRow::intent)
                .collect::<Result<_>>()?,
            canary: canary.as_deref().map(row::canary).transpose()?,
            rows_key: rows_key.as_deref().map(row::rows_key).transpose()?,
            anchors: anchors
                .iter()
                .map(|(name, value)| row::anchor(name.strip_prefix(ANCHOR).unwrap_or(name), value))
                .collect::<Result<_>>()?,
            known: Known { epoch },
        })
    }

    async fn add_tenant(&self, tenant: &Tenant) -> Result<()> {
        sqlx::query("INSERT INTO tenants (id, name, seal) VALUES ($1, $2, $3)")
            .bind(tenant.id.0.to_vec())
            .bind(tenant.name.clone())
            .bind(self.seal(tenant))
            .execute(&self.pool.get())
            .await
            .map_err(taken)?;
        Ok(())
    }

    async fn begin(&self, intent: &Intent) -> Result<()> {
        sqlx::query(
            "INSERT INTO intents (object_id, tenant_id, key_id, key_name, number, created_ms)
             VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(intent.object.0.to_vec())
        .bind(intent.tenant.0.to_vec())
        .bind(intent.key.0.to_vec())
        .bind(intent.name.as_str().to_owned())
        .bind(i64::from(intent.number.get()))
        .bind(intent.created_ms)
        .execute(&self.pool.get())
        .await
        .map_err(taken)?;
        Ok(())
    }

    async fn abandon(&self, object: ObjectId) -> Result<()> {
        sqlx::query("DELETE FROM intents WHERE object_id = $1")
            .bind(object.0.to_vec())
            .execute(&self.pool.get())
            .await
            .map_err(unavailable)?;
        Ok(())
    }

    async fn create_key(&self, key: &Key) -> Result<()> {
        let _turn = self.turn().await;
        atomically!(self, tx => {
            let epoch = self.next_epoch(&mut tx, What::Keys).await?;
            sqlx::query(
                "INSERT INTO keys (id, tenant_id, name, spec, key_use, labels, primary_version,
                                   created_ms, revision, promoted_ms, promoted_epoch, epoch,
                                   seal)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $11, $12)",
            )
            .bind(key.id.0.to_vec())
            .bind(key.tenant.0.to_vec())
            .bind(key.name.as_str().to_owned())
            .bind(key.spec.name().to_owned())
            .bind(key.spec.key_use().name().to_owned())
            .bind(row::labels_text(&key.labels)?)
            .bind(i64::from(key.primary.get()))
            .bind(key.created_ms)
            .bind(signed(key.revision.0))
            .bind(key.promoted_ms)
            .bind(epoch)
            .bind(self.seal(key))
            .execute(&mut *tx)
            .await
            .map_err(taken)?;
            for version in key.versions() {
                insert_version(&mut tx, key.id, version).await?;
            }
            Ok(())
        })
    }

    async fn add_version(&self, next: &Key, version: &KeyVersion) -> Result<()> {
        let _turn = self.turn().await;
        atomically!(self, tx => {
            let epoch = self.next_epoch(&mut tx, What::Keys).await?;
            let changed = sqlx::query(
                "UPDATE keys SET epoch = $1, revision = $2, seal = $5
                 WHERE id = $3 AND revision = $4",
            )
            .bind(epoch)
            .bind(signed(next.revision.0))
            .bind(next.id.0.to_vec())
            .bind(signed(next.revision.0) - 1)
            .bind(self.seal(next))
            .execute(&mut *tx)
            .await
            .map_err(unavailable)?;
            if changed.rows_affected() != 1 {
                return Err(StoreError::Conflict);
            }
            insert_version(&mut tx, next.id, version).await?;
            Ok(())
        })
    }

    async fn change_key(&self, next: &Key) -> Result<()> {
        let _turn = self.turn().await;
        atomically!(self, tx => {
            let epoch = self.next_epoch(&mut tx, What::Keys).await?;
            let changed = sqlx::query(
                "UPDATE keys SET revision = $1, labels = $2, rules = $3, minimum_version = $4,
                     epoch = $7, seal = $8
                 WHERE id = $5 AND revision = $6",
            )
            .bind(signed(next.revision.0))
            .bind(row::labels_text(&next.labels)?)
            .bind(row::rules_text(&next.rules)?)
            .bind(i64::from(next.minimum.get()))
            .bind(next.id.0.to_vec())
            .bind(signed(next.revision.0) - 1)
            .bind(epoch)
            .bind(self.seal(next))
            .execute(&mut *tx)
            .await
            .map_err(unavailable)?;
            if changed.rows_affected() != 1 {
                return Err(StoreError::Conflict);
            }
            for version in next.versions() {
                sqlx::query(
                    "UPDATE key_versions SET state = $1, destroy_at_ms = $2,
                         brown_out_until_ms = $3
                     WHERE key_id = $4 AND number = $5",
                )
                .bind(version.state.name().to_owned())
                .bind(version.destroy_at_ms.unwrap_or(0))
                .bind(version.brown_out_until_ms.unwrap_or(0))
                .bind(next.id.0.to_vec())
                .bind(i64::from(version.number.get()))
                .execute(&mut *tx)
                .await
                .map_err(unavailable)?;
            }
            Ok(())
        })
    }

    async fn set_last_used(&self, uses: &[Use]) -> Result<()> {
        let mut uses = uses.to_vec();
        // Everybody in the same order, or two wait for each other.
        uses.sort_by_key(|used| (used.key.0, used.number));
        atomically!(self, tx => {
            for used in &uses {
                sqlx::query(
                    // Another node may have used it later.
                    "UPDATE key_versions SET
                         protected_ms = CASE WHEN protected_ms < $1 THEN $1 ELSE protected_ms END,
                         processed_ms = CASE WHEN processed_ms < $2 THEN $2 ELSE processed_ms END,
                         refused_ms = CASE WHEN refused_ms < $3 THEN $3 ELSE refused_ms END,
                         sealed_bytes = sealed_bytes + $4
                     WHERE key_id = $5 AND number = $6",
                )
                .bind(used.times.protected_ms)
                .bind(used.times.processed_ms)
                .bind(used.times.refused_ms)
                .bind(signed(used.more_bytes))
                .bind(used.key.0.to_vec())
                .bind(i64::from(used.number.get()))
                .execute(&mut *tx)
                .await
                .map_err(unavailable)?;
            }
            Ok(())
        })
    }

    async fn reserve_wraps(
        &self,
        key: KeyId,
        number: VersionNumber,
        block: u64,
        limit: u64,
    ) -> Result<Option<u64>> {
        let total: Option<i64> = sqlx::query_scalar(
            "UPDATE key_versions SET wraps_reserved = wraps_reserved + $1
             WHERE key_id = $2 AND number = $3 AND wraps_reserved + $1 <= $4
             RETURNING wraps_reserved",
        )
        .bind(signed(block))
        .bind(key.0.to_vec())
        .bind(i64::from(number.get()))
        .bind(signed(limit))
        .fetch_optional(&self.pool.get())
        .await
        .map_err(unavailable)?;
        total.map(row::unsigned).transpose()
    }

    async fn set_canary(&self, key: &KeyRef) -> Result<()> {
        sqlx::query("INSERT INTO facts (name, value) VALUES ($1, $2)")
            .bind(CANARY)
            .bind(row::canary_bytes(key))
            .execute(&self.pool.get())
            .await
            .map_err(taken)?;
        Ok(())
    }

    fn seal_with(&self, sealer: Sealer) {
        // Every opening of the same store has the same.
        let _ = self.sealer.set(sealer);
    }

    async fn seal_all(&self, sealer: &Sealer, key: Option<&WrappedDek>) -> Result<Vec<String>> {
        seals::seal_all(self, sealer, key, None).await
    }

    async fn seal_state(
        &self,
        sealer: &Sealer,
        key: Option<&WrappedDek>,
        state: [u8; 32],
    ) -> Result<Vec<String>> {
        seals::seal_all(self, sealer, key, Some(state)).await
    }

    async fn sealed_state(&self, sealer: Option<&Sealer>) -> Result<SealedState> {
        seals::state(self, sealer).await
    }

    async fn close(&self) -> Result<()> {
        if self.dialect == Dialect::Sqlite {
            // Else what was committed last lies in the -wal file beside it.
            sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)")
                .fetch_all(&self.pool.get())
                .await
                .map_err(unavailable)?;
        }
        self.pool.get().close().await;
        Ok(())
    }

    async fn set_anchor(&self, log: LogId, anchor: Anchor) -> Result<()> {
        sqlx::query(
            "INSERT INTO facts (name, value) VALUES ($1, $2)
             ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        )
        .bind(format!("{ANCHOR}{}", row::log_suffix(log)))
        .bind(row::anchor_bytes(&anchor))
        .execute(&self.pool.get())
        .await
        .map_err(unavailable)?;
        Ok(())
    }
}

async fn insert_version(
    tx: &mut Transaction<'static, Any>,
    key: KeyId,
    version: &KeyVersion,
) -> Result<()> {
    sqlx::query(
        "INSERT INTO key_versions (key_id, number, state, object_id, proof, token_serial,
                                   created_ms, wraps_reserved)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(key.0.to_vec())
    .bind(i64::from(version.number.get()))
    .bind(version.state.name().to_owned())
    .bind(version.on_token.object.0.to_vec())
    .bind(version.on_token.proof.to_bytes())
    .bind(version.token_serial.clone())
    .bind(version.created_ms)
    .bind(signed(version.wraps.reserved()))
    .execute(&mut **tx)
    .await
    .map_err(taken)?;
    sqlx::query("DELETE FROM intents WHERE object_id = $1")
        .bind(version.on_token.object.0.to_vec())
        .execute(&mut **tx)
        .await
        .map_err(unavailable)?;
    Ok(())
}

async fn fact(tx: &mut Transaction<'static, Any>, name: &str) -> Result<Option<Vec<u8>>> {
    sqlx::query_scalar("SELECT value FROM facts WHERE name = $1")
        .bind(name.to_owned())
        .fetch_optional(&mut **tx)
        .await
        .map_err(unavailable)
}

/// Keys and their seals.
fn with_versions(keys: Vec<KeyRow>, versions: Vec<VersionRow>) -> Result<Vec<(Key, Vec<u8>)>> {
    let mut versions = versions.into_iter().peekable();
    let mut out = Vec::with_capacity(keys.len());
    for key in keys {
        let mut own = Vec::new();
        while let Some(version) = versions.next_if(|v| v.key_id() == key.id()) {
            own.push(version);
        }
        out.push(key.key(own)?);
    }
    match versions.next() {
        None => Ok(out),
        Some(_) => Err(StoreError::Corrupt("a version without a key".into())),
    }
}

/// `($1, $2), ($3, $4)` for two rows of two columns.
pub(super) fn places(rows: usize, columns: usize) -> String {
    let row = |r: usize| {
        let places: Vec<String> = (1..=columns)
            .map(|c| format!("${}", r * columns + c))
            .collect();
        format!("({})", places.join(", "))
    };
    (0..rows).map(row).collect::<Vec<_>>().join(", ")
}

/// Migrations by name, numbered from 1.
pub(super) fn migrations(list: &[(&'static str, &'static str)]) -> Migrator {
    let migration = |(version, (name, sql)): (i64, &(&'static str, &'static str))| {
        let kind = MigrationType::Simple;
        Migration::new(version, (*name).into(), kind, sql.into_sql_str(), false)
    };
    Migrator::with_migrations((1..).zip(list).map(migration).collect())
}

pub(super) fn not_migrated(e: MigrateError) -> StoreError {
    match e {
        MigrateError::VersionMissing(v) | MigrateError::VersionTooNew(v, _) => StoreError::Newer(v),
        e => StoreError::Unavailable(e.to_string()),
    }
}
