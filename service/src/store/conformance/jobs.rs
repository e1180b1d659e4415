//! Jobs: what every store must do with them.

use keywright_hsm::{KeyProof, KeyRef, KeySpec, ObjectId, PublicKey};

use super::{Store, StoreError, tenant};
use crate::{
    job::{Job, JobChange, JobId, JobKind, Lease, tests::job, tests::step},
    key::{KeyId, TenantId},
    store::JobSearch,
};

/// Key 1 of the other checks.
const KEY: KeyId = KeyId([1; 16]);

fn named(id: u8, subject: &str, created_ms: i64) -> Job {
    Job {
        id: JobId([id; 16]),
        tenant: tenant().id,
        key: KEY,
        subject: subject.into(),
        created_ms,
        rate: Some(9),
        ..job()
    }
}

fn lease(id: u8) -> Lease {
    Lease {
        job: JobId([id; 16]),
        number: 1,
    }
}

pub(super) async fn run(store: &dyn Store) {
    let first = named(1, "table a", 10);
    store.add_job(&first).await.unwrap();
    let twin = store.add_job(&named(2, "table a", 11)).await;
    assert!(matches!(twin, Err(StoreError::Exists)), "one open job");
    let read = |id| store.job(tenant().id, JobId([id; 16]));
    assert_eq!(read(1).await.unwrap(), Some(first.clone()));
    assert_eq!(read(2).await.unwrap(), None);
    let foreign = store.job(TenantId([99; 16]), first.id).await;
    assert_eq!(foreign.unwrap(), None, "another tenant");
    assert_eq!(
        store.open_job(KEY, "table a").await.unwrap(),
        Some(first.clone())
    );

    let tables = store.open_jobs(JobKind::Table, 9).await.unwrap();
    assert_eq!(tables, std::slice::from_ref(&first));
    let kept = store.open_jobs(JobKind::Kept, 9).await.unwrap();
    assert!(kept.is_empty());

    let leased = first.leased("w".into(), false, 2_000, 100).unwrap();
    store.change_job(&leased).await.unwrap();
    let late = store.change_job(&leased).await;
    assert!(matches!(late, Err(StoreError::Conflict)), "{late:?}");
    let mut last = step(1, 3, 2);
    last.completed = true;
    let ended = leased.stepped(lease(1), last, 3_000, 100).unwrap().unwrap();
    store.change_job(&ended).await.unwrap();
    assert_eq!(read(1).await.unwrap(), Some(ended.clone()));
    assert_eq!(store.open_job(KEY, "table a").await.unwrap(), None);

    // The next one over the same place, which ends having moved the rest.
    let again = named(2, "table a", 20);
    store.add_job(&again).await.unwrap();
    assert_eq!(ids(store.standing_jobs(KEY).await.unwrap()), [2, 1]);
    let leased = again.leased("w".into(), false, 4_000, 100).unwrap();
    store.change_job(&leased).await.unwrap();
    let mut last = step(1, 2, 0);
    last.completed = true;
    let clean = leased.stepped(lease(2), last, 5_000, 100).unwrap().unwrap();
    store.change_job(&clean).await.unwrap();
    // One that was given up before it did anything says nothing.
    let idle = named(3, "table a", 30);
    store.add_job(&idle).await.unwrap();
    let gone = idle.changed(JobChange::Cancel, 6_000).unwrap();
    store.change_job(&gone).await.unwrap();
    store.add_job(&named(4, "files b", 30)).await.unwrap();
    assert_eq!(ids(store.standing_jobs(KEY).await.unwrap()), [4, 2]);
    // One that was cancelled on its way stands beside the last that went through.
    let half = named(5, "table a", 40);
    store.add_job(&half).await.unwrap();
    let leased = half.leased("w".into(), false, 7_000, 100).unwrap();
    store.change_job(&leased).await.unwrap();
    let some = leased.stepped(lease(5), step(1, 1, 0), 7_001, 100);
    let some = some.unwrap().unwrap();
    store.change_job(&some).await.unwrap();
    let gone = some.changed(JobChange::Cancel, 8_000).unwrap();
    store.change_job(&gone).await.unwrap();
    assert_eq!(ids(store.standing_jobs(KEY).await.unwrap()), [5, 4, 2]);
    let other = store.standing_jobs(KeyId([9; 16])).await.unwrap();
    assert!(other.is_empty());

    searches(store).await;
    signer(store).await;
}

fn ids(jobs: Vec<Job>) -> Vec<u8> {
    jobs.iter().map(|job| job.id.0[0]).collect()
}

async fn searches(store: &dyn Store) {
    let search = |what: JobSearch| async move { store.jobs(tenant().id, &what).await.unwrap() };
    let all = JobSearch {
        limit: 10,
        ..JobSearch::default()
    };
    assert_eq!(ids(search(all.clone()).await), [5, 4, 3, 2, 1]);
    let page = search(JobSearch {
        limit: 2,
        ..all.clone()
    });
    assert_eq!(ids(page.await), [5, 4]);
    let next = search(JobSearch {
        after: Some((30, JobId([3; 16]))),
        ..all.clone()
    });
    assert_eq!(ids(next.await), [2, 1]);
    let open = search(JobSearch {
        open_only: true,
        key: Some(KEY),
        ..all.clone()
    });
    assert_eq!(ids(open.await), [4]);
    let other = search(JobSearch {
        key: Some(KeyId([9; 16])),
        ..all
    });
    assert!(other.await.is_empty());
}

fn signer_key(id: u8) -> KeyRef {
    let spec = KeySpec::parse("ec-p256", None).unwrap();
    // A public key is a public key: that of RFC 6979, A.2.5.
    let spki = "3059301306072a8648ce3d020106082a8648ce3d0301070342000460fed4ba255a9d31c961eb74c6356d68c049b8923b61fa6ce669622e60f29fb67903fe1008b8bc99a41ae9e95628bc64f2f1b20c2d7e9f5177a3c294d4462299";
    let public = PublicKey::from_spki(spec, &hex::decode(spki).unwrap()).unwrap();
    KeyRef {
        object: ObjectId([id; 16]),
        spec,
        proof: KeyProof::Public(public),
    }
}

async fn signer(store: &dyn Store) {
    assert_eq!(store.signer().await.unwrap(), None);
    let first = signer_key(1);
    assert_eq!(store.set_signer(&first).await.unwrap(), first);
    let second = store.set_signer(&signer_key(2)).await.unwrap();
    assert_eq!(second, first, "who comes second is told of the first");
}

pub(super) async fn survives(store: &dyn Store) {
    let job = store.job(tenant().id, JobId([1; 16])).await.unwrap();
    let job = job.unwrap();
    assert_eq!((job.counts.moved, job.counts.left, job.steps), (3, 2, 1));
    assert_eq!(store.signer().await.unwrap(), Some(signer_key(1)));
}
