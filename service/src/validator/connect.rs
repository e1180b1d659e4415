//! From a name to a connection, past the fence.

use std::net::{IpAddr, SocketAddr};

use keywright_pki::{Cidr, San};
use tokio::net::TcpStream;

use super::{Validator, network::admits};
use crate::acme::{Problem, ProblemKind};

/// Addresses of one host that are tried.
const MAX_ADDRESSES: usize = 4;

impl Validator {
    /// Connects to one of the host's addresses that are public or in one of `networks`.
    pub(super) async fn connect(
        &self,
        (host, port): (&San, u16),
        networks: &[Cidr],
    ) -> Result<TcpStream, Problem> {
        let addresses = match host {
            San::Dns(name) => self.resolver.addresses(name.host()).await?,
            San::Ip(address) => vec![*address],
            San::Uri(_) => return Err(Problem::malformed("a URI is no host")),
        };
        let open: Vec<IpAddr> = addresses
            .into_iter()
            .filter(|address| admits(*address, networks))
            .take(MAX_ADDRESSES)
            .collect();
        if open.is_empty() {
            return Err(Problem::new(
                ProblemKind::Connection,
                "the host's addresses are not public; who writes the profile can list their network (acme.networks)",
            ));
        }
        let mut last = None;
        for address in open {
            match TcpStream::connect(SocketAddr::new(address, port)).await {
                Ok(stream) => return Ok(stream),
                Err(e) => last = Some(e.kind()),
            }
        }
        let why = last.map_or_else(String::new, |kind| format!(": {kind}"));
        Err(Problem::new(
            ProblemKind::Connection,
            format!("no connection to port {port}{why}"),
        ))
    }
}
