//! Tokens that lie or lose keys, clocks that step back, issuers that are stopped.

use keywright_client::proto;
use keywright_hsm::fake::Fault;
use rcgen::KeyPair;

use crate::common::{
    Appliance,
    authority::{NAME, crl, csr, dns, hierarchy, issue, issued, lists_made, sign},
    reason,
};

async fn issuer(it: &Appliance, name: &str) -> proto::Issuer {
    let pki = it.client("red", "pki").await;
    let all = pki
        .pki_admin()
        .list_issuers(proto::ListIssuersRequest {})
        .await;
    let all = all.unwrap().into_inner().issuers;
    all.into_iter().find(|i| i.name == name).unwrap()
}

async fn let_sign(it: &Appliance, yes: bool) {
    let request = proto::SetIssuerUsageRequest {
        issuer: "int-a".into(),
        may_issue: yes,
        may_sign_crls: true,
    };
    let pki = it.client("red", "pki").await;
    pki.pki_admin().set_issuer_usage(request).await.unwrap();
}

async fn refused(it: &Appliance) -> String {
    let key = KeyPair::generate().unwrap();
    let request = sign(csr(&key, vec![dns(NAME)]));
    reason(&issue(it, "red", "service", request).await.unwrap_err())
}

#[tokio::test]
async fn a_wrong_signature_stops_the_issuer_until_somebody_has_looked() {
    let it = Appliance::start().await;
    hierarchy(&it, "red").await;
    lists_made(&it).await;
    it.device.inject([Fault::FlipBit]);
    assert_eq!(refused(&it).await, "ISSUER_STATE");
    let stopped = issuer(&it, "int-a").await;
    assert!(!stopped.may_issue && !stopped.may_sign_crls && !stopped.alarm.is_empty());
    assert_eq!(refused(&it).await, "ISSUER_STATE");
    let it = it.restart().await;
    assert_eq!(issuer(&it, "int-a").await.alarm, stopped.alarm);
    assert_eq!(refused(&it).await, "ISSUER_STATE");
    let_sign(&it, true).await;
    issued(&it, "red").await;
    assert_eq!(issuer(&it, "int-a").await.alarm, "");
    let failed = proto::SearchRequest {
        state: proto::CertificateState::Failed.into(),
        ..Default::default()
    };
    assert_eq!(crate::records::search(&it, failed).await.len(), 1);
}

#[tokio::test]
async fn an_issuer_that_is_stopped_or_has_lost_its_key_signs_nothing() {
    let it = Appliance::start().await;
    hierarchy(&it, "red").await;
    lists_made(&it).await;
    let_sign(&it, false).await;
    assert_eq!(refused(&it).await, "ISSUER_STATE");
    let_sign(&it, true).await;
    issued(&it, "red").await;
    let all = it.app.authorities.all_issuers();
    let int = all
        .iter()
        .find(|a| a.issuer.name.as_str() == "int-a")
        .unwrap();
    it.device.lose_key(int.issuer.key.object);
    let key = KeyPair::generate().unwrap();
    let request = sign(csr(&key, vec![dns(NAME)]));
    let status = issue(&it, "red", "service", request).await.unwrap_err();
    assert_eq!(reason(&status), "ISSUER_STATE");
    assert!(status.message().contains("not in the HSM"), "{status:?}");
    assert_eq!(issuer(&it, "int-a").await.alarm, "");
}

#[tokio::test]
async fn a_clock_that_stepped_back_stops_everything() {
    let it = Appliance::start().await;
    hierarchy(&it, "red").await;
    it.clock.advance_ms(-4_000);
    issued(&it, "red").await;
    it.clock.advance_ms(-10_000);
    assert_eq!(refused(&it).await, "CLOCK_STEPPED_BACK");
    it.clock.advance_ms(14_000);
    issued(&it, "red").await;
}

/// An authority whose certificate is revoked never issues again, nor does what is below it;
/// its lists go on.
#[tokio::test]
async fn a_revoked_authority_issues_nothing() {
    let it = Appliance::start().await;
    let (root, int) = hierarchy(&it, "red").await;
    let (leaf, _) = issued(&it, "red").await;
    let pki = it.client("red", "pki").await;
    let revoke = |der: bytes::Bytes| {
        let request = proto::RevokeRequest {
            target: Some(proto::revoke_request::Target::CertificateDer(der)),
            reason: proto::RevocationReason::CessationOfOperation.into(),
            ..Default::default()
        };
        let mut pki = pki.pki();
        async move { pki.revoke(request).await.unwrap() }
    };
    for (der, name) in [
        (int.certificate_der, "int-a"),
        (root.certificate_der, "root"),
    ] {
        revoke(der).await;
        let stopped = issuer(&it, name).await;
        assert!(!stopped.may_issue && stopped.may_sign_crls);
        assert!(stopped.alarm.contains("is revoked"), "{stopped:?}");
        let request = proto::SetIssuerUsageRequest {
            issuer: name.into(),
            may_issue: true,
            may_sign_crls: true,
        };
        let e = pki.pki_admin().set_issuer_usage(request).await.unwrap_err();
        assert_eq!(reason(&e), "ISSUER_STATE");
        assert_eq!(refused(&it).await, "ISSUER_STATE");
    }
    assert!(issuer(&it, "int-a").await.alarm.contains("of root"));
    revoke(leaf.certificate_der).await;
    crl(&it, "int-a", 0, 1).await;
    let it = it.restart().await;
    assert_eq!(refused(&it).await, "ISSUER_STATE");
}

/// What was revoked while an issuer made no lists is on the first one after that.
#[tokio::test]
async fn a_list_follows_as_soon_as_it_may() {
    let it = Appliance::start().await;
    hierarchy(&it, "red").await;
    let (leaf, _) = issued(&it, "red").await;
    lists_made(&it).await;
    let pki = it.client("red", "pki").await;
    let usage = |crl| {
        let request = proto::SetIssuerUsageRequest {
            issuer: "int-a".into(),
            may_issue: true,
            may_sign_crls: crl,
        };
        let mut admin = pki.pki_admin();
        async move { admin.set_issuer_usage(request).await.unwrap() }
    };
    usage(false).await;
    let reason = proto::RevocationReason::Superseded;
    crate::common::authority::revoke(&it, "red", &leaf, reason)
        .await
        .unwrap();
    // Nobody makes a list now; whoever might would have by then.
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    crl(&it, "int-a", 0, 0).await;
    usage(true).await;
    crl(&it, "int-a", 0, 1).await;
}

/// The number comes from the time, so it rises also over a restart.
#[tokio::test]
async fn the_lists_are_numbered_by_time_and_rise() {
    let it = Appliance::start().await;
    hierarchy(&it, "red").await;
    let first = crl(&it, "int-a", 0, 0).await;
    let (certificate, _) = issued(&it, "red").await;
    crate::common::authority::revoke(
        &it,
        "red",
        &certificate,
        proto::RevocationReason::Superseded,
    )
    .await
    .unwrap();
    let next = crl(&it, "int-a", 0, 1).await;
    assert!(next.number > first.number);
    assert!(next.this_update_unix_ms >= first.this_update_unix_ms);
    let it = it.restart().await;
    let after = crl(&it, "int-a", 0, 1).await;
    assert!(after.number >= next.number);
}
