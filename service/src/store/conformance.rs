//! What every [`Store`] must do; run against each engine.

pub(super) mod acme;
mod data_keys;
mod jobs;
mod nodes;
pub(super) mod pki;
mod writers;

use std::{collections::BTreeMap, sync::Arc};

use keywright_hsm::{Dek, KeyProof, KeyRef, ObjectId, WrappedDek};

use super::{Anchor, Anchors, Intent, LogId, Promoted, Sealer, Store, StoreError, Tenant, Use};
use crate::key::{
    Key, KeyId, KeyName, KeySpec, KeyState, KeyVersion, Labels, Revision, Rules, TenantId,
    UseTimes, VersionNumber, WrapCounter,
};

pub(crate) fn sealer() -> Sealer {
    Sealer::new(&Dek::take(&mut [3; 32]))
}

pub(crate) fn tenant() -> Tenant {
    Tenant {
        id: TenantId([7; 16]),
        name: "payments".into(),
    }
}

pub(crate) fn version(key: u8, number: u32) -> KeyVersion {
    let mut object = [key; 16];
    object[15] = u8::try_from(number).unwrap();
    KeyVersion {
        number: VersionNumber::new(number).unwrap(),
        state: KeyState::Active,
        on_token: KeyRef {
            object: ObjectId(object),
            spec: KeySpec::Aes256,
            proof: KeyProof::Wrapped(WrappedDek([key; 60])),
        },
        token_serial: "cafe".into(),
        created_ms: 1_700_000_000_000 + i64::from(number),
        destroy_at_ms: None,
        brown_out_until_ms: None,
        wraps: Arc::new(WrapCounter::new(0)),
        used: Arc::default(),
        lease: Arc::default(),
    }
}

pub(crate) fn key(id: u8, name: &str) -> Key {
    let labels = BTreeMap::from([("team".to_owned(), "payments".to_owned())]);
    Key::new(
        KeyId([id; 16]),
        tenant().id,
        KeyName::parse(name).unwrap(),
        KeySpec::Aes256,
        Labels::new(labels).unwrap(),
        version(id, 1),
    )
}

fn intent(id: u8, number: u32) -> Intent {
    Intent {
        object: version(id, number).on_token.object,
        tenant: tenant().id,
        key: KeyId([id; 16]),
        name: KeyName::parse("a/b").unwrap(),
        number: VersionNumber::new(number).unwrap(),
        created_ms: 5,
    }
}

/// Runs every check; `reopen` opens the same store anew each time.
pub(crate) async fn run<S: Store, F: Future<Output = S>>(open: &impl Fn() -> F) {
    let reopen = async || {
        let store = open().await;
        store.seal_with(sealer());
        store
    };
    let store = reopen().await;
    assert!(store.load().await.unwrap().keys.is_empty());
    tenants(&store).await;
    keys(&store).await;
    counters(&store).await;
    intents(&store).await;
    facts(&store).await;
    pki::run(&store).await;
    acme::run(&store).await;
    jobs::run(&store).await;
    data_keys::run(&store).await;
    drop(store);
    let store = reopen().await;
    survives(&store).await;
    jobs::survives(&store).await;
    data_keys::survives(&store).await;
    nodes::run(&store, &reopen().await).await;
    writers::run(&store, &reopen().await).await;
}

async fn tenants(store: &dyn Store) {
    store.add_tenant(&tenant()).await.unwrap();
    for twin in [
        tenant(),
        Tenant {
            name: "other".into(),
            ..tenant()
        },
        Tenant {
            id: TenantId([8; 16]),
            ..tenant()
        },
    ] {
        assert!(matches!(
            store.add_tenant(&twin).await,
            Err(StoreError::Exists)
        ));
    }
    assert_eq!(store.load().await.unwrap().tenants, [tenant()]);
}

async fn keys(store: &dyn Store) {
    store.create_key(&key(1, "a/b")).await.unwrap();
    assert!(matches!(
        store.create_key(&key(2, "a/b")).await,
        Err(StoreError::Exists)
    ));
    assert!(matches!(
        store.create_key(&key(1, "a/c")).await,
        Err(StoreError::Exists)
    ));

    let added = key(1, "a/b").with_version(version(1, 2));
    let second = added.version(2).unwrap();
    store.add_version(&added, second).await.unwrap();
    // The same picture again: the stored revision has moved on.
    let again = store.add_version(&added, &version(1, 3)).await;
    assert!(matches!(again, Err(StoreError::Conflict)));
    let stored = store.load().await.unwrap().keys.remove(0);
    assert_eq!(
        (stored.primary.get(), stored.waiting()),
        (1, Some(second.number))
    );
    let rotated = stored.promoted(5_000).unwrap();
    let promoted = store.promote(nodes::NOBODY, &rotated, second.number).await;
    assert_eq!(promoted.unwrap(), Promoted::Done);
    let again = store.promote(nodes::NOBODY, &rotated, second.number).await;
    assert!(matches!(again, Err(StoreError::Conflict)));
    let unknown = key(9, "a/z").with_version(version(9, 2));
    let lost = store.add_version(&unknown, &version(9, 2)).await;
    assert!(matches!(lost, Err(StoreError::Conflict)));

    let loaded = store.load().await.unwrap().keys;
    let [one] = loaded.as_slice() else {
        panic!("{loaded:?}")
    };
    assert_eq!((one.primary.get(), one.revision), (2, Revision(3)));
    assert_eq!((one.promoted_ms, one.waiting()), (5_000, None));
    assert_eq!(one.version(2).unwrap().state, KeyState::Active);
    assert_eq!(one.versions().count(), 2);
    assert_eq!(one.labels, key(1, "a/b").labels);
    let second = one.version(2).unwrap();
    assert_eq!(second.on_token, version(1, 2).on_token);
    assert_eq!(second.created_ms, version(1, 2).created_ms);

    let (next, _) = one.moved(Some(1), KeyState::Deactivated).unwrap();
    store.change_key(&next).await.unwrap();
    let again = store.change_key(&next).await;
    assert!(matches!(again, Err(StoreError::Conflict)));
    let loaded = store.load().await.unwrap().keys;
    let states: Vec<KeyState> = loaded[0].versions().map(|v| v.state).collect();
    assert_eq!(states, [KeyState::Deactivated, KeyState::Active]);
    assert_eq!(loaded[0].revision, Revision(4));
    assert_eq!(
        (loaded[0].rules, loaded[0].minimum.get()),
        (Rules::default(), 1)
    );
    changes(store, &next).await;
}

