//! What is on record, and how it is found.

use std::collections::BTreeSet;

use keywright_client::proto;
use rcgen::KeyPair;
use sha2::{Digest, Sha256};
use tonic::Status;

use crate::common::{
    Appliance,
    authority::{NAME, PROFILE, csr, dns, hierarchy, issue, put, revoke, sign},
    reason,
};

pub(crate) async fn get(
    it: &Appliance,
    name: &str,
    issued: &proto::IssuedCertificate,
) -> Result<proto::CertificateRecord, Status> {
    let request = proto::GetCertificateRequest {
        r#ref: issued.r#ref.clone(),
    };
    let client = it.client("red", name).await;
    let found = client.pki().get_certificate(request).await?;
    Ok(found.into_inner().certificate.unwrap())
}

pub(crate) async fn search(
    it: &Appliance,
    mut request: proto::SearchRequest,
) -> Vec<proto::CertificateRecord> {
    let client = it.client("red", "pki").await;
    let mut found = Vec::new();
    loop {
        let page = client.pki().search(request.clone()).await.unwrap();
        let page = page.into_inner();
        found.extend(page.certificates);
        if page.next_page_token.is_empty() {
            return found;
        }
        request.page_token = page.next_page_token;
    }
}

#[tokio::test]
async fn every_filter_finds_what_it_says_page_by_page() {
    let it = Appliance::start().await;
    hierarchy(&it, "red").await;
    let other = PROFILE.replace("service-tls", "other");
    put(&it, "red", &other).await.unwrap();
    let key = KeyPair::generate().unwrap();
    let spki = Sha256::digest(rcgen::PublicKeyData::subject_public_key_info(&key));
    let mut leaves = Vec::new();
    for n in 0..7 {
        let new = KeyPair::generate().unwrap();
        let key = if n < 2 { &key } else { &new };
        let request = proto::SignCsrRequest {
            profile: if n == 6 { "other" } else { "service-tls" }.into(),
            // Ends that differ, not in the order of issue.
            ttl_seconds: 3600 + (n * 5 % 7) * 60,
            ..sign(csr(
                key,
                vec![dns(&format!("n{n}.apps.example.internal")), dns(NAME)],
            ))
        };
        leaves.push(issue(&it, "red", "service", request).await.unwrap());
    }
    revoke(&it, "red", &leaves[3], proto::RevocationReason::Superseded)
        .await
        .unwrap();
    let serials = |found: &[proto::CertificateRecord]| -> BTreeSet<bytes::Bytes> {
        let serials = found.iter().map(|c| c.r#ref.clone().unwrap().serial);
        let set: BTreeSet<_> = serials.collect();
        assert_eq!(set.len(), found.len(), "nothing twice");
        set
    };
    let of = |which: &[usize]| -> BTreeSet<bytes::Bytes> {
        let all = which.iter().map(|n| &leaves[*n]);
        all.map(|c| c.r#ref.clone().unwrap().serial).collect()
    };
    let end = |n: usize| leaves[n].not_after_unix_ms;
    let ask = proto::SearchRequest::default;
    let int = || proto::SearchRequest {
        issuer: "int-a".into(),
        ..ask()
    };
    for (request, expected) in [
        (int(), &[0, 1, 2, 3, 4, 5, 6][..]),
        (
            proto::SearchRequest {
                name: "n4.apps.example.internal".into(),
                ..ask()
            },
            &[4],
        ),
        (
            proto::SearchRequest {
                name: NAME.into(),
                ..ask()
            },
            &[0, 1, 2, 3, 4, 5, 6],
        ),
        (
            proto::SearchRequest {
                spki_sha256: spki.to_vec().into(),
                ..ask()
            },
            &[0, 1],
        ),
        (
            proto::SearchRequest {
                profile: "other".into(),
                ..ask()
            },
            &[6],
        ),
        (
            proto::SearchRequest {
                state: proto::CertificateState::Revoked.into(),
                ..ask()
            },
            &[3],
        ),
        (
            proto::SearchRequest {
                state: proto::CertificateState::Issued.into(),
                ..int()
            },
            &[0, 1, 2, 4, 5, 6],
        ),
        (
            proto::SearchRequest {
                state: proto::CertificateState::Failed.into(),
                ..ask()
            },
            &[],
        ),
        // 0: +0, 3: +1 minute; the others end later.
        (
            proto::SearchRequest {
                expires_before_unix_ms: end(3) + 1,
                ..ask()
            },
            &[0, 3],
        ),
        (
            proto::SearchRequest {
                expires_after_unix_ms: end(3),
                ..int()
            },
            &[1, 2, 4, 5, 6],
        ),
        (
            proto::SearchRequest {
                name: NAME.into(),
                profile: "other".into(),
                spki_sha256: spki.to_vec().into(),
                ..ask()
            },
            &[],
        ),
    ] {
        for page_size in [0, 1, 3] {
            let request = proto::SearchRequest {
                page_size,
                ..request.clone()
            };
            let found = search(&it, request.clone()).await;
            assert_eq!(serials(&found), of(expected), "{request:?}");
            assert!(found.is_sorted_by_key(|c| c.not_after_unix_ms));
        }
    }
    // Expired ones are out of sight unless asked for.
    it.clock.advance_days(1);
    assert!(search(&it, int()).await.is_empty());
    let all = proto::SearchRequest {
        expires_after_unix_ms: 1,
        ..int()
    };
    assert_eq!(search(&it, all).await.len(), 7);

    let pki = it.client("red", "pki").await;
    for (request, expected) in [
        (
            proto::SearchRequest {
                page_size: 1001,
                ..ask()
            },
            "INVALID_ARGUMENT",
        ),
        (
            proto::SearchRequest {
                page_token: "../x".into(),
                ..ask()
            },
            "INVALID_ARGUMENT",
        ),
        (
            proto::SearchRequest {
                spki_sha256: "short".into(),
                ..ask()
            },
            "INVALID_ARGUMENT",
        ),
        (
            proto::SearchRequest { state: 99, ..ask() },
            "INVALID_ARGUMENT",
        ),
        (
            proto::SearchRequest {
                issuer: "no-such".into(),
                ..ask()
            },
            "ISSUER_NOT_FOUND",
        ),
    ] {
        let e = pki.pki().search(request).await.unwrap_err();
        assert_eq!(reason(&e), expected, "{e:?}");
    }
}

#[tokio::test]
async fn a_record_says_everything_and_an_unknown_one_is_not_there() {
    let it = Appliance::start().await;
    let (_, int) = hierarchy(&it, "red").await;
    let (issued, key) = crate::common::authority::issued(&it, "red").await;
    let record = get(&it, "auditor", &issued).await.unwrap();
    assert_eq!(record.state(), proto::CertificateState::Issued);
    assert_eq!(record.certificate_der, issued.certificate_der);
    assert_eq!(record.requested_by, "spiffe://red.example/service");
    assert_eq!(record.names, [NAME, "spiffe://red.example/service"]);
    let spki = Sha256::digest(rcgen::PublicKeyData::subject_public_key_info(&key));
    assert_eq!(record.spki_sha256, spki.as_slice());
    let first = issued.r#ref.clone().unwrap();
    assert_eq!(record.lineage, [&int.id[..], &first.serial[..]].concat());
    for (issuer, serial) in [("int-a", vec![5; 17]), ("no-such", first.serial.to_vec())] {
        let unknown = proto::IssuedCertificate {
            r#ref: Some(proto::CertificateRef {
                issuer: issuer.into(),
                serial: serial.into(),
            }),
            ..Default::default()
        };
        let e = get(&it, "auditor", &unknown).await.unwrap_err();
        assert_eq!(reason(&e), "CERTIFICATE_NOT_FOUND");
    }
}
