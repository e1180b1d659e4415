//! `check-config`: everything a configuration names, and nothing started.

use std::path::Path;

use keywright_hsm::{State, pkcs11::module_path};
use keywright_service::{
    api::TlsReloader,
    app::{self, StartError, open_hsm},
    config::Config,
    policy::Engine,
};

use crate::block_on;

pub(crate) fn check(config: &Config, hsm: bool) -> Result<(), StartError> {
    let setup = |e: &dyn std::fmt::Display| StartError::Setup(e.to_string());
    TlsReloader::new(config).map_err(|e| setup(&e))?;
    let engine = Engine::read(&config.policies_dir).map_err(|e| setup(&e))?;
    let domains: Vec<&str> = config
        .tenants
        .iter()
        .map(|t| t.trust_domain.as_str())
        .collect();
    if let Some(foreign) = engine.stranger(&domains) {
        return Err(StartError::Setup(format!(
            "roles.toml: {foreign} is of a trust domain that no tenant has"
        )));
    }
    module_path(&config.hsm.module)?;
    let parent = config.data_dir.parent();
    if !config.data_dir.is_dir() && !parent.is_some_and(Path::is_dir) {
        return Err(StartError::Data(format!(
            "data directory {}: neither it nor the folder it would lie in exists",
            config.data_dir.display()
        )));
    }
    if config.store.is_some() {
        block_on(app::probe_store(config))?;
    }
    if hsm {
        let (evidence, tokens) = block_on(async {
            let hsm = open_hsm(config).await?;
            let all = (hsm.evidence(), hsm.tokens());
            hsm.close();
            Ok::<_, StartError>(all)
        })?;
        if let Some(away) = tokens.iter().find(|t| t.state != State::Ready) {
            let (name, state) = (&away.name, away.state.name());
            let text = format!("the token {name:?} of the group is {state}; the log says why");
            return Err(keywright_hsm::Error::new(keywright_hsm::Kind::Gone, text).into());
        }
        for token in tokens.iter().skip(1) {
            anstream::println!("replica {:?} is there", token.name);
        }
        anstream::println!(
            "token {:?} serial {}",
            evidence.token_label,
            evidence.token_serial
        );
        for attack in evidence.attacks {
            anstream::println!("  {:<4} {}: {}", attack.id, attack.attempt, attack.outcome);
        }
    }
    anstream::println!("configuration is valid");
    Ok(())
}
