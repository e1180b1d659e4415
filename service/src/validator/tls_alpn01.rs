//! tls-alpn-01 (RFC 8737): a self-signed certificate with the name and the digest of the
//! key authorisation, shown to who asks for protocol `acme-tls/1`.

use std::{net::IpAddr, sync::Arc};

use keywright_pki::{CertificateInfo, San};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error as TlsError, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature_with_raw_key},
    pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use webpki::RawPublicKeyEntity;

use super::{Claim, Validator};
use crate::acme::{Problem, ProblemKind, key_authorization_sha256};

const PROTOCOL: &[u8] = b"acme-tls/1";
/// id-pe-acmeIdentifier, critical, an OCTET STRING of 32 octets within the extension's
/// (RFC 8737 §3): the one encoding it has in DER.
const EXTENSION: &[u8] =
    b"\x30\x31\x06\x08\x2b\x06\x01\x05\x05\x07\x01\x1f\x01\x01\xff\x04\x22\x04\x20";

impl Validator {
    pub(super) async fn tls_alpn01(&self, claim: Claim<'_>) -> Result<(), Problem> {
        let name = claim.name;
        let address = (name, self.tls_alpn01_port);
        let stream = self.connect(address, claim.networks).await?;
        let stream = tls(stream, name, &[PROTOCOL]).await?;
        let (_, session) = stream.get_ref();
        let wrong = |text: &str| Err(Problem::new(ProblemKind::Unauthorized, text));
        if session.alpn_protocol() != Some(PROTOCOL) {
            return wrong("the host did not agree to protocol acme-tls/1");
        }
        let Some([certificate]) = session.peer_certificates() else {
            return wrong("the host showed none, or more than one certificate");
        };
        let Ok(info) = CertificateInfo::from_der(certificate) else {
            return wrong("the host's certificate cannot be read");
        };
        if info.other_names != 0 || info.sans != [name.clone()] {
            return wrong("the host's certificate does not name exactly the identifier");
        }
        let digest = key_authorization_sha256(claim.key_authorization);
        let extension = [EXTENSION, &digest].concat();
        if !certificate.windows(extension.len()).any(|w| w == extension) {
            return wrong("the host's certificate does not hold the key authorisation");
        }
        Ok(())
    }
}

/// TLS with whatever certificate the host has: for redirects to https (RFC 8555 §8.3), as
/// a host without a certificate is what this is for.
pub(super) async fn any_tls(
    stream: TcpStream,
    host: &San,
) -> Result<TlsStream<TcpStream>, Problem> {
    tls(stream, host, &[b"http/1.1"]).await
}

async fn tls(
    stream: TcpStream,
    host: &San,
    protocols: &[&[u8]],
) -> Result<TlsStream<TcpStream>, Problem> {
    let failed = |text: String| Problem::new(ProblemKind::Tls, text);
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|e| failed(e.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|p| p.to_vec()).collect();
    let name = ServerName::try_from(server_name(host)?).map_err(|e| failed(e.to_string()))?;
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .map_err(|e| failed(format!("the TLS handshake failed: {}", e.kind())))
}

/// For an address its name in the reverse tree (RFC 8738 §6).
fn server_name(host: &San) -> Result<String, Problem> {
    Ok(match host {
        San::Dns(name) => name.host().to_owned(),
        San::Ip(IpAddr::V4(a)) => {
            let [a, b, c, d] = a.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        San::Ip(IpAddr::V6(a)) => {
            let nibbles = a.octets().into_iter().rev().flat_map(|b| [b & 15, b >> 4]);
            let mut text: String = nibbles.map(|n| format!("{n:x}.")).collect();
            text.push_str("ip6.arpa");
            text
        }
        San::Uri(_) => return Err(Problem::malformed("a URI is no host")),
    })
}

/// Takes any certificate, and only from who holds its key: the signature is checked with
/// the key alone, as the certificate of RFC 8737 has a critical extension that nobody knows.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _leaf: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let spki = spki(certificate)?;
        let key = RawPublicKeyEntity::try_from(&spki).map_err(|_| wrong())?;
        let mut known = self.0.signature_verification_algorithms.mapping.iter();
        let fits = known
            .find(|(scheme, _)| *scheme == dss.scheme)
            .is_some_and(|(_, all)| {
                all.iter()
                    .any(|a| key.verify_signature(*a, message, dss.signature()).is_ok())
            });
        fits.then(HandshakeSignatureValid::assertion)
            .ok_or_else(wrong)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls13_signature_with_raw_key(
            message,
            &spki(certificate)?,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

fn wrong() -> TlsError {
    TlsError::InvalidCertificate(CertificateError::BadSignature)
}

fn spki(certificate: &CertificateDer<'_>) -> Result<SubjectPublicKeyInfoDer<'static>, TlsError> {
    let info = CertificateInfo::from_der(certificate)
        .map_err(|_| TlsError::InvalidCertificate(CertificateError::BadEncoding))?;
    Ok(info.spki.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_asked_for_in_the_reverse_tree() {
        let name = |text: &str| server_name(&text.parse().unwrap()).unwrap();
        assert_eq!(name("ip:192.0.2.1"), "1.2.0.192.in-addr.arpa");
        // The example of RFC 8738 §6.
        assert_eq!(
            name("ip:2001:db8::1"),
            "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa"
        );
    }
}
