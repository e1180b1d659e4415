//! Module, token and PIN: where each is, and which way the PIN comes in.

use std::path::{Path, PathBuf};

use keywright_hsm::{Pin, PinSource, pkcs11::TokenConfig};
use serde::Deserialize;

/// Module, token and PIN.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HsmConfig {
    /// Absolute path of the PKCS#11 module.
    pub module: PathBuf,
    /// Reserved argument of C_Initialize, for modules that want one.
    pub init_reserved: Option<String>,
    /// Select the token by label …
    pub token_label: Option<String>,
    /// … or by serial.
    pub token_serial: Option<String>,
    /// The PIN, exactly one of these: a file only its owner can read,
    pub pin_file: Option<PathBuf>,
    /// an inherited file descriptor,
    pub pin_fd: Option<i32>,
    /// the name of a systemd credential,
    pub pin_credential: Option<String>,
    /// or an environment variable (warned about: children inherit it).
    pub pin_env: Option<String>,
    /// Worker threads, each with one session. Left out: what suits the token.
    pub workers: Option<usize>,
    /// Jobs that may wait for a worker.
    #[serde(default = "default_queue")]
    pub queue_jobs: usize,
    /// Does the token keep how far the store was, so that an older store is noticed? For
    /// tokens without data objects (CKO_DATA): no.
    #[serde(default = "default_keep_epoch")]
    pub keep_epoch: bool,
    /// Pause between health checks.
    #[serde(default = "default_check")]
    pub check_every_ms: u64,
}

fn default_queue() -> usize {
    1024
}

const fn default_keep_epoch() -> bool {
    true
}

fn default_check() -> u64 {
    10_000
}

impl HsmConfig {
    pub(super) fn check(&self) -> Result<(), String> {
        if !self.module.is_absolute() {
            return Err(format!(
                "hsm.module: {} must be an absolute path",
                self.module.display()
            ));
        }
        if self.token_label.is_none() && self.token_serial.is_none() {
            return Err("hsm: give token_label or token_serial".into());
        }
        let sources = [
            self.pin_file.is_some(),
            self.pin_fd.is_some(),
            self.pin_credential.is_some(),
            self.pin_env.is_some(),
        ];
        match sources.iter().filter(|s| **s).count() {
            1 => {}
            0 => return Err("hsm: give one of pin_file, pin_fd, pin_credential, pin_env".into()),
            _ => {
                return Err(
                    "hsm: pin_file, pin_fd, pin_credential and pin_env exclude each other".into(),
                );
            }
        }
        if self.workers.is_some_and(|n| n == 0 || n > 256) {
            return Err("hsm.workers: from 1 to 256".into());
        }
        if self.queue_jobs == 0 || self.queue_jobs > 1 << 20 {
            return Err("hsm.queue_jobs: from 1 to 1048576".into());
        }
        if self.check_every_ms < 100 {
            return Err("hsm.check_every_ms: at least 100".into());
        }
        Ok(())
    }

    /// For the `hsm` crate. Reads the environment, which only this module does.
    ///
    /// # Errors
    /// When the PIN source is not there.
    pub fn token(&self, data_dir: &Path) -> Result<TokenConfig, keywright_hsm::Error> {
        Ok(TokenConfig {
            module: self.module.clone(),
            init_reserved: self.init_reserved.clone(),
            label: self.token_label.clone(),
            serial: self.token_serial.clone(),
            pin: self.pin()?,
            pin_latch: Some(data_dir.join("pin-refused")),
            scout: None,
        })
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the environment"
    )]
    fn pin(&self) -> Result<PinSource, keywright_hsm::Error> {
        let setup = |text: String| keywright_hsm::Error::new(keywright_hsm::Kind::Setup, text);
        if let Some(path) = &self.pin_file {
            return Ok(PinSource::File(path.clone()));
        }
        if let Some(fd) = self.pin_fd {
            return PinSource::from_fd(fd);
        }
        if let Some(name) = &self.pin_credential {
            let dir = std::env::var_os("CREDENTIALS_DIRECTORY").ok_or_else(|| {
                setup("hsm.pin_credential: not started by systemd with LoadCredential= (no CREDENTIALS_DIRECTORY)".into())
            })?;
            return Ok(PinSource::File(PathBuf::from(dir).join(name)));
        }
        let name = self.pin_env.as_deref().unwrap_or_default();
        let pin = std::env::var(name).map_err(|_| {
            setup(format!(
                "hsm.pin_env: environment variable {name} is not set"
            ))
        })?;
        tracing::warn!(
            variable = name,
            "the HSM PIN comes from the environment, where child processes and /proc show it; prefer pin_file or pin_credential"
        );
        Ok(PinSource::Given(Pin::new(pin), "the environment"))
    }
}
