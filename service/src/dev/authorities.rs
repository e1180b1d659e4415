//! A root, an issuer below it and a profile, so that the first certificate is one command
//! away. Made as an operator would make them: planned, approved, carried out, on record.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use keywright_pki::{SpiffeId, dev_service};

use super::{TOUR, TRUST_DOMAIN};
use crate::{
    app::StartError,
    audit::Entry,
    authorities::Authority,
    authority::Stage,
    error::Result,
    ops::{
        App, Call, accounted,
        pki::{
            ApproveCeremony, approve_ceremony, commit_ceremony, list_issuers, list_profiles,
            plan_ceremony, put_profile,
        },
    },
    policy::Caller,
};

const ROOT: &str = r#"name = "dev-root"
kind = "root"
key = "ec-p384"
validity_days = 3650
path_len = 1
approvals = 1

[subject]
CN = "Keywright Dev Root"
"#;

const ISSUER: &str = r#"name = "dev-issuer"
kind = "intermediate"
parent = "dev-root"
key = "ec-p256"
validity_days = 1825
path_len = 0
approvals = 1

[subject]
CN = "Keywright Dev Issuer"
"#;

/// SoftHSM2 needs milliseconds for a key.
const PATIENCE: Duration = Duration::from_secs(60);

/// Makes what is missing.
///
/// # Errors
/// What the operations say.
pub async fn authorities(app: &Arc<App>) -> Result<(), StartError> {
    let caller = developer(app).await?;
    let made = async {
        let issuers = run(app, &caller, "ListIssuers", async |app, call| {
            list_issuers(app, call).await
        })
        .await?;
        for text in [ROOT, ISSUER] {
            let is = |a: &&Arc<Authority>| a.issuer.text == text;
            ceremony(app, &caller, text, issuers.iter().find(is)).await?;
        }
        let profiles = run(app, &caller, "ListProfiles", async |app, call| {
            list_profiles(app, call).await
        })
        .await?;
        if profiles.is_empty() {
            let text = dev_service("dev-issuer");
            run(app, &caller, "PutProfile", async |app, call| {
                put_profile(app, call, text).await
            })
            .await?;
        }
        Ok(())
    };
    made.await
        .map_err(|e: crate::error::Error| StartError::Other(format!("the PKI of dev: {e}")))
}

/// Goes on from where an interrupted start left it.
async fn ceremony(
    app: &Arc<App>,
    caller: &Arc<Caller>,
    text: &str,
    found: Option<&Arc<Authority>>,
) -> Result<()> {
    let planned = match found {
        Some(found) if found.issuer.stage != Stage::Planned => return Ok(()),
        Some(found) => Arc::clone(found),
        None => {
            let planned = run(app, caller, "PlanCeremony", async |app, call| {
                plan_ceremony(app, call, text.to_owned()).await
            });
            planned.await?.authority
        }
    };
    let (id, digest) = (planned.issuer.id, planned.issuer.digest.to_vec());
    if planned.issuer.approvals.is_empty() {
        run(app, caller, "ApproveCeremony", async |app, call| {
            approve_ceremony(app, call, ApproveCeremony { id, digest }).await
        })
        .await?;
    }
    run(app, caller, "CommitCeremony", async |app, call| {
        commit_ceremony(app, call, id).await
    })
    .await?;
    Ok(())
}

/// One operation, as if the developer had asked for it: with its permit and its record.
async fn run<T>(
    app: &Arc<App>,
    caller: &Arc<Caller>,
    rpc: &'static str,
    run: impl AsyncFnOnce(&Arc<App>, &mut Call) -> Result<T>,
) -> Result<T> {
    let call = Call::new(
        Arc::clone(caller),
        rpc,
        Instant::now() + PATIENCE,
        app.clock.now_ms(),
        Entry::default(),
    );
    accounted(app, call, run).await
}

async fn developer(app: &Arc<App>) -> Result<Arc<Caller>, StartError> {
    let other = |e: String| StartError::Other(e);
    let id = SpiffeId::parse(&format!("spiffe://{TRUST_DOMAIN}/{TOUR}"))
        .map_err(|e| other(e.to_string()))?;
    let contents = app.store.load().await.map_err(|e| other(e.to_string()))?;
    let tenant = contents.tenants.into_iter().find(|t| t.name == "dev");
    let tenant = tenant.ok_or_else(|| other("there is no tenant dev".into()))?;
    Ok(Arc::new(Caller {
        id,
        tenant: tenant.id,
        tenant_name: tenant.name.into(),
        certificate: [0; 32],
        spki: [0; 32],
    }))
}
