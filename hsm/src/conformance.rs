//! What every [`Token`] must do. The same checks run on the strict fake and on real
//! modules; a token that passes can carry Keywright.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a conformance check reports by failing"
)]

use crate::{
    Connector, Curve, DataObject, Dek, Hash, KeyProof, KeyRef, KeySpec, Kind, Lane, NewKey, Oaep,
    ObjectId, PssSalt, RsaBits, Signing, Token, WrappedDek,
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
    ("every spec makes a key that cannot leave", every_spec),
    ("signatures verify with the public key", signatures),
    ("a scheme of another key is refused", wrong_scheme),
    ("MACs are those of the hash, and of the key", macs),
    ("what was encrypted to a key comes back", decryption),
    (
        "forged ciphertexts are refused and harm nothing",
        forged_oaep,
    ),
    ("a pair that is not itself is not used", substituted_pair),
    ("both halves of a pair are destroyed", destroyed_pair),
    ("data is kept by label, the last value of each", data),
    ("data out of bounds is not put", data_out_of_bounds),
    ("a read-only session puts no data", read_only_data),
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
    token.destroy(key.object, key.spec).unwrap();
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
        token.destroy(other.object, other.spec).unwrap();
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
    token.destroy(id, KeySpec::Aes256).unwrap();
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
    token.destroy(key.object, key.spec).unwrap();
    assert_eq!(
        token.unwrap(&key, &AAD, &wrapped).unwrap_err().kind(),
        Kind::NoSuchKey
    );
}

