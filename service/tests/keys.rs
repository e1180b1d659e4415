//! `keywright.v1.Keys` over TLS on the fake token: create, list, rotate, evidence, and
//! what is left when the token fails in between.
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

mod common;

use common::{Appliance, encrypt, engine, pairs, reason};
use keywright_client::proto::{self, CreateKeyRequest, ListKeysRequest};
use keywright_hsm::fake::Fault;
use tonic::Code;

fn create(name: &str) -> CreateKeyRequest {
    CreateKeyRequest {
        name: name.into(),
        spec: proto::KeySpec::Aes256.into(),
        ..Default::default()
    }
}

#[tokio::test]
async fn a_key_shows_what_it_was_created_with() {
    let it = Appliance::start().await;
    let admin = it.client("red", "admin").await;
    let request = CreateKeyRequest {
        labels: pairs(&[("team", "pay")]),
        ..create("a/b")
    };
    let made = admin
        .keys()
        .create_key(request)
        .await
        .unwrap()
        .into_inner()
        .key
        .unwrap();
    assert_eq!(
        (made.name.as_str(), made.primary_version, made.revision),
        ("a/b", 1, 1)
    );
    assert_eq!(made.id.len(), 16);
    assert_eq!(made.labels, pairs(&[("team", "pay")]));
    assert_eq!(made.versions[0].state(), proto::KeyState::Active);
    let request = proto::GetKeyRequest { name: "a/b".into() };
    assert_eq!(
        admin
            .keys()
            .get_key(request)
            .await
            .unwrap()
            .into_inner()
            .key
            .unwrap(),
        made
    );
}

#[tokio::test]
async fn bad_creations_are_refused() {
    let it = Appliance::start().await;
    let admin = it.client("red", "admin").await;
    it.create("red", "taken").await;
    let long = "a".repeat(256);
    for (request, expected) in [
        (create("taken"), "KEY_EXISTS"),
        (create(""), "INVALID_ARGUMENT"),
        (create("A"), "INVALID_ARGUMENT"),
        (create("a/../b"), "INVALID_ARGUMENT"),
        (create(&long), "INVALID_ARGUMENT"),
        (
            CreateKeyRequest {
                spec: 0,
                ..create("x")
            },
            "INVALID_ARGUMENT",
        ),
        (
            CreateKeyRequest {
                spec: 99,
                ..create("x")
            },
            "INVALID_ARGUMENT",
        ),
        (
            CreateKeyRequest {
                labels: pairs(&[("Team", "x")]),
                ..create("x")
            },
            "INVALID_ARGUMENT",
        ),
    ] {
        let e = admin.keys().create_key(request).await.unwrap_err();
        assert_eq!(reason(&e), expected, "{e:?}");
    }
    // The same name in another tenant is another key.
    let other = it.create("blue", "taken").await;
    assert_eq!(other.name, "taken");
}

#[tokio::test]
async fn lists_go_page_by_page_and_show_what_may_be_seen() {
    let it = Appliance::start().await;
    for i in 0..25 {
        it.create("red", &format!("k{i:02}")).await;
    }
    it.create("red", "secret/one").await;
    it.create("blue", "k99").await;
    it.app.keyring.enforce(engine(
        "forbid (principal == Workload::\"spiffe://red.example/user\", action, resource is Key) when { resource.name like \"secret/*\" };",
    ));
    let user = it.client("red", "user").await;
    let (mut names, mut page_token, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let request = ListKeysRequest {
            page_size: 10,
            page_token,
            ..Default::default()
        };
        let page = user.keys().list_keys(request).await.unwrap().into_inner();
        names.extend(page.keys.into_iter().map(|k| k.name));
        page_token = page.next_page_token;
        pages += 1;
        if page_token.is_empty() {
            break;
        }
    }
    let expected: Vec<String> = (0..25).map(|i| format!("k{i:02}")).collect();
    assert_eq!((names, pages), (expected, 3));
    let request = ListKeysRequest {
        prefix: "k1".into(),
        ..Default::default()
    };
    assert_eq!(
        user.keys()
            .list_keys(request)
            .await
            .unwrap()
            .into_inner()
            .keys
            .len(),
        10
    );
    for request in [
        ListKeysRequest {
            page_size: 1001,
            ..Default::default()
        },
        ListKeysRequest {
            page_token: "../x".into(),
            ..Default::default()
        },
    ] {
        assert_eq!(
            reason(&user.keys().list_keys(request).await.unwrap_err()),
            "INVALID_ARGUMENT"
        );
    }
}

