//! Module, tokens and PINs: where each is, and which way a PIN comes in.

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
    /// Other tokens of the module that hold the same keys.
    #[serde(default)]
    pub replica: Vec<ReplicaConfig>,
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

/// Another token that holds the same keys.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplicaConfig {
    /// Who keeps the keys on it the same.
    pub copied_by: CopiedBy,
    /// As in [`HsmConfig`]: label …
    pub token_label: Option<String>,
    /// … or serial,
    pub token_serial: Option<String>,
    /// and exactly one of these:
    pub pin_file: Option<PathBuf>,
    /// as above,
    pub pin_fd: Option<i32>,
    /// as above,
    pub pin_credential: Option<String>,
    /// as above.
    pub pin_env: Option<String>,
}

/// How keys come to another token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CopiedBy {
    /// By the vendor's own cloning, which the operator has set up.
    Vendor,
}

/// What is said of each token, the first and the others.
#[derive(Debug, Clone, Copy)]
struct TokenFields<'a> {
    /// Where it stands in the file.
    at: &'static str,
    label: Option<&'a str>,
    serial: Option<&'a str>,
    file: Option<&'a Path>,
    fd: Option<i32>,
    credential: Option<&'a str>,
    env: Option<&'a str>,
}

impl HsmConfig {
    pub(super) fn check(&self) -> Result<(), String> {
        if !self.module.is_absolute() {
            return Err(format!(
                "hsm.module: {} must be an absolute path",
                self.module.display()
            ));
        }
        let tokens: Vec<TokenFields<'_>> = self.tokens().collect();
        for (n, token) in tokens.iter().enumerate() {
            token.check()?;
            if tokens.iter().take(n).any(|t| t.is_same(token)) {
                let (at, name) = (token.at, token.name());
                return Err(format!("{at}: the token {name:?} is named twice"));
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

    pub(super) fn pin_files(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let replicas = self.replica.iter_mut().map(|r| &mut r.pin_file);
        std::iter::once(&mut self.pin_file)
            .chain(replicas)
            .flatten()
    }

    fn tokens(&self) -> impl Iterator<Item = TokenFields<'_>> {
        let first = TokenFields {
            at: "hsm",
            label: self.token_label.as_deref(),
            serial: self.token_serial.as_deref(),
            file: self.pin_file.as_deref(),
            fd: self.pin_fd,
            credential: self.pin_credential.as_deref(),
            env: self.pin_env.as_deref(),
        };
        let replicas = self.replica.iter().map(|r| TokenFields {
            at: "hsm.replica",
            label: r.token_label.as_deref(),
            serial: r.token_serial.as_deref(),
            file: r.pin_file.as_deref(),
            fd: r.pin_fd,
            credential: r.pin_credential.as_deref(),
            env: r.pin_env.as_deref(),
        });
        std::iter::once(first).chain(replicas)
    }

    /// Every token with its name, the first first, for the `hsm` crate. Reads the
    /// environment, which only this module does.
    ///
    /// # Errors
    /// When a PIN source is not there.
    pub fn open_with(
        &self,
        data_dir: &Path,
    ) -> Result<Vec<(String, TokenConfig)>, keywright_hsm::Error> {
        let all: Vec<TokenFields<'_>> = self.tokens().collect();
        let mut tokens = Vec::with_capacity(all.len());
        for (n, token) in all.iter().enumerate() {
            // A label may be that of several tokens.
            let alone = all.iter().filter(|t| t.label == token.label).count() == 1;
            let name = match token.label {
                Some(label) if alone => label,
                _ => token.name(),
            };
            // By what it is selected by, not by its place in the file: a refused PIN stays
            // refused when lines are moved.
            let latch = match n {
                0 => "pin-refused".to_owned(),
                _ => format!("pin-refused-{}", hex::encode(token.name())),
            };
            let config = TokenConfig {
                module: self.module.clone(),
                init_reserved: self.init_reserved.clone(),
                label: token.label.map(str::to_owned),
                serial: token.serial.map(str::to_owned),
                pin: token.pin()?,
                pin_latch: Some(data_dir.join(latch)),
                scout: None,
            };
            tokens.push((name.to_owned(), config));
        }
        Ok(tokens)
    }
}

impl<'a> TokenFields<'a> {
    fn check(&self) -> Result<(), String> {
        let at = self.at;
        if self.label.is_none() && self.serial.is_none() {
            return Err(format!("{at}: give token_label or token_serial"));
        }
        let sources = [
            self.file.is_some(),
            self.fd.is_some(),
            self.credential.is_some(),
            self.env.is_some(),
        ];
        match sources.iter().filter(|s| **s).count() {
            1 => Ok(()),
            0 => Err(format!(
                "{at}: give one of pin_file, pin_fd, pin_credential, pin_env"
            )),
            _ => Err(format!(
                "{at}: pin_file, pin_fd, pin_credential and pin_env exclude each other"
            )),
        }
    }

    /// One label with two serials is two tokens; by label here and by serial there is found
    /// out when they are opened.
    fn is_same(&self, other: &Self) -> bool {
        match (self.serial, other.serial) {
            (Some(a), Some(b)) => a == b,
            _ => self.label.is_some() && self.label == other.label,
        }
    }

    fn name(&self) -> &'a str {
        self.serial.or(self.label).unwrap_or_default()
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the environment"
    )]
    fn pin(&self) -> Result<PinSource, keywright_hsm::Error> {
        let at = self.at;
        let setup = |text: String| keywright_hsm::Error::new(keywright_hsm::Kind::Setup, text);
        if let Some(path) = self.file {
            return Ok(PinSource::File(path.to_owned()));
        }
        if let Some(fd) = self.fd {
            return PinSource::from_fd(fd);
        }
        if let Some(name) = self.credential {
            let dir = std::env::var_os("CREDENTIALS_DIRECTORY").ok_or_else(|| {
                setup(format!("{at}.pin_credential: not started by systemd with LoadCredential= (no CREDENTIALS_DIRECTORY)"))
            })?;
            return Ok(PinSource::File(PathBuf::from(dir).join(name)));
        }
        let name = self.env.unwrap_or_default();
        let pin = std::env::var(name).map_err(|_| {
            setup(format!(
                "{at}.pin_env: environment variable {name} is not set"
            ))
        })?;
        tracing::warn!(
            variable = name,
            "the HSM PIN comes from the environment, where child processes and /proc show it; prefer pin_file or pin_credential"
        );
        Ok(PinSource::Given(Pin::new(pin), "the environment"))
    }
}
