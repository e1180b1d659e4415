//! Data keys lent to callers that seal for themselves: which they may do while signs of
//! life come, for as long and as often as the lease says (`docs/envelope.md`).
//!
//! The lease binds who borrows honestly. The data key itself opens only what was sealed
//! under it, and the wrapped form of it is good for as long as the version of its key is.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use keywright_hsm::Dek;
use tokio::sync::OwnedSemaphorePermit;

use super::{App, Call, accounted, seal};
use crate::{
    audit::Entry,
    envelope::{Header, Kind},
    error::{Error, Reason, Result},
    key::{Key, KeyId, KeyName, KeyUse, KeyVersion, TenantId, VersionNumber},
    policy::{Caller, act},
};

/// A data key, and what it is good for.
#[derive(Debug)]
pub struct Lent {
    /// The data key.
    pub dek: Dek,
    /// Bytes 68 to 135 of the headers written under it.
    pub wrapped: [u8; Header::WRAP_LEN],
    /// Whose key.
    pub key: KeyId,
    /// Whose tenant.
    pub tenant: TenantId,
    /// The version that wrapped it.
    pub version: VersionNumber,
    /// For how long.
    pub life: Duration,
    /// For looking after it.
    pub lease: Lease,
}

/// A lease that somebody has.
#[derive(Debug)]
pub struct Lease {
    caller: Arc<Caller>,
    rpc: &'static str,
    /// As in the record of the request; the end has a number of its own.
    request_id: String,
    peer: Option<String>,
    key: KeyId,
    version: VersionNumber,
    ends: Instant,
    _place: OwnedSemaphorePermit,
}

/// Lends a data key of the primary version.
///
/// # Errors
/// [`Reason::LeaseForbidden`], [`Reason::Busy`] when too many are lent; permission, use,
/// state and exhaustion of the key, HSM, store.
pub async fn lease_data_key(app: &Arc<App>, call: &mut Call, key: &KeyName) -> Result<Lent> {
    let permit = call.open::<act::LeaseDataKey>(app, key)?;
    let key = permit.key();
    let (version, life) = to_lend(key)?;
    let place = Arc::clone(&app.leases).try_acquire_owned().map_err(|_| {
        Error::new(
            Reason::Busy,
            "too many data keys are lent at once; encrypt here meanwhile",
        )
        .retry_after(Duration::from_secs(1))
    })?;
    call.protects(key, version);
    let minted = seal::mint(app, key, version, Kind::Items, 1, call.deadline).await?;
    let one = minted.into_iter().next();
    let (dek, wrapped) = one.ok_or_else(|| Error::internal("a data key got lost"))??;
    let detail = &mut call.entry.detail;
    detail.insert("lease_seconds", life.as_secs().to_string());
    Ok(Lent {
        dek,
        wrapped: Header::wrap_part(version.number, &wrapped),
        key: key.id,
        tenant: key.tenant,
        version: version.number,
        life,
        lease: Lease {
            caller: Arc::clone(&call.caller),
            rpc: call.rpc,
            request_id: format!("{}.end", call.entry.request_id),
            peer: call.entry.peer.clone(),
            key: key.id,
            version: version.number,
            ends: Instant::now() + life,
            _place: place,
        },
    })
}

/// The version whose data keys are lent, and for how long.
pub(super) fn to_lend(key: &Key) -> Result<(&KeyVersion, Duration)> {
    let version = key.to_protect(KeyUse::Encrypt)?.get();
    let seconds = key.rules.lease_seconds.ok_or_else(|| {
        Error::new(
            Reason::LeaseForbidden,
            format!(
                "{} lends no data keys; who administers it can allow it: keywright key update {0} \
                 --lease-seconds 60",
                key.name
            ),
        )
    })?;
    Ok((version, Duration::from_secs(seconds.into())))
}

impl Lease {
    /// Does it go on? No: its time is over, or the key was rotated; another one is to be had.
    ///
    /// # Errors
    /// The right to it has ended, which is recorded, or this node must not say so.
    pub async fn goes_on(&self, app: &Arc<App>) -> Result<bool> {
        let now_ms = app.clock.now_ms();
        let patience = Duration::from_millis(app.limits.request_ms);
        let entry = Entry {
            request_id: self.request_id.clone(),
            peer: self.peer.clone(),
            ..Entry::default()
        };
        let caller = Arc::clone(&self.caller);
        let mut call = Call::new(caller, self.rpc, Instant::now() + patience, now_ms, entry);
        match self.look(app, &mut call) {
            Err(e) => accounted(app, call, async |_, _| Err(e)).await,
            looked => looked,
        }
    }

    fn look(&self, app: &App, call: &mut Call) -> Result<bool> {
        if app.leases.is_closed() {
            return Err(Error::new(Reason::Stopping, "the server is stopping"));
        }
        if !app.audit.healthy() {
            let text = "the audit log cannot be written; nothing goes on without it";
            return Err(Error::new(Reason::AuditUnavailable, text));
        }
        let permit = call.open_id::<act::LeaseDataKey>(app, self.key)?;
        let key = permit.key();
        let (version, _) = to_lend(key)?;
        if version.number != self.version || Instant::now() >= self.ends {
            return Ok(false);
        }
        // Somebody seals under it at this time.
        call.protects(key, version);
        Ok(true)
    }
}
