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
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use keywright_hsm::{
    Connector, Hsm, KeySpec, Kind, Lane, ObjectId, Options, Pin, PinSource, Silent, State,
    conformance,
    pkcs11::{self, TokenConfig},
};
use keywright_softhsm_tests::{Case, dir, run, token};

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
