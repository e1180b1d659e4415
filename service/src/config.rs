//! The configuration file: TOML, every field known, every contradiction an error that
//! stops the start. Secrets are named by where they are, never written here.

mod acme;
mod hsm;
mod limits;
mod store;

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    path::{Path, PathBuf},
};

use keywright_pki::TrustDomain;
use serde::Deserialize;

pub use acme::{AcmeConfig, AcmeTesting};
pub use hsm::{CopiedBy, HsmConfig, ReplicaConfig};
pub use limits::Limits;
pub use store::StoreConfig;

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
    /// Left out: one file in the data directory.
    pub store: Option<StoreConfig>,
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

    /// The file of the embedded store; not used when `store` names another one.
    #[must_use]
    pub fn embedded_store(&self) -> PathBuf {
        self.data_dir.join("keywright.db")
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
            store,
            limits: _,
        } = self;
        let mut paths = vec![data_dir, policies_dir, &mut tls.certificate, &mut tls.key];
        paths.extend(tenants.iter_mut().map(|t| &mut t.client_ca));
        paths.extend(hsm.pin_files());
        paths.extend(store.as_mut().and_then(|s| s.password_file.as_mut()));
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
        if let Some(store) = &self.store {
            store.check()?;
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

    #[test]
    fn a_database_is_named_without_its_password() {
        let with = |lines: &str| read(&format!("{GOOD}[store]\n{lines}\n"));
        let good = r#"postgres = "postgres://k@db.internal/k?sslmode=verify-full""#;
        let config = with(&format!("{good}\npassword_file = \"secret\"")).unwrap();
        let store = config.store.as_ref().unwrap();
        assert!(store.password_file.as_ref().unwrap().is_absolute());
        let shown = format!("{config:?}");
        assert!(shown.contains("db.internal") && !shown.contains("verify-full"));
        assert!(read(GOOD).unwrap().store.is_none());
        for (lines, why) in [
            (r#"postgres = "postgres://k:geheim@db/k""#, "password_file"),
            (&*format!("{good}\npassword = \"geheim\""), "password_file"),
            (r#"postgres = "postgres://k@db/k""#, "verify-full"),
            (r#"sqlite = "x""#, "sqlite"),
            ("", "postgres"),
        ] {
            let e = with(lines).unwrap_err().to_string();
            assert!(e.contains(why) && !e.contains("geheim"), "{lines}: {e}");
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
    fn replicas_are_other_tokens_with_pins_of_their_own() {
        let with = |lines: &str| read(&format!("{GOOD}[[hsm.replica]]\n{lines}\n"));
        let good = "copied_by = \"vendor\"\ntoken_label = \"t2\"\npin_file = \"pin2\"";
        let config = with(good).unwrap();
        assert!(
            config.hsm.replica[0]
                .pin_file
                .as_ref()
                .unwrap()
                .is_absolute()
        );
        let tokens = config.hsm.open_with(Path::new("data")).unwrap();
        let names: Vec<&str> = tokens.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["t1", "t2"]);
        assert_ne!(tokens[0].1.pin_latch, tokens[1].1.pin_latch);
        // One label for all copies, as some vendors have it.
        let serials = GOOD.replace(
            "token_label = \"t1\"",
            "token_label = \"t\"\ntoken_serial = \"1\"",
        );
        let twin = good.replace("\"t2\"", "\"t\"\ntoken_serial = \"2\"");
        let config = read(&format!("{serials}[[hsm.replica]]\n{twin}\n")).unwrap();
        let tokens = config.hsm.open_with(Path::new("data")).unwrap();
        assert_eq!((tokens[0].0.as_str(), tokens[1].0.as_str()), ("1", "2"));
        for (from, to, why) in [
            ("\"t2\"", "\"t1\"", "named twice"),
            ("\"vendor\"", "\"hand\"", "vendor"),
            ("copied_by = \"vendor\"\n", "", "copied_by"),
            (
                "token_label = \"t2\"\n",
                "",
                "hsm.replica: give token_label",
            ),
            (
                "pin_file = \"pin2\"",
                "",
                "hsm.replica: give one of pin_file",
            ),
            ("pin_file", "pin_fd = 3\npin_file", "exclude"),
            ("pin_file", "module = \"/x.so\"\npin_file", "module"),
        ] {
            let e = with(&good.replace(from, to)).unwrap_err().to_string();
            assert!(e.contains(why), "{to}: {e}");
        }
    }

    #[test]
    fn an_unset_environment_variable_is_named() {
        let config =
            read(&GOOD.replace("pin_file = \"pin\"", "pin_env = \"KEYWRIGHT_NO_SUCH_PIN\""))
                .unwrap();
        let e = config.hsm.open_with(Path::new("/tmp")).unwrap_err();
        assert!(e.to_string().contains("KEYWRIGHT_NO_SUCH_PIN"), "{e}");
    }
}
