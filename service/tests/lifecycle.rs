//! The life of a key over TLS: destruction with its time to think, minimum version,
//! labels and rules, last use, what policies see of a request, and why.
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
use keywright_client::{
    Client,
    proto::{
        self, CancelDestructionRequest, ChangeStateRequest, KeyState as S,
        ScheduleDestructionRequest, UpdateKeyRequest,
    },
};
use keywright_hsm::fake::Fault;
use keywright_service::ops::{keep_rules, save_last_use};
use tonic::{Code, Status};

async fn change(admin: &Client, version: u32, state: S) -> Result<proto::Key, Status> {
    let request = ChangeStateRequest {
        name: "k".into(),
        version,
        state: state.into(),
        revision: 0,
    };
    let response = admin.keys().change_state(request).await?;
    Ok(response.into_inner().key.unwrap())
}

async fn schedule(admin: &Client, version: u32, days: u32) -> Result<proto::Key, Status> {
    let request = ScheduleDestructionRequest {
        name: "k".into(),
        version,
        days,
        ..Default::default()
    };
    let response = admin.keys().schedule_destruction(request).await?;
    Ok(response.into_inner().key.unwrap())
}

async fn cancel(admin: &Client, version: u32) -> Result<proto::Key, Status> {
    let request = CancelDestructionRequest {
        name: "k".into(),
        version,
        revision: 0,
    };
    let response = admin.keys().cancel_destruction(request).await?;
    Ok(response.into_inner().key.unwrap())
}

async fn update(admin: &Client, request: UpdateKeyRequest) -> Result<proto::Key, Status> {
    let request = UpdateKeyRequest {
        name: "k".into(),
        ..request
    };
    let response = admin.keys().update_key(request).await?;
    Ok(response.into_inner().key.unwrap())
}

async fn show(client: &Client) -> proto::Key {
    let request = proto::GetKeyRequest { name: "k".into() };
    let response = client.keys().get_key(request).await.unwrap();
    response.into_inner().key.unwrap()
}

async fn open(
    user: &Client,
    sealed: &proto::EncryptResponse,
) -> Result<proto::DecryptResponse, Status> {
    let request = proto::DecryptRequest {
        header: sealed.header.clone(),
        items: sealed.items.clone(),
        ..Default::default()
    };
    Ok(user.crypto().decrypt(request).await?.into_inner())
}

async fn seal(user: &Client) -> proto::EncryptResponse {
    let sealed = user.crypto().encrypt(encrypt("k", &[b"x"])).await.unwrap();
    sealed.into_inner()
}

