//! The embedded store: one SQLite file under the data directory, nothing to install.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use sqlx::{AnyConnection, Connection, any::AnyPoolOptions};

use super::{
    Result, StoreError,
    sql::{Dialect, Pool, SqlStore, migrations, not_migrated, unavailable},
};

/// Opens SQLite in one file.
#[derive(Debug)]
pub enum SqliteStore {}

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

const MIGRATIONS: [(&str, &str); 13] = [
    (
        "keys",
        include_str!("../../migrations/sqlite/0001_keys.sql"),
    ),
    (
        "key use",
        include_str!("../../migrations/sqlite/0002_key_use.sql"),
    ),
    (
        "lifecycle",
        include_str!("../../migrations/sqlite/0003_lifecycle.sql"),
    ),
    ("pki", include_str!("../../migrations/sqlite/0004_pki.sql")),
    (
        "ocsp",
        include_str!("../../migrations/sqlite/0005_ocsp.sql"),
    ),
    (
        "acme",
        include_str!("../../migrations/sqlite/0006_acme.sql"),
    ),
    (
        "both engines",
        include_str!("../../migrations/sqlite/0007_both_engines.sql"),
    ),
    (
        "jobs",
        include_str!("../../migrations/sqlite/0008_jobs.sql"),
    ),
    (
        "retirement",
        include_str!("../../migrations/sqlite/0009_retirement.sql"),
    ),
    (
        "nodes",
        include_str!("../../migrations/sqlite/0010_nodes.sql"),
    ),
    (
        "revocation news",
        include_str!("../../migrations/sqlite/0011_revocation_news.sql"),
    ),
    (
        "seals",
        include_str!("../../migrations/sqlite/0012_seals.sql"),
    ),
    (
        "data keys",
        include_str!("../../migrations/sqlite/0013_data_keys.sql"),
    ),
];

impl SqliteStore {
    /// Opens or creates the file and brings its schema up to date.
    ///
    /// # Errors
    /// [`StoreError::Newer`] for a file of a newer release, else
    /// [`StoreError::Unavailable`].
    pub async fn open(path: &Path) -> Result<SqlStore> {
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
        migrations(&MIGRATIONS)
            .run(&pool)
            .await
            .map_err(not_migrated)?;
        let pool = Pool::new(move || Ok(pool.clone())).map_err(unavailable)?;
        Ok(SqlStore::new(Dialect::Sqlite, pool.clone(), pool))
    }
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
    use crate::store::{Store, conformance};

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
        .execute(&store.pool.get())
        .await
        .unwrap();
        store.pool.get().close().await;
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
            sqlx::raw_sql(edit)
                .execute(&store.pool.get())
                .await
                .unwrap();
            let e = store.load().await.unwrap_err();
            assert!(matches!(e, StoreError::Corrupt(_)), "{edit}: {e}");
        }
    }
}
