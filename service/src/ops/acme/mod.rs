//! The operations of ACME. A client is let in by an operator's key, and what it may do is
//! what that key's identity may do: policies are asked as for a service with that
//! identity, and certificates come out of the same pipeline.

mod account;
mod authenticate;
mod authorization;
mod finalize;
mod key;
mod order;
mod rates;
mod renewal;
mod revoke;

use std::{
    collections::{BTreeMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::Semaphore;

pub use account::{NewAccount, Registered, change_key, new_account, update_account};
pub use authenticate::{Member, Post, Visit, Who, authenticate};
pub use authorization::{answer, authorization, deactivate_authorization};
pub use finalize::{certificate, finalize};
pub use key::{CreateAcmeKey, NewAcmeKey, create_acme_key};
pub use order::{NewOrder, OrderView, new_order, order, orders};
pub use renewal::{renewal_window, window_of};
pub use revoke::revoke;

use super::{App, Call, accounted};
use crate::{
    acme::{AcmeId, Nonces, Problem},
    audit::Entry,
    error::{Error, Reason, Result},
    key::TenantId,
    metrics,
    policy::Caller,
    validator::Validator,
};
use rates::Rates;

/// Everything ACME needs beside what all operations need, built once.
#[derive(Debug)]
pub struct Acme {
    /// The rest.
    pub app: Arc<App>,
    /// Against replays.
    pub nonces: Nonces,
    validator: Validator,
    tenants: BTreeMap<String, TenantId>,
    /// Where clients find us, without a slash at its end.
    base: String,
    requests: Rates,
    orders: Rates,
    looking: Arc<Semaphore>,
    validating: parking_lot::Mutex<HashSet<AcmeId>>,
    /// For tests of clients: every so manieth good nonce is refused; 0: none.
    refuse_every: u64,
    taken: AtomicU64,
}

impl Acme {
    /// For these tenants, at this address.
    ///
    /// # Errors
    /// When there is no randomness for the nonces.
    pub fn new(
        app: Arc<App>,
        validator: Validator,
        tenants: BTreeMap<String, TenantId>,
        base: String,
    ) -> Result<Self> {
        let mut key = [0; 32];
        app.entropy.fill(&mut key)?;
        let limits = app.limits;
        Ok(Self {
            nonces: Nonces::new(&key),
            validator,
            tenants,
            base,
            requests: Rates::new(limits.acme_requests_per_minute, 60_000),
            orders: Rates::new(limits.acme_orders_per_hour, 3_600_000),
            looking: Arc::new(Semaphore::new(limits.acme_validations)),
            validating: parking_lot::Mutex::default(),
            refuse_every: 0,
            taken: AtomicU64::new(0),
            app,
        })
    }

    /// For tests of clients: refuses every `n`th good nonce; none for 0.
    #[must_use]
    pub fn refuse_every(self, n: u64) -> Self {
        Self {
            refuse_every: n,
            ..self
        }
    }

    /// Uses a nonce up. Is it good?
    fn take_nonce(&self, nonce: &str, now_ms: i64) -> bool {
        self.nonces.take(nonce, now_ms)
            && (self.refuse_every == 0
                || !(self.taken.fetch_add(1, Ordering::Relaxed) + 1)
                    .is_multiple_of(self.refuse_every))
    }

    /// A tenant by name.
    #[must_use]
    pub fn tenant(&self, name: &str) -> Option<TenantId> {
        self.tenants.get(name).copied()
    }

    /// The URL of something of a tenant.
    #[must_use]
    pub fn url(&self, tenant: &str, path: &str) -> String {
        format!("{}/acme/{tenant}/{path}", self.base)
    }

    /// A fresh nonce.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn nonce(&self) -> Result<String> {
        let mut random = [0; 16];
        self.app.entropy.fill(&mut random)?;
        Ok(self.nonces.make(self.app.clock.now_ms(), random))
    }

    fn id(&self) -> Result<AcmeId> {
        let mut random = [0; 16];
        self.app.entropy.fill(&mut random)?;
        Ok(AcmeId::from_random(random))
    }
}

/// Runs what changes something, and writes its record under the identity behind it. The
/// record says the ACME problem beside our own word for it.
async fn recorded<T>(
    acme: &Acme,
    caller: Arc<Caller>,
    rpc: &'static str,
    peer: Option<String>,
    run: impl AsyncFnOnce(&Arc<App>, &mut Call) -> Result<T, Problem>,
) -> Result<T, Problem> {
    let app = &acme.app;
    let entry = Entry {
        request_id: acme.id()?.to_string(),
        peer,
        ..Entry::default()
    };
    let deadline = Instant::now() + Duration::from_millis(app.limits.request_ms);
    let mut call = Call::new(caller, rpc, deadline, app.clock.now_ms(), entry);
    // There is no client certificate at this door.
    call.entry.certificate = None;
    let mut problem = None;
    let result = accounted(app, call, async |app, call| match run(app, call).await {
        Ok(done) => Ok(done),
        Err(e) => {
            call.entry.detail.insert("problem", e.kind().name().into());
            let mut error = Error::new(e.reason(), e.detail());
            if let Some(internal) = e.internal_text() {
                error = error.because(internal);
            }
            problem = Some(e);
            Err(error)
        }
    })
    .await;
    let outcome = match (&result, &problem) {
        (Ok(_), _) => "ok",
        (Err(_), Some(problem)) => problem.kind().name(),
        (Err(_), None) => "serverInternal",
    };
    metrics::acme(rpc, outcome);
    result.map_err(|e| match problem {
        // Without a durable record there is no other answer.
        Some(problem) if e.reason() != Reason::AuditUnavailable => problem,
        _ => e.into(),
    })
}

impl From<crate::store::StoreError> for Problem {
    fn from(e: crate::store::StoreError) -> Self {
        Error::from(e).into()
    }
}