#[tokio::test]
async fn rotation_keeps_the_old_versions_decrypting_over_restarts() {
    let it = Appliance::start().await;
    it.create("red", "k").await;
    let mut sealed = Vec::new();
    for version in 1..=4u32 {
        let user = it.client("red", "user").await;
        let one = user
            .crypto()
            .encrypt(encrypt("k", &[b"x"]))
            .await
            .unwrap()
            .into_inner();
        assert_eq!(one.key_version, version);
        sealed.push(one);
        let key = it.rotate("red", "k").await;
        assert_eq!(
            (key.primary_version, key.revision),
            // Two phases, two pictures.
            (version + 1, 2 * u64::from(version) + 1)
        );
    }
    let it = it.restart().await;
    let user = it.client("red", "user").await;
    for one in sealed {
        let request = proto::DecryptRequest {
            header: one.header,
            items: one.items,
            ..Default::default()
        };
        assert_eq!(
            user.crypto()
                .decrypt(request)
                .await
                .unwrap()
                .into_inner()
                .plaintexts,
            [&b"x"[..]]
        );
    }
}

#[tokio::test]
async fn many_rotations_at_once_make_no_version_twice() {
    let it = Appliance::start().await;
    it.create("red", "k").await;
    let admin = it.client("red", "admin").await;
    let calls: Vec<_> = (0..20)
        .map(|_| {
            let mut keys = admin.keys();
            tokio::spawn(async move {
                keys.rotate_key(proto::RotateKeyRequest { name: "k".into() })
                    .await
            })
        })
        .collect();
    let mut done = 0;
    for call in calls {
        match call.await.unwrap() {
            Ok(_) => done += 1,
            Err(e) => assert_eq!(e.code(), Code::Aborted, "{e:?}"),
        }
    }
    let request = proto::GetKeyRequest { name: "k".into() };
    let key = admin
        .keys()
        .get_key(request)
        .await
        .unwrap()
        .into_inner()
        .key
        .unwrap();
    let numbers: Vec<u32> = key.versions.iter().map(|v| v.number).collect();
    assert_eq!(numbers, (1..=done + 1).collect::<Vec<u32>>());
    // The store says the same.
    let stored = it.app.store.load().await.unwrap();
    assert_eq!(stored.keys[0].versions().count() as u32, done + 1);
    assert!(stored.intents.is_empty());
}

#[tokio::test]
async fn evidence_is_what_the_token_says() {
    let it = Appliance::start().await;
    it.create("red", "k").await;
    it.rotate("red", "k").await;
    let auditor = it.client("red", "auditor").await;
    let ask = |version| {
        let mut keys = auditor.keys();
        async move {
            keys.get_key_evidence(proto::GetKeyEvidenceRequest {
                name: "k".into(),
                version,
            })
            .await
        }
    };
    let all = ask(0).await.unwrap().into_inner();
    assert_eq!(all.versions.len(), 2);
    for v in &all.versions {
        assert!(v.cannot_leave && v.local && v.never_extractable && !v.extractable);
        assert_eq!(v.allowed_mechanisms, ["CKM_AES_GCM"]);
    }
    assert_eq!(all.module.unwrap().token_label, "fake");
    assert_eq!(ask(2).await.unwrap().into_inner().versions[0].version, 2);
    assert_eq!(reason(&ask(3).await.unwrap_err()), "KEY_VERSION_NOT_FOUND");
}

#[tokio::test]
async fn a_full_token_leaves_an_intent_and_no_key() {
    let it = Appliance::start().await;
    it.create("red", "first").await;
    it.device.limit_keys(2);
    let admin = it.client("red", "admin").await;
    let e = admin.keys().create_key(create("second")).await.unwrap_err();
    assert_eq!(e.code(), Code::Internal);
    // It is not known for sure what the token did, so the intent stays for the report.
    let contents = it.app.store.load().await.unwrap();
    assert_eq!((contents.keys.len(), contents.intents.len()), (1, 1));
    let e = admin
        .keys()
        .get_key(proto::GetKeyRequest {
            name: "second".into(),
        })
        .await
        .unwrap_err();
    assert_eq!(e.code(), Code::NotFound);
    // With room again the same name can be made.
    it.device.limit_keys(9);
    admin.keys().create_key(create("second")).await.unwrap();
}