#[tokio::test]
async fn destruction_has_time_to_think_and_then_happens() {
    let it = Appliance::start().await;
    it.create("red", "k").await;
    let (admin, user) = (
        it.client("red", "admin").await,
        it.client("red", "user").await,
    );
    let old = seal(&user).await;
    it.rotate("red", "k").await;
    let new = seal(&user).await;
    // In use: refused, and the answer says what to do.
    for version in [0, 1, 2] {
        let e = schedule(&admin, version, 0).await.unwrap_err();
        assert_eq!(
            (e.code(), reason(&e).as_str()),
            (Code::FailedPrecondition, "KEY_STATE")
        );
        assert!(
            e.message().contains("deactivate or suspend it first"),
            "{e:?}"
        );
    }
    change(&admin, 1, S::Deactivated).await.unwrap();
    for days in [1, 6, 91] {
        let e = schedule(&admin, 1, days).await.unwrap_err();
        assert!(e.message().contains("from 7 to 90"), "{e:?}");
    }
    let before = show(&admin).await.revision;
    let key = schedule(&admin, 1, 0).await.unwrap();
    let in_days = (key.versions[0].destroy_unix_ms - it.app.clock.now_ms()) as f64 / 86_400_000.0;
    assert!((29.9..=30.0).contains(&in_days), "{in_days}");
    assert_eq!(key.revision, before + 1);
    // From now on it does nothing, and cannot be moved or scheduled again.
    let e = open(&user, &old).await.unwrap_err();
    assert_eq!(reason(&e), "KEY_STATE");
    assert!(
        e.message().contains("scheduled for destruction on 20"),
        "{e:?}"
    );
    assert_eq!(
        reason(&schedule(&admin, 1, 7).await.unwrap_err()),
        "KEY_STATE"
    );
    assert_eq!(
        reason(&change(&admin, 1, S::Active).await.unwrap_err()),
        "KEY_STATE"
    );
    open(&user, &new).await.unwrap();
    // Cancelled: as before. Twice: nothing to cancel.
    let key = cancel(&admin, 0).await.unwrap();
    assert_eq!(key.versions[0].state(), S::Deactivated);
    open(&user, &old).await.unwrap();
    let e = cancel(&admin, 1).await.unwrap_err();
    assert!(e.message().contains("not scheduled"), "{e:?}");

    schedule(&admin, 1, 7).await.unwrap();
    it.clock.advance_days(6);
    keep_rules(&it.app).await;
    assert_eq!(show(&admin).await.versions[0].state(), S::Deactivated);
    it.clock.advance_days(2);
    let objects = async || {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
        it.app.hsm.objects(deadline).await.unwrap().len()
    };
    let before = objects().await;
    keep_rules(&it.app).await;
    assert_eq!(objects().await, before - 1, "gone from the token");
    let key = show(&admin).await;
    assert_eq!(key.versions[0].state(), S::Destroyed, "the record stays");
    assert_eq!(key.versions[0].destroy_unix_ms, 0);
    let e = open(&user, &old).await.unwrap_err();
    assert!(
        e.message().contains("version 1 of this key is destroyed"),
        "{e:?}"
    );
    open(&user, &new).await.unwrap();
    for result in [
        change(&admin, 1, S::Active).await,
        cancel(&admin, 1).await,
        schedule(&admin, 1, 7).await,
    ] {
        assert_eq!(reason(&result.unwrap_err()), "KEY_STATE");
    }
    // The evidence is about what is there.
    let ask = |version| proto::GetKeyEvidenceRequest {
        name: "k".into(),
        version,
    };
    let all = admin.keys().get_key_evidence(ask(0)).await.unwrap();
    let versions: Vec<u32> = all
        .into_inner()
        .versions
        .iter()
        .map(|v| v.version)
        .collect();
    assert_eq!(versions, [2]);
    let e = admin.keys().get_key_evidence(ask(1)).await.unwrap_err();
    assert_eq!(reason(&e), "KEY_STATE");
    // Both moments are on record, with the version.
    let planned = it.records("ScheduleDestruction").pop().unwrap();
    assert!(
        planned["detail"]["destroy_at"]
            .as_str()
            .unwrap()
            .starts_with("20")
    );
    for action in ["destroying", "destroyed"] {
        let records = it.records(action);
        assert_eq!(records.len(), 1, "{action}");
        assert_eq!(records[0]["keys"][0]["version"], 1);
    }
    // A number is never used twice, and a destroyed version stays so over a restart.
    let it = it.restart().await;
    let key = it.rotate("red", "k").await;
    let states: Vec<S> = key.versions.iter().map(proto::KeyVersion::state).collect();
    assert_eq!(states, [S::Destroyed, S::Active, S::Active]);
    assert_eq!(key.primary_version, 3);
}

