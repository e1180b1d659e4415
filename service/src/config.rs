//! The configuration file: TOML, every field known, every contradiction an error that
//! stops the start. Secrets are named by where they are, never written here.

mod acme;
mod limits;

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    path::{Path, PathBuf},
};

use keywright_hsm::{Pin, PinSource, pkcs11::TokenConfig};
use keywright_pki::TrustDomain;
use serde::Deserialize;

pub use acme::{AcmeConfig, AcmeTesting};
pub use limits::Limits;

/// Everything the daemon needs to know.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Store, audit log and lock live here.
    pub data_dir: PathBuf,
    /// `*.cedar` and `roles.toml`.
    pub policies_dir: PathBuf,
    /// Where to listen.
    pub listen: Listen,
    /// The server's own certificate.
    pub tls: Tls,
    /// Who may come in.
    pub tenants: Vec<TenantConfig>,
    /// Which token.
    pub hsm: HsmConfig,
    /// ACME; needed with `listen.acme`.
    pub acme: Option<AcmeConfig>,
    /// How much of everything.
    #[serde(default)]
    pub limits: Limits,
}

/// Listening addresses.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// gRPC over TLS. Port 0 takes a free one.
    pub grpc: SocketAddr,
    /// `/metrics`, `/healthz`, `/readyz` in clear; a loopback address.
    pub admin: SocketAddr,
    /// CRLs, certificates of issuers and OCSP over plain HTTP: who checks a certificate
    /// cannot check another one first (RFC 5280 §8). Left out: no such door.
    pub pki: Option<SocketAddr>,
    /// ACME over TLS, without client certificates. Left out: no ACME.
    pub acme: Option<SocketAddr>,
}

/// PEM files, read again on SIGHUP.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// Certificate chain of the server, leaf first.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// A tenant: one trust domain, and the CAs that may speak for it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TenantConfig {
    /// For people; also the handle under which the tenant's permanent id is stored.
    pub name: String,
    /// SPIFFE trust domain of its callers.
    pub trust_domain: String,
    /// PEM file with the CA certificates that may issue for this trust domain.
    pub client_ca: PathBuf,
}

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
    /// Pause between health checks.
    #[serde(default = "default_check")]
    pub check_every_ms: u64,
}

fn default_queue() -> usize {
    1024
}

fn default_check() -> u64 {
    10_000
}

/// What is wrong with a configuration, in words for the operator.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {text}", path = path.display())]
pub struct ConfigError {
    path: PathBuf,
    text: String,
}

impl Config {
    /// Reads and checks a file. Relative paths in it are relative to its folder.
    ///
    /// # Errors
    /// The file, the line where TOML knows it, and what to change.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|e| ConfigError {
            path: path.to_owned(),
            text: format!("cannot be read: {e}"),
        })?;
        Self::parse(&text, path)
    }

    /// Checks the text of the file at `path`.
    ///
    /// # Errors
    /// As for [`Config::read`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let error = |text: String| ConfigError {
            path: path.to_owned(),
            text,
        };
        let mut config: Self = toml::from_str(text).map_err(|e| error(e.to_string()))?;
        if let Some(folder) = path.parent() {
            config.resolve(folder);
        }
        config.check().map_err(error)?;
        Ok(config)
    }

    fn resolve(&mut self, folder: &Path) {
        let Self {
            data_dir,
            policies_dir,
            listen: _,
            tls,
            tenants,
            hsm,
            acme: _,
            limits: _,
        } = self;
        let mut paths = vec![data_dir, policies_dir, &mut tls.certificate, &mut tls.key];
        paths.extend(tenants.iter_mut().map(|t| &mut t.client_ca));
        paths.extend(hsm.pin_file.as_mut());
        for path in paths {
            // `join` leaves an absolute path as it is. The module path is not touched:
            // it must be absolute in the file.
            *path = folder.join(&*path);
        }
    }

    fn check(&self) -> Result<(), String> {
        if self.tenants.is_empty() {
            return Err("tenants: at least one [[tenants]] is needed".into());
        }
        let (mut names, mut domains) = (HashSet::new(), HashSet::new());
        for tenant in &self.tenants {
            let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
            if tenant.name.is_empty() || tenant.name.len() > 63 || !tenant.name.bytes().all(legal) {
                return Err(format!(
                    "tenants: name {:?} is not 1 to 63 of a-z 0-9 -",
                    tenant.name
                ));
            }
            TrustDomain::parse(&tenant.trust_domain)
                .map_err(|e| format!("tenants: trust_domain {:?} {e}", tenant.trust_domain))?;
            if !names.insert(&tenant.name) {
                return Err(format!("tenants: two tenants are called {:?}", tenant.name));
            }
            if !domains.insert(&tenant.trust_domain) {
                return Err(format!(
                    "tenants: trust domain {:?} belongs to two tenants",
                    tenant.trust_domain
                ));
            }
        }
        if !self.listen.admin.ip().is_loopback() {
            return Err(format!(
                "listen.admin: {} is not a loopback address; metrics and health are served in clear",
                self.listen.admin
            ));
        }
        self.listen.check()?;
        if self.listen.pki.is_some() && names.iter().any(|name| *name == "acme") {
            return Err("tenants: with listen.pki no tenant can be called \"acme\": this word stands in URLs".into());
        }
        match (&self.acme, self.listen.acme) {
            (Some(acme), _) => acme.check()?,
            (None, Some(_)) => {
                return Err("listen.acme needs [acme] with url and resolver".into());
            }
            (None, None) => {}
        }
        self.hsm.check()?;
        self.limits.check()
    }
}

