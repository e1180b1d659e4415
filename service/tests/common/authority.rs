//! Authorities, profiles and requests for certificates, as tests need them.

use bytes::Bytes;
use keywright_client::proto;
use rcgen::{CertificateParams, DnType, KeyPair, SanType};
use tonic::Status;

use super::{Appliance, documents, uri};

pub(crate) const ROOT: &str = r#"
name = "root"
kind = "root"
key = "ec-p384"
validity_days = 3650

[subject]
CN = "Test Root"
O = "Example"

[urls]
base = "http://pki.example"
"#;

pub(crate) const INTERMEDIATE: &str = r#"
name = "int-a"
kind = "intermediate"
parent = "root"
key = "ec-p256"
validity_days = 365
path_len = 0
shards = 2

[subject]
CN = "Test Services A"
O = "Example"

[urls]
base = "http://pki.example"
"#;

pub(crate) const PROFILE: &str = r#"
name = "service-tls"
version = 1
issuers = ["int-a"]

[validity]
default = "1h"
max = "9000h"

[key]
allow = ["ec-p256", "ec-p384", "ed25519", "rsa-2048", "rsa-3072"]

[[san.dns]]
match = "exact"
value = "{principal.name}.svc.example.internal"
[[san.dns]]
match = "one-label-under"
value = "apps.example.internal"
[san.ip]
cidrs = ["10.20.0.0/16"]
max = 2
[san.uri]
spiffe = { trust_domain = "red.example", path = "/{principal.name}", count = 1 }
[san]
from_csr = true

[usage]
eku = ["serverAuth", "clientAuth"]
"#;

/// A name that [`PROFILE`] gives to `service`.
pub(crate) const NAME: &str = "service.svc.example.internal";

/// Root, intermediate and profile, ready to issue.
pub(crate) async fn hierarchy(it: &Appliance, tenant: &str) -> (proto::Issuer, proto::Issuer) {
    let root = authority(it, tenant, ROOT).await.unwrap();
    let int = authority(it, tenant, INTERMEDIATE).await.unwrap();
    let text = PROFILE.replace("red.example", &format!("{tenant}.example"));
    put(it, tenant, &text).await.unwrap();
    (root, int)
}

/// A whole ceremony: planned by one, approved by two, carried out.
pub(crate) async fn authority(
    it: &Appliance,
    tenant: &str,
    text: &str,
) -> Result<proto::Issuer, Status> {
    let planned = plan(it, tenant, text).await?;
    for name in ["pki", "pki-two"] {
        approve(it, tenant, name, &planned).await?;
    }
    commit(it, tenant, &planned)
        .await
        .map(|done| done.issuer.unwrap())
}

pub(crate) async fn plan(
    it: &Appliance,
    tenant: &str,
    text: &str,
) -> Result<proto::Ceremony, Status> {
    let request = proto::PlanCeremonyRequest { text: text.into() };
    let pki = it.client(tenant, "pki").await;
    let planned = pki.pki_admin().plan_ceremony(request).await?;
    Ok(planned.into_inner().ceremony.unwrap())
}

pub(crate) async fn approve(
    it: &Appliance,
    tenant: &str,
    name: &str,
    planned: &proto::Ceremony,
) -> Result<proto::Ceremony, Status> {
    let request = proto::ApproveCeremonyRequest {
        id: planned.id.clone(),
        digest: planned.digest.clone(),
    };
    let pki = it.client(tenant, name).await;
    let approved = pki.pki_admin().approve_ceremony(request).await?;
    Ok(approved.into_inner().ceremony.unwrap())
}

pub(crate) async fn commit(
    it: &Appliance,
    tenant: &str,
    planned: &proto::Ceremony,
) -> Result<proto::CommitCeremonyResponse, Status> {
    let request = proto::CommitCeremonyRequest {
        id: planned.id.clone(),
    };
    let pki = it.client(tenant, "pki").await;
    Ok(pki.pki_admin().commit_ceremony(request).await?.into_inner())
}

