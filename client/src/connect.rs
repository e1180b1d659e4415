//! The way to a server: address, its CA, our certificate.

use std::{env, fs, path::PathBuf, time::Duration};

use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::{
    Failure, FailureKind,
    proto::{crypto_client::CryptoClient, keys_client::KeysClient},
};

/// Where the server is and who we are.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// `host:port`.
    pub addr: Option<String>,
    /// PEM file with the CA of the server.
    pub ca: Option<PathBuf>,
    /// PEM file with our certificate chain.
    pub cert: Option<PathBuf>,
    /// PEM file with our private key.
    pub key: Option<PathBuf>,
}

/// Names of the environment variables.
const ADDR: &str = "KEYWRIGHT_ADDR";
const CA: &str = "KEYWRIGHT_CA";
const CERT: &str = "KEYWRIGHT_CERT";
const KEY: &str = "KEYWRIGHT_KEY";

impl Settings {
    /// From `KEYWRIGHT_ADDR`, `KEYWRIGHT_CA`, `KEYWRIGHT_CERT`, `KEYWRIGHT_KEY`.
    ///
    /// # Errors
    /// None; what is missing is named by [`Client::connect`].
    #[expect(
        clippy::disallowed_methods,
        reason = "the place that reads the environment"
    )]
    pub fn from_env() -> Result<Self, Failure> {
        let path = |name| env::var_os(name).map(PathBuf::from);
        Ok(Self {
            addr: env::var(ADDR).ok(),
            ca: path(CA),
            cert: path(CERT),
            key: path(KEY),
        })
    }

    fn endpoint(&self) -> Result<Endpoint, Failure> {
        let usage = |text: String| Failure::new(FailureKind::Usage, text);
        let missing = |name: &str| {
            usage(format!(
                "{name} is not set; for a dev server run: set -a; . DIR/client.env; set +a"
            ))
        };
        let addr = self.addr.as_deref().ok_or_else(|| missing(ADDR))?;
        let read = |path: &Option<PathBuf>, name: &str| {
            let path = path.as_ref().ok_or_else(|| missing(name))?;
            fs::read(path).map_err(|e| usage(format!("{name}: {}: {e}", path.display())))
        };
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(read(&self.ca, CA)?))
            .identity(Identity::from_pem(
                read(&self.cert, CERT)?,
                read(&self.key, KEY)?,
            ));
        let addr = addr.strip_prefix("https://").unwrap_or(addr);
        Endpoint::from_shared(format!("https://{addr}"))
            .map_err(|e| usage(format!("{ADDR}: {addr:?} is not host:port: {e}")))?
            .tls_config(tls)
            .map_err(|e| {
                usage(format!(
                    "{CA}, {CERT} or {KEY} cannot be used: {}",
                    Failure::chain(&e)
                ))
            })
            .map(|endpoint| {
                endpoint
                    .connect_timeout(Duration::from_secs(10))
                    .tcp_nodelay(true)
                    .initial_stream_window_size(WINDOW)
                    .initial_connection_window_size(WINDOW)
                    .http2_keep_alive_interval(Duration::from_secs(20))
            })
    }
}

const WINDOW: u32 = 4 << 20;
/// Answers may be as large as the server is configured for.
const MESSAGE_BYTES: usize = 256 << 20;

/// A connection to a server; clones share it.
#[derive(Debug, Clone)]
pub struct Client {
    channel: Channel,
}

impl Client {
    /// Connects, with TLS 1.3 and our certificate.
    ///
    /// # Errors
    /// What is missing, or why the server cannot be reached.
    pub async fn connect(settings: &Settings) -> Result<Self, Failure> {
        let endpoint = settings.endpoint()?;
        let addr = settings.addr.clone().unwrap_or_default();
        let channel = endpoint.connect().await.map_err(|e| {
            Failure::new(
                FailureKind::Unavailable,
                format!(
                    "cannot connect to {addr}: {}; is keywrightd running there?",
                    Failure::chain(&e)
                ),
            )
        })?;
        Ok(Self { channel })
    }

    /// Encrypt, decrypt, rewrap, re-encrypt, random.
    #[must_use]
    pub fn crypto(&self) -> CryptoClient<Channel> {
        CryptoClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES)
    }

    /// Create, read, rotate keys.
    #[must_use]
    pub fn keys(&self) -> KeysClient<Channel> {
        KeysClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES)
    }
}
