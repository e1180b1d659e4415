//! tls-alpn-01 (RFC 8737) against TLS servers that do it right, and in every way wrong.

use std::sync::Arc;

use keywright_service::acme::{ChallengeKind, ProblemKind};
use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls::{
    ServerConfig, SupportedProtocolVersion,
    crypto::aws_lc_rs::sign::any_supported_type,
    pki_types::{CertificateDer, PrivatePkcs8KeyDer},
    sign::{CertifiedKey, SingleCertAndKey},
    version::{TLS12, TLS13},
};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::{
    client::sha256,
    hosts::{Hosts, SHOWN},
};

const LOCAL: &[&str] = &["127.0.0.0/8"];

struct Server {
    names: Vec<String>,
    shown: &'static str,
    protocol: &'static [u8],
    version: &'static SupportedProtocolVersion,
}

impl Server {
    fn right() -> Self {
        Self {
            names: vec!["host.example".into()],
            shown: SHOWN,
            protocol: b"acme-tls/1",
            version: &TLS13,
        }
    }

    async fn start(self, hosts: &Hosts) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(self.names).unwrap();
        let digest = sha256(self.shown.as_bytes());
        params.custom_extensions = vec![CustomExtension::new_acme_identifier(&digest)];
        let certificate = params.self_signed(&key).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let chain = vec![CertificateDer::from(certificate.der().to_vec())];
        let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        let key = any_supported_type(&key).unwrap();
        // What reads the certificate refuses its critical extension; this does not.
        let shown = SingleCertAndKey::from(CertifiedKey::new(chain, key));
        let mut tls = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[self.version])
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(shown));
        tls.alpn_protocols = vec![self.protocol.to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind(("127.0.0.1", hosts.port)).await.unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let _ = acceptor.accept(stream).await;
            }
        });
    }
}

async fn seen(server: Server) -> Result<(), ProblemKind> {
    let hosts = Hosts::new().await;
    hosts.name("host.example", &["127.0.0.1"]);
    server.start(&hosts).await;
    let look = hosts.look(ChallengeKind::TlsAlpn01, "dns:host.example", LOCAL);
    look.await.map_err(|e| e.kind())
}

#[tokio::test]
async fn the_right_certificate_is_seen_over_both_versions() {
    for version in [&TLS13, &TLS12] {
        let server = Server {
            version,
            ..Server::right()
        };
        assert_eq!(seen(server).await, Ok(()), "{version:?}");
    }
}

#[tokio::test]
async fn anything_else_is_refused() {
    let of_another_key = Server {
        shown: "dG9rZW4.another",
        ..Server::right()
    };
    assert_eq!(seen(of_another_key).await, Err(ProblemKind::Unauthorized));
    let one_name_more = Server {
        names: vec!["host.example".into(), "b.example".into()],
        ..Server::right()
    };
    assert_eq!(seen(one_name_more).await, Err(ProblemKind::Unauthorized));
    let another_name = Server {
        names: vec!["b.example".into()],
        ..Server::right()
    };
    assert_eq!(seen(another_name).await, Err(ProblemKind::Unauthorized));
    // A web server that knows nothing of ACME.
    let web = Server {
        protocol: b"http/1.1",
        ..Server::right()
    };
    assert_eq!(seen(web).await, Err(ProblemKind::Tls));
}
