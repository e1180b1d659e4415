//! Certificates taken back, and the lists that say so.

use keywright_client::proto;
use rcgen::KeyPair;

use crate::{
    common::{
        Appliance,
        authority::{NAME, crl, csr, dns, hierarchy, issue, issued, proof, revoke, sign},
        reason, verify,
    },
    openssl,
};

#[tokio::test]
async fn a_revoked_certificate_is_on_the_lists_that_others_accept() {
    let it = Appliance::start().await;
    let (root, int) = hierarchy(&it, "red").await;
    let (good, _) = issued(&it, "red").await;
    let (bad, _) = issued(&it, "red").await;
    let done = revoke(&it, "red", &bad, proto::RevocationReason::Superseded)
        .await
        .unwrap();
    assert_eq!((done.revoked.len(), done.already), (1, false));
    assert_eq!(Some(&done.revoked[0]), bad.r#ref.as_ref());
    // A lost key makes it worse, once.
    for worse in [1, 0] {
        let again = revoke(&it, "red", &bad, proto::RevocationReason::KeyCompromise)
            .await
            .unwrap();
        assert_eq!((again.already, again.revoked.len()), (true, worse));
    }
    let full = crl(&it, "int-a", 0, 1).await;
    for (certificate, revoked) in [(&good, false), (&bad, true)] {
        let by_openssl = openssl::verify(
            &root.certificate_der,
            &[&int.certificate_der],
            &certificate.certificate_der,
            Some(&full.crl_der),
        );
        assert_eq!(by_openssl.is_err(), revoked, "{by_openssl:?}");
        if let Err(said) = by_openssl {
            assert!(said.contains("certificate revoked"), "{said}");
        }
    }
    // The shard of each names it, and only it.
    let mut listed = 0;
    for shard in 1..=2 {
        let client = it.client("red", "pki").await;
        let request = proto::GetCrlRequest {
            issuer: "int-a".into(),
            shard,
        };
        let part = client.pki().get_crl(request).await.unwrap().into_inner();
        listed += part.entries;
        for (certificate, revoked) in [(&good, false), (&bad, true)] {
            let by_webpki = verify::verify(
                &root.certificate_der,
                certificate,
                NAME,
                Some(&part.crl_der),
            );
            match by_webpki {
                Ok(()) => assert!(!revoked),
                Err(webpki::Error::CertRevoked) => assert!(revoked),
                // The list of the other shard says nothing about it.
                Err(webpki::Error::UnknownRevocationStatus) => {}
                Err(e) => panic!("shard {shard}: {e:?}"),
            }
        }
    }
    assert_eq!(listed, 1);
    let client = it.client("red", "pki").await;
    let request = proto::GetCrlRequest {
        issuer: "int-a".into(),
        shard: 3,
    };
    let e = client.pki().get_crl(request).await.unwrap_err();
    assert_eq!(reason(&e), "INVALID_ARGUMENT");
    assert!(e.message().contains("has 2 shards"), "{e:?}");
}

/// No date that somebody says may keep the list from being made.
#[tokio::test]
async fn a_key_is_not_lost_in_the_future() {
    let it = Appliance::start().await;
    hierarchy(&it, "red").await;
    let (certificate, _) = issued(&it, "red").await;
    let pki = it.client("red", "pki").await;
    let ask = |lost: i64| {
        let request = proto::RevokeRequest {
            target: certificate
                .r#ref
                .clone()
                .map(proto::revoke_request::Target::Ref),
            reason: proto::RevocationReason::Superseded.into(),
            invalidity_unix_ms: lost,
            ..Default::default()
        };
        let mut pki = pki.pki();
        async move { pki.revoke(request).await }
    };
    let now = certificate.not_before_unix_ms + 300_000;
    for lost in [now + 3_600_000, -1] {
        let e = ask(lost).await.unwrap_err();
        assert_eq!(reason(&e), "INVALID_ARGUMENT", "{lost}: {e:?}");
    }
    ask(now - 3_600_000).await.unwrap();
    crl(&it, "int-a", 0, 1).await;
}

#[tokio::test]
async fn a_lost_key_takes_all_its_certificates_along() {
    let it = Appliance::start().await;
    hierarchy(&it, "red").await;
    let (first, key) = issued(&it, "red").await;
    let second = issue(&it, "red", "service", sign(csr(&key, vec![dns(NAME)])))
        .await
        .unwrap();
    let (other, _) = issued(&it, "red").await;
    let done = revoke(&it, "red", &first, proto::RevocationReason::KeyCompromise)
        .await
        .unwrap();
    let mut revoked: Vec<_> = done.revoked.into_iter().map(|r| r.serial).collect();
    let mut both = [first, second].map(|c| c.r#ref.unwrap().serial);
    revoked.sort();
    both.sort();
    assert_eq!(revoked, both);
    let e = issue(&it, "red", "service", sign(csr(&key, vec![dns(NAME)])))
        .await
        .unwrap_err();
    assert_eq!(reason(&e), "KEY_BLOCKED");
    let record = crate::records::get(&it, "pki", &other).await.unwrap();
    assert_eq!(record.state(), proto::CertificateState::Issued);
    crl(&it, "int-a", 0, 2).await;
}

#[tokio::test]
async fn who_holds_the_key_may_say_that_it_is_lost_and_nobody_else() {
    let it = Appliance::start().await;
    hierarchy(&it, "red").await;
    let (certificate, key) = issued(&it, "red").await;
    let serial: String = certificate
        .r#ref
        .clone()
        .unwrap()
        .serial
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    let stranger = KeyPair::generate().unwrap();
    let right = format!("keywright revoke {serial}");
    let nobody = it.client("red", "nobody").await;
    let ask = |proof: bytes::Bytes| {
        let request = proto::RevokeRequest {
            target: Some(proto::revoke_request::Target::CertificateDer(
                certificate.certificate_der.clone(),
            )),
            reason: proto::RevocationReason::KeyCompromise.into(),
            key_proof_csr_der: proof,
            ..Default::default()
        };
        let mut pki = nobody.pki();
        async move { pki.revoke(request).await }
    };
    let e = ask(bytes::Bytes::new()).await.unwrap_err();
    assert_eq!(reason(&e), "PERMISSION_DENIED");
    for (proof, says) in [
        (proof(&stranger, &right), "another key"),
        (proof(&key, "keywright revoke 00"), "common name"),
        (csr(&key, vec![dns(NAME)]), "common name"),
        ("nonsense".into(), "cannot be read"),
    ] {
        let e = ask(proof).await.unwrap_err();
        assert_eq!(reason(&e), "CSR_REFUSED");
        assert!(e.message().contains(says), "{e:?}");
    }
    let done = ask(proof(&key, &right)).await.unwrap().into_inner();
    assert_eq!(done.revoked.len(), 1);
}

/// R6: an entry stays until its certificate has expired, and is on one list after that.
#[tokio::test]
async fn an_expired_entry_is_listed_once_more_and_then_goes() {
    let it = Appliance::start().await;
    hierarchy(&it, "red").await;
    let (certificate, _) = issued(&it, "red").await;
    revoke(
        &it,
        "red",
        &certificate,
        proto::RevocationReason::Superseded,
    )
    .await
    .unwrap();
    crl(&it, "int-a", 0, 1).await;
    let publish = async |entries: u64| {
        let all = it.app.authorities.all_issuers();
        let int = all
            .iter()
            .find(|a| a.issuer.name.as_str() == "int-a")
            .unwrap();
        keywright_service::ops::pki::publish(&it.app, int)
            .await
            .unwrap();
        let full = it.app.authorities.crl(int.issuer.id, 0).unwrap();
        assert_eq!(full.entries, entries);
    };
    publish(1).await;
    it.clock.advance_days(1);
    publish(1).await;
    publish(0).await;
}

/// A store from before a revocation must not make the certificate good again.
#[tokio::test]
async fn a_store_older_than_its_lists_is_noticed() {
    let it = Appliance::start().await;
    hierarchy(&it, "red").await;
    let (certificate, _) = issued(&it, "red").await;
    crl(&it, "int-a", 0, 0).await;
    let lists = it.dir.path().join("crl");
    revoke(
        &it,
        "red",
        &certificate,
        proto::RevocationReason::Superseded,
    )
    .await
    .unwrap();
    crl(&it, "int-a", 0, 1).await;
    crl(&it, "root", 0, 0).await;
    // The lists of another life of this appliance, in which the other one was revoked.
    let all = it.app.authorities.all_issuers();
    let int = all
        .iter()
        .find(|a| a.issuer.name.as_str() == "int-a")
        .unwrap();
    let file = lists.join(format!("{}-0.crl", int.issuer.id));
    let newer = std::fs::read(&file).unwrap();
    let (second, _) = issued(&it, "red").await;
    revoke(&it, "red", &second, proto::RevocationReason::Superseded)
        .await
        .unwrap();
    crl(&it, "int-a", 0, 2).await;
    let with_both = std::fs::read(&file).unwrap();
    assert_ne!(newer, with_both);
    let name = keywright_service::authority::CertificateRef {
        issuer: int.issuer.id,
        serial: keywright_pki::Serial::from_bytes(&second.r#ref.unwrap().serial).unwrap(),
    };
    forget_revocation(&it, &name);
    let e = keywright_service::ops::pki::publish(&it.app, int)
        .await
        .unwrap_err();
    assert!(
        e.text().contains("the store is older than the CRL"),
        "{e:?}"
    );
    let now = it
        .app
        .authorities
        .issuer_by_id(int.issuer.tenant, int.issuer.id)
        .unwrap();
    assert!(!now.issuer.alarm.is_empty() && !now.issuer.usage.issue);
    assert_eq!(
        std::fs::read(&file).unwrap(),
        with_both,
        "the good list stays"
    );
}

/// What a restored backup would do to one row.
fn forget_revocation(it: &Appliance, name: &keywright_service::authority::CertificateRef) {
    let script = format!(
        "import sqlite3,sys;d=sqlite3.connect(sys.argv[1],timeout=9);\
         assert d.execute(\"UPDATE certificates SET state='issued' WHERE serial=x'{}'\").rowcount==1;d.commit()",
        name.serial
    );
    let done = std::process::Command::new("python3")
        .args(["-c", &script])
        .arg(it.dir.path().join("keywright.db"))
        .status();
    assert!(done.unwrap().success());
}
