//! `keywrightd dev`: everything for a laptop in one command. A SoftHSM2 token, a CA,
//! certificates for four identities, policies and a configuration are made under one
//! directory, once; a second start goes on with them.
//!
//! What it makes is an ordinary appliance: the configuration it writes can be read, and
//! served with `keywrightd serve`.

mod authorities;
mod certs;
mod token;

use std::{
    fs::{self, DirBuilder},
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

pub use authorities::authorities;
use keywright_hsm::{
    Pin,
    pkcs11::{NewToken, provision},
};

use keywright_pki::SpiffeId;

use crate::{
    app::{Addresses, DataLock, StartError, open_store},
    clock::{Entropy, System},
    config::{Config, StoreConfig},
    init::init,
    policy::{DEFAULT_ROLES, DEV},
};

/// Label of the token.
const LABEL: &str = "keywright-dev";
/// Trust domain of the identities.
const TRUST_DOMAIN: &str = "dev.keywright";
/// The identity of `client.env`.
const TOUR: &str = "developer";
/// Everybody there is.
const IDENTITIES: [&str; 4] = ["admin", "user", "auditor", TOUR];

/// Where distributions put SoftHSM2.
const SOFTHSM2: [&str; 5] = [
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/opt/homebrew/lib/softhsm/libsofthsm2.so",
];

/// The files of a dev directory.
#[derive(Debug, Clone)]
pub struct Dev {
    dir: PathBuf,
}

impl Dev {
    /// Makes the directory where needed.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new(dir: &Path) -> Result<Self, StartError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .and_then(|()| fs::canonicalize(dir))
            .map(|dir| Self { dir })
            .map_err(|e| StartError::Data(format!("data directory {}: {e}", dir.display())))
    }

    /// SoftHSM2's own configuration. `SOFTHSM2_CONF` must name it before the module is
    /// loaded.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn softhsm_conf(&self) -> Result<PathBuf, StartError> {
        let path = self.path("softhsm2.conf");
        let text = format!(
            "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
            self.path("tokens").display()
        );
        self.write("softhsm2.conf", &text)?;
        Ok(path)
    }

    /// Makes whatever is missing and reads the configuration. `SOFTHSM2_CONF` is set.
    ///
    /// # Errors
    /// What cannot be made, and what to install.
    pub async fn prepare(
        &self,
        module: Option<PathBuf>,
        postgres: Option<&str>,
    ) -> Result<Config, StartError> {
        let module = match module {
            Some(module) => module,
            None => softhsm2()?,
        };
        let asked = postgres.map(|url| StoreConfig::new(url.to_owned(), None).url());
        let asked = asked.transpose().map_err(StartError::Setup)?;
        if !self.path("token-ready").exists() {
            self.make_token(&module)?;
        } else {
            // Only while nobody uses it.
            let _lock = DataLock::take(&self.dir)?;
            token::mend(&self.path("tokens")).map_err(|e| self.broken(&e))?;
        }
        certs::make(self)?;
        self.once("policies/roles.cedar", DEFAULT_ROLES)?;
        self.once("policies/dev.cedar", DEV)?;
        self.once("policies/roles.toml", &roles())?;
        self.once("keywrightd.toml", &config_text(&module, postgres))?;
        let config = Config::read(&self.path("keywrightd.toml"))?;
        let used = config.store.as_ref().and_then(|s| s.url().ok());
        if asked.is_some() && asked != used {
            let path = self.path("keywrightd.toml");
            return Err(StartError::Setup(format!(
                "--store-postgres: this directory was made with another store; {} says which",
                path.display()
            )));
        }
        if !self.initialised(&config).await? {
            let admin = SpiffeId::parse(&format!("spiffe://{TRUST_DOMAIN}/admin"))
                .map_err(|e| StartError::Other(e.to_string()))?;
            init(&config, &[admin]).await?;
        }
        Ok(config)
    }

    async fn initialised(&self, config: &Config) -> Result<bool, StartError> {
        let data = |e: crate::store::StoreError| StartError::Data(e.to_string());
        if config.store.is_none() && !config.embedded_store().exists() {
            return Ok(false);
        }
        let store = open_store(config).await?;
        let canary = store.load().await.map_err(data)?.canary;
        let log = fs::read_dir(config.data_dir.join("audit"));
        let written = log.is_ok_and(|mut files| {
            files.any(|f| f.is_ok_and(|f| f.metadata().is_ok_and(|m| m.len() > 0)))
        });
        Ok(canary.is_some() && written)
    }

    /// A token of our own. Without `token-ready` there is no key in it yet: whatever an
    /// interrupted start left behind is cleared away.
    fn make_token(&self, module: &Path) -> Result<(), StartError> {
        let tokens = self.path("tokens");
        let error = |e: std::io::Error| StartError::Data(format!("{}: {e}", tokens.display()));
        if tokens.exists() {
            fs::remove_dir_all(&tokens).map_err(error)?;
        }
        DirBuilder::new()
            .mode(0o700)
            .create(&tokens)
            .map_err(error)?;
        let (so_pin, pin) = (random_pin()?, random_pin()?);
        self.write("hsm-so-pin", &so_pin)?;
        self.write("hsm-pin", &pin)?;
        let new = NewToken {
            label: LABEL.into(),
            so_pin: Pin::new(so_pin),
            user_pin: Pin::new(pin),
        };
        let serial = provision(module, &new)?;
        token::keep_spares(&tokens).map_err(error)?;
        self.write("token-ready", &format!("{serial}\n"))
    }

    /// What a client needs, for the identity that may do the whole tour.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_client_env(&self, addresses: &Addresses) -> Result<(), StartError> {
        let quoted = |path: PathBuf| {
            let text = path.display().to_string();
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"/._-+@%:".contains(&b);
            if text.bytes().all(plain) {
                text
            } else {
                format!("'{}'", text.replace('\'', "'\\''"))
            }
        };
        let text = format!(
            "KEYWRIGHT_ADDR={}\nKEYWRIGHT_CA={}\nKEYWRIGHT_CERT={}\nKEYWRIGHT_KEY={}\n",
            addresses.grpc,
            quoted(self.path("ca.pem")),
            quoted(self.path(&format!("certs/{TOUR}.pem"))),
            quoted(self.path(&format!("certs/{TOUR}.key"))),
        );
        self.write("client.env", &text)
    }

    /// Where things are, for the person who started it.
    #[must_use]
    pub fn summary(&self, addresses: &Addresses) -> String {
        let mut out = format!("keywrightd dev, data under {}\n", self.dir.display());
        for identity in IDENTITIES {
            out.push_str(&format!(
                "  {identity:<10} spiffe://{TRUST_DOMAIN}/{identity:<10} certs/{identity}.pem certs/{identity}.key\n"
            ));
        }
        out.push_str(&format!("  CA         {}\n", self.path("ca.pem").display()));
        out.push_str(&format!(
            "  metrics    http://{}/metrics\n",
            addresses.admin
        ));
        if let Some(pki) = addresses.pki {
            out.push_str(&format!("  pki        http://{pki}/dev/ISSUER.crl\n"));
        }
        out.push_str(&format!(
            "  client     set -a; . {}; set +a\n",
            self.path("client.env").display()
        ));
        out
    }

    fn broken(&self, e: &std::io::Error) -> StartError {
        StartError::Data(format!("{}: {e}", self.path("tokens").display()))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn once(&self, name: &str, text: &str) -> Result<(), StartError> {
        if self.path(name).exists() {
            Ok(())
        } else {
            self.write(name, text)
        }
    }

    /// Whole or not at all, and for nobody else to read.
    fn write(&self, name: &str, text: &str) -> Result<(), StartError> {
        let path = self.path(name);
        let error = |e: std::io::Error| StartError::Data(format!("{}: {e}", path.display()));
        if let Some(folder) = path.parent() {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)
                .map_err(error)?;
        }
        let half = self.path(&format!("{name}.new"));
        fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&half)
            .and_then(|mut f| f.write_all(text.as_bytes()).and_then(|()| f.sync_all()))
            .and_then(|()| fs::rename(&half, &path))
            .map_err(error)
    }
}

