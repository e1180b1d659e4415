//! What one tenant has is not there for another.

use keywright_client::proto;
use rcgen::KeyPair;

use crate::common::{
    Appliance,
    authority::{NAME, csr, dns, hierarchy, issued, revoke, sign},
    reason,
};

#[tokio::test]
async fn nothing_of_one_tenant_is_there_for_another() {
    let it = Appliance::start().await;
    hierarchy(&it, "red").await;
    let (certificate, _) = issued(&it, "red").await;
    let key = KeyPair::generate().unwrap();
    let service = it.client("blue", "service").await;
    let request = sign(csr(&key, vec![dns(NAME)]));
    let e = service.pki().sign_csr(request).await.unwrap_err();
    assert_eq!(reason(&e), "PROFILE_NOT_FOUND");
    let pki = it.client("blue", "pki").await;
    let r#ref = certificate.r#ref.clone();
    let request = proto::GetCertificateRequest { r#ref };
    let e = pki.pki().get_certificate(request).await.unwrap_err();
    assert_eq!(reason(&e), "CERTIFICATE_NOT_FOUND");
    let e = revoke(
        &it,
        "blue",
        &certificate,
        proto::RevocationReason::Superseded,
    )
    .await
    .unwrap_err();
    assert_eq!(reason(&e), "CERTIFICATE_NOT_FOUND");
    let request = proto::RevokeRequest {
        target: Some(proto::revoke_request::Target::CertificateDer(
            certificate.certificate_der,
        )),
        ..Default::default()
    };
    let e = pki.pki().revoke(request).await.unwrap_err();
    assert_eq!(reason(&e), "CERTIFICATE_NOT_FOUND");
    let found = pki.pki().search(proto::SearchRequest::default()).await;
    assert!(found.unwrap().into_inner().certificates.is_empty());
    let issuer = || "int-a".to_owned();
    let e = pki
        .pki()
        .get_crl(proto::GetCrlRequest {
            issuer: issuer(),
            shard: 0,
        })
        .await;
    assert_eq!(reason(&e.unwrap_err()), "ISSUER_NOT_FOUND");
    let request = proto::SetIssuerUsageRequest {
        issuer: issuer(),
        ..Default::default()
    };
    let e = pki.pki_admin().set_issuer_usage(request).await.unwrap_err();
    assert_eq!(reason(&e), "ISSUER_NOT_FOUND");
    // The same names are free for it.
    hierarchy(&it, "blue").await;
    issued(&it, "blue").await;
}
