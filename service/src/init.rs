//! `keywrightd init`: what happens once in the life of an appliance, on its console.
//! The appliance's own key is made in the token, the first administrators are named,
//! and the first audit record says so. There is no root token, no default user and no
//! way to do this over the network. A further node of the same appliance joins in the
//! same way.

use std::{
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use keywright_hsm::{Hsm, KeyRef, KeySpec, ObjectId};
use keywright_pki::SpiffeId;
use tracing::info;

use crate::{
    app::{
        DataLock, RELEASE, StartError, begin_seals, log_has_records, lost_store, open_hsm,
        open_store, the_same_token, unwrap_seals,
    },
    audit::{Audit, Entry, Event, Log, Opened},
    clock::{Entropy, System},
    config::Config,
    key::TenantId,
    policy::{DEFAULT_ROLES, Engine},
    store::{Anchors, Contents, LogId, Store, Tenant},
};

/// Label of the appliance's own key on the token.
const CANARY_LABEL: &str = "keywright/appliance";
const PATIENCE: Duration = Duration::from_secs(60);

/// Initialises the appliance. `admins` get the role key-admin when there is no
/// `roles.toml` yet.
///
/// # Errors
/// When it is initialised already, or anything it needs is missing.
pub async fn init(config: &Config, admins: &[SpiffeId]) -> Result<(), StartError> {
    let _lock = DataLock::take(&config.data_dir)?;
    let store = open_store(config).await?;
    let contents = store.load().await.map_err(data)?;
    if !contents.anchors.is_empty() && store.is_shared() && !log_has_records(&config.data_dir) {
        return Err(StartError::Data(
            "this store belongs to an appliance that runs already; to add this machine as one more of its nodes: keywrightd init --join".into(),
        ));
    }
    let opened = open_log(config, &contents.anchors)?;
    if contents.canary.is_some() && !opened.empty {
        return Err(initialised(config));
    }
    if contents.canary.is_none() && !opened.empty {
        return Err(StartError::Data(lost_store(config)));
    }
    could_come_in(config, admins)?;
    write_policies(&config.policies_dir, admins)?;
    Engine::read(&config.policies_dir).map_err(|e| StartError::Setup(e.to_string()))?;

    let hsm = open_hsm(config).await?;
    let canary = canary(&hsm, &store, &contents).await?;
    match &contents.rows_key {
        Some(wrapped) => store.seal_with(unwrap_seals(&hsm, &canary, wrapped).await?),
        None => drop(begin_seals(&hsm, &store, &canary).await?),
    }
    for tenant in &config.tenants {
        if contents.tenants.iter().any(|t| t.name == tenant.name) {
            continue;
        }
        let mut id = TenantId([0; 16]);
        random(&mut id.0)?;
        let tenant = Tenant {
            id,
            name: tenant.name.clone(),
        };
        store.add_tenant(&tenant).await.map_err(data)?;
    }
    let genesis = Event::Genesis {
        release: RELEASE,
        token_serial: hsm.evidence().token_serial,
        tenants: config.tenants.iter().map(|t| t.name.clone()).collect(),
        admins: admins.iter().map(ToString::to_string).collect(),
    };
    begin_log(store.as_ref(), opened.log, genesis).await?;
    store.close().await.map_err(data)?;
    hsm.close();
    info!(data_dir = %config.data_dir.display(), "initialised");
    Ok(())
}

/// The appliance's own key, made if an interrupted start left none.
async fn canary(
    hsm: &Hsm,
    store: &Arc<dyn Store>,
    contents: &Contents,
) -> Result<KeyRef, StartError> {
    if let Some(canary) = &contents.canary {
        return Ok(canary.clone());
    }
    let id = ObjectId::random()?;
    let deadline = Instant::now() + PATIENCE;
    let new = hsm
        .generate(id, KeySpec::Aes256, CANARY_LABEL.into(), deadline)
        .await?;
    store.set_canary(&new.key).await.map_err(data)?;
    Ok(new.key)
}

/// Makes this machine one more node of an appliance: it gets an audit log of its own, of
/// which the store knows. Twice is once.
///
/// # Errors
/// When the store is not shared, not initialised, of another token, or the node is there
/// already.
pub async fn join(config: &Config) -> Result<(), StartError> {
    let _lock = DataLock::take(&config.data_dir)?;
    let store = open_store(config).await?;
    if !store.is_shared() {
        return Err(StartError::Setup(
            "--join: the embedded store is of one node; nodes share a PostgreSQL store, see [store] in the configuration".into(),
        ));
    }
    let contents = store.load().await.map_err(data)?;
    let Some(canary) = contents.canary else {
        return Err(StartError::Data(
            "--join: nothing was initialised in this store yet; the first node begins: keywrightd init --admin SPIFFE-ID".into(),
        ));
    };
    Engine::read(&config.policies_dir).map_err(|e| {
        StartError::Setup(format!(
            "{e}; copy the policies of the other nodes here first"
        ))
    })?;
    let hsm = the_same_token(config, &canary).await?;
    let dir = config.data_dir.join("audit");
    if !log_has_records(&config.data_dir) {
        let mut id = LogId::FIRST;
        random(&mut id.0)?;
        Log::name(&dir, id).map_err(data)?;
    }
    let opened = open_log(config, &contents.anchors)?;
    if opened.anchored || opened.log.id() == LogId::FIRST {
        return Err(initialised(config));
    }
    let joined = Event::Joined {
        release: RELEASE,
        token_serial: hsm.evidence().token_serial,
        log: opened.log.id().to_string(),
    };
    begin_log(store.as_ref(), opened.log, joined).await?;
    store.close().await.map_err(data)?;
    hsm.close();
    info!(data_dir = %config.data_dir.display(), "joined");
    Ok(())
}

/// The first record, and the store knows of it.
async fn begin_log(store: &dyn Store, log: Log, first: Event) -> Result<(), StartError> {
    let audit = Audit::start(log, Arc::new(System), PATIENCE)
        .map_err(|e| StartError::Other(e.to_string()))?;
    audit.record(Entry::event(first)).await.map_err(data)?;
    store
        .set_anchor(audit.log(), audit.head())
        .await
        .map_err(data)
}

fn open_log(config: &Config, anchors: &Anchors) -> Result<Opened, StartError> {
    let dir = config.data_dir.join("audit");
    Log::open(&dir, config.limits.audit_segment_bytes, anchors).map_err(data)
}

fn random(out: &mut [u8]) -> Result<(), StartError> {
    System
        .fill(out)
        .map_err(|e| StartError::Other(e.to_string()))
}

fn data(e: impl std::fmt::Display) -> StartError {
    StartError::Data(e.to_string())
}

fn initialised(config: &Config) -> StartError {
    StartError::Data(format!(
        "data directory {} is initialised already; nothing was changed",
        config.data_dir.display()
    ))
}

fn could_come_in(config: &Config, admins: &[SpiffeId]) -> Result<(), StartError> {
    let known = |a: &SpiffeId| {
        config
            .tenants
            .iter()
            .any(|t| t.trust_domain == a.trust_domain())
    };
    match admins.iter().find(|a| !known(a)) {
        None => Ok(()),
        Some(foreign) => Err(StartError::Setup(format!(
            "--admin {foreign}: no tenant has the trust domain {:?}, so nobody could ever come in with this id",
            foreign.trust_domain()
        ))),
    }
}

/// The default policies, where there are none; the operator's are left alone.
fn write_policies(dir: &Path, admins: &[SpiffeId]) -> Result<(), StartError> {
    let setup = |path: &Path| {
        let path = path.display().to_string();
        move |e: std::io::Error| StartError::Setup(format!("{path}: {e}"))
    };
    fs::create_dir_all(dir).map_err(setup(dir))?;
    let cedar = fs::read_dir(dir)
        .map_err(setup(dir))?
        .filter_map(Result::ok)
        .any(|e| e.path().extension().is_some_and(|x| x == "cedar"));
    if !cedar {
        let path = dir.join("roles.cedar");
        fs::write(&path, DEFAULT_ROLES).map_err(setup(&path))?;
    }
    let path = dir.join("roles.toml");
    if path.exists() {
        return Ok(());
    }
    if admins.is_empty() {
        return Err(StartError::Setup(format!(
            "{} does not exist and no --admin was given; somebody must be able to create keys",
            path.display()
        )));
    }
    let admins: Vec<String> = admins.iter().map(|a| format!("  \"{a}\",\n")).collect();
    let text = format!(
        "# Who has which role: SPIFFE ids, or spiffe://domain/path/* for all below.\n\
         # Read again on SIGHUP.\n\
         [roles]\nkey-admin = [\n{}]\nkey-user = []\nrewrapper = []\nauditor = []\nnode-operator = []\n",
        admins.concat()
    );
    fs::write(&path, text).map_err(setup(&path))
}
