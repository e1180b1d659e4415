//! SIGHUP: certificates, client CAs, policies, roles and the PIN are read again. What is
//! bad changes nothing and is said loudly.

use std::sync::Arc;

use tracing::{error, info, warn};

use crate::{
    api::TlsReloader,
    audit::{Entry, Event},
    config::Config,
    metrics,
    ops::App,
    policy::Engine,
};

pub(super) struct Reloader {
    config: Config,
    tls: TlsReloader,
    app: Arc<App>,
}

impl Reloader {
    pub(super) fn new(config: Config, tls: TlsReloader, app: Arc<App>) -> Self {
        Self { config, tls, app }
    }

    pub(super) async fn reload(&self) {
        let results = [
            (
                "certificates",
                self.tls.reload(&self.config).map_err(|e| e.to_string()),
            ),
            ("policies", self.policies().await),
            ("pin", self.pin().await),
        ];
        let mut failed = false;
        for (part, result) in results {
            match result {
                Ok(()) => metrics::reload(part, "ok"),
                Err(why) => {
                    failed = true;
                    metrics::reload(part, "failed");
                    error!(part, why, "reload: the old one stays in force");
                }
            }
        }
        if failed {
            warn!("reloaded in part; see the errors above");
        } else {
            info!("reloaded");
        }
    }

    async fn policies(&self) -> Result<(), String> {
        let engine = Engine::read(&self.config.policies_dir).map_err(|e| e.to_string())?;
        let policy_set = hex::encode(engine.digest());
        // Recorded first: policies nobody can see the change of are not enforced.
        let event = Entry::event(Event::PoliciesReloaded { policy_set });
        self.app
            .audit
            .record(event)
            .await
            .map_err(|e| e.to_string())?;
        self.app.keyring.enforce(engine);
        Ok(())
    }

    async fn pin(&self) -> Result<(), String> {
        let hsm = self.app.hsm.clone();
        tokio::task::spawn_blocking(move || hsm.new_pin())
            .await
            .map_err(|e| e.to_string())?
            .map_err(|e| e.to_string())
    }
}
