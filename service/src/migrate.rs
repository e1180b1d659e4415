//! `keywrightd migrate-store`: from the embedded store to PostgreSQL, with the daemon
//! stopped. The embedded store stays as it is, and stays in force until the configuration
//! names the other one.

use crate::{
    app::{DataLock, StartError},
    config::{Config, StoreConfig},
    store::{Counted, PostgresStore, SqliteStore, Store, compare, copy},
};

/// Copies everything into an empty database, reads both, and says what there is.
///
/// # Errors
/// Why it was not done, or what is not the same.
pub async fn migrate_store(
    config: &Config,
    target: &StoreConfig,
) -> Result<Vec<Counted>, StartError> {
    if config.store.is_some() {
        return Err(StartError::Setup(
            "the configuration has [store] already: the embedded store is not in use; take that section out to copy from it".into(),
        ));
    }
    let _lock = DataLock::take(&config.data_dir)?;
    let path = config.embedded_store();
    if !path.exists() {
        let text = format!("{}: there is no embedded store", path.display());
        return Err(StartError::Data(text));
    }
    let url = target.url().map_err(StartError::Setup)?;
    let password = target.password().map_err(StartError::Setup)?;
    let password = password.as_ref().map(|p| p.as_str());
    let from = SqliteStore::open(&path)
        .await
        .map_err(|e| StartError::Data(format!("{}: {e}", path.display())))?;
    let there = |e: &dyn std::fmt::Display| StartError::Data(format!("{url}: {e}"));
    let to = PostgresStore::open(&url, password)
        .await
        .map_err(|e| there(&e))?;
    copy(&from, &to).await.map_err(|e| there(&e))?;
    let counted = compare(&from, &to).await.map_err(|e| there(&e))?;
    // What may lie beside the one file is in it again.
    from.close().await.map_err(|e| there(&e))?;
    Ok(counted)
}
