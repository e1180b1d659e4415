//! Which store the configuration names, and what is said when it is not there.

use std::sync::Arc;

use super::StartError;
use crate::{
    config::{Config, StoreConfig},
    store::{PostgresStore, SqliteStore, Store, StoreError},
};

/// Opens the store and brings its schema up to date.
///
/// # Errors
/// [`StartError::Data`], with the place.
pub async fn open_store(config: &Config) -> Result<Arc<dyn Store>, StartError> {
    let opened = match &config.store {
        None => SqliteStore::open(&config.embedded_store()).await,
        Some(store) => {
            let (url, password) = access(store)?;
            let password = password.as_ref().map(|p| p.as_str());
            PostgresStore::open(&url, password).await
        }
    };
    Ok(Arc::new(opened.map_err(|e| data(config, &e))?))
}

/// Sees that a database can be reached and written to, and changes nothing. The embedded
/// store needs no such look.
///
/// # Errors
/// [`StartError::Data`], with the place.
pub async fn probe_store(config: &Config) -> Result<(), StartError> {
    let Some(store) = &config.store else {
        return Ok(());
    };
    let (url, password) = access(store)?;
    let password = password.as_ref().map(|p| p.as_str());
    let probed = PostgresStore::probe(&url, password).await;
    probed.map_err(|e| data(config, &e))
}

/// There is an audit log and no store to it.
pub(crate) fn lost_store(config: &Config) -> String {
    let dir = config.data_dir.display();
    let store = place(config);
    format!(
        "the audit log under {dir} has records, but the store knows of no appliance: it was lost or exchanged. Restore {store}; nothing was changed. (To begin anew, and lose what the old keys protect: move {dir} away.)"
    )
}

type Access = (
    crate::store::PostgresUrl,
    Option<zeroize::Zeroizing<String>>,
);

fn access(store: &StoreConfig) -> Result<Access, StartError> {
    let url = store.url().map_err(StartError::Setup)?;
    let password = store.password().map_err(StartError::Setup)?;
    Ok((url, password))
}

fn data(config: &Config, e: &StoreError) -> StartError {
    StartError::Data(format!("{}: {e}", place(config)))
}

fn place(config: &Config) -> String {
    match &config.store {
        None => config.embedded_store().display().to_string(),
        Some(store) => store.url().map_or_else(|e| e, |url| url.to_string()),
    }
}
