//! Several tokens that hold the same keys: who does a job, and what becomes of it when a
//! token is lost, silent, a stranger, or holds other keys.

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
    DataObject, Error, Hsm, KeyRef, KeySpec, Kind, ObjectId, Observer, Op, Opened, Options, Place,
    Rewrap, Silent, State, Unwrap,
    fake::{FakeDevice, Fault},
};

const OPTIONS: Options = Options {
    workers: 2,
    queue_jobs: 256,
    check_every: Duration::from_millis(50),
};
const AAD: [u8; 56] = [1; 56];

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

fn place(name: &str, device: &FakeDevice) -> Place {
    let device = device.clone();
    Place {
        name: name.into(),
        open: Box::new(move || {
            Ok(Opened {
                connector: Arc::new(device.clone()),
                workers: 2,
            })
        }),
    }
}

fn group(devices: &[&FakeDevice]) -> Hsm {
    let places = devices.iter().enumerate();
    let places = places.map(|(n, d)| place(&format!("t{n}"), d)).collect();
    Hsm::start_group(places, OPTIONS, Arc::new(Silent)).unwrap()
}

/// A token with a key that is watched and one for use.
async fn token() -> (FakeDevice, KeyRef, KeyRef) {
    let device = FakeDevice::new();
    let hsm = group(&[&device]);
    let (canary, key) = (generate(&hsm).await, generate(&hsm).await);
    (device, canary, key)
}

async fn generate(hsm: &Hsm) -> KeyRef {
    let id = ObjectId::random().unwrap();
    let new = hsm.generate(id, KeySpec::Aes256, "k".into(), soon());
    new.await.unwrap().key
}

/// Two tokens, the second a copy of the first, both known to serve.
async fn two() -> (Hsm, [FakeDevice; 2], KeyRef) {
    let (a, canary, key) = token().await;
    let b = a.copy();
    let hsm = group(&[&a, &b]);
    hsm.watch(canary);
    until("both serve", || states(&hsm) == [State::Ready; 2]).await;
    (hsm, [a, b], key)
}

fn states(hsm: &Hsm) -> Vec<State> {
    hsm.tokens().iter().map(|t| t.state).collect()
}

