//! Two nodes on one database: whoever writes at the same time as another loses nothing and
//! overwrites nothing.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use keywright_pki::KeyReuse;

use super::{acme, pki};
use crate::{
    key::{KeyId, Revision, UseTimes, VersionNumber},
    store::{Store, StoreError, Use, Written},
};

const NODES_WRITES: usize = 25;

/// The same from both nodes, many times at once.
async fn both<'a, T, F: Future<Output = T>>(
    nodes: [&'a dyn Store; 2],
    work: impl Fn(usize, &'a dyn Store) -> F,
) -> Vec<T> {
    let work = &work;
    let all = (0..NODES_WRITES).flat_map(|_| nodes).enumerate();
    join_all(all.map(|(i, node)| work(i, node))).await
}

/// After everything else: keys 1 and 3 are there.
pub(super) async fn run(one: &dyn Store, other: &dyn Store) {
    let nodes = [one, other];
    one_winner_for_each_revision(nodes).await;
    every_wrap_is_counted(nodes).await;
    one_certificate_for_a_request(nodes).await;
    groups_of_certificates(nodes).await;
    last_use_never_goes_back(nodes).await;
    one_order_replaces_a_certificate(nodes).await;
}

async fn one_winner_for_each_revision(nodes: [&dyn Store; 2]) {
    for _ in 0..3 {
        let before = nodes[0].load().await.unwrap().keys.remove(0);
        let next = before.updated(None, None, None).unwrap();
        let outcomes = both(nodes, async |_, node: &dyn Store| {
            node.change_key(&next).await
        })
        .await;
        let won = outcomes.iter().filter(|o| o.is_ok()).count();
        let lost = |o: &&Result<(), StoreError>| matches!(o, Err(StoreError::Conflict));
        let lost = outcomes.iter().filter(lost).count();
        assert_eq!((won, lost), (1, 2 * NODES_WRITES - 1), "{outcomes:?}");
        let after = nodes[1].load().await.unwrap().keys.remove(0);
        assert_eq!(after.revision, Revision(before.revision.0 + 1));
    }
}

async fn every_wrap_is_counted(nodes: [&dyn Store; 2]) {
    let (id, number) = (KeyId([3; 16]), VersionNumber::FIRST);
    let total = 10 * 2 * NODES_WRITES as u64;
    let reserve = async |_, node: &dyn Store| node.reserve_wraps(id, number, 10, total).await;
    let totals = both(nodes, reserve).await;
    let totals: BTreeSet<u64> = totals.into_iter().map(|t| t.unwrap().unwrap()).collect();
    assert_eq!(totals.len(), 2 * NODES_WRITES, "each block once");
    assert_eq!(totals.last(), Some(&total));
    let past = nodes[0].reserve_wraps(id, number, 1, total).await;
    assert_eq!(past.unwrap(), None);
}

/// The same idempotency key everywhere: one begins, the others hear of that one.
async fn one_certificate_for_a_request(nodes: [&dyn Store; 2]) {
    let begin = async |i: usize, node: &dyn Store| {
        let n = 100 + u8::try_from(i).unwrap();
        let asked = pki::begin(&pki::intended(n, "twice"), 0, KeyReuse::Forbid);
        pki::one(node, asked).await
    };
    let outcomes = both(nodes, begin).await;
    let done: Vec<usize> = (0..outcomes.len())
        .filter(|i| outcomes[*i] == Written::Done)
        .collect();
    let [winner] = done[..] else {
        panic!("{outcomes:?}")
    };
    let winner = pki::intended(100 + u8::try_from(winner).unwrap(), "").name;
    for outcome in outcomes {
        match outcome {
            Written::Done => {}
            Written::Known(known) => assert_eq!(known.intended.name, winner),
            other => panic!("{other:?}"),
        }
    }
    // Issued on one node, its key is used up on both.
    let finish = pki::finish(winner.clone());
    assert_eq!(pki::one(nodes[0], finish).await, Written::Done);
    let found = nodes[1].certificate(super::tenant().id, &winner).await;
    let spki = found.unwrap().unwrap().intended.spki;
    let same_key = |i: usize| {
        let mut asked = pki::intended(160 + u8::try_from(i).unwrap(), "");
        asked.spki = spki;
        asked
    };
    let begin = async |i: usize, node: &dyn Store| {
        pki::one(node, pki::begin(&same_key(i), 0, KeyReuse::Forbid)).await
    };
    let outcomes = both(nodes, begin).await;
    assert!(outcomes.iter().all(|o| *o == Written::KeyUsed));
}

/// As ledgers write them: one group after the other on each node.
async fn groups_of_certificates(nodes: [&dyn Store; 2]) {
    let write = async |half: u8, node: &dyn Store| {
        for group in 0..5 {
            let numbers: Vec<u8> = (0..4).map(|n| 10 + half * 40 + group * 4 + n).collect();
            let begins: Vec<_> = numbers
                .iter()
                .map(|n| pki::begin(&pki::intended(*n, ""), 0, KeyReuse::Forbid))
                .collect();
            let finishes: Vec<_> = numbers
                .iter()
                .map(|n| pki::finish(pki::intended(*n, "").name))
                .collect();
            for writes in [begins, finishes] {
                let written = node.write_certificates(&writes).await.unwrap();
                assert!(written.iter().all(|w| *w == Written::Done), "{written:?}");
            }
        }
    };
    let [one, other] = nodes;
    tokio::join!(write(0, one), write(1, other));
}

/// Whoever comes with the news, in whatever order.
async fn last_use_never_goes_back(nodes: [&dyn Store; 2]) {
    let used = |key, at| Use {
        key: KeyId([key; 16]),
        number: VersionNumber::FIRST,
        times: UseTimes {
            protected_ms: at,
            processed_ms: at,
            refused_ms: at,
        },
        more_bytes: 1,
    };
    let save = async |i: usize, node: &dyn Store| {
        let at = 50 + i64::try_from(i).unwrap();
        let mut uses = [used(1, at), used(3, at)];
        uses.rotate_left(i % 2);
        node.set_last_used(&uses).await
    };
    for saved in both(nodes, save).await {
        saved.unwrap();
    }
    for id in [1, 3] {
        let key = nodes[0].key(KeyId([id; 16])).await.unwrap().unwrap();
        let last = 49 + 2 * i64::try_from(NODES_WRITES).unwrap();
        assert_eq!(key.version(1).unwrap().used.processed_ms(), Some(last));
    }
}

/// Each looks first whether another one does: whoever looked too early looks again.
async fn one_order_replaces_a_certificate(nodes: [&dyn Store; 2]) {
    let replaces = Some(acme::certificate(9));
    let add = async |i: usize, node: &dyn Store| {
        let n = 30 + u8::try_from(i).unwrap();
        let order = acme::order(n, replaces.clone());
        node.add_order(&order, &[acme::authorization(n)]).await
    };
    let outcomes = both(nodes, add).await;
    let won = outcomes.iter().filter(|o| o.is_ok()).count();
    let exists = |o: &&Result<(), StoreError>| matches!(o, Err(StoreError::Exists));
    let lost = outcomes.iter().filter(exists).count();
    assert_eq!((won, lost), (1, 2 * NODES_WRITES - 1), "{outcomes:?}");
}
