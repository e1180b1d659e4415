//! The strict fake passes the conformance suite, and the handle copes with a token
//! that is lost, slow, full, ill or panicking.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::too_many_lines,
    clippy::useless_vec,
    reason = "this is a test"
)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use keywright_hsm::{
    DataObject, Hsm, KeyRef, KeySpec, Kind, ObjectId, Observer, Op, Options, Rewrap, Silent, State,
    Unwrap, conformance,
    fake::{FakeDevice, Fault},
};

const OPTIONS: Options = Options {
    workers: 2,
    queue_jobs: 8,
    check_every: Duration::from_millis(20),
};
const AAD: [u8; 56] = [1; 56];

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

async fn hsm(device: &FakeDevice) -> (Hsm, KeyRef) {
    let hsm = Hsm::start(Arc::new(device.clone()), OPTIONS, Arc::new(Silent)).unwrap();
    let id = ObjectId::random().unwrap();
    let new = hsm
        .generate(id, KeySpec::Aes256, "k".into(), soon())
        .await
        .unwrap();
    (hsm, new.key)
}

#[test]
fn conforms() {
    conformance::run(&FakeDevice::new());
}

#[tokio::test]
async fn a_lost_session_or_login_is_repaired_and_the_call_repeated() {
    let device = FakeDevice::new();
    let (hsm, key) = hsm(&device).await;
    for fault in [Fault::SessionLost, Fault::LoggedOut] {
        device.inject([fault]);
        let (dek, wrapped) = hsm.mint(&key, AAD, soon()).await.unwrap();
        let job = Unwrap {
            key: key.clone(),
            aad: AAD,
            wrapped,
        };
        let opened = hsm.unwrap(vec![job], soon()).await;
        assert_eq!(opened[0].as_ref().unwrap().expose(), dek.expose());
    }
    assert!(device.logins() >= 1);
}

#[tokio::test]
async fn generating_is_never_tried_twice() {
    let device = FakeDevice::new();
    let (hsm, _) = hsm(&device).await;
    let before = device.operations();
    device.inject([Fault::SessionLost]);
    let id = ObjectId::random().unwrap();
    let e = hsm
        .generate(id, KeySpec::Aes256, "once".into(), soon())
        .await
        .unwrap_err();
    assert_eq!(e.kind(), Kind::Stale);
    assert_eq!(device.operations(), before + 1);
    // The session was repaired all the same.
    hsm.generate(id, KeySpec::Aes256, "once".into(), soon())
        .await
        .unwrap();
}

#[tokio::test]
async fn data_is_put_again_after_a_lost_session_and_takes_leftovers_along() {
    let device = FakeDevice::new();
    let (hsm, _) = hsm(&device).await;
    let object = |value: &[u8]| DataObject {
        label: "seal".into(),
        value: value.into(),
    };
    device.leave_data(object(b"1"));
    device.leave_data(object(b"2"));
    let both = [object(b"1"), object(b"2")];
    assert_eq!(hsm.data(soon()).await.unwrap(), both);
    device.inject([Fault::SessionLost]);
    let put = || hsm.put_data("seal".into(), b"3".into(), soon());
    put().await.unwrap();
    assert_eq!(hsm.data(soon()).await.unwrap(), [object(b"3")]);
    device.refuse_data();
    assert_eq!(put().await.unwrap_err().kind(), Kind::Unsupported);
    let e = hsm.data(soon()).await.unwrap_err();
    assert_eq!(e.kind(), Kind::Unsupported);
}

#[tokio::test]
async fn an_unplugged_token_is_reported_and_comes_back_by_itself() {
    let device = FakeDevice::new();
    let (hsm, key) = hsm(&device).await;
    device.inject([Fault::Unplugged]);
    assert_eq!(
        hsm.mint(&key, AAD, soon()).await.unwrap_err().kind(),
        Kind::Gone
    );
    assert_eq!(hsm.state(), State::Down);
    device.plug_in();
    hsm.mint(&key, AAD, soon()).await.unwrap();
    assert_eq!(hsm.state(), State::Ready);
}

#[tokio::test]
async fn a_slow_token_meets_the_deadline_and_a_full_queue_says_so_at_once() {
    let device = FakeDevice::new();
    let (hsm, key) = hsm(&device).await;
    device.inject(std::iter::repeat_n(
        Fault::Slow(Duration::from_millis(300)),
        4,
    ));
    let e = hsm
        .mint(&key, AAD, Instant::now() + Duration::from_millis(50))
        .await
        .unwrap_err();
    assert_eq!(e.kind(), Kind::Late);
    // Two workers asleep, eight jobs queued: the next ones are turned away.
    let calls: Vec<_> = (0..32)
        .map(|_| {
            let (hsm, key) = (hsm.clone(), key.clone());
            tokio::spawn(async move { hsm.mint(&key, AAD, soon()).await.map(drop) })
        })
        .collect();
    let mut busy = 0;
    for call in calls {
        match call.await.unwrap() {
            Ok(()) => {}
            Err(e) if e.kind() == Kind::Busy => busy += 1,
            Err(e) => panic!("{e}"),
        }
    }
    assert!(busy > 0, "nobody was turned away");
}