pub(crate) async fn put(
    it: &Appliance,
    tenant: &str,
    text: &str,
) -> Result<proto::Profile, Status> {
    let request = proto::PutProfileRequest { text: text.into() };
    let pki = it.client(tenant, "pki").await;
    let put = pki.pki_admin().put_profile(request).await?;
    Ok(put.into_inner().profile.unwrap())
}

pub(crate) fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

/// The id of a caller, as a name in a certificate.
pub(crate) fn spiffe(tenant: &str, name: &str) -> SanType {
    uri(&format!("spiffe://{tenant}.example/{name}"))
}

/// A CSR for these names, signed with this key.
pub(crate) fn csr(key: &KeyPair, names: Vec<SanType>) -> Bytes {
    let mut params = CertificateParams::default();
    params.subject_alt_names = names;
    request(key, params)
}

/// A CSR that says `keywright revoke SERIAL`, or something else.
pub(crate) fn proof(key: &KeyPair, common_name: &str) -> Bytes {
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    request(key, params)
}

pub(crate) fn request(key: &KeyPair, params: CertificateParams) -> Bytes {
    let der = params.serialize_request(key).unwrap().der().to_vec();
    der.into()
}

/// A request under `service-tls` with an idempotency key nobody else uses.
pub(crate) fn sign(csr: Bytes) -> proto::SignCsrRequest {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    proto::SignCsrRequest {
        profile: "service-tls".into(),
        csr_der: csr,
        idempotency_key: format!("a-key-of-its-own-{}", NEXT.fetch_add(1, Ordering::Relaxed)),
        ..Default::default()
    }
}

pub(crate) async fn issue(
    it: &Appliance,
    tenant: &str,
    name: &str,
    request: proto::SignCsrRequest,
) -> Result<proto::IssuedCertificate, Status> {
    let client = it.client(tenant, name).await;
    let issued = client.pki().sign_csr(request).await?;
    Ok(issued.into_inner().certificate.unwrap())
}

/// A good certificate for `service`, and its key.
pub(crate) async fn issued(it: &Appliance, tenant: &str) -> (proto::IssuedCertificate, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let csr = csr(&key, vec![dns(NAME), spiffe(tenant, "service")]);
    let issued = issue(it, tenant, "service", sign(csr)).await.unwrap();
    (issued, key)
}

pub(crate) async fn revoke(
    it: &Appliance,
    tenant: &str,
    certificate: &proto::IssuedCertificate,
    reason: proto::RevocationReason,
) -> Result<proto::RevokeResponse, Status> {
    let request = proto::RevokeRequest {
        target: certificate
            .r#ref
            .clone()
            .map(proto::revoke_request::Target::Ref),
        reason: reason.into(),
        ..Default::default()
    };
    let pki = it.client(tenant, "pki").await;
    Ok(pki.pki().revoke(request).await?.into_inner())
}

/// After this the token has nothing to do for the hierarchy's first lists.
pub(crate) async fn lists_made(it: &Appliance) {
    crl(it, "root", 0, 0).await;
    crl(it, "int-a", 0, 0).await;
}

/// The newest CRL, once it has as many entries; a revocation is on it within seconds.
pub(crate) async fn crl(
    it: &Appliance,
    issuer: &str,
    shard: u32,
    entries: u64,
) -> proto::GetCrlResponse {
    let client = it.client("red", "pki").await;
    let mut last = None;
    for _ in 0..100 {
        let request = proto::GetCrlRequest {
            issuer: issuer.into(),
            shard,
        };
        match client.pki().get_crl(request).await {
            Ok(crl) if crl.get_ref().entries == entries => {
                let crl = crl.into_inner();
                let made = crl.this_update_unix_ms;
                documents::crl(&it.app, issuer, shard, &crl.crl_der, made);
                return crl;
            }
            answer => last = Some(answer.map(|a| a.into_inner().entries)),
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("CRL {issuer} {shard} with {entries} entries within 5 s: {last:?}");
}