/// A crash between the HSM and the store: the next round finishes what was begun.
#[tokio::test]
async fn a_destruction_that_broke_off_is_finished() {
    let it = Appliance::start().await;
    it.create("red", "k").await;
    let admin = it.client("red", "admin").await;
    change(&admin, 1, S::Suspended).await.unwrap();
    schedule(&admin, 0, 7).await.unwrap();
    it.clock.advance_days(8);
    // The token is gone: nothing happens, nothing is lost.
    it.device.inject([Fault::Unplugged]);
    keep_rules(&it.app).await;
    assert_eq!(show(&admin).await.versions[0].state(), S::Suspended);
    it.device.plug_in();
    // The object is gone already, the record not yet.
    let stored = it.app.store.load().await.unwrap().keys;
    let version = stored[0].version(1).unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
    for _ in 0..100 {
        let spec = stored[0].spec;
        let object = version.on_token.object;
        if it.app.hsm.destroy(object, spec, deadline).await.is_ok() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    keep_rules(&it.app).await;
    assert_eq!(show(&admin).await.versions[0].state(), S::Destroyed);
}

#[tokio::test]
async fn a_minimum_version_closes_the_door_behind_a_rotation() {
    let it = Appliance::start().await;
    it.create("red", "k").await;
    let (admin, user) = (
        it.client("red", "admin").await,
        it.client("red", "user").await,
    );
    let old = seal(&user).await;
    it.rotate("red", "k").await;
    let opened = open(&user, &old).await.unwrap();
    assert_eq!(opened.rewrap_due, [0], "an old version says: rewrap me");
    assert!(
        open(&user, &seal(&user).await)
            .await
            .unwrap()
            .rewrap_due
            .is_empty()
    );
    let minimum = |n| UpdateKeyRequest {
        minimum_version: n,
        ..Default::default()
    };
    let key = update(&admin, minimum(2)).await.unwrap();
    assert_eq!(key.minimum_version, 2);
    let e = open(&user, &old).await.unwrap_err();
    assert_eq!(reason(&e), "KEY_STATE");
    assert!(e.message().contains("below its minimum version 2"), "{e:?}");
    let e = update(&admin, minimum(3)).await.unwrap_err();
    assert_eq!(reason(&e), "KEY_VERSION_NOT_FOUND");
    update(&admin, minimum(1)).await.unwrap();
    open(&user, &old).await.unwrap();
}

#[tokio::test]
async fn labels_and_rules_change_and_decide() {
    let it = Appliance::start().await;
    it.create("red", "k").await;
    // Admins look after what is not labelled "hr".
    it.app.keyring.enforce(engine(
        "@id(\"not-hr\") forbid (principal in Role::\"key-admin\", action, resource is Key)
         when { resource.hasTag(\"team\") && resource.getTag(\"team\") == \"hr\" };",
    ));
    let admin = it.client("red", "admin").await;
    let labels = |team: &str| UpdateKeyRequest {
        labels: Some(proto::NewLabels {
            pairs: pairs(&[("team", team)]),
        }),
        ..Default::default()
    };
    let key = update(&admin, labels("pay")).await.unwrap();
    assert_eq!(key.labels, pairs(&[("team", "pay")]));
    // Nobody moves a key to where they could not have touched it.
    let e = update(&admin, labels("hr")).await.unwrap_err();
    assert_eq!(e.code(), Code::PermissionDenied, "{e:?}");
    assert_eq!(
        it.records("UpdateKey").pop().unwrap()["policies"][1],
        "not-hr"
    );
    assert_eq!(show(&admin).await.labels, pairs(&[("team", "pay")]));
    // On record: what it was, and what somebody wanted it to be.
    let tried = it.records("UpdateKey").pop().unwrap();
    assert_eq!(tried["detail"]["labels"], "team=hr");
    assert_eq!(tried["detail"]["labels_before"], "team=pay");

    let rules = |days, wraps, limit| UpdateKeyRequest {
        rules: Some(proto::KeyRules {
            rotate_after_days: days,
            rotate_after_wraps: wraps,
            wrap_limit: limit,
            ..Default::default()
        }),
        ..Default::default()
    };
    let key = update(&admin, rules(30, 3, 1 << 16)).await.unwrap();
    assert_eq!(key.rules.unwrap().wrap_limit, 1 << 16);
    assert_eq!(key.labels, pairs(&[("team", "pay")]), "absent stays");
    assert!(!key.versions[0].rotation_due);
    let user = it.client("red", "user").await;
    for _ in 0..4 {
        seal(&user).await;
    }
    assert!(show(&admin).await.versions[0].rotation_due, "by wraps");
    update(&admin, rules(30, 0, 0)).await.unwrap();
    assert!(!show(&admin).await.versions[0].rotation_due);
    it.clock.advance_days(31);
    assert!(show(&admin).await.versions[0].rotation_due, "by age");
    for (wrong, field) in [
        (rules(4000, 0, 0), "3650"),
        (rules(0, 1 << 31, 0), "1073741824"),
        (rules(0, 0, 5), "65536"),
        (UpdateKeyRequest::default(), "nothing to change"),
    ] {
        let e = update(&admin, wrong).await.unwrap_err();
        assert_eq!(reason(&e), "INVALID_ARGUMENT");
        assert!(e.message().contains(field), "{e:?}");
    }
    let stale = UpdateKeyRequest {
        revision: 1,
        ..labels("x")
    };
    let e = update(&admin, stale).await.unwrap_err();
    assert_eq!(e.code(), Code::Aborted, "two writers: one is told");
}

#[tokio::test]
async fn a_wrap_limit_of_its_own_wears_a_version_out() {
    let it = Appliance::start().await;
    it.create("red", "k").await;
    let admin = it.client("red", "admin").await;
    let rules = proto::KeyRules {
        wrap_limit: 1 << 16,
        ..Default::default()
    };
    let request = UpdateKeyRequest {
        rules: Some(rules),
        ..Default::default()
    };
    update(&admin, request).await.unwrap();
    let user = it.client("red", "user").await;
    let ask = || proto::GenerateDataKeysRequest {
        key: "k".into(),
        lengths: vec![32; 4096],
        form: proto::DataKeyForm::Wrapped.into(),
        ..Default::default()
    };
    for _ in 0..16 {
        user.crypto().generate_data_keys(ask()).await.unwrap();
    }
    let e = user.crypto().generate_data_keys(ask()).await.unwrap_err();
    assert_eq!(reason(&e), "KEY_WORN_OUT");
    it.rotate("red", "k").await;
    user.crypto().generate_data_keys(ask()).await.unwrap();
}

#[tokio::test]
async fn last_use_is_seen_and_survives() {
    let it = Appliance::start().await;
    it.create("red", "k").await;
    let (admin, user) = (
        it.client("red", "admin").await,
        it.client("red", "user").await,
    );
    let before = it.app.clock.now_ms();
    let first = &show(&admin).await.versions[0];
    assert_eq!(
        (first.last_protect_unix_ms, first.last_process_unix_ms),
        (0, 0)
    );
    let sealed = seal(&user).await;
    let first = show(&admin).await.versions[0];
    assert!(first.last_protect_unix_ms >= before);
    assert_eq!(first.last_process_unix_ms, 0);
    // What does not open does not count.
    let mut forged = sealed.clone();
    let mut header = forged.header.to_vec();
    header[100] ^= 1;
    forged.header = header.into();
    open(&user, &forged).await.unwrap_err();
    assert_eq!(show(&admin).await.versions[0].last_process_unix_ms, 0);
    open(&user, &sealed).await.unwrap();
    let first = show(&admin).await.versions[0];
    assert!(first.last_process_unix_ms >= first.last_protect_unix_ms);
    save_last_use(&it.app).await;
    let it = it.restart().await;
    let again = show(&it.client("red", "admin").await).await;
    assert_eq!(again.versions[0], first);
}

#[tokio::test]
async fn policies_look_at_context_and_time_and_explain_says_why() {
    let it = Appliance::start().await;
    it.create("red", "k").await;
    it.app.keyring.enforce(engine(
        "@id(\"own-tenant\") forbid (principal, action in [Action::\"encrypt\", Action::\"decrypt\"], resource is Key)
           unless { context.pairs.hasTag(\"tenant\") && context.pairs.getTag(\"tenant\") == principal.tenant_name };
         @id(\"frozen\") forbid (principal, action == Action::\"rotate_key\", resource is Key)
           unless { context.now < datetime(\"2020-01-01\") };",
    ));
    let (admin, user) = (
        it.client("red", "admin").await,
        it.client("red", "user").await,
    );
    let with = |tenant: &str| proto::EncryptRequest {
        context: pairs(&[("tenant", tenant)]),
        ..encrypt("k", &[b"x"])
    };
    for _ in 0..2 {
        user.crypto().encrypt(with("red")).await.unwrap();
        for wrong in [with("blue"), encrypt("k", &[b"x"])] {
            let e = user.crypto().encrypt(wrong).await.unwrap_err();
            assert_eq!(reason(&e), "PERMISSION_DENIED");
        }
    }
    let sealed = user
        .crypto()
        .encrypt(with("red"))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        reason(&open(&user, &sealed).await.unwrap_err()),
        "PERMISSION_DENIED"
    );
    let request = proto::RotateKeyRequest { name: "k".into() };
    let e = admin.keys().rotate_key(request).await.unwrap_err();
    assert_eq!(reason(&e), "PERMISSION_DENIED");

    let ask = |action: &str, tenant: &str, principal: &str| proto::ExplainRequest {
        key: "k".into(),
        action: action.into(),
        context: pairs(&[("tenant", tenant)]),
        principal: principal.into(),
        key_version: 0,
    };
    let jobs = it.device.operations();
    let yes = user.keys().explain(ask("encrypt", "red", "")).await;
    let yes = yes.unwrap().into_inner();
    assert!(yes.allowed && yes.unusable.is_empty());
    assert_eq!(
        (yes.policies, yes.key_version),
        (vec!["key-user".into()], 1)
    );
    assert_eq!(yes.roles, ["key-user"]);
    let no = user.keys().explain(ask("encrypt", "blue", "")).await;
    let no = no.unwrap().into_inner();
    assert_eq!(
        (no.allowed, no.policies),
        (false, vec!["own-tenant".into()])
    );
    let wrong_use = user.keys().explain(ask("sign", "red", "")).await;
    let wrong_use = wrong_use.unwrap().into_inner();
    let asked = it.records("Explain").pop().unwrap();
    assert_eq!(asked["detail"]["asked"], "sign");
    assert!(
        wrong_use.unusable.contains("is for encrypt"),
        "{wrong_use:?}"
    );
    // About somebody else: a permission of its own.
    let other = "spiffe://red.example/user";
    let e = user
        .keys()
        .explain(ask("encrypt", "red", other))
        .await
        .unwrap_err();
    assert_eq!(reason(&e), "PERMISSION_DENIED");
    let about = admin.keys().explain(ask("encrypt", "red", other)).await;
    assert!(about.unwrap().into_inner().allowed);
    let own = admin.keys().explain(ask("encrypt", "red", "")).await;
    let own = own.unwrap().into_inner();
    assert_eq!(
        (own.allowed, own.policies),
        (false, vec!["keywright:key-admin-uses-no-key".into()])
    );
    let foreign = "spiffe://blue.example/user";
    for (action, principal) in [
        ("fly", ""),
        ("list_keys", ""),
        ("encrypt", "user"),
        ("encrypt", foreign),
    ] {
        let e = admin
            .keys()
            .explain(ask(action, "red", principal))
            .await
            .unwrap_err();
        assert_eq!(reason(&e), "INVALID_ARGUMENT", "{e:?}");
    }
    assert_eq!(it.device.operations(), jobs, "the token was not asked");
    // What a policy cannot decide is a deny, and explain shows the error.
    it.app.keyring.enforce(engine(
        "@id(\"boom\") forbid (principal, action == Action::\"encrypt\", resource is Key)
         when { 9223372036854775807 + 1 == 0 };",
    ));
    let boom = user.keys().explain(ask("encrypt", "red", "")).await;
    let boom = boom.unwrap().into_inner();
    assert!(
        !boom.allowed && boom.policy_error.contains("overflow"),
        "{boom:?}"
    );
    let e = user.crypto().encrypt(with("red")).await.unwrap_err();
    assert_eq!(reason(&e), "PERMISSION_DENIED");
}
