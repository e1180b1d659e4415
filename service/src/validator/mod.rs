//! Looks at the hosts that clients claim (RFC 8555 §8): the only code here that connects
//! to where somebody else says.
//!
//! Every address is looked up here and judged before anything is sent to it, again for
//! each redirect, and the connection goes to the address that was judged.

mod connect;
mod dns;
mod http01;
mod message;
mod network;
mod tls_alpn01;

use std::{net::SocketAddr, time::Duration};

use keywright_pki::{Cidr, San};
use tokio::time::timeout;

use crate::acme::{ChallengeKind, Problem, ProblemKind};
use dns::Resolver;

/// How to look.
#[derive(Debug, Clone)]
pub struct Options {
    /// The recursive resolver that is asked.
    pub resolver: SocketAddr,
    /// 80, but for tests.
    pub http01_port: u16,
    /// 443, but for tests.
    pub tls_alpn01_port: u16,
    /// Longest time for one look.
    pub patience: Duration,
}

/// What a client says, and how far we go to see it.
#[derive(Debug, Clone, Copy)]
pub struct Claim<'a> {
    /// The host it claims.
    pub name: &'a San,
    /// Of the challenge.
    pub token: &'a str,
    /// What the host must show.
    pub key_authorization: &'a str,
    /// Networks of the profile that may be looked at although they are not public.
    pub networks: &'a [Cidr],
}

/// Looks at hosts.
#[derive(Debug)]
pub struct Validator {
    resolver: Resolver,
    http01_port: u16,
    tls_alpn01_port: u16,
    patience: Duration,
}

impl Validator {
    /// With these options for as long as the daemon runs.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self {
            resolver: Resolver::new(options.resolver),
            http01_port: options.http01_port,
            tls_alpn01_port: options.tls_alpn01_port,
            patience: options.patience,
        }
    }

    /// One look: does the host show it?
    ///
    /// # Errors
    /// What was seen instead, in words for the client. Bytes of the host are never among
    /// them: who claims somebody else's host must not read it through us.
    pub async fn look(&self, kind: ChallengeKind, claim: Claim<'_>) -> Result<(), Problem> {
        let look = async {
            match kind {
                ChallengeKind::Http01 => self.http01(claim).await,
                ChallengeKind::Dns01 => self.dns01(claim).await,
                ChallengeKind::TlsAlpn01 => self.tls_alpn01(claim).await,
            }
        };
        timeout(self.patience, look).await.unwrap_or_else(|_| {
            Err(Problem::new(
                ProblemKind::Connection,
                format!("no answer within {} s", self.patience.as_secs()),
            ))
        })
    }

    async fn dns01(&self, claim: Claim<'_>) -> Result<(), Problem> {
        let San::Dns(name) = claim.name else {
            return Err(Problem::malformed("dns-01 is for host names"));
        };
        let record = format!("_acme-challenge.{}", name.host());
        let expected = crate::acme::txt_value(claim.key_authorization);
        let texts = self.resolver.texts(&record).await?;
        if texts.iter().any(|text| text == expected.as_bytes()) {
            return Ok(());
        }
        Err(Problem::new(
            ProblemKind::IncorrectResponse,
            format!(
                "none of the {} TXT records of {record} is the expected one",
                texts.len()
            ),
        ))
    }
}
