//! From the configuration to an [`App`] that can answer: token, store, policies, audit
//! log, in the order in which each needs the one before.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use keywright_hsm::{
    self as hsm, Hsm, KeyRef, Options, Place,
    pkcs11::{self, TokenConfig},
};

use super::{RELEASE, StartError, census, lost_store, open_store, scout, seals, seals::TokenEpoch};
use crate::{
    api::Tenants,
    audit::{Audit, Entry, Event, Log, LogError, Opened as OpenedLog},
    authorities::Authorities,
    clock::{Clock, Entropy, System},
    config::{Config, HsmConfig, TenantConfig},
    key::TenantId,
    keyring::Keyring,
    ledger::Ledger,
    membership::{LEASE, Membership},
    metrics::HsmMetrics,
    ops::{App, Pauses, Renewing, nodes},
    policy::Engine,
    store::{Anchors, Contents, Known, LogId, NodeId, Store, StoreError, Tenant},
};

/// Ready to serve.
#[derive(Debug)]
pub struct Opened {
    /// What operations need.
    pub app: Arc<App>,
    /// Who may come in.
    pub tenants: Tenants,
    /// What the token is told of the store, if it is.
    pub epoch: Arc<Option<TokenEpoch>>,
}

/// For everything at start that asks the token.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// How often a token is looked for that is not there, and the pause in between.
const TRIES: u32 = 4;
const PAUSE: Duration = Duration::from_millis(500);

pub(super) async fn open(config: &Config) -> Result<Opened, StartError> {
    let (store, read, canary) = initialised_store(config).await?;
    let engine =
        Engine::read(&config.policies_dir).map_err(|e| StartError::Setup(e.to_string()))?;
    let OpenedLog {
        log, torn_bytes, ..
    } = open_log(config, &read.anchors, store.is_shared())?;
    let hsm = the_same_token(config, &canary).await?;
    let keeps_epoch = config.hsm.keep_epoch.then(|| log.id());
    let (contents, epoch) = seals::sealed(&hsm, &store, &canary, &read, keeps_epoch).await?;
    let objects = again(async || hsm.objects(Instant::now() + PATIENCE).await).await?;
    let data = |e: StoreError| StartError::Data(e.to_string());
    let pki = store.load_authorities().await.map_err(data)?;
    let signer = store.signer().await.map_err(data)?;
    let own: Vec<KeyRef> = std::iter::once(canary).chain(signer).collect();
    let census = census::take(&contents, &pki, &own, &objects);
    let tenants = tenants(config, store.as_ref(), &contents).await?;
    let started = Event::Started {
        release: RELEASE,
        token_serial: hsm.evidence().token_serial,
        policy_set: hex::encode(engine.digest()),
        keys: contents.keys.len(),
        orphans: census.orphans,
        missing: census.missing,
        torn_bytes,
    };
    let clock: Arc<dyn Clock> = Arc::new(System);
    let audit = Audit::start(
        log,
        Arc::clone(&clock),
        Duration::from_millis(config.limits.audit_ms),
    )
    .map_err(|e| StartError::Other(e.to_string()))?;
    audit
        .record(Entry::event(started))
        .await
        .map_err(|e| StartError::Data(format!("{e}; the disk may be full")))?;
    let ledger = Ledger::start(Arc::clone(&store));
    let authorities = Authorities::new(pki, ledger, store.is_shared()).map_err(data)?;
    let membership = Arc::new(membership(store.as_ref(), contents.known)?);
    let names = tenants.ids().map(|(name, id)| (id, name.to_owned()));
    let app = App {
        hsm,
        tenants: names.collect(),
        authorities: Arc::new(authorities),
        crl_dir: crl_dir(config)?,
        store,
        keyring: Arc::new(Keyring::new(contents.keys, engine, Arc::clone(&membership))),
        membership,
        audit,
        clock,
        entropy: Arc::new(System),
        limits: config.limits,
        reserving: tokio::sync::Mutex::new(()),
        renewing: Renewing::default(),
        watchers: Arc::new(tokio::sync::Semaphore::new(config.limits.job_watchers)),
        leases: Arc::new(tokio::sync::Semaphore::new(config.limits.leases)),
        pauses: Pauses::default(),
    };
    if app.store.is_shared() {
        join(&app).await?;
    }
    Ok(Opened {
        app: Arc::new(app),
        tenants,
        epoch: Arc::new(epoch),
    })
}

