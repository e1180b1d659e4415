//! From the configuration to an [`App`] that can answer: token, store, policies, audit
//! log, in the order in which each needs the one before.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use keywright_hsm::{self as hsm, Hsm, KeyRef, Options, pkcs11};

use super::{RELEASE, StartError, census};
use crate::{
    api::Tenants,
    audit::{Audit, Entry, Event, Log, Opened as OpenedLog},
    authorities::Authorities,
    clock::{Clock, Entropy, System},
    config::{Config, TenantConfig},
    key::TenantId,
    keyring::Keyring,
    ledger::Ledger,
    metrics::HsmMetrics,
    ops::App,
    policy::Engine,
    store::{Contents, SqliteStore, Store, Tenant},
};

/// Ready to serve.
#[derive(Debug)]
pub struct Opened {
    /// What operations need.
    pub app: Arc<App>,
    /// Who may come in.
    pub tenants: Tenants,
}

/// For everything at start that asks the token.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) async fn open(config: &Config) -> Result<Opened, StartError> {
    let (store, contents, canary) = initialised_store(config).await?;
    let engine =
        Engine::read(&config.policies_dir).map_err(|e| StartError::Setup(e.to_string()))?;
    let OpenedLog {
        log,
        torn_bytes,
        empty,
    } = Log::open(
        &config.data_dir.join("audit"),
        config.limits.audit_segment_bytes,
        contents.anchor,
    )
    .map_err(|e| StartError::Data(e.to_string()))?;
    if empty {
        return Err(StartError::Data(format!(
            "the audit log under {} is empty, although the appliance is initialised; restore it",
            config.data_dir.display()
        )));
    }

    let hsm = the_same_token(config, &canary).await?;
    let objects = hsm.objects(Instant::now() + PATIENCE).await?;
    let pki = store
        .load_authorities()
        .await
        .map_err(|e| StartError::Data(e.to_string()))?;
    let census = census::take(&contents, &pki, &canary, &objects);
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
    let crl_dir = config.data_dir.join("crl");
    std::fs::create_dir_all(&crl_dir)
        .map_err(|e| StartError::Data(format!("{}: {e}", crl_dir.display())))?;
    let ledger = Ledger::start(Arc::clone(&store));
    let authorities = Authorities::new(pki, ledger).map_err(|e| StartError::Data(e.to_string()))?;
    let app = App {
        hsm,
        authorities: Arc::new(authorities),
        crl_dir,
        store,
        keyring: Arc::new(Keyring::new(contents.keys, engine)),
        audit,
        clock,
        entropy: Arc::new(System),
        limits: config.limits,
        reserving: tokio::sync::Mutex::new(()),
    };
    Ok(Opened {
        app: Arc::new(app),
        tenants,
    })
}

/// There is an audit log and no store to it.
pub(crate) fn lost_store(config: &Config) -> String {
    let dir = config.data_dir.display();
    format!(
        "the audit log under {dir} has records, but keywright.db knows of no appliance: it was lost or exchanged. Restore {dir}/keywright.db; nothing was changed. (To begin anew, and lose what the old keys protect: move {dir} away.)"
    )
}

fn log_has_records(data_dir: &Path) -> bool {
    let segments = std::fs::read_dir(data_dir.join("audit"));
    segments.is_ok_and(|entries| {
        entries
            .filter_map(Result::ok)
            .any(|e| e.metadata().is_ok_and(|m| m.is_file() && m.len() > 0))
    })
}

/// The store of an appliance that was initialised, what is in it, and the appliance's
/// own key.
async fn initialised_store(
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
    if !config.data_dir.join("keywright.db").exists() {
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

/// Opens the token and sees that it is the one this data directory belongs to.
async fn the_same_token(config: &Config, canary: &KeyRef) -> Result<Hsm, StartError> {
    let hsm = open_hsm(config).await?;
    hsm.check(Some(canary.clone()), Instant::now() + PATIENCE).await.map_err(|e| {
        let text = format!(
            "this token does not hold the appliance's own key, so it is not the token this data directory belongs to: {e}"
        );
        hsm::Error::new(e.kind(), text)
    })?;
    hsm.watch(canary.clone());
    Ok(hsm)
}

/// Opens the store under the data directory.
///
/// # Errors
/// [`StartError::Data`].
pub async fn open_store(config: &Config) -> Result<Arc<dyn Store>, StartError> {
    let path = config.data_dir.join("keywright.db");
    let store = SqliteStore::open(&path)
        .await
        .map_err(|e| StartError::Data(format!("{}: {e}", path.display())))?;
    Ok(Arc::new(store))
}

/// Loads the module, logs in, probes and attacks, starts the workers.
///
/// # Errors
/// [`StartError::Hsm`].
pub async fn open_hsm(config: &Config) -> Result<Hsm, StartError> {
    let token = config.hsm.token(&config.data_dir)?;
    let (workers, queue_jobs) = (config.hsm.workers, config.hsm.queue_jobs);
    let check_every = Duration::from_millis(config.hsm.check_every_ms);
    tokio::task::spawn_blocking(move || {
        let device = pkcs11::open(token)?;
        let workers = workers.unwrap_or_else(|| device.quirks().workers);
        let options = Options {
            workers,
            queue_jobs,
            check_every,
        };
        Hsm::start(Arc::new(device), options, Arc::new(HsmMetrics))
    })
    .await
    .map_err(|e| StartError::Other(format!("opening the HSM: {e}")))?
    .map_err(StartError::from)
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
