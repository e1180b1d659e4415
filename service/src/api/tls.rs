//! TLS 1.3 and nothing older, rebuilt as a whole when files change: a new certificate,
//! a new client CA. A bad file changes nothing.

use std::{
    fs,
    path::Path,
    sync::{Arc, OnceLock},
};

use arc_swap::ArcSwap;
use rustls::{
    RootCertStore, ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::NoServerSessionStorage,
    version::TLS13,
};
use thiserror::Error;

use super::{
    Tenants,
    identity::{IssuersHere, TenantVerifier},
};
use crate::{authorities::Authorities, config::Config};

/// Why certificates or keys cannot be used.
#[derive(Debug, Error)]
#[error("{file}: {why}")]
pub struct TlsError {
    file: String,
    why: String,
}

/// The TLS configuration in force.
#[derive(Clone)]
pub struct TlsReloader {
    current: Arc<ArcSwap<ServerConfig>>,
    here: Arc<OnceLock<IssuersHere>>,
    /// The same certificate, shown to who has none.
    anybody: Arc<ArcSwap<ServerConfig>>,
}

impl std::fmt::Debug for TlsReloader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TlsReloader")
    }
}

impl TlsReloader {
    /// Reads certificate, key and client CAs.
    ///
    /// # Errors
    /// The file and what is wrong with it.
    pub fn new(config: &Config) -> Result<Self, TlsError> {
        let here = Arc::default();
        let shared = |tls| Arc::new(ArcSwap::from_pointee(tls));
        Ok(Self {
            current: shared(server_config(config, &here)?),
            anybody: shared(server_config_for_anybody(config)?),
            here,
        })
    }

    /// From now on what a tenant's issuers here issued is an identity of that tenant,
    /// beside what its configured CAs issued. Said once.
    pub fn trust_issuers(&self, authorities: Arc<Authorities>, tenants: Arc<Tenants>) {
        let _ = self.here.set(IssuersHere {
            authorities,
            tenants,
        });
    }

    /// Reads them again; for connections that come from now on.
    ///
    /// # Errors
    /// As for [`TlsReloader::new`]; the old configuration stays in force.
    pub fn reload(&self, config: &Config) -> Result<(), TlsError> {
        let next = server_config(config, &self.here)?;
        let anybody = server_config_for_anybody(config)?;
        self.current.store(Arc::new(next));
        self.anybody.store(Arc::new(anybody));
        Ok(())
    }

    /// For a door that asks for no client certificate: HTTP/1.1 over the same TLS.
    #[must_use]
    pub fn for_anybody(&self) -> Self {
        let anybody = Arc::clone(&self.anybody);
        Self {
            current: Arc::clone(&anybody),
            anybody,
            here: Arc::clone(&self.here),
        }
    }

    /// For the next handshake.
    #[must_use]
    pub fn current(&self) -> Arc<ServerConfig> {
        self.current.load_full()
    }
}

fn server_config(
    config: &Config,
    here: &Arc<OnceLock<IssuersHere>>,
) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let error = |file: &Path, why: String| TlsError {
        file: file.display().to_string(),
        why,
    };
    let verifier = tenants(config, &provider, here)?;
    let chain = certificates(&config.tls.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&config.tls.key)
        .map_err(|e| error(&config.tls.key, format!("no private key: {e}")))?;
    let mut tls = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(|e| error(&config.tls.certificate, e.to_string()))?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_single_cert(chain, key)
        .map_err(|e| error(&config.tls.certificate, e.to_string()))?;
    tls.alpn_protocols = vec![b"h2".to_vec()];
    // No resumption: every connection shows its certificate anew.
    tls.send_tls13_tickets = 0;
    tls.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(tls)
}

/// The client CAs of all tenants.
pub(super) fn tenants(
    config: &Config,
    provider: &Arc<CryptoProvider>,
    here: &Arc<OnceLock<IssuersHere>>,
) -> Result<TenantVerifier, TlsError> {
    let mut tenants = Vec::new();
    for tenant in &config.tenants {
        tenants.push((
            tenant.trust_domain.clone(),
            ca_certificates(&tenant.client_ca)?,
        ));
    }
    TenantVerifier::new(provider, tenants, Arc::clone(here)).map_err(|e| TlsError {
        file: "client CAs".into(),
        why: e.to_string(),
    })
}

fn server_config_for_anybody(config: &Config) -> Result<ServerConfig, TlsError> {
    let error = |file: &Path, why: String| TlsError {
        file: file.display().to_string(),
        why,
    };
    let chain = certificates(&config.tls.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&config.tls.key)
        .map_err(|e| error(&config.tls.key, format!("no private key: {e}")))?;
    let mut tls = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .map_err(|e| error(&config.tls.certificate, e.to_string()))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|e| error(&config.tls.certificate, e.to_string()))?;
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(tls)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let error = |why: String| TlsError {
        file: path.display().to_string(),
        why,
    };
    let pem = fs::read(path).map_err(|e| error(format!("cannot be read: {e}")))?;
    let chain = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| error(format!("not PEM certificates: {e}")))?;
    if chain.is_empty() {
        return Err(error("holds no certificate".into()));
    }
    Ok(chain)
}

fn ca_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let cas = certificates(path)?;
    let mut probe = RootCertStore::empty();
    for ca in &cas {
        probe.add(ca.clone()).map_err(|e| TlsError {
            file: path.display().to_string(),
            why: format!("not a CA certificate: {e}"),
        })?;
    }
    Ok(cas)
}