fn crl_dir(config: &Config) -> Result<PathBuf, StartError> {
    let dir = config.data_dir.join("crl");
    let made = std::fs::create_dir_all(&dir);
    made.map_err(|e| StartError::Data(format!("{}: {e}", dir.display())))?;
    Ok(dir)
}

/// Among the others. The life of this process before the last crash has its lease for some
/// seconds yet.
async fn join(app: &App) -> Result<(), StartError> {
    let until = Instant::now() + LEASE + PAUSE;
    loop {
        let joined = nodes::join(app).await;
        match joined.map_err(|e| StartError::Data(format!("{e:?}")))? {
            None => return Ok(()),
            Some(twin) if Instant::now() > until => {
                return Err(StartError::Data(nodes::is_twin(&twin)));
            }
            Some(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// The audit log of an appliance that was initialised.
pub(crate) fn open_log(
    config: &Config,
    anchors: &Anchors,
    shared: bool,
) -> Result<OpenedLog, StartError> {
    let dir = config.data_dir.display();
    if shared && !anchors.is_empty() && !log_has_records(&config.data_dir) {
        return Err(StartError::Data(format!(
            "this machine is not yet a node of the appliance that this store belongs to: keywrightd init --join. (If it was one: the audit log under {dir} is gone; restore it.)"
        )));
    }
    let opened = Log::open(
        &config.data_dir.join("audit"),
        config.limits.audit_segment_bytes,
        anchors,
    )
    .map_err(|e| match e {
        LogError::Truncated { .. } if shared => format!(
            "{e}. (Of a node that joined others audit/log-id says which log it is; without it, restore that.)"
        ),
        e => e.to_string(),
    })
    .map_err(StartError::Data)?;
    let log = opened.log.id();
    if log != LogId::FIRST && !opened.anchored {
        let path = config.data_dir.join("audit");
        return Err(StartError::Data(
            LogError::Foreign { path, log }.to_string(),
        ));
    }
    if opened.empty {
        return Err(StartError::Data(format!(
            "the audit log under {dir} is empty, although the appliance is initialised; restore it"
        )));
    }
    Ok(opened)
}

/// Among those who use the same store, for this life of this process.
fn membership(store: &dyn Store, known: Known) -> Result<Membership, StartError> {
    if !store.is_shared() {
        return Ok(Membership::alone());
    }
    let mut id = NodeId([0; 16]);
    System
        .fill(&mut id.0)
        .map_err(|e| StartError::Other(e.to_string()))?;
    // For people who read that somebody is waited for.
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = format!("{}:{}", host.trim(), std::process::id());
    tracing::info!(node = %id, name, "one of the nodes of this store");
    Ok(Membership::of_many(id, name, known))
}

pub(crate) fn log_has_records(data_dir: &Path) -> bool {
    let segments = std::fs::read_dir(data_dir.join("audit"));
    segments.is_ok_and(|entries| {
        entries
            .filter_map(Result::ok)
            .any(|e| e.metadata().is_ok_and(|m| m.is_file() && m.len() > 0))
    })
}

/// The store of an appliance that was initialised, what is in it, and the appliance's
/// own key.
pub(crate) async fn initialised_store(
    config: &Config,
) -> Result<(Arc<dyn Store>, Contents, KeyRef), StartError> {
    let not_initialised = || {
        if log_has_records(&config.data_dir) {
            return StartError::Data(lost_store(config));
        }
        StartError::Data(format!(
            "data directory {} is not initialised; run: keywrightd init --config FILE",
            config.data_dir.display()
        ))
    };
    // Opening it would make it.
    if config.store.is_none() && !config.embedded_store().exists() {
        return Err(not_initialised());
    }
    let store = open_store(config).await?;
    let contents = store
        .load()
        .await
        .map_err(|e| StartError::Data(e.to_string()))?;
    let Some(canary) = contents.canary.clone() else {
        return Err(not_initialised());
    };
    Ok((store, contents, canary))
}

/// Opens the token and sees that it is the one this store belongs to.
pub(crate) async fn the_same_token(config: &Config, canary: &KeyRef) -> Result<Hsm, StartError> {
    let hsm = open_hsm(config).await?;
    let check = async || {
        hsm.check(Some(canary.clone()), Instant::now() + PATIENCE)
            .await
    };
    again(check).await.map_err(|e| {
        let text = format!(
            "this token does not hold the appliance's own key, so it is not the token this store belongs to: {e}"
        );
        hsm::Error::new(e.kind(), text)
    })?;
    hsm.watch(canary.clone());
    Ok(hsm)
}

/// Loads the module, logs in, probes and attacks, starts the workers.
///
/// # Errors
/// [`StartError::Hsm`].
pub async fn open_hsm(config: &Config) -> Result<Hsm, StartError> {
    let opened = again(async || match opened(config).await {
        Err(StartError::Hsm(e)) => Err(e),
        settled => Ok(settled),
    });
    opened.await?
}

/// SoftHSM2 shows no token for a moment while another process logs in to it, and a network
/// HSM may come up together with us. Never after a PIN was refused.
pub(super) async fn again<T>(what: impl AsyncFn() -> hsm::Result<T>) -> hsm::Result<T> {
    for _ in 1..TRIES {
        match what().await {
            Err(e) if matches!(e.kind(), hsm::Kind::Gone | hsm::Kind::Stale) => {
                tracing::warn!(error = %e, "the token is not there; looking again");
                tokio::time::sleep(PAUSE).await;
            }
            settled => return settled,
        }
    }
    what().await
}

async fn opened(config: &Config) -> Result<Hsm, StartError> {
    let HsmConfig {
        workers,
        queue_jobs,
        check_every_ms,
        ..
    } = config.hsm;
    let tokens = config.hsm.open_with(&config.data_dir)?;
    let several = tokens.len() > 1;
    let places = tokens.into_iter().map(|(name, mut token)| {
        if several {
            token.scout = Some(scout::of(&token));
        }
        place(name, token, workers)
    });
    let places = places.collect();
    let options = Options {
        workers: workers.unwrap_or(1),
        queue_jobs,
        check_every: Duration::from_millis(check_every_ms),
    };
    tokio::task::spawn_blocking(move || Hsm::start_group(places, options, Arc::new(HsmMetrics)))
        .await
        .map_err(|e| StartError::Other(format!("opening the HSM: {e}")))?
        .map_err(StartError::from)
}

fn place(name: String, token: TokenConfig, workers: Option<usize>) -> Place {
    let open = move || {
        let device = pkcs11::open(token.clone())?;
        Ok(hsm::Opened {
            workers: workers.unwrap_or_else(|| device.quirks().workers),
            connector: Arc::new(device),
        })
    };
    Place {
        name,
        open: Box::new(open),
    }
}

/// The permanent ids of the tenants in the configuration; new tenants get one.
async fn tenants(
    config: &Config,
    store: &dyn Store,
    contents: &Contents,
) -> Result<Tenants, StartError> {
    let mut tenants = Tenants::default();
    for TenantConfig {
        name,
        trust_domain,
        client_ca: _,
    } in &config.tenants
    {
        let known = contents
            .tenants
            .iter()
            .find(|t| t.name == *name)
            .map(|t| t.id);
        let id = match known {
            Some(id) => id,
            None => {
                let mut id = TenantId([0; 16]);
                System
                    .fill(&mut id.0)
                    .map_err(|e| StartError::Other(e.to_string()))?;
                let tenant = Tenant {
                    id,
                    name: name.clone(),
                };
                store
                    .add_tenant(&tenant)
                    .await
                    .map_err(|e| StartError::Data(e.to_string()))?;
                tracing::info!(tenant = name, "new tenant");
                id
            }
        };
        tenants.add(trust_domain, id, name);
    }
    Ok(tenants)
}