impl Listen {
    fn check(&self) -> Result<(), String> {
        let doors = [
            ("grpc", Some(self.grpc)),
            ("admin", Some(self.admin)),
            ("pki", self.pki),
            ("acme", self.acme),
        ];
        let mut seen = HashMap::new();
        for (name, address) in doors {
            let Some(address) = address.filter(|a| a.port() != 0) else {
                continue;
            };
            if let Some(other) = seen.insert(address, name) {
                return Err(format!("listen: {other} and {name} are the same address"));
            }
        }
        Ok(())
    }
}

impl HsmConfig {
    fn check(&self) -> Result<(), String> {
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

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
data_dir = "data"
policies_dir = "policies"
[listen]
grpc = "127.0.0.1:8443"
admin = "127.0.0.1:9464"
[tls]
certificate = "server.pem"
key = "server.key"
[[tenants]]
name = "dev"
trust_domain = "dev.keywright"
client_ca = "ca.pem"
[hsm]
module = "/usr/lib/softhsm/libsofthsm2.so"
token_label = "t1"
pin_file = "pin"
"#;

    fn read(text: &str) -> Result<Config, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keywrightd.toml");
        std::fs::write(&path, text).unwrap();
        Config::read(&path)
    }

    #[test]
    fn a_small_config_is_enough_and_paths_are_beside_it() {
        let config = read(GOOD).unwrap();
        assert!(config.tls.key.is_absolute() && config.tls.key.ends_with("server.key"));
        assert_eq!(config.limits.batch_items, 4096);
    }

    #[test]
    fn the_documented_configuration_names_every_limit_with_its_default() {
        let text = include_str!("../../deploy/keywrightd.toml");
        let path = Path::new("/etc/keywright/keywrightd.toml");
        assert_eq!(Config::parse(text, path).unwrap().limits, Limits::default());
        for name in Limits::NAMES {
            assert!(text.contains(&format!("\n{name} = ")), "{name}");
        }
    }

    #[test]
    fn a_word_of_the_public_door_is_no_tenant_there() {
        let acme = GOOD.replace("name = \"dev\"", "name = \"acme\"");
        assert!(read(&acme).is_ok());
        let door = acme.replace("[listen]", "[listen]\npki = \"127.0.0.1:8480\"");
        let refused = read(&door).unwrap_err().to_string();
        assert!(refused.contains("acme"), "{refused}");
        let door = GOOD.replace("[listen]", "[listen]\npki = \"127.0.0.1:8480\"");
        assert!(read(&door).is_ok());
    }

    #[test]
    fn the_acme_door_needs_its_section_and_an_address_of_its_own() {
        let door = GOOD.replace("[listen]", "[listen]\nacme = \"127.0.0.1:8444\"");
        let acme = "[acme]\nurl = \"https://acme.example:8444\"\nresolver = \"192.0.2.53:53\"\n";
        let config = read(&format!("{door}{acme}")).unwrap();
        assert_eq!(config.acme.unwrap().testing, AcmeTesting::default());
        for (text, expected) in [
            (door.clone(), "[acme]"),
            (
                format!("{door}{acme}").replace("8444\"\ngrpc", "8443\"\ngrpc"),
                "same address",
            ),
            (
                format!("{door}{acme}").replace("https:", "http:"),
                "acme.url",
            ),
            (
                format!("{door}{acme}").replace("8444\"\nres", "8444/\"\nres"),
                "acme.url",
            ),
            (
                format!("{door}{acme}allow_networks = []\n"),
                "allow_networks",
            ),
            (
                format!("{door}{acme}[acme.testing]\nbad_nonce_every = 1\n"),
                "bad_nonce_every",
            ),
        ] {
            let e = read(&text).unwrap_err().to_string();
            assert!(e.contains(expected), "{expected}: {e}");
        }
    }

