//! What every [`Token`] must do. The same checks run on the strict fake and on real
//! modules; a token that passes can carry Keywright.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a conformance check reports by failing"
)]

use crate::{
    Connector, Dek, KeyRef, KeySpec, Kind, Lane, ObjectId, Token, WrappedDek,
    error::{Error, Remedy},
};

/// A check: its name, and what must hold.
pub type Check = (&'static str, fn(&dyn Connector));

/// Every check, in an order that goes from simple to cruel.
pub const CHECKS: &[Check] = &[
    ("what was wrapped can be unwrapped", round_trip),
    ("two wraps of one DEK differ", fresh_iv),
    ("another AAD is refused", other_aad),
    ("any changed byte is refused", changed_byte),
    ("another key is refused", other_key),
    ("refusals do not harm the session", refusals_are_harmless),
    ("random bytes fill the buffer and differ", random),
    ("a new key cannot leave and says so", evidence),
    ("an id is used once", id_taken),
    ("a read-only session generates nothing", read_only),
    ("keys are listed with id and label", listed),
    ("a destroyed key is missed", destroyed),
    ("an unknown key is missed", unknown),
    ("a key that is not itself is not used", substituted),
    ("every session sees every key", two_sessions),
    ("every rung of the ladder brings the same keys back", ladder),
];

/// Runs every check.
///
/// # Panics
/// When a check fails; the name of the check is on the last line printed.
#[expect(clippy::print_stdout, reason = "shown by the test harness on failure")]
pub fn run(connector: &dyn Connector) {
    for (name, check) in CHECKS {
        println!("conformance: {name}");
        check(connector);
    }
}

const AAD: [u8; 56] = [0xa5; 56];

fn session(connector: &dyn Connector) -> Box<dyn Token> {
    connector.connect(Lane::Admin).unwrap()
}

fn new_key(token: &mut dyn Token) -> KeyRef {
    let id = ObjectId::random().unwrap();
    token
        .generate(id, KeySpec::Aes256, "conformance")
        .unwrap()
        .key
}

fn dek() -> Dek {
    Dek::take(&mut [0x42; 32])
}

fn refused(result: Result<Dek, Error>) {
    match result {
        Ok(_) => panic!("it was accepted"),
        Err(e) => assert_eq!(e.kind(), Kind::Refused, "{e}"),
    }
}

/// A key for one check, gone afterwards.
fn with_key(connector: &dyn Connector, check: impl FnOnce(&mut dyn Token, &KeyRef)) {
    let mut token = session(connector);
    let key = new_key(token.as_mut());
    check(token.as_mut(), &key);
    token.destroy(key.object).unwrap();
}

fn round_trip(c: &dyn Connector) {
    with_key(c, |token, key| {
        let wrapped = token.wrap(key, &AAD, &dek()).unwrap();
        assert_eq!(
            token.unwrap(key, &AAD, &wrapped).unwrap().expose(),
            dek().expose()
        );
    });
}

fn fresh_iv(c: &dyn Connector) {
    with_key(c, |token, key| {
        let (a, b) = (
            token.wrap(key, &AAD, &dek()).unwrap(),
            token.wrap(key, &AAD, &dek()).unwrap(),
        );
        assert_ne!(a.parts().0, b.parts().0);
        assert_ne!(a.parts().0, &[0; 12]);
    });
}

fn other_aad(c: &dyn Connector) {
    with_key(c, |token, key| {
        let wrapped = token.wrap(key, &AAD, &dek()).unwrap();
        let mut other = AAD;
        other[55] ^= 1;
        refused(token.unwrap(key, &other, &wrapped));
    });
}

fn changed_byte(c: &dyn Connector) {
    with_key(c, |token, key| {
        let wrapped = token.wrap(key, &AAD, &dek()).unwrap();
        for at in 0..WrappedDek::LEN {
            let mut changed = wrapped;
            if let Some(b) = changed.0.get_mut(at) {
                *b ^= 0x80;
            }
            refused(token.unwrap(key, &AAD, &changed));
        }
    });
}

fn other_key(c: &dyn Connector) {
    with_key(c, |token, key| {
        let other = new_key(token);
        let wrapped = token.wrap(key, &AAD, &dek()).unwrap();
        refused(token.unwrap(&other, &AAD, &wrapped));
        token.destroy(other.object).unwrap();
    });
}

fn refusals_are_harmless(c: &dyn Connector) {
    with_key(c, |token, key| {
        let wrapped = token.wrap(key, &AAD, &dek()).unwrap();
        for _ in 0..100 {
            refused(token.unwrap(key, &[0; 56], &wrapped));
        }
        token.unwrap(key, &AAD, &wrapped).unwrap();
        token.check(Some(key)).unwrap();
    });
}

fn random(c: &dyn Connector) {
    let mut token = session(c);
    for len in [1, 32, 4096] {
        let (mut a, mut b) = (vec![0; len], vec![0; len]);
        token.random(&mut a).unwrap();
        token.random(&mut b).unwrap();
        if len > 1 {
            assert_ne!(a, b);
            assert!(
                a.iter().rev().take(16).any(|x| *x != 0),
                "the end was not filled"
            );
        }
    }
}

fn evidence(c: &dyn Connector) {
    let mut token = session(c);
    let id = ObjectId::random().unwrap();
    let new = token.generate(id, KeySpec::Aes256, "conformance").unwrap();
    assert_eq!(new.evidence.findings(), Vec::<&str>::new());
    assert_eq!(token.describe(&new.key).unwrap(), new.evidence);
    token.destroy(id).unwrap();
}

fn id_taken(c: &dyn Connector) {
    with_key(c, |token, key| {
        let wrapped = token.wrap(key, &AAD, &dek()).unwrap();
        assert!(
            token
                .generate(key.object, KeySpec::Aes256, "again")
                .is_err()
        );
        token.unwrap(key, &AAD, &wrapped).unwrap();
    });
}

fn read_only(c: &dyn Connector) {
    let mut token = c.connect(Lane::Work).unwrap();
    let id = ObjectId::random().unwrap();
    assert!(token.generate(id, KeySpec::Aes256, "read only").is_err());
}

fn listed(c: &dyn Connector) {
    with_key(c, |token, key| {
        let found = token.objects().unwrap();
        let ours: Vec<_> = found.iter().filter(|o| o.id == Some(key.object)).collect();
        assert_eq!(ours.len(), 1);
        assert_eq!(ours.first().unwrap().label, "conformance");
    });
}

fn destroyed(c: &dyn Connector) {
    let mut token = session(c);
    let key = new_key(token.as_mut());
    let wrapped = token.wrap(&key, &AAD, &dek()).unwrap();
    token.destroy(key.object).unwrap();
    assert_eq!(
        token.unwrap(&key, &AAD, &wrapped).unwrap_err().kind(),
        Kind::NoSuchKey
    );
}

fn unknown(c: &dyn Connector) {
    with_key(c, |token, key| {
        let stranger = KeyRef {
            object: ObjectId::random().unwrap(),
            proof: key.proof,
        };
        assert_eq!(
            token.wrap(&stranger, &AAD, &dek()).unwrap_err().kind(),
            Kind::NoSuchKey
        );
    });
}

fn substituted(c: &dyn Connector) {
    let mut token = session(c);
    let (a, b) = (new_key(token.as_mut()), new_key(token.as_mut()));
    let mixed = KeyRef {
        object: a.object,
        proof: b.proof,
    };
    // On a session that has not used `a` yet, so that no cached handle answers.
    let mut other = session(c);
    other
        .recover(&Error::new(Kind::Stale, "conformance").with_remedy(Remedy::Login))
        .unwrap();
    assert_eq!(
        other.wrap(&mixed, &AAD, &dek()).unwrap_err().kind(),
        Kind::Fault
    );
    token
        .recover(&Error::new(Kind::Stale, "conformance").with_remedy(Remedy::Session))
        .unwrap();
    token.destroy(a.object).unwrap();
    token.destroy(b.object).unwrap();
}

fn two_sessions(c: &dyn Connector) {
    let mut worker = c.connect(Lane::Work).unwrap();
    with_key(c, |token, key| {
        let wrapped = worker.wrap(key, &AAD, &dek()).unwrap();
        assert_eq!(
            token.unwrap(key, &AAD, &wrapped).unwrap().expose(),
            dek().expose()
        );
    });
}

fn ladder(c: &dyn Connector) {
    let mut token = session(c);
    let keys: Vec<KeyRef> = (0..4).map(|_| new_key(token.as_mut())).collect();
    let wraps: Vec<WrappedDek> = keys
        .iter()
        .map(|k| token.wrap(k, &AAD, &dek()).unwrap())
        .collect();
    for remedy in [Remedy::Session, Remedy::Login, Remedy::Module] {
        token
            .recover(&Error::new(Kind::Stale, "conformance").with_remedy(remedy))
            .unwrap();
        // Backwards, so that a token that hands out handles in order of look-up is
        // caught mixing keys up.
        for (key, wrapped) in keys.iter().zip(&wraps).rev() {
            assert_eq!(
                token.unwrap(key, &AAD, wrapped).unwrap().expose(),
                dek().expose()
            );
        }
    }
    for key in &keys {
        token.destroy(key.object).unwrap();
    }
}
