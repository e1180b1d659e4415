//! Batches under a data key that the appliance keeps on lease: one wrap for many envelopes,
//! and nothing is sealed that would not be without it.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use keywright_client::proto::KeyState;

use super::{
    lease::{change_state, lend, lending},
    *,
};

async fn seal(it: &Appliance) -> Result<EncryptResponse, tonic::Status> {
    let mut crypto = it.client("red", "user").await.crypto();
    Ok(crypto.encrypt(encrypt(KEY, &[b"x"])).await?.into_inner())
}

/// Version and wrapped data key.
fn wrapped(sealed: &EncryptResponse) -> Bytes {
    sealed.header.slice(68..)
}

fn has_lease(it: &Appliance) -> bool {
    let keys = it.app.keyring.all();
    let mut versions = keys.iter().flat_map(|key| key.versions());
    versions.any(|version| version.lease.made().is_some())
}

#[tokio::test]
async fn batches_share_a_data_key_and_nothing_else() {
    let it = lending(Limits::default()).await;
    let first = seal(&it).await.unwrap();
    let second = seal(&it).await.unwrap();
    assert_eq!(wrapped(&first), wrapped(&second));
    assert_ne!(first.header[20..36], second.header[20..36], "salts");
    assert_ne!(first.header[36..68], second.header[36..68], "commitments");
    it.rotate("red", KEY).await;
    let third = seal(&it).await.unwrap();
    assert_eq!(third.key_version, 2);
    assert_ne!(wrapped(&first)[8..], wrapped(&third)[8..]);
    let user = it.client("red", "user").await;
    for sealed in [first, second, third] {
        let opened = user.crypto().decrypt(decrypt(&sealed)).await.unwrap();
        assert_eq!(opened.into_inner().plaintexts, [Bytes::from_static(b"x")]);
    }
}

#[tokio::test]
async fn a_key_without_the_rule_takes_a_data_key_for_each_batch() {
    let it = lending(Limits::default()).await;
    seal(&it).await.unwrap();
    assert!(has_lease(&it));
    lend(&it, KEY, 0).await.unwrap();
    let (first, second) = (seal(&it).await.unwrap(), seal(&it).await.unwrap());
    assert_ne!(wrapped(&first), wrapped(&second));
    let until = Instant::now() + Duration::from_secs(20);
    while has_lease(&it) {
        assert!(Instant::now() < until, "the data key stays in memory");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn who_comes_while_a_data_key_is_made_waits_for_the_same_one() {
    let it = std::sync::Arc::new(lending(Limits::default()).await);
    it.device.inject([Fault::Slow(Duration::from_millis(300))]);
    let seals = (0..32).map(|_| {
        let it = std::sync::Arc::clone(&it);
        tokio::spawn(async move { seal(&it).await })
    });
    let mut wraps = BTreeMap::new();
    for sealed in seals.collect::<Vec<_>>() {
        *wraps
            .entry(wrapped(&sealed.await.unwrap().unwrap()))
            .or_insert(0) += 1;
    }
    assert_eq!(wraps.into_values().collect::<Vec<_>>(), [32]);
}

#[tokio::test]
async fn a_data_key_seals_so_many_envelopes_and_no_more() {
    let limits = Limits {
        lease_envelopes: 4,
        ..Limits::default()
    };
    let it = lending(limits).await;
    let mut wraps = BTreeMap::new();
    for _ in 0..21 {
        *wraps.entry(wrapped(&seal(&it).await.unwrap())).or_insert(0) += 1;
    }
    assert!(wraps.values().all(|n| *n <= 4), "{:?}", wraps.values());
    assert!(wraps.values().any(|n| *n > 1), "{:?}", wraps.values());
}

#[tokio::test]
async fn a_suspended_key_seals_nothing_although_it_has_a_lease() {
    let it = lending(Limits::default()).await;
    seal(&it).await.unwrap();
    assert!(has_lease(&it));
    change_state(&it, KeyState::Suspended).await;
    assert_eq!(reason(&seal(&it).await.unwrap_err()), "KEY_STATE");
    let until = Instant::now() + Duration::from_secs(20);
    while has_lease(&it) {
        assert!(Instant::now() < until, "the data key stays in memory");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    change_state(&it, KeyState::Active).await;
    seal(&it).await.unwrap();
}
