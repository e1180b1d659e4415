//! Data keys that are lent: what is sealed by the caller opens here, and a lease ends when
//! the right to it does.

use std::time::{Duration, Instant};

use keywright_client::{
    Context, Failure, FailureKind, LocalSealer, Plain,
    proto::{
        ChangeStateRequest, KeyRules, KeySpec, KeyState, LeaseDataKeyRequest, LeaseDataKeyResponse,
        UpdateKeyRequest,
    },
};
use tonic::Streaming;

use super::*;

/// Signs of life come often, so that tests need not wait long.
fn often() -> Limits {
    Limits {
        lease_sign_ms: 100,
        ..Limits::default()
    }
}

pub(super) async fn lend(
    it: &Appliance,
    key: &str,
    lease_seconds: u32,
) -> Result<(), tonic::Status> {
    let request = UpdateKeyRequest {
        name: key.into(),
        rules: Some(KeyRules {
            lease_seconds,
            ..Default::default()
        }),
        ..Default::default()
    };
    let admin = it.client("red", "admin").await;
    admin.keys().update_key(request).await.map(drop)
}

pub(super) async fn lending(limits: Limits) -> Appliance {
    let it = Appliance::with(limits).await;
    it.create("red", KEY).await;
    lend(&it, KEY, 60).await.unwrap();
    it
}

pub(super) async fn change_state(it: &Appliance, to: KeyState) {
    let request = ChangeStateRequest {
        name: KEY.into(),
        version: 1,
        state: to.into(),
        ..Default::default()
    };
    let admin = it.client("red", "admin").await;
    admin.keys().change_state(request).await.unwrap();
}

async fn borrow(it: &Appliance) -> Result<Streaming<LeaseDataKeyResponse>, tonic::Status> {
    let request = LeaseDataKeyRequest { key: KEY.into() };
    let mut crypto = it.client("red", "user").await.crypto();
    Ok(crypto.lease_data_key(request).await?.into_inner())
}

/// How the stream ends, within some seconds.
async fn end(signs: &mut Streaming<LeaseDataKeyResponse>) -> Result<(), tonic::Status> {
    let all = async {
        while signs.message().await?.is_some() {}
        Ok(())
    };
    let soon = tokio::time::timeout(Duration::from_secs(20), all).await;
    soon.expect("the stream does not end")
}

async fn seal(sealer: &LocalSealer) -> Result<u32, Failure> {
    let one = [Plain::from(&b"x"[..])];
    let sealed = sealer.seal(&Context::new(), &one).await?;
    Ok(sealed.key_version)
}

