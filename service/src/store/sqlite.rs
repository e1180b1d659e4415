//! The embedded store: one SQLite file under the data directory, nothing to install.
//!
//! The statements are those PostgreSQL will run too; only the migrations and the way a
//! write transaction begins belong to SQLite. Writers begin IMMEDIATE: a plain
//! transaction that reads first fails at once when another writer is quicker.

mod acme;
mod pki;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use async_trait::async_trait;
use keywright_hsm::{KeyRef, ObjectId};
use sqlx::{
    AnyConnection, AnyPool, Connection, SqlSafeStr, Transaction,
    any::{Any, AnyPoolOptions},
    migrate::{MigrateError, Migration, MigrationType, Migrator},
};

use super::{
    Anchor, Contents, Intent, Result, Store, StoreError, Tenant, Use,
    row::{self, IntentRow, KeyRow, TenantRow, VersionRow, signed},
};
use crate::key::{Key, KeyId, KeyVersion, VersionNumber};

/// SQLite in one file.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    pool: AnyPool,
}

const CANARY: &str = "canary";
const ANCHOR: &str = "audit_anchor";
/// Settings that make a commit durable and two processes polite. 32 MiB of pages stay in
/// memory, and as many gather in the log before they are copied: serials and digests are
/// random and touch them all, again and again.
const PRAGMAS: [&str; 6] = [
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA busy_timeout = 5000",
    "PRAGMA foreign_keys = ON",
    "PRAGMA cache_size = -32768",
    "PRAGMA wal_autocheckpoint = 8192",
];

impl SqliteStore {
    /// Opens or creates the file and brings its schema up to date.
    ///
    /// # Errors
    /// [`StoreError::Newer`] for a file of a newer release, else
    /// [`StoreError::Unavailable`].
    pub async fn open(path: &Path) -> Result<Self> {
        sqlx::any::install_default_drivers();
        let url = url(&real(path)?);
        // One connection by itself first: a pool would only say that it waited.
        AnyConnection::connect(&url)
            .await
            .map_err(unavailable)?
            .close()
            .await
            .map_err(unavailable)?;
        let pool = AnyPoolOptions::new()
            // Control plane only; one connection means no lock is ever contended.
            .max_connections(1)
            .acquire_timeout(Duration::from_secs(5))
            .after_connect(|connection, _| {
                Box::pin(async move {
                    for pragma in PRAGMAS {
                        sqlx::query(pragma).execute(&mut *connection).await?;
                    }
                    Ok(())
                })
            })
            .connect(&url)
            .await
            .map_err(unavailable)?;
        migrations().run(&pool).await.map_err(|e| match e {
            MigrateError::VersionMissing(v) | MigrateError::VersionTooNew(v, _) => {
                StoreError::Newer(v)
            }
            e => StoreError::Unavailable(e.to_string()),
        })?;
        Ok(Self { pool })
    }

    async fn write(&self) -> Result<Transaction<'static, Any>> {
        self.pool
            .begin_with("BEGIN IMMEDIATE")
            .await
            .map_err(unavailable)
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn load(&self) -> Result<Contents> {
        // One transaction, so that keys and versions are of one moment.
        let mut tx = self.pool.begin().await.map_err(unavailable)?;
        let tenants: Vec<TenantRow> = sqlx::query_as("SELECT id, name FROM tenants ORDER BY name")
            .fetch_all(&mut *tx)
            .await
            .map_err(unavailable)?;
        let keys: Vec<KeyRow> = sqlx::query_as(
            "SELECT id, tenant_id, name, spec, key_use, labels, rules, primary_version,
                    minimum_version, created_ms, revision
             FROM keys ORDER BY id",
        )
        .fetch_all(&mut *tx)
        .await
        .map_err(unavailable)?;
        let versions: Vec<VersionRow> = sqlx::query_as(
            "SELECT key_id, number, state, object_id, proof, token_serial, created_ms,
                    wraps_reserved, destroy_at_ms, protected_ms, processed_ms
             FROM key_versions ORDER BY key_id, number",
        )
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
        let anchor = fact(&mut tx, ANCHOR).await?;
        Ok(Contents {
            tenants: tenants
                .into_iter()
                .map(TenantRow::tenant)
                .collect::<Result<_>>()?,
            keys: with_versions(keys, versions)?,
            intents: intents
                .into_iter()
                .map(IntentRow::intent)
                .collect::<Result<_>>()?,
            canary: canary.as_deref().map(row::canary).transpose()?,
            anchor: anchor.as_deref().map(row::anchor).transpose()?,
        })
    }

    async fn add_tenant(&self, tenant: &Tenant) -> Result<()> {
        sqlx::query("INSERT INTO tenants (id, name) VALUES ($1, $2)")
            .bind(tenant.id.0.to_vec())
            .bind(tenant.name.clone())
            .execute(&self.pool)
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
        .execute(&self.pool)
        .await
        .map_err(taken)?;
        Ok(())
    }

