//! What the HSM knows of the database: the key that its rows are sealed with, and how far
//! it was.
//!
//! The key is 32 random bytes under the appliance's own key, which wraps nothing else: who
//! has another key of the token can neither open it nor put one in its place. How far the
//! database was stands in one data object for each audit log, so that no two nodes write
//! the same one. A database that is behind what the token has seen was rolled back, and
//! nobody serves from it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use keywright_hsm::{DataObject, Hsm, KeyRef, State, Unwrap, WrappedDek};
use tracing::{error, info};

use super::{
    StartError,
    open::{PATIENCE, again},
};
use crate::store::{Contents, LogId, Sealer, Store, StoreError};

/// Before the id of the appliance's own key and of the log.
const LABEL: &str = "keywright/epoch";
/// For what is tried again in five seconds, with others waiting behind it.
const SOON: Duration = Duration::from_secs(3);

/// What the token knows of the database.
#[derive(Debug)]
pub struct TokenEpoch {
    label: String,
    written: AtomicU64,
    /// On so many tokens: one that comes back wants to know, too.
    told: AtomicUsize,
}

impl TokenEpoch {
    /// Of one log of one appliance.
    #[must_use]
    pub fn new(canary: &KeyRef, log: LogId) -> Self {
        Self {
            label: format!("{LABEL}/{}/{log}", canary.object),
            written: AtomicU64::new(0),
            told: AtomicUsize::new(0),
        }
    }

    /// Tells the token how far the database is, if it does not know.
    pub async fn keep(&self, hsm: &Hsm, store: &dyn Store) {
        let epoch = match store.epoch().await {
            Ok(epoch) => epoch,
            // Whoever needs the store says more about it.
            Err(e) => return tracing::debug!(error = %e, "the epoch could not be read"),
        };
        let tokens = hsm.tokens();
        let serving = tokens.iter().filter(|t| t.state == State::Ready).count();
        let all_know = serving <= self.told.load(Ordering::Acquire);
        if all_know && epoch <= self.written.load(Ordering::Acquire) {
            return;
        }
        match self.tell(hsm, epoch, SOON).await {
            Ok(()) => {}
            Err(e) => error!(error = %e, "the token could not be told how far the store is"),
        }
    }

    /// Tells the token.
    ///
    /// # Errors
    /// HSM.
    pub async fn tell(
        &self,
        hsm: &Hsm,
        epoch: u64,
        patience: Duration,
    ) -> keywright_hsm::Result<()> {
        let value = epoch.to_be_bytes().to_vec();
        let until = Instant::now() + patience;
        let told = hsm.put_data(self.label.clone(), value, until).await?;
        self.told.store(told, Ordering::Release);
        self.written.fetch_max(epoch, Ordering::AcqRel);
        Ok(())
    }
}

/// How far the token has seen the databases of appliances.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    objects: Vec<DataObject>,
}

impl Seen {
    /// Asks the token.
    ///
    /// # Errors
    /// HSM.
    pub(crate) async fn on(hsm: &Hsm) -> keywright_hsm::Result<Self> {
        let mut objects = again(async || hsm.data(Instant::now() + PATIENCE).await).await?;
        objects.retain(|object| object.label.starts_with(LABEL));
        Ok(Self { objects })
    }

    /// No appliance that seals has ever been on this token.
    #[must_use]
    pub(crate) fn nothing(&self) -> bool {
        self.objects.is_empty()
    }

    /// Makes the token forget that it has seen more of this appliance than this.
    ///
    /// # Errors
    /// HSM.
    pub(crate) async fn accept(
        &self,
        hsm: &Hsm,
        canary: &KeyRef,
        epoch: u64,
    ) -> keywright_hsm::Result<()> {
        for label in self.own(canary).map(|object| &object.label) {
            let value = epoch.to_be_bytes().to_vec();
            let until = Instant::now() + PATIENCE;
            hsm.put_data(label.clone(), value, until).await?;
        }
        Ok(())
    }

    fn own(&self, canary: &KeyRef) -> impl Iterator<Item = &DataObject> {
        let own = format!("{LABEL}/{}/", canary.object);
        let objects = self.objects.iter();
        objects.filter(move |object| object.label.starts_with(&own))
    }

    /// The newest epoch of the appliance with this key of its own, on whichever node.
    #[must_use]
    pub(crate) fn epoch(&self, canary: &KeyRef) -> u64 {
        let epochs = self
            .own(canary)
            .filter_map(|o| o.value.as_slice().try_into().ok());
        epochs.map(u64::from_be_bytes).max().unwrap_or(0)
    }
}

