//! `keywrightd recover-store`: takes a store as it is that the daemon refuses, because it
//! is older than the token has seen it, or because somebody else changed it. On the console,
//! with all nodes stopped, and recorded: what was lost is lost, and what was changed counts.

use std::sync::Arc;

use crate::{
    app::{
        DataLock, PATIENCE, Seen, StartError, begin_seals, initialised_store, open_log,
        the_same_token, unwrap_seals,
    },
    audit::{Audit, Entry, Event},
    clock::System,
    config::Config,
    store::NodeId,
};

/// What was accepted.
#[derive(Debug)]
pub struct Recovered {
    /// How far the store is.
    pub epoch: u64,
    /// How far the token had seen it.
    pub token_epoch: u64,
    /// Rows that somebody else wrote.
    pub rows: Vec<String>,
}

/// Seals all rows as they are and tells the token how far the store is.
///
/// # Errors
/// Why nothing was changed, or how far it came: it can be done again.
pub async fn recover_store(config: &Config, reason: &str) -> Result<Recovered, StartError> {
    if reason.trim().is_empty() {
        let text = "--reason: say why; it goes into the audit log";
        return Err(StartError::Setup(text.into()));
    }
    let _lock = DataLock::take(&config.data_dir)?;
    let (store, read, canary) = initialised_store(config).await?;
    // No node has this id: is anybody there?
    if store.is_shared() && !store.is_first(NodeId([0; 16])).await.map_err(data)? {
        let text = "a node of this store is running; stop all of them first (a node that was killed counts for five seconds more)";
        return Err(StartError::Data(text.into()));
    }
    let log = open_log(config, &read.anchors, store.is_shared())?.log;
    let hsm = the_same_token(config, &canary).await?;
    let seen = match config.hsm.keep_epoch {
        true => Seen::on(&hsm).await?,
        false => Seen::default(),
    };
    let (epoch, token_epoch) = (read.known.epoch, seen.epoch(&canary));
    let audit = Audit::start(log, Arc::new(System), PATIENCE)
        .map_err(|e| StartError::Other(e.to_string()))?;
    let record = async |event| audit.record(Entry::event(event)).await.map_err(data);
    record(Event::StoreRecovering {
        reason: reason.to_owned(),
        epoch,
        token_epoch,
    })
    .await?;
    let rows = match &read.rows_key {
        Some(wrapped) => {
            let sealer = unwrap_seals(&hsm, &canary, wrapped).await?;
            store.seal_all(&sealer, None).await.map_err(data)?
        }
        None => begin_seals(&hsm, &store, &canary).await?,
    };
    seen.accept(&hsm, &canary, epoch).await?;
    record(Event::StoreRecovered { rows: rows.clone() }).await?;
    let anchored = store.set_anchor(audit.log(), audit.head()).await;
    anchored.map_err(data)?;
    store.close().await.map_err(data)?;
    hsm.close();
    Ok(Recovered {
        epoch,
        token_epoch,
        rows,
    })
}

fn data(e: impl std::fmt::Display) -> StartError {
    StartError::Data(e.to_string())
}
