//! Nodes: leases, epochs, and when a version becomes primary.

use std::time::Duration;

use keywright_pki::KeyReuse;

use super::{key, pki, version};
use crate::{
    authority::{CertificateRef, Reason, Revocation},
    key::{Key, KeyId},
    store::{Known, LogId, NodeId, Promoted, Store, Write},
};

pub(super) const NOBODY: NodeId = NodeId([0xee; 16]);
const A: NodeId = NodeId([1; 16]);
const B: NodeId = NodeId([2; 16]);
const LOGS: [LogId; 2] = [LogId([1; 16]), LogId([2; 16])];
const LONG: Duration = Duration::from_secs(600);
const SHORT: Duration = Duration::from_millis(300);

/// After everything else; key 3 is there. Leaves one node behind.
pub(super) async fn run(one: &dyn Store, other: &dyn Store) {
    assert!(one.is_first(A).await.unwrap(), "nobody else is there");
    assert!(!one.renew(A, Known::default(), LONG).await.unwrap());
    everything_new_is_told(one, other).await;
    a_version_is_heard_of_before_it_is_primary(one, other).await;
    leases_end(one, other).await;
}

async fn epoch(store: &dyn Store) -> Known {
    store.load().await.unwrap().known
}

async fn everything_new_is_told(one: &dyn Store, other: &dyn Store) {
    let all = one.news(Known::default()).await.unwrap();
    assert_eq!(all.keys.len(), one.load().await.unwrap().keys.len());
    assert_eq!(all.known, epoch(one).await);
    let known = all.known;
    let nothing = other.news(known).await.unwrap();
    assert_eq!((nothing.keys.len(), nothing.known), (0, known));
    assert!(nothing.authorities.is_none());

    let changed = stored(one, 3).await.updated(None, None, None).unwrap();
    one.change_key(&changed).await.unwrap();
    one.create_key(&key(40, "new")).await.unwrap();
    let news = other.news(known).await.unwrap();
    let mut ids: Vec<u8> = news.keys.iter().map(|k| k.id.0[0]).collect();
    ids.sort_unstable();
    assert_eq!(ids, [3, 40]);
    assert_eq!(news.known.epoch, known.epoch + 2);
    assert!(news.authorities.is_none());

    let known = news.known;
    let profiles = all.authorities.unwrap().profiles;
    let mut profile = profiles[0].clone();
    profile.version = 77;
    one.add_profile(&profile).await.unwrap();
    let news = other.news(known).await.unwrap();
    let found = news.authorities.unwrap().profiles;
    assert!(found.iter().any(|p| p.version == 77));
    let (tenant, name) = (profile.tenant, &profile.name);
    one.retire_profile(tenant, name, 9).await.unwrap();
    assert!(other.news(news.known).await.unwrap().authorities.is_some());
    everything_about_revocation_is_told(one, other).await;
    // What was refused is no news.
    let known = epoch(one).await;
    one.change_key(&changed).await.unwrap_err();
    assert_eq!(epoch(one).await, known);
}

async fn everything_about_revocation_is_told(one: &dyn Store, other: &dyn Store) {
    let began = [201, 202, 203].map(|n| pki::intended(n, ""));
    let begins: Vec<_> = began
        .iter()
        .map(|one| pki::begin(one, 0, KeyReuse::Forbid))
        .collect();
    let known = epoch(one).await;
    one.write_certificates(&begins).await.unwrap();
    assert_eq!(epoch(one).await, known, "issuing is no news");
    let [first, second, third] = began.map(|one| one.name);
    let revoke = |name: &CertificateRef, reason| Write::Revoke {
        name: name.clone(),
        revocation: Revocation {
            revoked_ms: 70,
            reason,
            invalidity_ms: None,
        },
    };
    // One epoch for a group, whatever else is in it.
    let group = [
        revoke(&first, Reason::Superseded),
        pki::finish(third.clone()),
        revoke(&second, Reason::Superseded),
    ];
    one.write_certificates(&group).await.unwrap();
    let news = other.news(known).await.unwrap();
    assert_eq!(news.known.epoch, known.epoch + 1);
    assert!(news.keys.is_empty() && news.authorities.is_none());
    assert_eq!(news.revoked.len(), 2);
    assert!(news.revoked.contains(&first) && news.revoked.contains(&second));
    let known = news.known;
    assert!(other.news(known).await.unwrap().revoked.is_empty());
    // Also that it is worse.
    let worse = [revoke(&second, Reason::KeyCompromise)];
    one.write_certificates(&worse).await.unwrap();
    assert_eq!(other.news(known).await.unwrap().revoked, [second]);
    // Who may have missed anything hears all.
    let all = other.news(Known::default()).await.unwrap().revoked;
    assert!(all.len() > 2 && all.contains(&first) && !all.contains(&third));

    let known = epoch(one).await;
    let mut crl = one.load_authorities().await.unwrap().crls.remove(0);
    let before = crl.number;
    crl.number += 1;
    one.set_crl(&crl, before, Some(&[4])).await.unwrap();
    let news = other.news(known).await.unwrap();
    assert!(news.authorities.unwrap().crls.contains(&crl));
}

