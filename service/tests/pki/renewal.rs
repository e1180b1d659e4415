//! A certificate from here is an identity here, and renews itself, while it is good.

use std::fs;

use keywright_client::{Client, Settings, proto};
use rcgen::KeyPair;
use tonic::Code;

use crate::{
    common::{
        Appliance,
        authority::{NAME, PROFILE, csr, dns, hierarchy, issue, issued, put, revoke, sign, spiffe},
        reason,
    },
    openssl::pem,
};

/// Settings of who holds this certificate.
fn holder(it: &Appliance, certificate: &proto::IssuedCertificate, key: &KeyPair) -> Settings {
    let dir = it.dir.path();
    let mut text = pem("CERTIFICATE", &certificate.certificate_der);
    for der in &certificate.chain_der {
        text.push_str(&pem("CERTIFICATE", der));
    }
    fs::write(dir.join("held.pem"), text).unwrap();
    fs::write(dir.join("held.key"), key.serialize_pem()).unwrap();
    Settings {
        cert: Some(dir.join("held.pem")),
        key: Some(dir.join("held.key")),
        ..it.settings("red", "service")
    }
}

fn renewal(key: &KeyPair) -> proto::RenewRequest {
    let request = sign(csr(key, vec![]));
    proto::RenewRequest {
        csr_der: request.csr_der,
        idempotency_key: request.idempotency_key,
        ttl_seconds: 0,
    }
}

#[tokio::test]
async fn a_certificate_renews_itself_and_keeps_its_line() {
    let it = Appliance::start().await;
    hierarchy(&it, "red").await;
    let (first, key) = issued(&it, "red").await;
    let client = Client::connect(&holder(&it, &first, &key)).await.unwrap();
    let next_key = KeyPair::generate().unwrap();
    let renewed = client
        .pki()
        .renew(renewal(&next_key))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(renewed.renewed, first.r#ref);
    let second = renewed.certificate.unwrap();
    let (a, b) = (
        crate::records::get(&it, "pki", &first).await.unwrap(),
        crate::records::get(&it, "pki", &second).await.unwrap(),
    );
    assert_eq!((&a.names, &a.lineage), (&b.names, &b.lineage));
    assert_ne!(a.spki_sha256, b.spki_sha256);
    // And the next one, over a restart.
    let it = it.restart().await;
    let client = Client::connect(&holder(&it, &second, &next_key))
        .await
        .unwrap();
    let renewed = client
        .pki()
        .renew(renewal(&next_key))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(renewed.renewed, second.r#ref);
    // Who comes with a certificate of the configured CA has nothing to renew.
    let service = it.client("red", "service").await;
    let e = service.pki().renew(renewal(&key)).await.unwrap_err();
    assert_eq!(reason(&e), "CERTIFICATE_NOT_FOUND");
}

#[tokio::test]
async fn a_revoked_or_expired_certificate_opens_no_door() {
    let it = Appliance::start().await;
    hierarchy(&it, "red").await;
    let (certificate, key) = issued(&it, "red").await;
    let settings = holder(&it, &certificate, &key);
    let before = Client::connect(&settings).await.unwrap();
    let bundle = proto::GetBundleRequest {};
    before.pki().get_bundle(bundle).await.unwrap();
    revoke(
        &it,
        "red",
        &certificate,
        proto::RevocationReason::Superseded,
    )
    .await
    .unwrap();
    // Also on a connection that was there before; and after a restart.
    let it = {
        for client in [before, Client::connect(&settings).await.unwrap()] {
            let e = client.pki().renew(renewal(&key)).await.unwrap_err();
            assert_eq!(
                (e.code(), reason(&e).as_str()),
                (Code::Unauthenticated, "UNAUTHENTICATED")
            );
            assert!(e.message().contains("revoked"), "{e:?}");
        }
        it.restart().await
    };
    let client = Client::connect(&holder(&it, &certificate, &key))
        .await
        .unwrap();
    let e = client.pki().get_bundle(bundle).await.unwrap_err();
    assert!(e.message().contains("revoked"), "{e:?}");

    let (certificate, key) = issued(&it, "red").await;
    let client = Client::connect(&holder(&it, &certificate, &key))
        .await
        .unwrap();
    client.pki().get_bundle(bundle).await.unwrap();
    it.clock.advance_days(1);
    let e = client.pki().renew(renewal(&key)).await.unwrap_err();
    assert_eq!(e.code(), Code::Unauthenticated);
    assert!(e.message().contains("expired"), "{e:?}");
}

#[tokio::test]
async fn only_what_was_asked_for_by_the_one_it_names_is_an_identity() {
    let it = Appliance::start().await;
    hierarchy(&it, "red").await;
    // A profile that would make everybody an administrator.
    let text = PROFILE
        .replace("service-tls", "forged")
        .replace("\"/{principal.name}\"", "\"/pki\"");
    put(&it, "red", &text).await.unwrap();
    let key = KeyPair::generate().unwrap();
    let request = proto::SignCsrRequest {
        profile: "forged".into(),
        ..sign(csr(&key, vec![spiffe("red", "pki")]))
    };
    let forged = issue(&it, "red", "service", request).await.unwrap();
    let client = Client::connect(&holder(&it, &forged, &key)).await.unwrap();
    let e = client
        .pki_admin()
        .list_issuers(proto::ListIssuersRequest {})
        .await;
    let e = e.unwrap_err();
    assert_eq!(e.code(), Code::Unauthenticated);
    assert!(e.message().contains("another identity"), "{e:?}");

    // Without clientAuth it is not even let in.
    let text = PROFILE
        .replace("service-tls", "server-only")
        .replace("\"serverAuth\", \"clientAuth\"", "\"serverAuth\"");
    put(&it, "red", &text).await.unwrap();
    let request = proto::SignCsrRequest {
        profile: "server-only".into(),
        ..sign(csr(&key, vec![dns(NAME)]))
    };
    let server = issue(&it, "red", "service", request).await.unwrap();
    assert!(Client::connect(&holder(&it, &server, &key)).await.is_err());
}

#[tokio::test]
async fn a_profile_may_ask_for_a_new_key() {
    let it = Appliance::start().await;
    hierarchy(&it, "red").await;
    let text = PROFILE
        .replace("version = 1", "version = 2")
        .replace("[key]", "[key]\nreuse = \"forbid\"");
    let (certificate, key) = issued(&it, "red").await;
    put(&it, "red", &text).await.unwrap();
    let client = Client::connect(&holder(&it, &certificate, &key))
        .await
        .unwrap();
    let e = client.pki().renew(renewal(&key)).await.unwrap_err();
    assert_eq!(reason(&e), "CERTIFICATE_STATE");
    let e = issue(&it, "red", "service", sign(csr(&key, vec![dns(NAME)]))).await;
    assert_eq!(reason(&e.unwrap_err()), "KEY_BLOCKED");
    let next = KeyPair::generate().unwrap();
    let renewed = client
        .pki()
        .renew(renewal(&next))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(renewed.certificate.unwrap().profile, "service-tls@2");
}