#[tokio::test]
async fn a_job_nobody_waits_for_does_not_reach_the_token() {
    let device = FakeDevice::new();
    let (hsm, key) = hsm(&device).await;
    device.inject([
        Fault::Slow(Duration::from_millis(200)),
        Fault::Slow(Duration::from_millis(200)),
    ]);
    let short = Instant::now() + Duration::from_millis(20);
    for _ in 0..6 {
        assert_eq!(
            hsm.mint(&key, AAD, short).await.unwrap_err().kind(),
            Kind::Late
        );
    }
    let reached = device.operations();
    tokio::time::sleep(Duration::from_millis(500)).await;
    // Only the jobs that had started when the deadline passed went on.
    assert!(
        device.operations() <= reached + 4,
        "{} > {reached}",
        device.operations()
    );
}

#[tokio::test]
async fn a_panic_in_the_token_does_not_take_the_worker_along() {
    let device = FakeDevice::new();
    let (hsm, key) = hsm(&device).await;
    for _ in 0..4 {
        device.inject([Fault::Panic]);
        assert_eq!(
            hsm.mint(&key, AAD, soon()).await.unwrap_err().kind(),
            Kind::Fault
        );
    }
    hsm.mint(&key, AAD, soon()).await.unwrap();
}

#[tokio::test]
async fn rewrap_checks_its_own_output() {
    let device = FakeDevice::new();
    let (hsm, from) = hsm(&device).await;
    let to = hsm
        .generate(
            ObjectId::random().unwrap(),
            KeySpec::Aes256,
            "v2".into(),
            soon(),
        )
        .await
        .unwrap()
        .key;
    let (dek, wrapped) = hsm.mint(&from, AAD, soon()).await.unwrap();
    let job = Rewrap {
        from: Unwrap {
            key: from,
            aad: AAD,
            wrapped,
        },
        to: to.clone(),
        to_aad: [2; 56],
        verify: true,
    };
    let moved = hsm
        .rewrap(vec![job.clone()], soon())
        .await
        .remove(0)
        .unwrap();
    let opened = hsm
        .unwrap(
            vec![Unwrap {
                key: to,
                aad: [2; 56],
                wrapped: moved,
            }],
            soon(),
        )
        .await;
    assert_eq!(opened[0].as_ref().unwrap().expose(), dek.expose());
    // A token that flips a bit on the way out is caught.
    device.inject([Fault::FlipBit]);
    let e = hsm.rewrap(vec![job], soon()).await.remove(0).unwrap_err();
    assert_eq!(e.kind(), Kind::Fault);
}

#[tokio::test]
async fn one_bad_dek_does_not_spoil_its_neighbours() {
    let device = FakeDevice::new();
    let (hsm, key) = hsm(&device).await;
    let (_, wrapped) = hsm.mint(&key, AAD, soon()).await.unwrap();
    let good = Unwrap {
        key: key.clone(),
        aad: AAD,
        wrapped,
    };
    let mut jobs = vec![good; 100];
    jobs[57].aad[0] ^= 1;
    jobs[99].key.object = ObjectId([9; 16]);
    let results = hsm.unwrap(jobs, soon()).await;
    for (i, result) in results.iter().enumerate() {
        match i {
            57 => assert_eq!(result.as_ref().unwrap_err().kind(), Kind::Refused),
            99 => assert_eq!(result.as_ref().unwrap_err().kind(), Kind::NoSuchKey),
            _ => assert!(result.is_ok(), "{i}"),
        }
    }
}

#[tokio::test]
async fn a_full_token_and_a_substituted_key_are_faults() {
    let device = FakeDevice::new();
    let (hsm, key) = hsm(&device).await;
    device.limit_keys(1);
    let id = ObjectId::random().unwrap();
    let e = hsm
        .generate(id, KeySpec::Aes256, "full".into(), soon())
        .await
        .unwrap_err();
    assert_eq!(e.kind(), Kind::Fault);
    device.substitute_key(key.object);
    assert_eq!(
        hsm.mint(&key, AAD, soon()).await.unwrap_err().kind(),
        Kind::OtherKey
    );
    device.lose_key(key.object);
    assert_eq!(
        hsm.mint(&key, AAD, soon()).await.unwrap_err().kind(),
        Kind::NoSuchKey
    );
}

#[derive(Default)]
struct Counter {
    done: AtomicUsize,
    retried: AtomicUsize,
}

impl Observer for Counter {
    fn done(&self, _: Op, _: Duration, _: Duration, _: Option<Kind>) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }
    fn rejected(&self, _: Op) {}
    fn retried(&self, _: Op) {
        self.retried.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn the_observer_hears_of_every_job_and_retry() {
    let device = FakeDevice::new();
    let counter = Arc::new(Counter::default());
    let options = Options {
        check_every: Duration::from_secs(60),
        ..OPTIONS
    };
    let hsm = Hsm::start(Arc::new(device.clone()), options, counter.clone()).unwrap();
    device.inject([Fault::SessionLost]);
    hsm.random(16, soon()).await.unwrap();
    assert_eq!(counter.done.load(Ordering::Relaxed), 1);
    assert_eq!(counter.retried.load(Ordering::Relaxed), 1);
}