    async fn abandon(&self, object: ObjectId) -> Result<()> {
        sqlx::query("DELETE FROM intents WHERE object_id = $1")
            .bind(object.0.to_vec())
            .execute(&self.pool)
            .await
            .map_err(unavailable)?;
        Ok(())
    }

    async fn create_key(&self, key: &Key) -> Result<()> {
        let mut tx = self.write().await?;
        sqlx::query(
            "INSERT INTO keys (id, tenant_id, name, spec, key_use, labels, primary_version,
                               created_ms, revision)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
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
        .execute(&mut *tx)
        .await
        .map_err(taken)?;
        for version in key.versions() {
            insert_version(&mut tx, key.id, version).await?;
        }
        tx.commit().await.map_err(unavailable)
    }

    async fn add_version(&self, next: &Key, version: &KeyVersion) -> Result<()> {
        let mut tx = self.write().await?;
        let changed = sqlx::query(
            "UPDATE keys SET primary_version = $1, revision = $2
             WHERE id = $3 AND revision = $4",
        )
        .bind(i64::from(next.primary.get()))
        .bind(signed(next.revision.0))
        .bind(next.id.0.to_vec())
        .bind(signed(next.revision.0) - 1)
        .execute(&mut *tx)
        .await
        .map_err(unavailable)?;
        if changed.rows_affected() != 1 {
            return Err(StoreError::Conflict);
        }
        insert_version(&mut tx, next.id, version).await?;
        tx.commit().await.map_err(unavailable)
    }

    async fn change_key(&self, next: &Key) -> Result<()> {
        let mut tx = self.write().await?;
        let changed = sqlx::query(
            "UPDATE keys SET revision = $1, labels = $2, rules = $3, minimum_version = $4
             WHERE id = $5 AND revision = $6",
        )
        .bind(signed(next.revision.0))
        .bind(row::labels_text(&next.labels)?)
        .bind(row::rules_text(&next.rules)?)
        .bind(i64::from(next.minimum.get()))
        .bind(next.id.0.to_vec())
        .bind(signed(next.revision.0) - 1)
        .execute(&mut *tx)
        .await
        .map_err(unavailable)?;
        if changed.rows_affected() != 1 {
            return Err(StoreError::Conflict);
        }
        for version in next.versions() {
            sqlx::query(
                "UPDATE key_versions SET state = $1, destroy_at_ms = $2
                 WHERE key_id = $3 AND number = $4",
            )
            .bind(version.state.name().to_owned())
            .bind(version.destroy_at_ms.unwrap_or(0))
            .bind(next.id.0.to_vec())
            .bind(i64::from(version.number.get()))
            .execute(&mut *tx)
            .await
            .map_err(unavailable)?;
        }
        tx.commit().await.map_err(unavailable)
    }

    async fn set_last_used(&self, uses: &[Use]) -> Result<()> {
        let mut tx = self.write().await?;
        for used in uses {
            sqlx::query(
                "UPDATE key_versions SET protected_ms = $1, processed_ms = $2
                 WHERE key_id = $3 AND number = $4",
            )
            .bind(used.protected_ms)
            .bind(used.processed_ms)
            .bind(used.key.0.to_vec())
            .bind(i64::from(used.number.get()))
            .execute(&mut *tx)
            .await
            .map_err(unavailable)?;
        }
        tx.commit().await.map_err(unavailable)
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
        .fetch_optional(&self.pool)
        .await
        .map_err(unavailable)?;
        total.map(row::unsigned).transpose()
    }

    async fn set_canary(&self, key: &KeyRef) -> Result<()> {
        sqlx::query("INSERT INTO facts (name, value) VALUES ($1, $2)")
            .bind(CANARY)
            .bind(row::canary_bytes(key))
            .execute(&self.pool)
            .await
            .map_err(taken)?;
        Ok(())
    }

