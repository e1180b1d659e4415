//! The same idempotency key again, also at once, also after a restart.

use keywright_client::proto;
use keywright_hsm::fake::Fault;
use rcgen::KeyPair;

use crate::common::{
    Appliance,
    authority::{NAME, csr, dns, hierarchy, issue, sign},
    reason,
};

#[tokio::test]
async fn the_same_request_is_the_same_certificate() {
    let it = Appliance::start().await;
    hierarchy(&it, "red").await;
    let key = KeyPair::generate().unwrap();
    let request = sign(csr(&key, vec![dns(NAME)]));
    let client = it.client("red", "service").await;
    let calls: Vec<_> = (0..16)
        .map(|_| {
            let (mut pki, request) = (client.pki(), request.clone());
            tokio::spawn(async move { pki.sign_csr(request).await })
        })
        .collect();
    let (mut made, mut ders) = (0, std::collections::BTreeSet::new());
    for call in calls {
        let done = call
            .await
            .unwrap()
            .unwrap()
            .into_inner()
            .certificate
            .unwrap();
        made += usize::from(!done.replayed);
        ders.insert(done.certificate_der);
    }
    assert_eq!((made, ders.len()), (1, 1));
    let it = it.restart().await;
    let again = issue(&it, "red", "service", request.clone()).await.unwrap();
    assert!(again.replayed && ders.contains(&again.certificate_der));
    let other = proto::SignCsrRequest {
        ttl_seconds: 601,
        ..request.clone()
    };
    let e = issue(&it, "red", "service", other).await.unwrap_err();
    assert_eq!(reason(&e), "REQUEST_KEY_REUSED");
    // Another caller's keys are its own.
    let theirs = issue(&it, "red", "developer", request.clone())
        .await
        .unwrap_err();
    assert_eq!(reason(&theirs), "PROFILE_REFUSED");
    for short in ["", "only-15-bytes--", &"x".repeat(65), "with a blank in it"] {
        let wrong = proto::SignCsrRequest {
            idempotency_key: short.into(),
            ..request.clone()
        };
        let e = issue(&it, "red", "service", wrong).await.unwrap_err();
        assert_eq!(reason(&e), "INVALID_ARGUMENT", "{short:?}");
    }
    // One hour, and it is over: no answer to who asks now.
    it.clock.advance_ms(3_600_000);
    let next = issue(&it, "red", "service", request.clone()).await.unwrap();
    assert!(!next.replayed && !ders.contains(&next.certificate_der));
    it.clock.advance_ms(24 * 3_600_000 + 1);
    let next = issue(&it, "red", "service", request).await.unwrap();
    assert!(!next.replayed && !ders.contains(&next.certificate_der));
}

/// What the HSM did not answer is on record, and its idempotency key is free again.
#[tokio::test]
async fn a_request_that_failed_may_come_again_with_its_key() {
    let it = Appliance::start().await;
    hierarchy(&it, "red").await;
    let key = KeyPair::generate().unwrap();
    let request = sign(csr(&key, vec![dns(NAME)]));
    it.device.inject([Fault::Unplugged]);
    let e = issue(&it, "red", "service", request.clone())
        .await
        .unwrap_err();
    assert_eq!(reason(&e), "HSM_UNAVAILABLE", "{e:?}");
    it.device.plug_in();
    let mut done = None;
    for _ in 0..100 {
        match issue(&it, "red", "service", request.clone()).await {
            Ok(issued) => done = Some(issued),
            Err(e) => {
                assert_eq!(reason(&e), "HSM_UNAVAILABLE", "{e:?}");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                continue;
            }
        }
        break;
    }
    assert!(!done.unwrap().replayed);
    let all = proto::SearchRequest {
        issuer: "int-a".into(),
        ..Default::default()
    };
    let found = crate::records::search(&it, all).await;
    let states: std::collections::BTreeSet<i32> = found.iter().map(|c| c.state).collect();
    let intended = i32::from(proto::CertificateState::Intended);
    let issued = i32::from(proto::CertificateState::Issued);
    assert_eq!(states, [intended, issued].into());
}
