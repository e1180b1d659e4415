//! Who is at the other end of a connection: worked out once, from the client
//! certificate, and fixed for the life of the connection.
//!
//! Each tenant has a trust domain and its own CAs. A certificate is checked against the
//! CAs of the trust domain it names, never against one pool, so that no CA can mint
//! another tenant's identities. A certificate that names nobody may finish the
//! handshake, so that its holder can be told why it may not come in.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, OnceLock},
};

use keywright_pki::{CertificateInfo, SpiffeId, client_id};
use rustls::{
    DigitallySignedStruct, DistinguishedName, Error as TlsError, RootCertStore, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, UnixTime},
    server::{
        VerifierBuilderError, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use sha2::{Digest, Sha256};
use tokio::sync::OnceCell;

use crate::{authorities::Authorities, key::TenantId, ops::pki::Standing, policy::Caller};

/// The other end of a connection.
#[derive(Debug)]
pub struct Peer {
    /// Where it is.
    pub address: SocketAddr,
    /// Who it is, or why it is nobody here.
    pub caller: Result<Arc<Caller>, String>,
    /// What its certificate says; `None` when we cannot read it, and so did not issue it.
    pub(super) certificate: Option<CertificateInfo>,
    /// How that stands, looked up with the first request.
    pub(super) standing: OnceCell<Option<Standing>>,
}

/// Trust domains and whose they are.
#[derive(Debug, Clone, Default)]
pub struct Tenants(HashMap<String, (TenantId, Arc<str>)>);

impl Tenants {
    /// One more tenant.
    pub fn add(&mut self, trust_domain: &str, id: TenantId, name: &str) {
        self.0.insert(trust_domain.to_owned(), (id, name.into()));
    }

    /// Names and ids.
    pub fn ids(&self) -> impl Iterator<Item = (&str, TenantId)> {
        self.0.values().map(|(id, name)| (&**name, *id))
    }

    /// Names, in no order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.values().map(|(_, name)| &**name)
    }

    /// Names and ids, in no order.
    pub(super) fn by_name(&self) -> impl Iterator<Item = (Arc<str>, TenantId)> + '_ {
        self.0.values().map(|(id, name)| (Arc::clone(name), *id))
    }

    /// The caller behind a verified chain, leaf first.
    #[must_use]
    pub fn peer(&self, address: SocketAddr, chain: Option<&[CertificateDer<'_>]>) -> Peer {
        let leaf = chain.and_then(<[_]>::first);
        let caller = match leaf {
            None => Err("a client certificate is needed".to_owned()),
            Some(leaf) => self.caller(leaf),
        };
        let certificate = leaf.and_then(|leaf| CertificateInfo::from_der(leaf).ok());
        Peer {
            address,
            caller,
            certificate,
            standing: OnceCell::new(),
        }
    }

    fn caller(&self, leaf: &CertificateDer<'_>) -> Result<Arc<Caller>, String> {
        let id = client_id(leaf).map_err(|e| e.to_string())?;
        let (tenant, tenant_name) = self.0.get(id.trust_domain()).ok_or_else(|| {
            format!(
                "the trust domain {:?} belongs to no tenant here",
                id.trust_domain()
            )
        })?;
        Ok(Arc::new(Caller {
            tenant: *tenant,
            tenant_name: Arc::clone(tenant_name),
            certificate: Sha256::digest(leaf).into(),
            // Only to find what was issued here; what we cannot read was not.
            spki: CertificateInfo::from_der(leaf).map_or([0; 32], |info| info.spki_sha256),
            id,
        }))
    }
}

/// The issuers here, beside the CAs of the configuration: what they issued to a caller of
/// their own tenant is that caller's identity.
#[derive(Debug)]
pub(super) struct IssuersHere {
    pub(super) authorities: Arc<Authorities>,
    pub(super) tenants: Arc<Tenants>,
}

impl IssuersHere {
    /// Checks a certificate against the one issuer it names, of the one tenant it names.
    /// The trust anchor is that issuer and not its root: what others under an external
    /// root issued is nobody here. Whether it is revoked is asked with the first request.
    fn verify(
        &self,
        provider: &Arc<CryptoProvider>,
        leaf: &CertificateDer<'_>,
        now: UnixTime,
    ) -> Option<ClientCertVerified> {
        let id = client_id(leaf).ok()?;
        let (tenant, _) = self.tenants.0.get(id.trust_domain())?;
        let info = CertificateInfo::from_der(leaf).ok()?;
        let authority = self.authorities.issuer_of(*tenant, &info)?;
        if authority.issuer.is_root() {
            return None;
        }
        let mut anchors = RootCertStore::empty();
        let der = authority.issuer.certificate.clone();
        anchors.add(CertificateDer::from(der)).ok()?;
        let anchors = Arc::new(anchors);
        WebPkiClientVerifier::builder_with_provider(anchors, Arc::clone(provider))
            .build()
            .ok()?
            .verify_client_cert(leaf, &[], now)
            .ok()
    }
}

/// Checks client certificates against the CAs of the tenant they name.
#[derive(Debug)]
pub(super) struct TenantVerifier {
    provider: Arc<CryptoProvider>,
    here: Arc<OnceLock<IssuersHere>>,
    by_domain: HashMap<String, Arc<dyn ClientCertVerifier>>,
    any: Arc<dyn ClientCertVerifier>,
    hints: Vec<DistinguishedName>,
}

impl TenantVerifier {
    /// Trust domain and CA certificates of each tenant.
    pub(super) fn new(
        provider: &Arc<CryptoProvider>,
        tenants: Vec<(String, Vec<CertificateDer<'static>>)>,
        here: Arc<OnceLock<IssuersHere>>,
    ) -> Result<Self, VerifierBuilderError> {
        let build = |roots: RootCertStore| {
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
                .build()
        };
        let mut all = RootCertStore::empty();
        let mut by_domain = HashMap::new();
        for (domain, cas) in tenants {
            let mut own = RootCertStore::empty();
            for ca in cas {
                // What cannot be parsed was refused when the file was read.
                let _ = own.add(ca.clone());
                let _ = all.add(ca);
            }
            by_domain.insert(domain, build(own)?);
        }
        let hints = all.subjects();
        Ok(Self {
            provider: Arc::clone(provider),
            here,
            by_domain,
            any: build(all)?,
            hints,
        })
    }

    fn verifier(&self, leaf: &CertificateDer<'_>) -> &Arc<dyn ClientCertVerifier> {
        let named = client_id(leaf).ok();
        named
            .as_ref()
            .map(SpiffeId::trust_domain)
            .and_then(|domain| self.by_domain.get(domain))
            .unwrap_or(&self.any)
    }
}

impl ClientCertVerifier for TenantVerifier {
    fn client_auth_mandatory(&self) -> bool {
        // Health is open, and everybody else is told what is missing.
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, TlsError> {
        let configured = self.verifier(leaf);
        configured
            .verify_client_cert(leaf, intermediates, now)
            .or_else(|refused| {
                let here = self.here.get();
                here.and_then(|here| here.verify(&self.provider, leaf, now))
                    .ok_or(refused)
            })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.any.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.any.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.any.supported_verify_schemes()
    }
}
