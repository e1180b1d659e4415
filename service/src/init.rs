//! `keywrightd init`: what happens once in the life of an appliance, on its console.
//! The appliance's own key is made in the token, the first administrators are named,
//! and the first audit record says so. There is no root token, no default user and no
//! way to do this over the network.

use std::{
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use keywright_hsm::{KeySpec, ObjectId};
use keywright_pki::SpiffeId;
use tracing::info;

use crate::{
    app::{DataLock, RELEASE, StartError, lost_store, open_hsm, open_store},
    audit::{Audit, Entry, Event, Log},
    clock::{Entropy, System},
    config::Config,
    key::TenantId,
    policy::{DEFAULT_ROLES, Engine},
    store::Tenant,
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
    let data = |e: &dyn std::fmt::Display| StartError::Data(e.to_string());
    let contents = store.load().await.map_err(|e| data(&e))?;
    let opened = Log::open(
        &config.data_dir.join("audit"),
        config.limits.audit_segment_bytes,
        contents.anchor,
    )
    .map_err(|e| data(&e))?;
    if contents.canary.is_some() && !opened.empty {
        return Err(StartError::Data(format!(
            "data directory {} is initialised already; nothing was changed",
            config.data_dir.display()
        )));
    }
    if contents.canary.is_none() && !opened.empty {
        return Err(StartError::Data(lost_store(config)));
    }
    could_come_in(config, admins)?;
    write_policies(&config.policies_dir, admins)?;
    Engine::read(&config.policies_dir).map_err(|e| StartError::Setup(e.to_string()))?;

    let hsm = open_hsm(config).await?;
    for tenant in &config.tenants {
        if contents.tenants.iter().any(|t| t.name == tenant.name) {
            continue;
        }
        let mut id = TenantId([0; 16]);
        System
            .fill(&mut id.0)
            .map_err(|e| StartError::Other(e.to_string()))?;
        let tenant = Tenant {
            id,
            name: tenant.name.clone(),
        };
        store.add_tenant(&tenant).await.map_err(|e| data(&e))?;
    }
    if contents.canary.is_none() {
        let id = ObjectId::random()?;
        let deadline = Instant::now() + PATIENCE;
        let new = hsm
            .generate(id, KeySpec::Aes256, CANARY_LABEL.into(), deadline)
            .await?;
        store.set_canary(&new.key).await.map_err(|e| data(&e))?;
    }
    let audit = Audit::start(opened.log, Arc::new(System), PATIENCE)
        .map_err(|e| StartError::Other(e.to_string()))?;
    let genesis = Event::Genesis {
        release: RELEASE,
        token_serial: hsm.evidence().token_serial,
        tenants: config.tenants.iter().map(|t| t.name.clone()).collect(),
        admins: admins.iter().map(ToString::to_string).collect(),
    };
    audit
        .record(Entry::event(genesis))
        .await
        .map_err(|e| data(&e))?;
    store.set_anchor(audit.head()).await.map_err(|e| data(&e))?;
    store.close().await.map_err(|e| data(&e))?;
    hsm.close();
    info!(data_dir = %config.data_dir.display(), "initialised");
    Ok(())
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