async fn stored(store: &dyn Store, id: u8) -> Key {
    let key = store.key(KeyId([id; 16])).await.unwrap();
    key.expect("the key is there")
}

async fn a_version_is_heard_of_before_it_is_primary(one: &dyn Store, other: &dyn Store) {
    assert_eq!(one.join(A, "a", LOGS[0], LONG).await.unwrap(), None);
    assert_eq!(other.join(B, "b", LOGS[1], LONG).await.unwrap(), None);
    assert!(one.is_first(A).await.unwrap() && !other.is_first(B).await.unwrap());
    // Two that write one audit log: the one that came first has it, until its lease ends.
    let copied = other.join(NOBODY, "copy", LOGS[0], LONG).await;
    assert_eq!(copied.unwrap().as_deref(), Some("a"));
    let known = epoch(one).await;
    for node in [A, B] {
        assert!(one.renew(node, known, LONG).await.unwrap());
    }
    let added = stored(one, 40).await.with_version(version(40, 2));
    let number = added.waiting().unwrap();
    one.add_version(&added, added.version(2).unwrap())
        .await
        .unwrap();
    let next = added.promoted(7).unwrap();
    let waits = Promoted::Waits(vec!["b".to_owned()]);
    assert_eq!(one.promote(A, &next, number).await.unwrap(), waits);
    let id = KeyId([40; 16]);
    assert_eq!(one.behind(A, id).await.unwrap(), ["b"]);
    assert_eq!(one.behind(B, id).await.unwrap(), ["a"]);
    // What a node knew before says nothing about the version.
    assert!(other.renew(B, known, LONG).await.unwrap());
    assert_eq!(other.epoch().await.unwrap(), known.epoch + 1);
    assert_eq!(one.promote(A, &next, number).await.unwrap(), waits);
    let news = other.news(known).await.unwrap();
    assert_eq!(news.keys[0].waiting(), Some(number));
    other.renew(B, news.known, LONG).await.unwrap();
    assert!(one.behind(A, id).await.unwrap().is_empty());
    assert_eq!(one.promote(A, &next, number).await.unwrap(), Promoted::Done);
    assert_eq!(stored(other, 40).await.primary, number);

    assert_eq!(one.unaware(id).await.unwrap(), ["a", "b"]);
    let known = epoch(one).await;
    one.renew(A, known, LONG).await.unwrap();
    assert_eq!(one.unaware(id).await.unwrap(), ["b"]);
    other.renew(B, known, LONG).await.unwrap();
    assert!(one.unaware(id).await.unwrap().is_empty());
    // Who joins anew knows nothing yet.
    assert_eq!(other.join(B, "b", LOGS[1], LONG).await.unwrap(), None);
    assert_eq!(one.unaware(id).await.unwrap(), ["b"]);
    one.leave(B).await.unwrap();
    assert!(one.unaware(id).await.unwrap().is_empty());
    assert!(!other.renew(B, known, LONG).await.unwrap());
}

async fn leases_end(one: &dyn Store, other: &dyn Store) {
    assert_eq!(other.join(B, "b", LOGS[1], SHORT).await.unwrap(), None);
    let id = KeyId([40; 16]);
    assert_eq!(one.unaware(id).await.unwrap(), ["b"]);
    tokio::time::sleep(SHORT + Duration::from_millis(50)).await;
    assert!(one.unaware(id).await.unwrap().is_empty());
    let late = other.renew(B, epoch(other).await, LONG).await.unwrap();
    assert!(!late, "it has to join again");
    one.leave(A).await.unwrap();
    for version in stored(one, 40).await.versions() {
        let reserved = one.reserve_wraps(id, version.number, 1, 9).await;
        assert_eq!(reserved.unwrap(), Some(1));
    }
}