#[tokio::test]
async fn a_client_that_leaves_does_not_leave_a_half_done_key() {
    let it = Appliance::start().await;
    let admin = it.client("red", "admin").await;
    it.device
        .inject([Fault::Slow(std::time::Duration::from_millis(300))]);
    let mut keys = admin.keys();
    let call = tokio::time::timeout(
        std::time::Duration::from_millis(50),
        keys.create_key(create("k")),
    );
    assert!(call.await.is_err(), "the client gave up");
    let mut key = None;
    for _ in 0..100 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        let found = admin
            .keys()
            .get_key(proto::GetKeyRequest { name: "k".into() })
            .await;
        if let Ok(found) = found {
            key = found.into_inner().key;
            break;
        }
    }
    assert_eq!(key.unwrap().primary_version, 1);
    assert!(it.app.store.load().await.unwrap().intents.is_empty());
    assert_eq!(it.records("CreateKey").pop().unwrap()["outcome"], "OK");
}

/// One row for each state: what works on what was sealed before, and on new data.
#[tokio::test]
async fn a_state_takes_effect_at_once_and_survives() {
    use proto::KeyState as S;
    let it = Appliance::start().await;
    it.create("red", "k").await;
    let (admin, user) = (
        it.client("red", "admin").await,
        it.client("red", "user").await,
    );
    let rewrapper = it.client("red", "rewrap").await;
    let sealed = user
        .crypto()
        .encrypt(encrypt("k", &[b"x"]))
        .await
        .unwrap()
        .into_inner();
    let change = async |version: u32, state: S, revision: u64| {
        let request = proto::ChangeStateRequest {
            name: "k".into(),
            version,
            state: state.into(),
            revision,
        };
        let response = admin.keys().change_state(request).await?;
        Ok::<_, tonic::Status>(response.into_inner().key.unwrap())
    };
    let works = async || {
        let protects = user.crypto().encrypt(encrypt("k", &[b"y"])).await;
        let request = proto::DecryptRequest {
            header: sealed.header.clone(),
            items: sealed.items.clone(),
            ..Default::default()
        };
        let processes = user.crypto().decrypt(request).await;
        for e in [protects.as_ref().err(), processes.as_ref().err()]
            .into_iter()
            .flatten()
        {
            assert_eq!(
                (e.code(), reason(e).as_str()),
                (Code::FailedPrecondition, "KEY_STATE")
            );
        }
        (protects.is_ok(), processes.is_ok())
    };
    assert_eq!(works().await, (true, true));
    for (state, expected) in [
        (S::Suspended, (false, false)),
        (S::Active, (true, true)),
        (S::Deactivated, (false, true)),
        (S::Suspended, (false, false)),
        (S::Deactivated, (false, true)),
    ] {
        let key = change(1, state, 0).await.unwrap();
        assert_eq!(key.versions[0].state(), state);
        assert_eq!(works().await, expected, "{state:?}");
    }
    // A new version protects; the old one still opens, and moves by rewrap.
    let request = proto::RotateKeyRequest { name: "k".into() };
    let rotated = admin.keys().rotate_key(request).await.unwrap().into_inner();
    assert_eq!(works().await, (true, true));
    let request = proto::RewrapRequest {
        envelopes: vec![sealed.header.clone()],
        ..Default::default()
    };
    let moved = rewrapper
        .crypto()
        .rewrap(request.clone())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(moved.rewrapped, 1);
    // Compromised is for ever, also for rewrap.
    change(1, S::Compromised, 0).await.unwrap();
    assert_eq!(works().await, (true, false));
    let e = rewrapper.crypto().rewrap(request).await.unwrap_err();
    assert_eq!(reason(&e), "KEY_STATE");
    let e = change(1, S::Active, 0).await.unwrap_err();
    assert_eq!(reason(&e), "KEY_STATE");
    assert!(
        e.message()
            .contains("is compromised, it cannot become active"),
        "{}",
        e.message()
    );
    // All that may: version 2 only.
    let all = change(0, S::Suspended, 0).await.unwrap();
    let states: Vec<S> = all.versions.iter().map(proto::KeyVersion::state).collect();
    assert_eq!(states, [S::Compromised, S::Suspended]);
    // Two writers: the one who has not seen the other's change is told.
    let e = change(2, S::Active, rotated.key.unwrap().revision)
        .await
        .unwrap_err();
    assert_eq!((e.code(), reason(&e).as_str()), (Code::Aborted, "CONFLICT"));
    change(2, S::Active, all.revision).await.unwrap();
    for (version, state, expected) in [
        (3, S::Suspended, "KEY_VERSION_NOT_FOUND"),
        (1, S::Destroyed, "INVALID_ARGUMENT"),
        (1, S::Unspecified, "INVALID_ARGUMENT"),
        (2, S::Active, "KEY_STATE"),
    ] {
        let e = change(version, state, 0).await.unwrap_err();
        assert_eq!(reason(&e), expected, "{version} {state:?}");
    }
    // And after a restart it is as it was.
    let it = it.restart().await;
    let request = proto::GetKeyRequest { name: "k".into() };
    let key = it
        .client("red", "admin")
        .await
        .keys()
        .get_key(request)
        .await
        .unwrap();
    let key = key.into_inner().key.unwrap();
    let states: Vec<S> = key.versions.iter().map(proto::KeyVersion::state).collect();
    assert_eq!(states, [S::Compromised, S::Active]);
}

