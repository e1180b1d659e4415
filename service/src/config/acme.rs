//! `[acme]`: how ACME clients find us, and how we look at their hosts.

use std::net::SocketAddr;

use serde::Deserialize;

/// How ACME clients find us, and how we look at their hosts.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AcmeConfig {
    /// Where clients reach `listen.acme`: `https://acme.example.com:8444`.
    pub url: String,
    /// The recursive DNS resolver that is asked about their hosts.
    pub resolver: SocketAddr,
    /// For tests of clients, never in production.
    #[serde(default)]
    pub testing: AcmeTesting,
}

/// What tests of ACME clients need. Left out in production: the ports are those that
/// RFC 8555 §8.3 and RFC 8737 §3 name, and every nonce is good once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AcmeTesting {
    /// Port for http-01.
    pub http01_port: u16,
    /// Port for tls-alpn-01.
    pub tls_alpn01_port: u16,
    /// Every so manieth request with a good nonce is answered with `badNonce`; 0: none.
    pub bad_nonce_every: u64,
}

impl Default for AcmeTesting {
    fn default() -> Self {
        Self {
            http01_port: 80,
            tls_alpn01_port: 443,
            bad_nonce_every: 0,
        }
    }
}

impl AcmeConfig {
    pub(super) fn check(&self) -> Result<(), String> {
        let host = self.url.strip_prefix("https://").unwrap_or_default();
        let legal = |b: u8| b.is_ascii_alphanumeric() || b"-.:[]".contains(&b);
        if host.is_empty() || !host.bytes().all(legal) {
            return Err(format!(
                "acme.url: {:?} is not https://HOST or https://HOST:PORT",
                self.url
            ));
        }
        if self.testing.bad_nonce_every == 1 {
            return Err("acme.testing.bad_nonce_every: 1 would refuse every request".into());
        }
        Ok(())
    }
}