async fn until(what: &str, so: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !so() {
        assert!(Instant::now() < end, "{what} did not come");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn used(hsm: &Hsm, key: &KeyRef) -> Result<(), Error> {
    let (dek, wrapped) = hsm.mint(key, AAD, soon()).await?;
    let opened = hsm.unwrap(vec![unwrap(key, wrapped)], soon()).await;
    let again = opened.into_iter().next().unwrap()?;
    assert_eq!(again.expose(), dek.expose());
    Ok(())
}

fn unwrap(key: &KeyRef, wrapped: keywright_hsm::WrappedDek) -> Unwrap {
    Unwrap {
        key: key.clone(),
        aad: AAD,
        wrapped,
    }
}

#[tokio::test]
async fn the_token_with_least_to_do_gets_the_job() {
    let (hsm, [a, b], key) = two().await;
    a.inject([Fault::Slow(Duration::from_millis(400)); 2]);
    let before = b.operations();
    let jobs: Vec<_> = (0..40)
        .map(|_| {
            let (hsm, key) = (hsm.clone(), key.clone());
            tokio::spawn(async move { used(&hsm, &key).await })
        })
        .collect();
    for job in jobs {
        job.await.unwrap().unwrap();
    }
    assert!(b.operations() > before + 40, "the free token does most");
}

#[derive(Default)]
struct Moved(AtomicUsize);

impl Observer for Moved {
    fn done(&self, _: Op, _: Duration, _: Duration, _: Option<Kind>) {}
    fn rejected(&self, _: Op) {}
    fn retried(&self, _: Op) {}
    fn moved(&self, _: Op) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Sixty-four callers, each token lost in turn under them, and nobody hears of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_is_lost_under_load_costs_nobody_a_job() {
    let (a, canary, key) = token().await;
    let b = a.copy();
    let moved = Arc::new(Moved::default());
    let places = vec![place("a", &a), place("b", &b)];
    let hsm = Hsm::start_group(places, OPTIONS, moved.clone()).unwrap();
    hsm.watch(canary);
    until("both serve", || states(&hsm) == [State::Ready; 2]).await;
    let done = Arc::new(AtomicUsize::new(0));
    let (stop, stopped) = tokio::sync::watch::channel(());
    let callers: Vec<_> = (0..64)
        .map(|_| {
            let (hsm, key, done) = (hsm.clone(), key.clone(), Arc::clone(&done));
            let stopped = stopped.clone();
            tokio::spawn(async move {
                while stopped.has_changed().is_ok() {
                    used(&hsm, &key).await.unwrap();
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for lost in [&a, &b, &a] {
        let so_far = done.load(Ordering::Relaxed);
        until("work", || done.load(Ordering::Relaxed) > so_far + 200).await;
        lost.unplug();
        let so_far = done.load(Ordering::Relaxed);
        until("work goes on", || {
            done.load(Ordering::Relaxed) > so_far + 200
        })
        .await;
        assert_eq!(hsm.state(), State::Ready);
        assert!(states(&hsm).contains(&State::Down));
        lost.plug_in();
        until("it is back", || states(&hsm) == [State::Ready; 2]).await;
    }
    drop(stop);
    for caller in callers {
        caller.await.unwrap();
    }
    assert!(moved.0.load(Ordering::Relaxed) > 0, "nothing was moved");
}

#[tokio::test]
async fn both_lost_is_lost_and_either_brings_the_group_back() {
    let (hsm, [a, b], key) = two().await;
    a.unplug();
    b.unplug();
    let e = used(&hsm, &key).await.unwrap_err();
    assert_eq!(e.kind(), Kind::Gone);
    assert_eq!(hsm.state(), State::Down);
    b.plug_in();
    until("one is enough", || hsm.state() == State::Ready).await;
    used(&hsm, &key).await.unwrap();
    assert_eq!(states(&hsm), [State::Down, State::Ready]);
}

#[tokio::test]
async fn a_key_that_was_not_copied_yet_is_used_where_it_is() {
    let (hsm, [a, b], _) = two().await;
    let new = generate(&hsm).await;
    assert!(a.holds(new.object) && !b.holds(new.object));
    // The first has so much to do that the second is asked.
    a.inject([Fault::Slow(Duration::from_millis(100)); 2]);
    let (x, y, z) = tokio::join!(used(&hsm, &new), used(&hsm, &new), used(&hsm, &new));
    for result in [x, y, z] {
        result.unwrap();
    }
    assert_eq!(hsm.tokens()[1].missing, 1);
    b.clone_key(&a, new.object);
    a.unplug();
    until("it was asked again", || {
        hsm.tokens()[0].state == State::Down
    })
    .await;
    tokio::time::sleep(OPTIONS.check_every * 2).await;
    used(&hsm, &new).await.unwrap();
    assert_eq!(hsm.tokens()[1].missing, 0);
}

#[tokio::test]
async fn another_key_under_the_same_id_is_never_used() {
    let (hsm, [a, b], key) = two().await;
    let (dek, wrapped) = hsm.mint(&key, AAD, soon()).await.unwrap();
    b.substitute_key(key.object);
    a.inject([Fault::Slow(Duration::from_millis(100)); 2]);
    let jobs = vec![unwrap(&key, wrapped); 200];
    for opened in hsm.unwrap(jobs, soon()).await {
        assert_eq!(opened.unwrap().expose(), dek.expose());
    }
    let status = &hsm.tokens()[1];
    assert_eq!((status.diverged, status.state), (1, State::Ready));
    // With the right one away there is none: a wrong one is not used for want of it.
    a.unplug();
    let e = hsm.mint(&key, AAD, soon()).await.unwrap_err();
    assert!(matches!(e.kind(), Kind::Gone | Kind::OtherKey), "{e}");
}

#[tokio::test]
async fn a_stranger_is_no_copy() {
    let (a, canary, key) = token().await;
    for spoil in [FakeDevice::lose_key, FakeDevice::substitute_key] {
        let b = a.copy();
        spoil(&b, canary.object);
        let hsm = group(&[&a, &b]);
        hsm.watch(canary.clone());
        let diverged = [State::Ready, State::Diverged];
        until("it is found out", || states(&hsm) == diverged).await;
        let before = b.operations();
        used(&hsm, &key).await.unwrap();
        a.unplug();
        let e = used(&hsm, &key).await.unwrap_err();
        assert_eq!(e.kind(), Kind::Gone);
        assert_eq!(b.operations(), before, "nothing was asked of it");
        assert_ne!(hsm.state(), State::Ready);
        a.plug_in();
        // The vendor's tool has copied the right one.
        b.clone_key(&a, canary.object);
        until("it is a copy now", || states(&hsm) == [State::Ready; 2]).await;
    }
}

#[tokio::test]
async fn a_call_that_does_not_return_holds_nobody_of_the_other() {
    let (hsm, [a, b], key) = two().await;
    a.inject([Fault::Slow(Duration::from_secs(9)); 2]);
    let start = Instant::now();
    // Some are in the calls, some wait behind them.
    let jobs: Vec<_> = (0..64)
        .map(|_| {
            let (hsm, key) = (hsm.clone(), key.clone());
            tokio::spawn(async move { used(&hsm, &key).await })
        })
        .collect();
    for job in jobs {
        job.await.unwrap().unwrap();
    }
    assert!(
        start.elapsed() < Duration::from_secs(6),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(states(&hsm), [State::Down, State::Ready]);
    let before = b.operations();
    used(&hsm, &key).await.unwrap();
    assert!(b.operations() > before);
    until("it has returned", || states(&hsm) == [State::Ready; 2]).await;
}

#[tokio::test]
async fn a_rewrap_finds_a_token_with_both_keys() {
    let (hsm, [a, _], from) = two().await;
    let to = generate(&hsm).await;
    let (dek, wrapped) = hsm.mint(&from, AAD, soon()).await.unwrap();
    let job = Rewrap {
        from: unwrap(&from, wrapped),
        to: to.clone(),
        to_aad: AAD,
        verify: true,
    };
    a.inject([Fault::Slow(Duration::from_millis(100)); 2]);
    for moved in hsm.rewrap(vec![job; 100], soon()).await {
        let opened = hsm.unwrap(vec![unwrap(&to, moved.unwrap())], soon()).await;
        assert_eq!(opened[0].as_ref().unwrap().expose(), dek.expose());
    }
}

#[tokio::test]
async fn destroyed_is_destroyed_everywhere_or_not_at_all() {
    let (hsm, [a, b], key) = two().await;
    b.unplug();
    let destroy = || hsm.destroy(key.object, KeySpec::Aes256, soon());
    let e = destroy().await.unwrap_err();
    assert_eq!(e.kind(), Kind::Gone);
    assert!(
        e.to_string().contains("t1") && e.to_string().contains("nothing"),
        "{e}"
    );
    assert!(a.holds(key.object));
    b.plug_in();
    destroy().await.unwrap();
    assert!(!a.holds(key.object) && !b.holds(key.object));
    assert_eq!(destroy().await.unwrap_err().kind(), Kind::NoSuchKey);
    // Cut short after the copy: the next round finishes it.
    let half = generate(&hsm).await;
    assert!(!b.holds(half.object));
    hsm.destroy(half.object, KeySpec::Aes256, soon())
        .await
        .unwrap();
    assert!(!a.holds(half.object));
}

#[tokio::test]
async fn a_token_that_does_not_destroy_keeps_the_key_undestroyed() {
    let (hsm, [a, b], key) = two().await;
    // Lost in the very call, after it was found reachable: the primary still has it.
    b.inject([Fault::Unplugged]);
    let destroy = || hsm.destroy(key.object, KeySpec::Aes256, soon());
    assert_eq!(destroy().await.unwrap_err().kind(), Kind::Gone);
    assert!(a.holds(key.object) && b.holds(key.object));
    b.plug_in();
    destroy().await.unwrap();
    assert!(!a.holds(key.object) && !b.holds(key.object));
}

#[tokio::test]
async fn data_is_put_wherever_it_can_be_and_read_from_there() {
    let (hsm, [a, b], _) = two().await;
    let put = |value: &'static [u8]| hsm.put_data("epoch".into(), value.into(), soon());
    put(b"1").await.unwrap();
    a.unplug();
    put(b"2").await.unwrap();
    a.plug_in();
    let object = |value: &[u8]| DataObject {
        label: "epoch".into(),
        value: value.into(),
    };
    assert_eq!(
        hsm.data(soon()).await.unwrap(),
        [object(b"1"), object(b"2")]
    );
    b.unplug();
    a.unplug();
    assert_eq!(put(b"3").await.unwrap_err().kind(), Kind::Gone);
}

#[tokio::test]
async fn keys_are_made_on_the_primary_alone_and_listed_once() {
    let (hsm, [a, b], _) = two().await;
    let _ = generate(&hsm).await;
    assert_eq!(hsm.objects(soon()).await.unwrap().len(), 3);
    a.unplug();
    let id = ObjectId::random().unwrap();
    let e = hsm.generate(id, KeySpec::Aes256, "k".into(), soon()).await;
    assert_eq!(e.unwrap_err().kind(), Kind::Gone);
    assert!(!b.holds(id));
    assert_eq!(hsm.objects(soon()).await.unwrap().len(), 2);
}

/// A token that is away for the first looks.
fn late_place(device: &FakeDevice, looks: Arc<AtomicUsize>, away: usize, kind: Kind) -> Place {
    let there = place("late", device);
    Place {
        name: "late".into(),
        open: Box::new(move || {
            if looks.fetch_add(1, Ordering::Relaxed) < away {
                return Err(Error::new(kind, "away"));
            }
            (there.open)()
        }),
    }
}

#[tokio::test]
async fn a_token_that_is_missing_at_start_joins_when_it_is_there() {
    let (a, canary, key) = token().await;
    for away_first in [false, true] {
        let (b, looks) = (a.copy(), Arc::new(AtomicUsize::new(0)));
        let mut places = vec![
            place("a", &a),
            late_place(&b, Arc::clone(&looks), 2, Kind::Gone),
        ];
        if away_first {
            places.reverse();
        }
        let hsm = Hsm::start_group(places, OPTIONS, Arc::new(Silent)).unwrap();
        hsm.watch(canary.clone());
        assert_eq!(hsm.state(), State::Ready);
        assert!(states(&hsm).contains(&State::Down));
        used(&hsm, &key).await.unwrap();
        until("it joins", || states(&hsm) == [State::Ready; 2]).await;
        a.unplug();
        used(&hsm, &key).await.unwrap();
        hsm.close();
        // The fake knows no other way to be closed.
        a.plug_in();
    }
}

#[tokio::test]
async fn what_keeps_a_group_from_starting() {
    let (a, _, _) = token().await;
    let start = |places| Hsm::start_group(places, OPTIONS, Arc::new(Silent)).err();
    let looks = || Arc::new(AtomicUsize::new(0));
    let away = |kind| late_place(&a.copy(), looks(), usize::MAX, kind);
    let kind = |places| start(places).map(|e| e.kind());
    assert_eq!(kind(vec![]), Some(Kind::Setup));
    assert_eq!(
        kind(vec![away(Kind::Gone), away(Kind::Gone)]),
        Some(Kind::Gone)
    );
    for one in [Kind::Gone, Kind::Blocked] {
        assert_eq!(kind(vec![place("a", &a), away(one)]), None);
        assert_eq!(kind(vec![away(one), place("a", &a)]), None);
    }
    for mistake in [Kind::Setup, Kind::Unsafe, Kind::Unsupported] {
        assert_eq!(kind(vec![place("a", &a), away(mistake)]), Some(mistake));
    }
    let e = start(vec![place("a", &a), place("again", &a)]).unwrap();
    assert_eq!(e.kind(), Kind::Setup);
    assert!(e.to_string().contains("twice"), "{e}");
}