/// Seals until it is told no.
async fn refused(sealer: &LocalSealer) -> Failure {
    let until = Instant::now() + Duration::from_secs(20);
    while Instant::now() < until {
        match seal(sealer).await {
            Ok(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            Err(failure) => return failure,
        }
    }
    panic!("it seals on and on");
}

#[tokio::test]
async fn what_is_sealed_by_the_caller_opens_here() {
    let it = lending(often()).await;
    let user = it.client("red", "user").await;
    let sealer = user.local_sealer(KEY);
    let context = pairs(&[("table", "cards"), ("tenant", "7")]);
    let plaintexts: Vec<Vec<u8>> = (0..100u8).map(|n| vec![n; usize::from(n)]).collect();
    let aads: Vec<Vec<u8>> = (0..100u8).map(|n| vec![n, 1]).collect();
    let items: Vec<Plain<'_>> = plaintexts
        .iter()
        .zip(&aads)
        .map(|(plaintext, aad)| Plain { aad, plaintext })
        .collect();
    let mut sealed = Vec::new();
    for _ in 0..3 {
        sealed.push(sealer.seal(&context, &items).await.unwrap());
    }
    // One data key: one wrap for all, and a salt for each.
    assert_eq!(sealed[0].header[68..], sealed[1].header[68..]);
    assert_ne!(sealed[0].header[20..68], sealed[1].header[20..68]);
    let key = user.key(KEY).await.unwrap();
    assert!(key.versions[0].last_protect_unix_ms > 0);
    let leases = it.records("LeaseDataKey");
    assert_eq!(leases.len(), 1, "{leases:?}");
    assert_eq!(leases[0]["detail"]["lease_seconds"], "60");

    it.rotate("red", KEY).await;
    let worker = it.client("red", "rewrap").await;
    for one in sealed {
        let open = |header: Bytes, context| DecryptRequest {
            header,
            context,
            items: one.items.clone(),
            aads: aads.iter().cloned().map(Bytes::from).collect(),
            ..Default::default()
        };
        let moved = worker.rewrap(vec![one.header.clone()]).await.unwrap();
        for header in [one.header.clone(), moved[0].clone()] {
            let opened = user.crypto().decrypt(open(header, context.clone())).await;
            assert_eq!(opened.unwrap().into_inner().plaintexts, plaintexts);
        }
        let other = open(one.header.clone(), pairs(&[]));
        let e = user.crypto().decrypt(other).await.unwrap_err();
        assert_eq!(reason(&e), "DECRYPTION_FAILED");
    }
}

#[tokio::test]
async fn a_key_lends_only_where_its_rules_say_so() {
    let it = Appliance::with(often()).await;
    it.create("red", KEY).await;
    let user = it.client("red", "user").await;
    let failure = seal(&user.local_sealer(KEY)).await.unwrap_err();
    assert_eq!(failure.reason(), Some("LEASE_FORBIDDEN"));
    assert_eq!(failure.kind(), FailureKind::State);
    assert!(
        failure.to_string().contains("--lease-seconds 60"),
        "{failure}"
    );
    assert_eq!(
        it.records("LeaseDataKey")[0]["outcome"],
        "LEASE_FORBIDDEN",
        "on record"
    );
    for seconds in [61, 3600] {
        let e = lend(&it, KEY, seconds).await.unwrap_err();
        assert_eq!(reason(&e), "INVALID_ARGUMENT");
        assert!(e.message().contains("from 1 to 60"), "{e:?}");
    }
    // Where it could never come into force, or would undo another rule.
    let admin = it.client("red", "admin").await;
    admin.create_key("mac", KeySpec::HmacSha256).await.unwrap();
    let e = lend(&it, "mac", 60).await.unwrap_err();
    assert!(e.message().contains("never wraps"), "{e:?}");
    let failure = seal(&user.local_sealer("mac")).await.unwrap_err();
    assert_eq!(failure.reason(), Some("KEY_USE"));
    // Somebody else's key is not there.
    let other = it.client("blue", "user").await;
    let failure = seal(&other.local_sealer(KEY)).await.unwrap_err();
    assert_eq!(failure.reason(), Some("KEY_NOT_FOUND"));
}

#[tokio::test]
async fn a_lease_ends_when_the_key_is_suspended() {
    let it = lending(often()).await;
    let sealer = it.client("red", "user").await.local_sealer(KEY);
    assert_eq!(seal(&sealer).await.unwrap(), 1);
    let mut signs = borrow(&it).await.unwrap();
    assert!(signs.message().await.unwrap().unwrap().lease.is_some());
    assert!(signs.message().await.unwrap().unwrap().lease.is_none());
    change_state(&it, KeyState::Suspended).await;
    let e = end(&mut signs).await.unwrap_err();
    assert_eq!(reason(&e), "KEY_STATE");
    let failure = refused(&sealer).await;
    assert_eq!(failure.reason(), Some("KEY_STATE"));
    // What ended by force is on record, each under a number of its own.
    let ends = it.records("LeaseDataKey");
    let by_force = ends.iter().filter(|r| {
        let id = r["request_id"].as_str().unwrap_or_default();
        id.ends_with(".end") && r["outcome"] == "KEY_STATE"
    });
    assert_eq!(by_force.count(), 2, "{ends:?}");

    change_state(&it, KeyState::Active).await;
    assert_eq!(seal(&sealer).await.unwrap(), 1, "a new lease");
}

#[tokio::test]
async fn a_lease_ends_with_the_rule_and_follows_a_rotation() {
    let it = lending(often()).await;
    let sealer = it.client("red", "user").await.local_sealer(KEY);
    assert_eq!(seal(&sealer).await.unwrap(), 1);
    let mut signs = borrow(&it).await.unwrap();
    it.rotate("red", KEY).await;
    end(&mut signs).await.unwrap();
    let until = Instant::now() + Duration::from_secs(20);
    while seal(&sealer).await.unwrap() == 1 {
        assert!(Instant::now() < until, "it seals under the old version");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    lend(&it, KEY, 0).await.unwrap();
    assert_eq!(refused(&sealer).await.reason(), Some("LEASE_FORBIDDEN"));
}

#[tokio::test]
async fn a_lease_ends_by_time_and_by_number() {
    let limits = Limits {
        lease_envelopes: 2,
        ..often()
    };
    let it = lending(limits).await;
    let sealer = it.client("red", "user").await.local_sealer(KEY);
    for _ in 0..5 {
        seal(&sealer).await.unwrap();
    }
    assert_eq!(it.records("LeaseDataKey").len(), 3, "two, two and one");
    // Many at once: each gets its turn.
    let sealer = std::sync::Arc::new(sealer);
    let seals = (0..40).map(|_| {
        let sealer = std::sync::Arc::clone(&sealer);
        tokio::spawn(async move { seal(&sealer).await })
    });
    for sealed in seals.collect::<Vec<_>>() {
        sealed.await.unwrap().unwrap();
    }
    let leases = it.records("LeaseDataKey").len();
    assert!((23..=24).contains(&leases), "{leases}");
    lend(&it, KEY, 1).await.unwrap();
    let mut signs = borrow(&it).await.unwrap();
    let began = Instant::now();
    end(&mut signs).await.unwrap();
    assert!(began.elapsed() > Duration::from_millis(800), "not at once");
}

#[tokio::test]
async fn so_many_are_lent_and_no_more() {
    let limits = Limits {
        leases: 1,
        ..often()
    };
    let it = lending(limits).await;
    let mut first = borrow(&it).await.unwrap();
    first.message().await.unwrap();
    let e = borrow(&it).await.unwrap_err();
    assert_eq!(reason(&e), "BUSY");
    // Whoever goes away gives the place back.
    drop(first);
    let until = Instant::now() + Duration::from_secs(20);
    while borrow(&it).await.is_err() {
        assert!(Instant::now() < until, "the place is lost");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
