//! The way to a server: address, its CA, our certificate.

use std::{env, path::PathBuf, sync::Arc, time::Duration};

use hyper_util::rt::TokioIo;
use tokio_rustls::rustls::ClientConfig;
use tonic::{
    codegen::http::Uri,
    transport::{Channel, Endpoint},
};
use tower::service_fn;

use crate::{
    Failure, FailureKind,
    proto::{
        crypto_client::CryptoClient, jobs_client::JobsClient, keys_client::KeysClient,
        pki_admin_client::PkiAdminClient, pki_client::PkiClient,
    },
    tls,
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

    fn endpoint(&self) -> Result<(Endpoint, ClientConfig), Failure> {
        let usage = |text: String| Failure::new(FailureKind::Usage, text);
        let missing = |name: &str| {
            usage(format!(
                "{name} is not set; for a dev server run: set -a; . DIR/client.env; set +a"
            ))
        };
        let addr = self.addr.as_deref().ok_or_else(|| missing(ADDR))?;
        let ca = self.ca.as_deref().ok_or_else(|| missing(CA))?;
        let cert = self.cert.as_deref().ok_or_else(|| missing(CERT))?;
        let key = self.key.as_deref().ok_or_else(|| missing(KEY))?;
        let addr = addr.strip_prefix("https://").unwrap_or(addr);
        let wrong =
            |e: &dyn std::error::Error| usage(format!("{ADDR}: {addr:?} is not host:port: {e}"));
        let origin = Uri::try_from(format!("https://{addr}")).map_err(|e| wrong(&e))?;
        let port = origin.port_u16().filter(|p| *p != 0);
        if port.is_none() || addr.contains(['@', '/', '?']) {
            return Err(usage(format!("{ADDR}: {addr:?} is not host:port")));
        }
        let config = tls::config((CA, ca), (CERT, cert), (KEY, key)).map_err(usage)?;
        // TLS is ours, so tonic is told of a clear connection; requests say https.
        let endpoint = Endpoint::from_shared(format!("http://{addr}"))
            .map_err(|e| wrong(&e))?
            .origin(origin)
            .connect_timeout(Duration::from_secs(10))
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(4 * WINDOW)
            .http2_keep_alive_interval(Duration::from_secs(20));
        Ok((endpoint, config))
    }
}

/// Of a stream; the connection has room for others beside streams that stand still.
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
        let (endpoint, config) = settings.endpoint()?;
        let addr = settings.addr.clone().unwrap_or_default();
        let config = Arc::new(config);
        let connector = service_fn(move |uri: Uri| {
            let config = Arc::clone(&config);
            async move {
                let host = uri.host().unwrap_or_default();
                let port = uri.port_u16().unwrap_or(443);
                tls::connect(config, host, port).await.map(TokioIo::new)
            }
        });
        let channel = endpoint
            .connect_with_connector(connector)
            .await
            .map_err(|e| Failure::no_connection(&addr, &e))?;
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

    /// Jobs: what is begun over a place, who works on it, where it stands.
    #[must_use]
    pub fn jobs(&self) -> JobsClient<Channel> {
        JobsClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES)
    }

    /// Certificates: ask for them, renew, revoke, find them.
    #[must_use]
    pub fn pki(&self) -> PkiClient<Channel> {
        PkiClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES)
    }

    /// Authorities and profiles.
    #[must_use]
    pub fn pki_admin(&self) -> PkiAdminClient<Channel> {
        PkiAdminClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES)
    }
}
