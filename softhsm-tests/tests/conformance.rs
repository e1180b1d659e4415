//! The `hsm` crate on SoftHSM2: the conformance suite, the attack suite, and what
//! happens when the token, the login or the PIN is lost.
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
    fs,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use keywright_hsm::{
    Connector, Hsm, KeyRef, KeySpec, Kind, Lane, ObjectId, Observer, Op, Opened, Options, Pin,
    PinSource, Place, Sign, Signing, Silent, State, conformance,
    pkcs11::{self, Scout, TokenConfig},
};
use keywright_softhsm_tests::{Case, copy_token, dir, run, scout, token, token_folder};

const CASES: &[Case] = &[
    ("softhsm_conforms", softhsm_conforms),
    ("no_attack_gets_a_key_out", no_attack_gets_a_key_out),
    (
        "the_token_files_do_not_hold_the_probe_key",
        probe_key_is_gone,
    ),
    ("a_wrong_pin_is_tried_once", a_wrong_pin_is_tried_once),
    ("a_missing_token_is_named", a_missing_token_is_named),
    ("a_lost_token_comes_back", a_lost_token_comes_back),
    ("forged_ciphertexts_do_not_trip_the_token", forged),
    (
        "a_put_that_was_cut_short_is_finished_by_the_next",
        cut_short,
    ),
    (
        "of_two_tokens_either_is_killed_under_load",
        either_is_killed_under_load,
    ),
    (
        "a_module_is_not_restarted_under_a_token_in_use",
        not_restarted_under_another,
    ),
    (
        "a_copy_that_is_missing_at_start_joins",
        a_missing_copy_joins,
    ),
    ("a_copy_with_another_key_is_found", a_diverged_copy),
    ("a_copy_that_could_leave_is_not_used", an_extractable_copy),
    ("a_copy_with_a_wrong_pin_is_tried_once", a_copys_wrong_pin),
    ("a_thousand_objects_do_not_slow_the_hot_path", many_objects),
];

fn main() -> ExitCode {
    run(CASES)
}

fn softhsm_conforms() {
    conformance::run(&pkcs11::open(token()).unwrap());
}

fn no_attack_gets_a_key_out() {
    let device = pkcs11::open(token()).unwrap();
    let evidence = device.evidence();
    let ids: Vec<&str> = evidence.attacks.iter().map(|a| a.id).collect();
    let all: Vec<String> = (1..=14).map(|n| format!("N{n}")).collect();
    assert_eq!(ids, all, "every attack must have run");
    for attack in &evidence.attacks {
        assert!(attack.resisted, "{attack:?}");
    }
    assert_eq!(evidence.not_supported, Vec::<String>::new());
}

fn probe_key_is_gone() {
    let device = pkcs11::open(token()).unwrap();
    let mut session = device.connect(Lane::Admin).unwrap();
    assert_eq!(session.objects().unwrap(), Vec::new());
}

fn a_wrong_pin_is_tried_once() {
    let good = token();
    let mut bad = good.clone();
    bad.pin = PinSource::Given(Pin::new("000000".into()), "the test");
    let e = pkcs11::open(bad.clone()).err().unwrap();
    assert_eq!(e.kind(), Kind::Blocked);
    assert!(e.to_string().contains("CKR_PIN_INCORRECT"), "{e}");
    // From now on the token is not asked again: the answer comes from the latch.
    for _ in 0..3 {
        let e = pkcs11::open(bad.clone()).err().unwrap();
        assert!(e.to_string().contains("was not tried again"), "{e}");
    }
    pkcs11::open(good).unwrap();
    assert!(
        !dir().join("pin-latch").exists(),
        "a good PIN clears the latch"
    );
}

