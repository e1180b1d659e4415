//! Kept data keys: what every store must do with them.

use keywright_hsm::WrappedDek;

use super::{Store, StoreError, tenant};
use crate::{
    envelope::{DataKeyId, Header, Kept, Kind},
    key::{KeyId, TenantId, VersionNumber},
};

/// Key 1 of the other checks.
const KEY: KeyId = KeyId([1; 16]);

fn header(id: u8, version: u32) -> Header {
    let wrapped = WrappedDek([u8::try_from(version).unwrap(); 60]);
    let version = VersionNumber::new(version).unwrap();
    Header::assemble(Kind::DataKey, KEY, [id; 16], [id; 32], version, &wrapped)
}

fn kept(id: u8, version: u32) -> Kept {
    Kept {
        tenant: tenant().id,
        header: header(id, version),
        created_ms: 5,
    }
}

pub(super) async fn run(store: &dyn Store) {
    let all: Vec<Kept> = (1..=5).map(|id| kept(id, 1)).collect();
    store.keep(&all).await.unwrap();
    // All or none.
    let twin = store.keep(&[kept(6, 1), kept(3, 2)]).await;
    assert!(matches!(twin, Err(StoreError::Exists)), "{twin:?}");
    let ids = |ids: &[u8]| -> Vec<DataKeyId> { ids.iter().map(|n| DataKeyId([*n; 16])).collect() };
    let mut found = store.kept(tenant().id, &ids(&[5, 6, 1, 99])).await.unwrap();
    found.sort_by_key(Kept::id);
    assert_eq!(found, [all[0], all[4]]);
    let foreign = store.kept(TenantId([99; 16]), &ids(&[1])).await;
    assert!(foreign.unwrap().is_empty(), "another tenant");
    assert!(store.kept(tenant().id, &[]).await.unwrap().is_empty());

    let page = store.kept_under(KEY, None, 2).await.unwrap();
    assert_eq!(page, all[..2]);
    let page = store.kept_under(KEY, Some(all[1].id()), 9).await.unwrap();
    assert_eq!(page, all[2..]);
    let other = store.kept_under(KeyId([2; 16]), None, 9).await.unwrap();
    assert!(other.is_empty());

    // What is no longer as it was read is left alone.
    let moves = [
        (header(1, 1), header(1, 2)),
        (header(2, 1), header(2, 2)),
        (header(3, 2), header(3, 3)),
    ];
    let moved = store.move_kept(&moves).await.unwrap();
    assert_eq!(moved, [true, true, false]);
    let again = store.move_kept(&moves).await.unwrap();
    assert_eq!(again, [false; 3]);
    let version = |n| VersionNumber::new(n).unwrap();
    let counted = store.kept_versions(KEY).await.unwrap();
    assert_eq!(counted, [(version(1), 3), (version(2), 2)]);

    let other_key = store.forget(KeyId([2; 16]), &ids(&[1])).await.unwrap();
    assert_eq!(other_key, 0, "of another key");
    assert_eq!(store.forget(KEY, &ids(&[1, 3, 99])).await.unwrap(), 2);
    assert_eq!(store.forget(KEY, &ids(&[1])).await.unwrap(), 0, "again");
}

pub(super) async fn survives(store: &dyn Store) {
    let all = store.kept_under(KEY, None, 99).await.unwrap();
    assert_eq!(all, [kept(2, 2), kept(4, 1), kept(5, 1)]);
}
