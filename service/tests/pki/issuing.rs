//! The whole way to a certificate, and what others say of it.

use keywright_client::proto;
use rcgen::{KeyPair, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, SanType};

use crate::{
    common::{
        Appliance,
        authority::{NAME, crl, csr, dns, hierarchy, issue, issued, lists_made, sign, spiffe},
        verify,
    },
    openssl,
};

#[tokio::test]
async fn a_certificate_is_good_to_everybody() {
    let it = Appliance::start().await;
    let (root, int) = hierarchy(&it, "red").await;
    for algorithm in [
        &rcgen::PKCS_ECDSA_P256_SHA256,
        &PKCS_ECDSA_P384_SHA384,
        &PKCS_ED25519,
    ] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let address = SanType::IpAddress([10, 20, 3, 4].into());
        let names = vec![dns(NAME), spiffe("red", "service"), address];
        let done = issue(&it, "red", "service", sign(csr(&key, names)))
            .await
            .unwrap();
        assert_eq!(done.profile, "service-tls@1");
        assert!(!done.replayed);
        assert_eq!(done.chain_der, std::slice::from_ref(&int.certificate_der));
        // One hour from five minutes ago, both ends counted.
        let life = done.not_after_unix_ms - done.not_before_unix_ms;
        assert_eq!(life, 3_600_000 - 1);
        assert!(
            (done.not_before_unix_ms..done.not_after_unix_ms).contains(&done.renew_from_unix_ms)
        );
        verify::verify(&root.certificate_der, &done, NAME, None).unwrap();
        let e = verify::verify(&root.certificate_der, &done, "other.example", None);
        assert!(e.is_err());
        openssl::verify(
            &root.certificate_der,
            &[&int.certificate_der],
            &done.certificate_der,
            None,
        )
        .unwrap();
    }
    let record = it.records("SignCsr").pop().unwrap();
    assert_eq!(record["outcome"], "OK");
    for what in ["profile", "issuer", "serial"] {
        assert!(!record["detail"][what].is_null(), "{what}: {record}");
    }
}

/// Whoever judges everything must see a wrong signature.
#[tokio::test]
async fn a_flipped_bit_is_not_good_to_webpki() {
    let it = Appliance::start().await;
    let (root, _) = hierarchy(&it, "red").await;
    let root = root.certificate_der;
    let flipped = |der: &[u8]| {
        let mut der = der.to_vec();
        *der.last_mut().unwrap() ^= 1;
        der
    };
    let (good, _) = issued(&it, "red").await;
    let list = crl(&it, "int-a", 0, 0).await.crl_der;
    verify::verify(&root, &good, NAME, Some(&list)).unwrap();
    let e = verify::verify(&root, &good, NAME, Some(&flipped(&list)));
    assert_eq!(e, Err(webpki::Error::InvalidCrlSignatureForPublicKey));
    let bad = proto::IssuedCertificate {
        certificate_der: flipped(&good.certificate_der).into(),
        ..good
    };
    let e = verify::verify(&root, &bad, NAME, None);
    assert_eq!(e, Err(webpki::Error::InvalidSignatureForPublicKey));
}

#[tokio::test]
async fn names_are_those_of_the_request_or_of_the_csr() {
    let it = Appliance::start().await;
    hierarchy(&it, "red").await;
    let key = KeyPair::generate().unwrap();
    let from_csr = csr(&key, vec![dns("WWW.Apps.example.internal")]);
    let done = issue(&it, "red", "service", sign(from_csr.clone()))
        .await
        .unwrap();
    let record = crate::records::get(&it, "pki", &done).await.unwrap();
    assert_eq!(record.names, ["www.apps.example.internal"]);
    // The request's own win.
    let request = proto::SignCsrRequest {
        sans: vec![proto::San {
            name: Some(proto::san::Name::Ip(vec![10, 20, 0, 9].into())),
        }],
        ttl_seconds: 600,
        ..sign(from_csr)
    };
    let done = issue(&it, "red", "service", request).await.unwrap();
    let record = crate::records::get(&it, "pki", &done).await.unwrap();
    assert_eq!(record.names, ["10.20.0.9"]);
    assert_eq!(done.not_after_unix_ms - done.not_before_unix_ms, 599_999);
}

#[tokio::test]
async fn a_batch_issues_what_it_can() {
    let it = Appliance::start().await;
    hierarchy(&it, "red").await;
    let key = KeyPair::generate().unwrap();
    let good = || sign(csr(&key, vec![dns(NAME)]));
    let bad = proto::SignCsrRequest {
        csr_der: "no csr".into(),
        ..good()
    };
    let elsewhere = proto::SignCsrRequest {
        profile: "no-such".into(),
        ..good()
    };
    let requests = vec![good(), bad, elsewhere, good()];
    let service = it.client("red", "service").await;
    let request = proto::SignCsrBatchRequest { requests };
    let batch = service
        .pki()
        .sign_csr_batch(request)
        .await
        .unwrap()
        .into_inner();
    let issued: Vec<bool> = batch
        .certificates
        .iter()
        .map(|c| c.r#ref.is_some())
        .collect();
    assert_eq!(issued, [true, false, false, true]);
    let errors: Vec<(u32, &str)> = batch
        .errors
        .iter()
        .map(|e| (e.index, e.reason.as_str()))
        .collect();
    assert_eq!(errors, [(1, "CSR_REFUSED"), (2, "PROFILE_NOT_FOUND")]);
}

#[tokio::test]
async fn a_dry_run_says_what_would_happen_and_does_nothing() {
    let it = Appliance::start().await;
    hierarchy(&it, "red").await;
    let key = KeyPair::generate().unwrap();
    let service = it.client("red", "service").await;
    let run = async |names| {
        let request = Some(sign(csr(&key, names)));
        let dry = service
            .pki()
            .dry_run(proto::DryRunRequest { request })
            .await;
        dry.unwrap().into_inner()
    };
    lists_made(&it).await;
    let operations = it.device.operations();
    let good = run(vec![dns(NAME)]).await;
    assert!(good.would_issue && good.violations.is_empty(), "{good:?}");
    assert_eq!(
        (good.issuer.as_str(), good.names[0].as_str()),
        ("int-a", NAME)
    );
    assert!(!good.tbs_der.is_empty());
    let bad = run(vec![dns("a.elsewhere.example"), dns("b.elsewhere.example")]).await;
    assert!(!bad.would_issue);
    assert_eq!(bad.violations.len(), 2, "every name is judged: {bad:?}");
    assert_eq!(it.device.operations(), operations);
    assert_eq!(
        crate::records::search(&it, proto::SearchRequest::default())
            .await
            .len(),
        2
    );
}

/// Root, intermediate: what trusts them trusts us.
#[tokio::test]
async fn the_bundle_is_the_tenants_own() {
    let it = Appliance::start().await;
    let (root, int) = hierarchy(&it, "red").await;
    let request = proto::GetBundleRequest {};
    let service = it.client("red", "service").await;
    let bundle = service
        .pki()
        .get_bundle(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(bundle.roots_der, [root.certificate_der]);
    assert_eq!(bundle.intermediates_der, [int.certificate_der]);
    let other = it.client("blue", "service").await;
    let bundle = other.pki().get_bundle(request).await.unwrap().into_inner();
    assert!(bundle.roots_der.is_empty() && bundle.intermediates_der.is_empty());
    let (certificate, _) = issued(&it, "red").await;
    assert!(!certificate.certificate_der.is_empty());
}