async fn changes(store: &dyn Store, key: &Key) {
    let rules = Rules {
        rotate_after_days: Some(90),
        wrap_limit: Some(1 << 20),
        ..Rules::default()
    };
    let next = key
        .updated(Some(Labels::default()), Some(rules), Some(2))
        .unwrap();
    store.change_key(&next).await.unwrap();
    let (next, _) = next.browned_out(1, 66).unwrap();
    store.change_key(&next).await.unwrap();
    let stored = store.load().await.unwrap().keys;
    assert_eq!(stored[0].version(1).unwrap().brown_out_until_ms, Some(66));
    let (next, _) = next.back(66).unwrap();
    store.change_key(&next).await.unwrap();
    let (next, _) = next.scheduled(Some(1), 77).unwrap();
    store.change_key(&next).await.unwrap();
    let used = Use {
        key: key.id,
        number: VersionNumber::FIRST,
        times: UseTimes {
            protected_ms: 5,
            processed_ms: 6,
            refused_ms: 7,
        },
        more_bytes: 8,
    };
    store.set_last_used(&[used]).await.unwrap();
    // Another node has seen less, and sealed some too.
    let other = Use {
        times: UseTimes {
            protected_ms: 4,
            ..UseTimes::default()
        },
        ..used
    };
    store.set_last_used(&[other]).await.unwrap();
    let loaded = store.load().await.unwrap().keys;
    let one = &loaded[0];
    assert_eq!((one.rules, one.minimum.get()), (rules, 2));
    assert!(one.labels.pairs().is_empty());
    let first = one.version(1).unwrap();
    assert_eq!(
        (first.destroy_at_ms, first.brown_out_until_ms),
        (Some(77), None)
    );
    assert_eq!(first.used.protected_ms(), Some(5));
    assert_eq!(first.used.processed_ms(), Some(6));
    assert_eq!(first.used.refused_ms(), Some(7));
    assert_eq!(first.used.sealed_bytes(), 16);
    assert_eq!(one.version(2).unwrap().used.protected_ms(), None);
}

async fn counters(store: &dyn Store) {
    let (id, number) = (KeyId([1; 16]), VersionNumber::FIRST);
    assert_eq!(
        store.reserve_wraps(id, number, 100, 250).await.unwrap(),
        Some(100)
    );
    assert_eq!(
        store.reserve_wraps(id, number, 100, 250).await.unwrap(),
        Some(200)
    );
    assert_eq!(
        store.reserve_wraps(id, number, 100, 250).await.unwrap(),
        None,
        "past the limit"
    );
    assert_eq!(
        store
            .reserve_wraps(KeyId([99; 16]), number, 1, 9)
            .await
            .unwrap(),
        None
    );
    let end = WrapCounter::REFUSE_AT;
    assert_eq!(
        store
            .reserve_wraps(id, number, end - 200, end)
            .await
            .unwrap(),
        Some(end)
    );
    assert_eq!(store.reserve_wraps(id, number, 1, end).await.unwrap(), None);
    let loaded = store.load().await.unwrap();
    let key = loaded.keys.first().unwrap();
    assert_eq!(key.version(1).unwrap().wraps.reserved(), end);
    assert_eq!(key.version(2).unwrap().wraps.reserved(), 0);
}

async fn intents(store: &dyn Store) {
    store.begin(&intent(3, 1)).await.unwrap();
    store.begin(&intent(4, 1)).await.unwrap();
    assert!(matches!(
        store.begin(&intent(4, 1)).await,
        Err(StoreError::Exists)
    ));
    store.abandon(intent(4, 1).object).await.unwrap();
    assert_eq!(store.load().await.unwrap().intents, [intent(3, 1)]);
    // What was begun is finished by the same transaction that stores the key.
    store.create_key(&key(3, "finished")).await.unwrap();
    assert!(store.load().await.unwrap().intents.is_empty());
    store.begin(&intent(5, 1)).await.unwrap();
}

const OTHER_LOG: LogId = LogId([0xab; 16]);

async fn facts(store: &dyn Store) {
    let canary = version(6, 1).on_token;
    store.set_canary(&canary).await.unwrap();
    assert!(matches!(
        store.set_canary(&canary).await,
        Err(StoreError::Exists)
    ));
    for (seq, log) in [(1, LogId::FIRST), (2, LogId::FIRST), (7, OTHER_LOG)] {
        let anchor = Anchor { seq, hash: [3; 32] };
        store.set_anchor(log, anchor).await.unwrap();
    }
}

async fn survives(store: &dyn Store) {
    let contents = store.load().await.unwrap();
    assert_eq!(contents.keys.len(), 2);
    assert_eq!(contents.intents, [intent(5, 1)]);
    assert_eq!(contents.canary, Some(version(6, 1).on_token));
    let at = |seq| Anchor { seq, hash: [3; 32] };
    let anchors = Anchors::from([(LogId::FIRST, at(2)), (OTHER_LOG, at(7))]);
    assert_eq!(contents.anchors, anchors);
}
