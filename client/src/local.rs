//! Sealing here, under a data key that the server lends: bulk data need not travel, and
//! what comes out is the same envelope that the server writes (`docs/envelope.md`).
//!
//! A lease ends by time, by the number of envelopes, when the server says so (the key was
//! suspended or rotated, a policy changed) and when the server is not heard any more. Then
//! the data key is cleared from memory and the next call asks for another one; if the
//! server says no, so does this.

mod context;
mod envelope;
mod lease;

use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use tokio::sync::Mutex;

use self::lease::Lease;
#[cfg(doc)]
use crate::FailureKind;
use crate::{Client, Context, Failure, Sealed};

/// Something to be sealed.
#[derive(Clone, Copy, Default)]
pub struct Plain<'a> {
    /// Authenticated with it, and needed to open it.
    pub aad: &'a [u8],
    /// Kept secret.
    pub plaintext: &'a [u8],
}

impl<'a> From<&'a [u8]> for Plain<'a> {
    fn from(plaintext: &'a [u8]) -> Self {
        let aad = &[];
        Self { aad, plaintext }
    }
}

impl std::fmt::Debug for Plain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plain").finish_non_exhaustive()
    }
}

/// Seals under one key; share it between tasks.
///
/// ```no_run
/// # async fn example(client: &keywright_client::Client) -> Result<(), keywright_client::Failure> {
/// use keywright_client::Context;
///
/// // The key must allow it: keywright key update payments/cards --lease-seconds 60
/// let sealer = client.local_sealer("payments/cards");
/// let context = Context::from([("table".to_owned(), "cards".to_owned())]);
/// let card: &[u8] = b"4111 1111 1111 1111";
/// let sealed = sealer.seal(&context, &[card.into()]).await?;
/// assert_eq!(client.decrypt(&sealed, &context).await?.plaintexts[0], card);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct LocalSealer {
    client: Client,
    key: String,
    lease: RwLock<Option<Arc<Lease>>>,
    /// Held by the one who asks for the next lease.
    asking: Mutex<()>,
}

impl Client {
    /// For sealing here under data keys that are lent. Nothing is asked for yet.
    #[must_use]
    pub fn local_sealer(&self, key: &str) -> LocalSealer {
        LocalSealer {
            client: self.clone(),
            key: key.to_owned(),
            lease: RwLock::default(),
            asking: Mutex::default(),
        }
    }
}

impl LocalSealer {
    /// Seals a batch into one envelope.
    ///
    /// # Errors
    /// What the server says to a request for a data key (`LEASE_FORBIDDEN`: the key lends
    /// none), and [`FailureKind::Data`] for what is too large to be read back.
    pub async fn seal(&self, context: &Context, items: &[Plain<'_>]) -> Result<Sealed, Failure> {
        let digest = context::digest(context)?;
        let mut ended = 0;
        while ended < ATTEMPTS {
            let lease = self.lease().await?;
            if let Some(sealed) = lease.seal(&digest, items)? {
                return Ok(sealed);
            }
            // Others were quicker and used it up; or it ended before it was used, and one
            // that does so again and again is of no use.
            ended += u32::from(!lease.is_used_up());
        }
        Err(lease::over())
    }

    /// The lease that goes on, or a new one.
    async fn lease(&self) -> Result<Arc<Lease>, Failure> {
        if let Some(lease) = self.current() {
            return Ok(lease);
        }
        let _alone = self.asking.lock().await;
        if let Some(lease) = self.current() {
            return Ok(lease);
        }
        let lease = Lease::ask(&self.client, &self.key).await?;
        let mut held = self.lease.write().unwrap_or_else(PoisonError::into_inner);
        *held = Some(Arc::clone(&lease));
        Ok(lease)
    }

    fn current(&self) -> Option<Arc<Lease>> {
        let held = self.lease.read().unwrap_or_else(PoisonError::into_inner);
        held.as_ref().filter(|l| l.goes_on()).cloned()
    }
}

/// Leases that may end before they are used, in one call.
const ATTEMPTS: u32 = 3;

/// Header and items as the server would answer.
fn sealed(header: &[u8], items: Vec<Bytes>, key_version: u32) -> Sealed {
    Sealed {
        header: Bytes::copy_from_slice(header),
        items,
        key_version,
    }
}