/// What was asked means nothing here, and the answer says so.
#[tokio::test]
async fn what_has_nothing_to_do_says_so() {
    let it = Appliance::start().await;
    it.create("red", "k").await;
    let admin = it.client("red", "admin").await;
    let request = proto::CancelDestructionRequest {
        name: "k".into(),
        ..Default::default()
    };
    let e = admin.keys().cancel_destruction(request).await.unwrap_err();
    assert_eq!(reason(&e), "KEY_STATE");
    assert!(e.message().contains("no version of this key is scheduled"));
    let resume = proto::ChangeStateRequest {
        name: "k".into(),
        state: proto::KeyState::Active.into(),
        ..Default::default()
    };
    let e = admin.keys().change_state(resume).await.unwrap_err();
    assert_eq!(reason(&e), "KEY_STATE");
    assert!(e.message().contains("no version of this key is suspended"));

    // Versions come along for actions that process only.
    let explain = |action: &str, key_version| proto::ExplainRequest {
        key: "k".into(),
        action: action.into(),
        key_version,
        ..Default::default()
    };
    for action in ["encrypt", "sign", "mac", "generate_data_key", "rotate_key"] {
        let e = admin.keys().explain(explain(action, 1)).await.unwrap_err();
        assert_eq!(reason(&e), "INVALID_ARGUMENT", "{action}");
        assert!(e.message().contains("leave the version out"), "{e:?}");
        admin.keys().explain(explain(action, 0)).await.unwrap();
    }
    for (version, usable) in [(1, true), (2, false)] {
        let said = admin.keys().explain(explain("rewrap", version)).await;
        assert_eq!(said.unwrap().into_inner().unusable.is_empty(), usable);
    }

    // Rules about wraps are for keys that wrap.
    let sign = CreateKeyRequest {
        spec: proto::KeySpec::EcP256.into(),
        ..create("sign")
    };
    admin.keys().create_key(sign).await.unwrap();
    let rules = |days, wraps, limit| proto::UpdateKeyRequest {
        name: "sign".into(),
        rules: Some(proto::KeyRules {
            rotate_after_days: days,
            rotate_after_wraps: wraps,
            wrap_limit: limit,
            ..Default::default()
        }),
        ..Default::default()
    };
    for (wrong, field) in [
        (rules(30, 3, 0), "rotate_after_wraps"),
        (rules(30, 0, 1 << 16), "wrap_limit"),
    ] {
        let e = admin.keys().update_key(wrong).await.unwrap_err();
        assert_eq!(reason(&e), "INVALID_ARGUMENT");
        assert!(e.message().contains(field), "{e:?}");
    }
    admin.keys().update_key(rules(30, 0, 0)).await.unwrap();
}

/// The time of the last use may be lost in a crash; that there was one is not.
#[tokio::test]
async fn a_crash_cannot_hide_that_a_version_was_used() {
    let it = Appliance::start().await;
    it.create("red", "k").await;
    let user = it.client("red", "user").await;
    user.crypto().encrypt(encrypt("k", &[b"x"])).await.unwrap();
    // Nobody saved it.
    let it = it.restart().await;
    let request = proto::GetKeyRequest { name: "k".into() };
    let admin = it.client("red", "admin").await;
    let key = admin.keys().get_key(request).await.unwrap();
    let version = key.into_inner().key.unwrap().versions[0];
    assert_eq!(version.last_protect_unix_ms, 0);
    assert!(version.wraps_reserved > 0);
}