fn a_missing_token_is_named() {
    let mut config = token();
    config.serial = None;
    config.label = Some("payments".into());
    let e = pkcs11::open(config).err().unwrap();
    assert!(e.to_string().contains("label \"payments\""), "{e}");
    assert!(
        e.to_string().contains("label \"t1\""),
        "it says what is there: {e}"
    );
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

const OPTIONS: Options = Options {
    workers: 2,
    queue_jobs: 64,
    check_every: Duration::from_millis(200),
};

fn a_lost_token_comes_back() {
    let device = pkcs11::open(token()).unwrap();
    let hsm = Hsm::start(Arc::new(device), OPTIONS, Arc::new(Silent)).unwrap();
    runtime().block_on(async {
        let id = ObjectId::random().unwrap();
        let key = hsm
            .generate(id, KeySpec::Aes256, "k".into(), soon())
            .await
            .unwrap()
            .key;
        let (dek, wrapped) = hsm.mint(&key, [3; 56], soon()).await.unwrap();

        let (here, gone) = (dir().join("tokens"), dir().join("elsewhere"));
        fs::rename(&here, &gone).unwrap();
        let e = hsm.mint(&key, [3; 56], soon()).await.unwrap_err();
        assert_eq!(e.kind(), Kind::Gone, "{e}");
        assert_eq!(hsm.state(), State::Down);

        fs::rename(&gone, &here).unwrap();
        let back = Instant::now() + Duration::from_secs(10);
        while hsm.state() != State::Ready {
            assert!(
                Instant::now() < back,
                "the token did not come back by itself"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let job = keywright_hsm::Unwrap {
            key,
            aad: [3; 56],
            wrapped,
        };
        let opened = hsm.unwrap(vec![job], soon()).await;
        match opened.first() {
            Some(Ok(again)) => assert_eq!(again.expose(), dek.expose()),
            other => panic!("{other:?}"),
        }
    });
    hsm.close();
}

/// A token with two keys, and a copy of it; the module is not running.
fn original_and_copy() -> (TokenConfig, TokenConfig, [KeyRef; 2]) {
    let mut first = token();
    first.scout = Some(scout());
    let device = pkcs11::open(first.clone()).unwrap();
    let mut session = device.connect(Lane::Admin).unwrap();
    let mut make = |label: &str| {
        let id = ObjectId::random().unwrap();
        session.generate(id, KeySpec::Aes256, label).unwrap().key
    };
    let keys = [make("canary"), make("k")];
    drop(session);
    device.close();
    let mut second = first.clone();
    second.serial = Some(copy_token(&dir().join("tokens"), "t1", "t2"));
    second.label = Some("t2".into());
    second.pin_latch = Some(dir().join("pin-latch-2"));
    (first, second, keys)
}

fn group(tokens: &[&TokenConfig], moved: Arc<Moved>) -> Hsm {
    let place = |token: &TokenConfig| {
        let token = token.clone();
        Place {
            name: token.label.clone().unwrap(),
            open: Box::new(move || {
                Ok(Opened {
                    connector: Arc::new(pkcs11::open(token.clone())?),
                    workers: 1,
                })
            }),
        }
    };
    let places = tokens.iter().map(|t| place(t)).collect();
    let options = Options {
        queue_jobs: 256,
        ..OPTIONS
    };
    Hsm::start_group(places, options, moved).unwrap()
}

fn states(hsm: &Hsm) -> Vec<State> {
    hsm.tokens().iter().map(|t| t.state).collect()
}

async fn until(what: &str, hsm: &Hsm, wanted: &[State]) {
    let end = Instant::now() + Duration::from_secs(45);
    while states(hsm) != wanted {
        assert!(Instant::now() < end, "{what}: {:?}", hsm.tokens());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn used(hsm: &Hsm, key: &KeyRef) -> keywright_hsm::Result<()> {
    let (dek, wrapped) = hsm.mint(key, [3; 56], soon()).await?;
    let job = keywright_hsm::Unwrap {
        key: key.clone(),
        aad: [3; 56],
        wrapped,
    };
    let again = hsm.unwrap(vec![job], soon()).await.remove(0)?;
    assert_eq!(again.expose(), dek.expose());
    Ok(())
}

/// Jobs that went on to the other token, and calls that the tokens did.
#[derive(Debug, Default)]
struct Moved {
    moved: AtomicUsize,
    slowest_ms: AtomicUsize,
}

impl Observer for Moved {
    fn done(&self, _: Op, _: Duration, _: Duration, _: Option<Kind>) {}
    fn rejected(&self, _: Op) {}
    fn retried(&self, _: Op) {}
    fn moved(&self, _: Op) {
        self.moved.fetch_add(1, Ordering::Relaxed);
    }
}

const BOTH: [State; 2] = [State::Ready, State::Ready];

/// Sixty-four callers that each mint and unwrap all the time; the copy is killed under
/// them, then the original, and again. Nobody hears of it.
fn either_is_killed_under_load() {
    let (first, second, [canary, key]) = original_and_copy();
    let moved = Arc::new(Moved::default());
    let hsm = group(&[&first, &second], Arc::clone(&moved));
    runtime().block_on(async {
        hsm.check(Some(canary.clone()), soon()).await.unwrap();
        hsm.watch(canary);
        until("both serve", &hsm, &BOTH).await;
        let done = Arc::new(AtomicUsize::new(0));
        let (stop, stopped) = tokio::sync::watch::channel(());
        let callers: Vec<_> = (0..64)
            .map(|_| {
                let (hsm, key, stopped) = (hsm.clone(), key.clone(), stopped.clone());
                let (done, moved) = (Arc::clone(&done), Arc::clone(&moved));
                tokio::spawn(async move {
                    while stopped.has_changed().is_ok() {
                        let start = Instant::now();
                        used(&hsm, &key).await.unwrap();
                        let took = usize::try_from(start.elapsed().as_millis()).unwrap();
                        moved.slowest_ms.fetch_max(took, Ordering::Relaxed);
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        let work = async || {
            let enough = done.load(Ordering::Relaxed) + 1000;
            while done.load(Ordering::Relaxed) < enough {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        for (killed, left) in [("t2", 0), ("t1", 1), ("t2", 0)] {
            work().await;
            let folder = token_folder(&dir().join("tokens"), killed);
            let away = dir().join("away");
            fs::rename(&folder, &away).unwrap();
            let mut wanted = [State::Down; 2];
            wanted[left] = State::Ready;
            until(killed, &hsm, &wanted).await;
            work().await;
            assert_eq!(hsm.state(), State::Ready);
            fs::rename(&away, &folder).unwrap();
            let back = Instant::now();
            until(killed, &hsm, &BOTH).await;
            println!("{killed} was back after {} ms", back.elapsed().as_millis());
            work().await;
        }
        drop(stop);
        for caller in callers {
            caller.await.unwrap();
        }
        println!(
            "{} pairs of mint and unwrap, none failed; {} jobs went on to the other token; the slowest pair took {} ms",
            done.load(Ordering::Relaxed),
            moved.moved.load(Ordering::Relaxed),
            moved.slowest_ms.load(Ordering::Relaxed),
        );
    });
    hsm.close();
}

/// Without a scout that says it would help: the token stays away until nobody is in use.
fn not_restarted_under_another() {
    let (mut first, mut second, [canary, key]) = original_and_copy();
    let asked = Arc::new(AtomicUsize::new(0));
    let counts = Arc::clone(&asked);
    let blind = Scout::new(move |_, _| {
        counts.fetch_add(1, Ordering::Relaxed);
        false
    });
    first.scout = Some(blind.clone());
    second.scout = Some(blind);
    let hsm = group(&[&first, &second], Arc::default());
    runtime().block_on(async {
        hsm.watch(canary);
        until("both serve", &hsm, &BOTH).await;
        let folder = token_folder(&dir().join("tokens"), "t2");
        let away = dir().join("away");
        fs::rename(&folder, &away).unwrap();
        until("lost", &hsm, &[State::Ready, State::Down]).await;
        fs::rename(&away, &folder).unwrap();
        let end = Instant::now() + Duration::from_secs(120);
        while asked.load(Ordering::Relaxed) < 3 {
            assert!(Instant::now() < end, "nobody looks for the lost token");
            used(&hsm, &key).await.unwrap();
        }
        // SoftHSM2 does not show it again by itself.
        assert_eq!(states(&hsm), [State::Ready, State::Down]);
        // The other one is lost, too: now the module is restarted for both.
        let first = token_folder(&dir().join("tokens"), "t1");
        fs::rename(&first, &away).unwrap();
        until("both lost", &hsm, &[State::Down; 2]).await;
        fs::rename(&away, &first).unwrap();
        until("one is back", &hsm, &BOTH).await;
        used(&hsm, &key).await.unwrap();
    });
    hsm.close();
}

fn a_missing_copy_joins() {
    let (first, second, [canary, key]) = original_and_copy();
    let folder = token_folder(&dir().join("tokens"), "t2");
    let away = dir().join("away");
    fs::rename(&folder, &away).unwrap();
    let hsm = group(&[&first, &second], Arc::default());
    runtime().block_on(async {
        hsm.watch(canary);
        assert_eq!(states(&hsm), [State::Ready, State::Down]);
        used(&hsm, &key).await.unwrap();
        fs::rename(&away, &folder).unwrap();
        until("it joins", &hsm, &BOTH).await;
        let original = token_folder(&dir().join("tokens"), "t1");
        fs::rename(&original, &away).unwrap();
        until("lost", &hsm, &[State::Down, State::Ready]).await;
        used(&hsm, &key).await.unwrap();
    });
    hsm.close();
}

/// The copy lost one key, made another under its id, and knows nothing of a third.
fn a_diverged_copy() {
    let (first, second, [canary, key]) = original_and_copy();
    let device = pkcs11::open(second.clone()).unwrap();
    let mut session = device.connect(Lane::Admin).unwrap();
    session.destroy(key.object, key.spec).unwrap();
    session.generate(key.object, key.spec, "another").unwrap();
    drop(session);
    device.close();
    drop(device);
    let hsm = group(&[&first, &second], Arc::default());
    runtime().block_on(async {
        hsm.watch(canary.clone());
        until("both serve", &hsm, &BOTH).await;
        assert_eq!(hsm.holders(&canary, soon()).await, ["t1", "t2"]);
        assert_eq!(hsm.holders(&key, soon()).await, ["t1"]);
        let id = ObjectId::random().unwrap();
        let new = hsm.generate(id, KeySpec::Aes256, "new".into(), soon());
        let new = new.await.unwrap().key;
        let pair = ObjectId::random().unwrap();
        let pair = hsm.generate(pair, KeySpec::Ed25519, "pair".into(), soon());
        let pair = pair.await.unwrap().key;
        let callers: Vec<_> = (0..64)
            .map(|_| {
                let (hsm, keys) = (hsm.clone(), [key.clone(), new.clone(), canary.clone()]);
                let job = Sign {
                    key: pair.clone(),
                    how: Signing::Ed25519,
                    input: b"input".to_vec().into(),
                };
                tokio::spawn(async move {
                    for key in &keys {
                        used(&hsm, key).await.unwrap();
                    }
                    hsm.sign(vec![job], soon()).await.remove(0).unwrap();
                })
            })
            .collect();
        for caller in callers {
            caller.await.unwrap();
        }
        let copy = hsm.tokens().remove(1);
        assert_eq!((copy.diverged, copy.state), (1, State::Ready), "{copy:?}");
        assert!(copy.missing >= 1, "{copy:?}");
    });
    hsm.close();
}

/// The same keys, and the copies could be wrapped out of the token: CKA_EXTRACTABLE is
/// turned in SoftHSM2's files, where a boolean is its type, its kind and itself.
fn an_extractable_copy() {
    let (first, second, [canary, key]) = original_and_copy();
    let mut extractable = 0x162u64.to_be_bytes().to_vec();
    extractable.extend(1u64.to_be_bytes());
    let copy = token_folder(&dir().join("tokens"), "t2");
    let turned = fs::read_dir(copy)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|path| {
            let mut bytes = fs::read(path).unwrap();
            let len = extractable.len();
            let at = bytes.windows(len).position(|w| w == extractable);
            if let Some(at) = at {
                assert_eq!(bytes[at + len], 0);
                bytes[at + len] = 0xff;
                fs::write(path, bytes).unwrap();
            }
            at.is_some()
        })
        .count();
    assert_eq!(turned, 2);
    let hsm = group(&[&first, &second], Arc::default());
    runtime().block_on(async {
        assert_eq!(hsm.holders(&key, soon()).await, ["t1"]);
        hsm.watch(canary);
        until("it is found", &hsm, &[State::Ready, State::Diverged]).await;
        used(&hsm, &key).await.unwrap();
    });
    hsm.close();
}

fn a_copys_wrong_pin() {
    let (first, second, [canary, key]) = original_and_copy();
    let pin = dir().join("pin");
    let write = |text: &str| {
        fs::write(&pin, text).unwrap();
        fs::set_permissions(&pin, fs::Permissions::from_mode(0o600)).unwrap();
    };
    write("000000");
    let mut wrong = second.clone();
    wrong.pin = PinSource::File(pin.clone());
    let hsm = group(&[&first, &wrong], Arc::default());
    runtime().block_on(async {
        hsm.watch(canary);
        assert_eq!(states(&hsm), [State::Ready, State::Blocked]);
        used(&hsm, &key).await.unwrap();
        // It is looked for again and again, and the PIN is not tried: SoftHSM2 would say
        // so in the token's flags.
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(states(&hsm), [State::Ready, State::Blocked]);
        write("123456");
        until("the right PIN", &hsm, &BOTH).await;
    });
    hsm.close();
}

fn forged() {
    let device = pkcs11::open(token()).unwrap();
    let hsm = Hsm::start(Arc::new(device), OPTIONS, Arc::new(Silent)).unwrap();
    runtime().block_on(async {
        let id = ObjectId::random().unwrap();
        let key = hsm
            .generate(id, KeySpec::Aes256, "k".into(), soon())
            .await
            .unwrap()
            .key;
        let (_, mut wrapped) = hsm.mint(&key, [3; 56], soon()).await.unwrap();
        wrapped.0[30] ^= 1;
        let job = keywright_hsm::Unwrap {
            key: key.clone(),
            aad: [3; 56],
            wrapped,
        };
        for _ in 0..100 {
            for result in hsm.unwrap(vec![job.clone(); 32], soon()).await {
                assert_eq!(result.unwrap_err().kind(), Kind::Refused);
            }
        }
        assert_eq!(hsm.state(), State::Ready);
        hsm.mint(&key, [3; 56], soon()).await.unwrap();
    });
    hsm.close();
}

/// What a crash between creating and destroying leaves: SoftHSM keeps an object in a
/// file beside a lock, and both of the older one are brought back.
fn cut_short() {
    let token = token();
    assert_eq!(data(&token, Some(b"1")), [b"1"]);
    let path = only_object();
    let bytes = fs::read(&path).unwrap();
    assert_eq!(data(&token, Some(b"2")), [b"2"]);
    let second = only_object();
    assert_ne!(second, path, "another object, and the older one is gone");
    data(&token, Some(b"2"));
    assert_eq!(only_object(), second, "the same value is not written again");
    for next in [b"2", b"3"] {
        fs::write(&path, &bytes).unwrap();
        fs::write(path.with_extension("lock"), b"").unwrap();
        assert_eq!(data(&token, None), [b"1", b"2"], "both are seen");
        assert_eq!(data(&token, Some(next)), [next]);
        assert_ne!(only_object(), path);
    }
}

/// The values on the token after `put`, sorted. Opened anew: SoftHSM reads its files
/// when it starts.
fn data(token: &TokenConfig, put: Option<&[u8]>) -> Vec<Vec<u8>> {
    let device = pkcs11::open(token.clone()).unwrap();
    let mut session = device.connect(Lane::Admin).unwrap();
    if let Some(value) = put {
        session.put_data("seal", value).unwrap();
    }
    let found = session.data().unwrap();
    let mut values: Vec<_> = found.into_iter().map(|o| o.value).collect();
    values.sort();
    drop(session);
    device.close();
    values
}

/// The file of the one object on the one token.
fn only_object() -> PathBuf {
    let entries = |dir: PathBuf| fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    let objects: Vec<PathBuf> = entries(dir().join("tokens"))
        .flat_map(entries)
        .filter(|p| p.extension().is_some_and(|e| e == "object") && !p.ends_with("token.object"))
        .collect();
    assert_eq!(objects.len(), 1, "{objects:?}");
    objects[0].clone()
}

/// A find is linear in SoftHSM; the hot path must not do one. The ratio is taken in
/// one run, and generous: a find among 300 keys alone costs hundreds of wraps.
fn many_objects() {
    let device = pkcs11::open(token()).unwrap();
    let mut session = device.connect(Lane::Admin).unwrap();
    let first = session
        .generate(ObjectId::random().unwrap(), KeySpec::Aes256, "first")
        .unwrap()
        .key;
    let aad = [0; 56];
    let mut thousand = || {
        let start = Instant::now();
        for _ in 0..1000 {
            session
                .wrap(&first, &aad, &keywright_hsm::Dek::take(&mut [1; 32]))
                .unwrap();
        }
        start.elapsed()
    };
    let alone = thousand();
    let mut other = device.connect(Lane::Admin).unwrap();
    for _ in 0..300 {
        other
            .generate(ObjectId::random().unwrap(), KeySpec::Aes256, "other")
            .unwrap();
    }
    let crowded = thousand();
    assert!(
        crowded < alone * 20,
        "{crowded:?} with 300 keys, {alone:?} with one"
    );
}
