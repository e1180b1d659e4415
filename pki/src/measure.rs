//! Times that the bars speak of. Run with
//! `cargo test --release -p keywright-pki -- --ignored --nocapture measure`.

use std::time::{Duration, Instant};

use crate::{
    CrlDraft, CrlPlan, Draft, KeyKind, Reason, Revoked, Scope, Serial, lint,
    testing::{DAY, NOW, TestKey, leaf_plan, root},
};

/// The fastest of ten batches, for each call.
fn fastest(batch: u32, mut call: impl FnMut()) -> Duration {
    let mut times = (0..10).map(|_| {
        let start = Instant::now();
        (0..batch).for_each(|_| call());
        start.elapsed() / batch
    });
    let first = times.next().unwrap();
    times.fold(first, Duration::min)
}

#[test]
#[ignore = "a measurement, for release builds on an idle machine"]
fn measure() {
    let key = TestKey::new(KeyKind::EcP256);
    let (_, issuer) = root(&key);
    let plan = leaf_plan(TestKey::new(KeyKind::EcP256).public());
    let draft = || Draft::new(plan.clone(), &issuer).unwrap();
    let tbs = draft().tbs().to_vec();
    let linted = fastest(1000, || {
        lint::certificate(&tbs, &plan, &issuer, false, NOW).unwrap();
    });
    let drafted = fastest(1000, || drop(draft()));
    println!("certificate: draft {drafted:?}, lint {linted:?}");
    assert!(linted < Duration::from_micros(50), "T8");

    let entries = |count: u32| {
        (0..count).map(|n| {
            let [a, b, c, d] = n.to_be_bytes();
            let mut random = [7; 17];
            random[13..].copy_from_slice(&[a, b, c, d]);
            Revoked {
                serial: Serial::from_random(random),
                revoked_at: NOW - 10,
                reason: Some(Reason::Superseded),
                invalidity_date: None,
            }
        })
    };
    let plan = CrlPlan {
        number: NOW,
        this_update: NOW,
        next_update: NOW + DAY - 1,
        scope: Scope::Full,
    };
    for (count, bar) in [(100_000, 1), (1_000_000, 10)] {
        let start = Instant::now();
        let crl = CrlDraft::new(plan.clone(), &issuer, entries(count))
            .lint(NOW)
            .unwrap();
        let (time, len) = (start.elapsed(), crl.tbs().len());
        println!("CRL of {count}: draft and lint {time:?}, {len} bytes");
        assert!(time < Duration::from_secs(bar), "T5");
    }
}