fn unknown(c: &dyn Connector) {
    with_key(c, |token, key| {
        let stranger = KeyRef {
            object: ObjectId::random().unwrap(),
            ..key.clone()
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
        ..b.clone()
    };
    // On a session that has not used `a` yet, so that no cached handle answers.
    let mut other = session(c);
    other
        .recover(&Error::new(Kind::Stale, "conformance").with_remedy(Remedy::Login))
        .unwrap();
    assert_eq!(
        other.wrap(&mixed, &AAD, &dek()).unwrap_err().kind(),
        Kind::OtherKey
    );
    token
        .recover(&Error::new(Kind::Stale, "conformance").with_remedy(Remedy::Session))
        .unwrap();
    token.destroy(a.object, a.spec).unwrap();
    token.destroy(b.object, b.spec).unwrap();
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
        token.destroy(key.object, key.spec).unwrap();
    }
}

/// Quick to make, one of each kind.
const QUICK: [KeySpec; 5] = [
    KeySpec::Hmac(Hash::Sha384),
    KeySpec::Ec(Curve::P256),
    KeySpec::Ec(Curve::P384),
    KeySpec::Ed25519,
    KeySpec::RsaSign(RsaBits::B2048),
];

fn make(token: &mut dyn Token, spec: KeySpec) -> NewKey {
    let id = ObjectId::random().unwrap();
    token.generate(id, spec, "conformance").unwrap()
}

fn with_spec(
    connector: &dyn Connector,
    spec: KeySpec,
    check: impl FnOnce(&mut dyn Token, &KeyRef),
) {
    let mut token = session(connector);
    let key = make(token.as_mut(), spec).key;
    check(token.as_mut(), &key);
    token.destroy(key.object, spec).unwrap();
}

fn every_spec(c: &dyn Connector) {
    let mut token = session(c);
    for spec in KeySpec::ALL {
        let new = make(token.as_mut(), spec);
        assert_eq!(new.evidence.findings(), Vec::<&str>::new(), "{spec:?}");
        assert_eq!(token.describe(&new.key).unwrap(), new.evidence);
        let bytes = new.key.proof.to_bytes();
        let again = KeyProof::from_bytes(spec, &bytes);
        assert_eq!(again.as_ref(), Some(&new.key.proof), "{spec:?}");
        assert_eq!(new.key.public().is_some(), spec.is_pair());
        token.check(Some(&new.key)).unwrap();
        token.destroy(new.key.object, spec).unwrap();
    }
}

/// Every scheme of a spec, with an input it takes.
fn schemes(spec: KeySpec) -> Vec<(Signing, Vec<u8>)> {
    let digest = |hash: Hash| vec![0x5c; hash.bytes()];
    match spec {
        KeySpec::Ec(curve) => vec![(Signing::Ecdsa, digest(curve.hash()))],
        KeySpec::Ed25519 => [0, 1, 1000]
            .map(|n| (Signing::Ed25519, vec![0x5c; n]))
            .into(),
        KeySpec::RsaSign(_) => [Hash::Sha256, Hash::Sha384, Hash::Sha512]
            .into_iter()
            .flat_map(|h| {
                [
                    (Signing::RsaPkcs1(h), digest(h)),
                    (Signing::RsaPss(h, PssSalt::Hash), digest(h)),
                ]
            })
            .collect(),
        _ => Vec::new(),
    }
}

fn signatures(c: &dyn Connector) {
    for spec in QUICK.into_iter().filter(|s| s.is_pair()) {
        with_spec(c, spec, |token, key| {
            let public = key.public().unwrap();
            for (how, input) in schemes(spec) {
                let signature = token.sign(key, how, &input).unwrap();
                public.verify(how, &input, &signature).unwrap();
                let mut other = input.clone();
                other.push(1);
                assert!(public.verify(how, &other, &signature).is_err());
                for at in [0, signature.len() / 2, signature.len() - 1] {
                    let mut changed = signature.clone();
                    if let Some(b) = changed.get_mut(at) {
                        *b ^= 1;
                    }
                    assert!(
                        public.verify(how, &input, &changed).is_err(),
                        "{how:?} {at}"
                    );
                }
            }
        });
    }
}

fn wrong_scheme(c: &dyn Connector) {
    with_spec(c, KeySpec::Ec(Curve::P256), |token, key| {
        let wrong: [(Signing, usize); 5] = [
            (Signing::Ed25519, 32),
            (Signing::RsaPkcs1(Hash::Sha256), 32),
            // A digest of the wrong length: shorter, longer, none.
            (Signing::Ecdsa, 31),
            (Signing::Ecdsa, 48),
            (Signing::Ecdsa, 0),
        ];
        for (how, len) in wrong {
            let e = token.sign(key, how, &vec![1; len]).unwrap_err();
            assert_eq!(e.kind(), Kind::Unsupported, "{how:?} {len}");
        }
        assert_eq!(token.mac(key, b"m").unwrap_err().kind(), Kind::Unsupported);
        let e = token.decrypt(key, Oaep::Sha1, &[1; 256]).unwrap_err();
        assert_eq!(e.kind(), Kind::Unsupported);
        token.sign(key, Signing::Ecdsa, &[1; 32]).unwrap();
    });
}

fn macs(c: &dyn Connector) {
    for hash in [Hash::Sha256, Hash::Sha384, Hash::Sha512] {
        with_spec(c, KeySpec::Hmac(hash), |token, key| {
            let other = make(token, KeySpec::Hmac(hash)).key;
            for message in [vec![], vec![7; 1], vec![7; 100_000]] {
                let tag = token.mac(key, &message).unwrap();
                assert_eq!(tag.len(), hash.bytes());
                assert_eq!(tag, token.mac(key, &message).unwrap());
                assert_ne!(tag, token.mac(&other, &message).unwrap());
            }
            token.destroy(other.object, other.spec).unwrap();
        });
    }
}

fn decryption(c: &dyn Connector) {
    with_spec(c, KeySpec::RsaDecrypt(RsaBits::B2048), |token, key| {
        let public = key.public().unwrap();
        for plaintext in [vec![], vec![9; 1], vec![9; 256 - 2 * 20 - 2]] {
            let sealed = public.encrypt(Oaep::Sha1, &plaintext).unwrap();
            let opened = token.decrypt(key, Oaep::Sha1, &sealed).unwrap();
            assert_eq!(*opened, plaintext);
        }
        assert!(public.encrypt(Oaep::Sha1, &[9; 215]).is_err(), "too long");
    });
}

fn forged_oaep(c: &dyn Connector) {
    with_spec(c, KeySpec::RsaDecrypt(RsaBits::B2048), |token, key| {
        let sealed = key
            .public()
            .unwrap()
            .encrypt(Oaep::Sha1, b"secret")
            .unwrap();
        for at in [0, 100, 255] {
            let mut changed = sealed.clone();
            if let Some(b) = changed.get_mut(at) {
                *b ^= 1;
            }
            let e = token.decrypt(key, Oaep::Sha1, &changed).unwrap_err();
            assert_eq!(e.kind(), Kind::Refused, "{e}");
        }
        for bytes in [vec![], vec![1; 255], vec![1; 257], vec![0xff; 256]] {
            let e = token.decrypt(key, Oaep::Sha1, &bytes).unwrap_err();
            assert_eq!(e.kind(), Kind::Refused, "{} bytes: {e}", bytes.len());
        }
        assert_eq!(*token.decrypt(key, Oaep::Sha1, &sealed).unwrap(), b"secret");
        token.check(Some(key)).unwrap();
    });
}

fn substituted_pair(c: &dyn Connector) {
    let mut token = session(c);
    let spec = KeySpec::Ec(Curve::P256);
    let (a, b) = (
        make(token.as_mut(), spec).key,
        make(token.as_mut(), spec).key,
    );
    let mixed = KeyRef {
        object: a.object,
        ..b.clone()
    };
    token
        .recover(&Error::new(Kind::Stale, "conformance").with_remedy(Remedy::Login))
        .unwrap();
    let e = token.sign(&mixed, Signing::Ecdsa, &[1; 32]).unwrap_err();
    assert_eq!((e.kind(), e.key()), (Kind::OtherKey, Some(a.object)));
    token
        .recover(&Error::new(Kind::Stale, "conformance").with_remedy(Remedy::Session))
        .unwrap();
    token.destroy(a.object, spec).unwrap();
    token.destroy(b.object, spec).unwrap();
}

fn destroyed_pair(c: &dyn Connector) {
    let mut token = session(c);
    let spec = KeySpec::Ed25519;
    let key = make(token.as_mut(), spec).key;
    token.destroy(key.object, spec).unwrap();
    let e = token.sign(&key, Signing::Ed25519, b"m").unwrap_err();
    assert_eq!(e.kind(), Kind::NoSuchKey);
    let e = token.destroy(key.object, spec).unwrap_err();
    assert_eq!(e.kind(), Kind::NoSuchKey);
    let left = token.objects().unwrap();
    assert!(left.iter().all(|o| o.id != Some(key.object)));
}

/// A label that no check before this one has used.
fn label() -> String {
    format!("conformance {}", ObjectId::random().unwrap())
}

/// The values under a label, as another session sees them.
fn values(c: &dyn Connector, label: &str) -> Vec<Vec<u8>> {
    let found = session(c).data().unwrap();
    let ours = found.into_iter().filter(|o| o.label == label);
    ours.map(|o| o.value).collect()
}

fn data(c: &dyn Connector) {
    let mut token = session(c);
    let keys = token.objects().unwrap();
    let (a, b) = (label(), label());
    assert_eq!(values(c, &a), Vec::<Vec<u8>>::new());
    token.put_data(&a, b"one").unwrap();
    assert_eq!(values(c, &a), [b"one"]);
    token.put_data(&b, b"other").unwrap();
    let long = [0xff; DataObject::MAX_BYTES];
    token.put_data(&a, &long).unwrap();
    assert_eq!(values(c, &a), [long]);
    token.put_data(&a, &long).unwrap();
    assert_eq!(values(c, &a), [long], "the same value again");
    assert_eq!(values(c, &b), [b"other"], "the other label");
    token
        .recover(&Error::new(Kind::Stale, "conformance").with_remedy(Remedy::Module))
        .unwrap();
    assert_eq!(values(c, &a), [long], "after the module was loaded anew");
    assert_eq!(token.objects().unwrap(), keys, "data is no key");
}

fn data_out_of_bounds(c: &dyn Connector) {
    let (mut token, label) = (session(c), label());
    token.put_data(&label, b"kept").unwrap();
    for wrong in [&[1; DataObject::MAX_BYTES + 1][..], b""] {
        let e = token.put_data(&label, wrong).unwrap_err();
        assert_eq!(e.kind(), Kind::Fault, "{e}");
    }
    assert_eq!(values(c, &label), [b"kept"]);
}

fn read_only_data(c: &dyn Connector) {
    let (mut token, label) = (c.connect(Lane::Work).unwrap(), label());
    assert!(token.put_data(&label, b"read only").is_err());
    assert_eq!(values(c, &label), Vec::<Vec<u8>>::new());
}