/// Everything from the store again, sealed rows only. With a log the token is asked how far
/// the store was, and told how far it is.
///
/// # Errors
/// [`StartError::Data`] for a row that somebody else wrote, a store without seals on a token
/// that has seen some, and a store that is older than the token has seen.
pub(crate) async fn sealed(
    hsm: &Hsm,
    store: &Arc<dyn Store>,
    canary: &KeyRef,
    read: &Contents,
    keeps_epoch: Option<LogId>,
) -> Result<(Contents, Option<TokenEpoch>), StartError> {
    let seen = match keeps_epoch {
        Some(_) => Seen::on(hsm).await?,
        None => Seen::default(),
    };
    match &read.rows_key {
        Some(wrapped) => store.seal_with(unwrapped(hsm, canary, wrapped).await?),
        // A store of an older release. Whoever takes the key to the seals away cannot take
        // away what the token has seen.
        None if keeps_epoch.is_some() && seen.nothing() => drop(begin(hsm, store, canary).await?),
        None => {
            return Err(StartError::Data(
                "the rows of this store are not sealed, although the token has seen sealed stores or keeps nothing (hsm.keep_epoch = false): somebody took the seals away, or the store was written by an older release. Restore a backup, or accept the store as it is: keywrightd recover-store".into(),
            ));
        }
    }
    let contents = store.load().await.map_err(data)?;
    let (token, here) = (seen.epoch(canary), contents.known.epoch);
    if here < token {
        return Err(StartError::Data(format!(
            "the store is older than this token has seen it: at change {here}, and it was at {token}. It was restored from a backup or rolled back; keys may be in states they had left. Restore a newer one, or accept what is lost: keywrightd recover-store"
        )));
    }
    let epoch = keeps_epoch.map(|log| TokenEpoch::new(canary, log));
    if let Some(epoch) = &epoch {
        epoch.tell(hsm, here, PATIENCE).await?;
    }
    Ok((contents, epoch))
}

/// Seals the rows that are there as they are, and all from now on; names them.
///
/// # Errors
/// HSM or store; nothing is sealed then.
pub(crate) async fn begin(
    hsm: &Hsm,
    store: &Arc<dyn Store>,
    canary: &KeyRef,
) -> Result<Vec<String>, StartError> {
    let until = Instant::now() + PATIENCE;
    let (key, wrapped) = hsm.mint(canary, aad(canary), until).await?;
    let sealer = Sealer::new(&key);
    match store.seal_all(&sealer, Some(&wrapped)).await {
        Ok(rows) => {
            store.seal_with(sealer);
            info!(
                rows = rows.len(),
                "the rows of the store are sealed from now on"
            );
            Ok(rows)
        }
        // Another node was quicker.
        Err(StoreError::Exists) => {
            let read = store.load().await.map_err(data)?;
            let wrapped = read.rows_key.ok_or(StoreError::Conflict).map_err(data)?;
            store.seal_with(unwrapped(hsm, canary, &wrapped).await?);
            Ok(Vec::new())
        }
        Err(e) => Err(data(e)),
    }
}

/// The sealer of a store that has one.
///
/// # Errors
/// [`StartError::Data`] when the key was not wrapped by this appliance's own key.
pub(crate) async fn unwrapped(
    hsm: &Hsm,
    canary: &KeyRef,
    wrapped: &WrappedDek,
) -> Result<Sealer, StartError> {
    let unwrap = async || {
        let job = Unwrap {
            key: canary.clone(),
            aad: aad(canary),
            wrapped: *wrapped,
        };
        let opened = hsm.unwrap(vec![job], Instant::now() + PATIENCE).await;
        let lost = keywright_hsm::Error::new(keywright_hsm::Kind::Fault, "no answer");
        opened.into_iter().next().unwrap_or(Err(lost))
    };
    match again(unwrap).await {
        Ok(key) => Ok(Sealer::new(&key)),
        Err(e) if e.kind() == keywright_hsm::Kind::Refused => Err(StartError::Data(
            "the key that the rows of this store are sealed with is not one of this appliance: somebody else changed the database. Restore a backup".into(),
        )),
        Err(e) => Err(e.into()),
    }
}

/// Nothing else is ever wrapped with these bytes: what wraps DEKs begins otherwise.
fn aad(canary: &KeyRef) -> [u8; 56] {
    let mut aad = [0; 56];
    let parts = b"keywright rows v1".iter().chain(&canary.object.0);
    for (place, byte) in aad.iter_mut().zip(parts) {
        *place = *byte;
    }
    aad
}

fn data(e: StoreError) -> StartError {
    StartError::Data(e.to_string())
}
