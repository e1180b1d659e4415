//! What everybody may read of an authority: its CRLs, its certificate, its chain. No
//! permit is asked for; there is nothing in them that its certificates do not point to.

use std::sync::Arc;

use bytes::Bytes;
use moka::sync::Cache;
use sha2::{Digest, Sha256};
use tokio::sync::Mutex;

use super::{crl::published, issue};
use crate::{
    authorities::Authority,
    authority::{CrlRecord, IssuerId},
    error::{Error, Reason, Result},
    ops::App,
};

/// Published CRLs, in memory as far as they fit.
pub struct Lists {
    app: Arc<App>,
    kept: Cache<(IssuerId, u32), ([u8; 32], Bytes)>,
    /// One list is read at a time: many who want the same large one read it once.
    reading: Mutex<()>,
}

impl std::fmt::Debug for Lists {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Lists")
    }
}

impl Lists {
    /// One for the appliance.
    #[must_use]
    pub fn new(app: Arc<App>) -> Self {
        let weight = |_: &(IssuerId, u32), kept: &([u8; 32], Bytes)| {
            u32::try_from(kept.1.len() + 256).unwrap_or(u32::MAX)
        };
        let kept = Cache::builder()
            .max_capacity(app.limits.crl_cache_bytes)
            .weigher(weight)
            .build();
        Self {
            app,
            kept,
            reading: Mutex::default(),
        }
    }

    /// What is on record about the newest list; shard 0 is the full one.
    #[must_use]
    pub fn record(&self, authority: &Authority, shard: u32) -> Option<CrlRecord> {
        self.app.authorities.crl(authority.issuer.id, shard)
    }

    /// The bytes of a list that [`Lists::record`] spoke of.
    ///
    /// # Errors
    /// [`Reason::StoreUnavailable`] when the file is not the one on record: it is being
    /// exchanged just now, or somebody has changed it.
    pub async fn bytes(&self, authority: &Authority, record: &CrlRecord) -> Result<Bytes> {
        let key = (authority.issuer.id, record.shard);
        let known = || {
            let (sha256, der) = self.kept.get(&key)?;
            (sha256 == record.sha256).then_some(der)
        };
        if let Some(der) = known() {
            return Ok(der);
        }
        let _one = self.reading.lock().await;
        if let Some(der) = known() {
            return Ok(der);
        }
        let der = Bytes::from(
            published(&self.app, &authority.issuer, record.shard)
                .await?
                .der,
        );
        if <[u8; 32]>::from(Sha256::digest(&der)) != record.sha256 {
            return Err(Error::new(
                Reason::StoreUnavailable,
                "the CRL on disk is not the one on record; try again",
            ));
        }
        self.kept.insert(key, (record.sha256, der.clone()));
        Ok(der)
    }

    /// The issuer and what is above it, without the root; empty for a root.
    #[must_use]
    pub fn chain(&self, authority: &Authority) -> Vec<Vec<u8>> {
        issue::chain(authority)
    }
}
