//! Requests that must fail, each for one exact reason.

use bytes::Bytes;
use keywright_client::{Failure, proto};

use crate::user::{DATA, Done, User, ask, check};

/// The reason, and the number of the request that gives it.
pub(crate) const BAD: [(&str, Bad); 12] = [
    ("BATCH_EMPTY", Bad::NoItems),
    ("BATCH_TOO_LARGE", Bad::ManyItems),
    ("ITEM_TOO_LARGE", Bad::LargeItem),
    ("INVALID_ARGUMENT", Bad::BothLayouts),
    ("KEY_NOT_FOUND", Bad::OtherKey),
    ("KEY_EXISTS", Bad::SameKey),
    ("KEY_USE", Bad::OtherUse),
    ("KEY_VERSION_NOT_FOUND", Bad::OtherVersion),
    ("KEY_STATE", Bad::Suspended),
    ("CONFLICT", Bad::OldRevision),
    ("ENVELOPE_MALFORMED", Bad::NoEnvelope),
    ("DECRYPTION_FAILED", Bad::OtherContext),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bad {
    NoItems,
    ManyItems,
    LargeItem,
    BothLayouts,
    OtherKey,
    SameKey,
    OtherUse,
    OtherVersion,
    Suspended,
    OldRevision,
    NoEnvelope,
    OtherContext,
}

/// Fails with this reason and no other.
pub(crate) fn fails<T>(answer: Result<T, Failure>, reason: &str) -> Done {
    match answer {
        Ok(_) => Err(format!("went through, {reason} was due")),
        Err(e) if e.reason() == Some(reason) => Ok(()),
        Err(e) => Err(format!("{reason} was due: {:?}: {e}", e.reason())),
    }
}

/// One of the requests above; the reason it was refused for.
pub(crate) async fn one(user: &mut User) -> Result<&'static str, String> {
    let (reason, bad) = BAD[user.rng.below(BAD.len())];
    let encrypt = |key: &str, plaintexts: Vec<Bytes>| proto::EncryptRequest {
        key: key.into(),
        plaintexts,
        ..Default::default()
    };
    let x = || Bytes::from_static(b"x");
    let own = user.own.clone();
    match bad {
        Bad::NoItems => fails(ask!(user, crypto.encrypt(encrypt(DATA, vec![]))), reason),
        Bad::ManyItems => {
            let request = encrypt(DATA, vec![Bytes::new(); 4097]);
            fails(ask!(user, crypto.encrypt(request)), reason)
        }
        Bad::LargeItem => large_item(user, reason).await,
        Bad::BothLayouts => {
            let mut request = encrypt(DATA, vec![x()]);
            request.packed_plaintexts = Some(proto::Packed {
                data: x(),
                lengths: vec![1],
            });
            fails(ask!(user, crypto.encrypt(request)), reason)
        }
        Bad::OtherKey => {
            let request = encrypt("soak/no-such-key", vec![x()]);
            fails(ask!(user, crypto.encrypt(request)), reason)
        }
        Bad::SameKey => {
            let request = proto::CreateKeyRequest {
                name: own,
                spec: proto::KeySpec::Aes256.into(),
                ..Default::default()
            };
            fails(ask!(user, keys.create_key(request)), reason)
        }
        Bad::OtherUse => {
            let request = proto::SignRequest {
                key: DATA.into(),
                inputs: vec![x()],
                ..Default::default()
            };
            fails(ask!(user, crypto.sign(request)), reason)
        }
        Bad::OtherVersion => {
            let request = proto::ChangeStateRequest {
                name: own,
                version: 1_000_000,
                state: proto::KeyState::Suspended.into(),
                ..Default::default()
            };
            fails(ask!(user, keys.change_state(request)), reason)
        }
        Bad::Suspended => user.suspend_and_resume().await,
        Bad::OldRevision => {
            let request = proto::ChangeStateRequest {
                name: own,
                state: proto::KeyState::Suspended.into(),
                revision: u64::MAX,
                ..Default::default()
            };
            fails(ask!(user, keys.change_state(request)), reason)
        }
        Bad::NoEnvelope => {
            let request = proto::RewrapRequest {
                envelopes: vec![Bytes::from_static(&[7; 200])],
                ..Default::default()
            };
            fails(ask!(user, crypto.rewrap(request)), reason)
        }
        Bad::OtherContext => {
            let mut request = user.kept().decrypt();
            request.context.insert("another".into(), "context".into());
            fails(ask!(user, crypto.decrypt(request)), reason)
        }
    }?;
    Ok(reason)
}

/// One item too large fails alone; its neighbour is sealed.
async fn large_item(user: &mut User, reason: &str) -> Done {
    let request = proto::EncryptRequest {
        key: DATA.into(),
        plaintexts: vec![Bytes::from(vec![0; (1 << 20) + 1]), Bytes::new()],
        ..Default::default()
    };
    let sealed = ask!(user, crypto.encrypt(request)).map_err(|e| e.to_string())?;
    let [error] = sealed.errors.as_slice() else {
        return Err(format!("one item error was due: {:?}", sealed.errors));
    };
    check(
        error.index == 0 && error.reason == reason && sealed.items[1].len() == 20,
        "the neighbour of an item that is too large",
    )
}