fn config_text(module: &Path, postgres: Option<&str>) -> String {
    let store = postgres.map_or_else(String::new, |url| {
        format!("[store]\npostgres = {url:?}\n\n")
    });
    format!(
        r#"# Written by `keywrightd dev`; read again at every start.
data_dir = "."
policies_dir = "policies"

[listen]
grpc = "127.0.0.1:8443"
admin = "127.0.0.1:0"
pki = "127.0.0.1:0"

[tls]
certificate = "certs/server.pem"
key = "certs/server.key"

[[tenants]]
name = "dev"
trust_domain = "{TRUST_DOMAIN}"
client_ca = "ca.pem"

[hsm]
module = {module:?}
token_label = "{LABEL}"
pin_file = "hsm-pin"

{store}[limits]
# One developer, one approval; two people elsewhere.
pki_approvals = 1
recovery_approvals = 0
# Nobody waits a week here to see the end of a key version.
retirement_quiet_ms = 0
# Nor two minutes for a job to begin; whoever encrypts here writes at once.
job_window_ms = 1000
"#
    )
}

fn roles() -> String {
    let id = |name: &str| format!("[\"spiffe://{TRUST_DOMAIN}/{name}\"]");
    format!(
        "[roles]\nkey-admin = {}\nkey-user = {}\nauditor = {}\n# May do the whole tour; see dev.cedar.\ndeveloper = {}\n",
        id("admin"),
        id("user"),
        id("auditor"),
        id(TOUR)
    )
}

fn random_pin() -> Result<String, StartError> {
    let mut bytes = [0; 16];
    System
        .fill(&mut bytes)
        .map_err(|e| StartError::Other(e.to_string()))?;
    Ok(hex::encode(bytes))
}

fn softhsm2() -> Result<PathBuf, StartError> {
    SOFTHSM2.iter().map(PathBuf::from).find(|p| p.exists()).ok_or_else(|| {
        StartError::Setup(
            "SoftHSM2 is not installed; run: apt-get install softhsm2, or name a module with --module"
                .into(),
        )
    })
}