    /// Thirty ways to get it wrong; each must stop the start and name the place.
    #[test]
    #[expect(clippy::too_many_lines, reason = "a table")]
    fn broken_configs_are_refused() {
        let cases: &[(&str, &str, &str)] = &[
            ("data_dir = \"data\"", "", "data_dir"),
            ("data_dir = \"data\"", "data_dir = 7", "data_dir"),
            (
                "data_dir = \"data\"",
                "data_dir = \"data\"\ncolour = 1",
                "colour",
            ),
            ("[tls]", "[tls]\nca = \"x\"", "ca"),
            ("[listen]", "[listen]\nhttp = \"x\"", "http"),
            ("name = \"dev\"", "name = \"dev\"\nid = 1", "id"),
            ("[hsm]", "[hsm]\nslot = 0", "slot"),
            ("[hsm]", "[hsm]\npin = \"1234\"", "pin"),
            ("certificate = \"server.pem\"", "", "certificate"),
            ("key = \"server.key\"", "", "key"),
            ("grpc = \"127.0.0.1:8443\"", "grpc = \"localhost\"", "grpc"),
            (
                "grpc = \"127.0.0.1:8443\"",
                "grpc = \"127.0.0.1:99999\"",
                "grpc",
            ),
            (
                "admin = \"127.0.0.1:9464\"",
                "admin = \"0.0.0.0:9464\"",
                "loopback",
            ),
            (
                "admin = \"127.0.0.1:9464\"",
                "admin = \"127.0.0.1:8443\"",
                "same address",
            ),
            ("admin = \"127.0.0.1:9464\"", "", "admin"),
            ("[listen]", "[listen]\npki = \"localhost\"", "pki"),
            ("[listen]", "[listen]\npki = \"127.0.0.1:8443\"", "pki"),
            ("name = \"dev\"", "name = \"\"", "name"),
            ("name = \"dev\"", "name = \"Dev\"", "name"),
            (
                "trust_domain = \"dev.keywright\"",
                "trust_domain = \"Dev\"",
                "trust domain",
            ),
            (
                "trust_domain = \"dev.keywright\"",
                "trust_domain = \"spiffe://a\"",
                "trust domain",
            ),
            ("client_ca = \"ca.pem\"", "", "client_ca"),
            (
                "/usr/lib/softhsm/libsofthsm2.so",
                "libsofthsm2.so",
                "absolute",
            ),
            ("token_label = \"t1\"", "", "token_label"),
            ("pin_file = \"pin\"", "", "pin_file"),
            (
                "pin_file = \"pin\"",
                "pin_file = \"pin\"\npin_env = \"P\"",
                "exclude",
            ),
            (
                "pin_file = \"pin\"",
                "pin_file = \"pin\"\npin_fd = 3",
                "exclude",
            ),
            (
                "pin_file = \"pin\"",
                "pin_file = \"pin\"\nworkers = 0",
                "workers",
            ),
            (
                "pin_file = \"pin\"",
                "pin_file = \"pin\"\nworkers = -1",
                "workers",
            ),
            (
                "pin_file = \"pin\"",
                "pin_file = \"pin\"\nqueue_jobs = 0",
                "queue_jobs",
            ),
            (
                "pin_file = \"pin\"",
                "pin_file = \"pin\"\n[limits]\nbatch_items = 65537",
                "batch_items",
            ),
            (
                "pin_file = \"pin\"",
                "pin_file = \"pin\"\n[limits]\nitem_bytes = 16777217",
                "item_bytes",
            ),
            (
                "pin_file = \"pin\"",
                "pin_file = \"pin\"\n[limits]\nallow_all = true",
                "allow_all",
            ),
            (
                "pin_file = \"pin\"",
                "pin_file = \"pin\"\n[limits]\nstreams_per_connection = 0",
                "streams_per_connection",
            ),
        ];
        for (from, to, expected) in cases {
            assert!(GOOD.contains(from), "{from}");
            let e = read(&GOOD.replace(from, to))
                .err()
                .unwrap_or_else(|| panic!("{to:?} was accepted"));
            let text = e.to_string();
            assert!(
                text.to_lowercase().contains(&expected.to_lowercase()),
                "{to:?}: {text}"
            );
        }
    }

    #[test]
    fn two_tenants_must_differ() {
        let second =
            "[[tenants]]\nname = \"b\"\ntrust_domain = \"dev.keywright\"\nclient_ca = \"x\"\n[hsm]";
        assert!(
            read(&GOOD.replace("[hsm]", second))
                .unwrap_err()
                .to_string()
                .contains("two tenants")
        );
        let second = "[[tenants]]\nname = \"dev\"\ntrust_domain = \"b\"\nclient_ca = \"x\"\n[hsm]";
        assert!(
            read(&GOOD.replace("[hsm]", second))
                .unwrap_err()
                .to_string()
                .contains("two tenants")
        );
    }

    #[test]
    fn an_unset_environment_variable_is_named() {
        let config =
            read(&GOOD.replace("pin_file = \"pin\"", "pin_env = \"KEYWRIGHT_NO_SUCH_PIN\""))
                .unwrap();
        let e = config.hsm.token(Path::new("/tmp")).unwrap_err();
        assert!(e.to_string().contains("KEYWRIGHT_NO_SUCH_PIN"), "{e}");
    }
}