    async fn close(&self) -> Result<()> {
        // Else what was committed last lies in the -wal file beside it.
        sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)")
            .fetch_all(&self.pool)
            .await
            .map_err(unavailable)?;
        self.pool.close().await;
        Ok(())
    }

    async fn set_anchor(&self, anchor: Anchor) -> Result<()> {
        sqlx::query(
            "INSERT INTO facts (name, value) VALUES ($1, $2)
             ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        )
        .bind(ANCHOR)
        .bind(row::anchor_bytes(&anchor))
        .execute(&self.pool)
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

/// Both lists come ordered by key id.
fn with_versions(keys: Vec<KeyRow>, versions: Vec<VersionRow>) -> Result<Vec<Key>> {
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

fn unavailable(e: sqlx::Error) -> StoreError {
    StoreError::Unavailable(e.to_string())
}

fn taken(e: sqlx::Error) -> StoreError {
    match e.as_database_error() {
        Some(d) if d.is_unique_violation() => StoreError::Exists,
        _ => unavailable(e),
    }
}

fn migrations() -> Migrator {
    let migration = |version, name: &'static str, sql: &'static str| {
        Migration::new(
            version,
            name.into(),
            MigrationType::Simple,
            sql.into_sql_str(),
            false,
        )
    };
    Migrator::with_migrations(vec![
        migration(
            1,
            "keys",
            include_str!("../../migrations/sqlite/0001_keys.sql"),
        ),
        migration(
            2,
            "key use",
            include_str!("../../migrations/sqlite/0002_key_use.sql"),
        ),
        migration(
            3,
            "lifecycle",
            include_str!("../../migrations/sqlite/0003_lifecycle.sql"),
        ),
        migration(
            4,
            "pki",
            include_str!("../../migrations/sqlite/0004_pki.sql"),
        ),
        migration(
            5,
            "ocsp",
            include_str!("../../migrations/sqlite/0005_ocsp.sql"),
        ),
        migration(
            6,
            "acme",
            include_str!("../../migrations/sqlite/0006_acme.sql"),
        ),
    ])
}

/// The folder as it really is: SQLite reads `..` in an address in its own way, and the
/// store must lie beside the lock that guards it.
fn real(path: &Path) -> Result<PathBuf> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
    let folder = std::fs::canonicalize(folder.unwrap_or(Path::new(".")))
        .map_err(|e| StoreError::Unavailable(e.to_string()))?;
    Ok(folder.join(path.file_name().unwrap_or_default()))
}

fn url(path: &Path) -> String {
    let mut url = String::from("sqlite://");
    for byte in path.as_os_str().as_encoded_bytes() {
        if byte.is_ascii_alphanumeric() || b"/-._~".contains(byte) {
            url.push(char::from(*byte));
        } else {
            url.push_str(&format!("%{byte:02X}"));
        }
    }
    url.push_str("?mode=rwc");
    url
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::conformance;

    #[tokio::test]
    async fn conforms() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a b%20?#ü.db");
        let reopen = || async { SqliteStore::open(&path).await.unwrap() };
        conformance::run(&reopen).await;
        assert!(path.exists(), "the file has the name it was given");
    }

    #[tokio::test]
    async fn a_closed_store_is_one_file_and_lies_where_it_was_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("a/b")).unwrap();
        let store = SqliteStore::open(&dir.path().join("a/b/../keywright.db"))
            .await
            .unwrap();
        store.add_tenant(&conformance::tenant()).await.unwrap();
        store.create_key(&conformance::key(1, "a/b")).await.unwrap();
        store.close().await.unwrap();
        let file = dir.path().join("a/keywright.db");
        let copy = dir.path().join("copy.db");
        std::fs::copy(&file, &copy).unwrap();
        let contents = SqliteStore::open(&copy)
            .await
            .unwrap()
            .load()
            .await
            .unwrap();
        assert_eq!(contents.keys.len(), 1);
    }

    #[tokio::test]
    async fn a_file_of_a_newer_release_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keywright.db");
        let store = SqliteStore::open(&path).await.unwrap();
        sqlx::query(
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
             VALUES (9999, 'future', 1, x'00', 0)",
        )
        .execute(&store.pool)
        .await
        .unwrap();
        store.pool.close().await;
        let e = SqliteStore::open(&path).await.unwrap_err();
        assert!(matches!(e, StoreError::Newer(9999)), "{e}");
        assert!(e.to_string().contains("newer Keywright"));
    }

    #[tokio::test]
    async fn a_file_that_is_no_database_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keywright.db");
        std::fs::write(&path, [7; 8192]).unwrap();
        let e = SqliteStore::open(&path).await.unwrap_err();
        assert!(matches!(e, StoreError::Unavailable(_)), "{e}");
    }

    #[tokio::test]
    async fn a_row_edited_by_hand_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&dir.path().join("keywright.db"))
            .await
            .unwrap();
        let key = conformance::key(1, "a/b");
        store.add_tenant(&conformance::tenant()).await.unwrap();
        store.create_key(&key).await.unwrap();
        for edit in [
            "UPDATE keys SET name = '../x'",
            "UPDATE keys SET name = 'a/b', primary_version = 7",
            "UPDATE keys SET primary_version = 1, spec = 'des'",
            "UPDATE keys SET spec = 'aes-256', key_use = 'sign'",
            "UPDATE keys SET key_use = 'encrypt', labels = '[]'",
            "UPDATE keys SET labels = '{}', rules = '{\"x\":1}'",
            "UPDATE keys SET rules = '{}', minimum_version = 0",
            "UPDATE keys SET minimum_version = 1; UPDATE key_versions SET state = 'on'",
            "UPDATE key_versions SET state = 'active', proof = x'00'",
        ] {
            sqlx::raw_sql(edit).execute(&store.pool).await.unwrap();
            let e = store.load().await.unwrap_err();
            assert!(matches!(e, StoreError::Corrupt(_)), "{edit}: {e}");
        }
    }
}
