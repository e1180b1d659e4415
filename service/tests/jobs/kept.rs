//! Data keys that the appliance keeps: opened by id, moved by a job that it works on by
//! itself, counted at the gate, forgotten.

use bytes::Bytes;
use keywright_hsm::fake::Fault;
use keywright_service::ops::job::work_on_kept;

use super::{common::pairs, *};

async fn keep(user: &Client, count: usize) -> Vec<proto::DataKey> {
    let request = proto::GenerateDataKeysRequest {
        key: "k".into(),
        context: pairs(&[("app", "x")]),
        lengths: vec![32; count],
        keep: true,
        ..Default::default()
    };
    let made = user.crypto().generate_data_keys(request).await.unwrap();
    made.into_inner().data_keys
}

async fn open(user: &Client, ids: Vec<Bytes>) -> Result<proto::DecryptDataKeysResponse, Status> {
    let request = proto::DecryptDataKeysRequest {
        context: pairs(&[("app", "x")]),
        ids,
        ..Default::default()
    };
    Ok(user.crypto().decrypt_data_keys(request).await?.into_inner())
}

async fn job(client: &Client, dry_run: bool, rate: u32) -> proto::Job {
    let request = proto::CreateJobRequest {
        key: "k".into(),
        kind: proto::JobKind::Kept.into(),
        dry_run,
        rate_per_second: rate,
        ..Default::default()
    };
    client.create_job(request).await.unwrap()
}

async fn until_ready(it: &Appliance) {
    let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while it.app.hsm.state() != keywright_hsm::State::Ready {
        assert!(
            std::time::Instant::now() < until,
            "the token does not come back"
        );
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

fn ids(made: &[proto::DataKey]) -> Vec<Bytes> {
    made.iter().map(|k| k.id.clone()).collect()
}

#[tokio::test]
async fn a_kept_data_key_is_opened_by_its_id_and_can_be_forgotten() {
    let it = start().await;
    let user = it.client("red", "user").await;
    let made = keep(&user, 3).await;
    assert!(
        made.iter()
            .all(|k| k.wrapped.is_empty() && k.id.len() == 16)
    );
    let opened = open(&user, ids(&made)).await.unwrap();
    for (opened, made) in opened.plaintexts.iter().zip(&made) {
        assert_eq!(opened, &made.plaintext);
    }
    // One that is not there does not spoil the others.
    let mut some = ids(&made);
    some.insert(1, Bytes::from_static(&[0; 16]));
    let opened = open(&user, some).await.unwrap();
    assert_eq!(opened.errors.len(), 1);
    assert_eq!(opened.errors[0].index, 1);
    assert_eq!(opened.errors[0].reason, "DATA_KEY_NOT_FOUND");
    assert_eq!(opened.plaintexts[2], made[1].plaintext);
    // To another tenant none of them is there.
    let e = open(&it.client("blue", "user").await, ids(&made)).await;
    assert_eq!(reason(&e.unwrap_err()), "DATA_KEY_NOT_FOUND");
    let short = open(&user, vec![Bytes::from_static(b"short")]).await;
    assert_eq!(reason(&short.unwrap_err()), "INVALID_ARGUMENT");

    let request = proto::ForgetDataKeysRequest {
        key: "k".into(),
        ids: ids(&made[..2]),
    };
    let forget = async || {
        let response = user.crypto().forget_data_keys(request.clone()).await;
        response.unwrap().into_inner().forgotten
    };
    assert_eq!(forget().await, 2);
    assert_eq!(forget().await, 0, "again");
    let gone = open(&user, ids(&made[..2])).await.unwrap_err();
    assert_eq!(reason(&gone), "DATA_KEY_NOT_FOUND");
    open(&user, ids(&made[2..])).await.unwrap();
    let record = &it.records("ForgetDataKeys")[0];
    let id = hex::encode(&made[0].id);
    assert!(
        record["detail"]["data_keys"]
            .as_str()
            .unwrap()
            .contains(&id)
    );
}

#[tokio::test]
async fn the_appliance_moves_what_it_keeps_and_the_gate_counts_it() {
    let it = start().await;
    let user = it.client("red", "user").await;
    let worker = it.client("red", "rewrap").await;
    let admin = it.client("red", "admin").await;
    // More than one step.
    let made = keep(&user, 600).await;
    it.rotate("red", "k").await;
    keep(&user, 5).await;
    let opened = open(&user, ids(&made)).await.unwrap();
    assert_eq!(opened.rewrap_due.len(), 600);
    let deactivate = proto::ChangeStateRequest {
        name: "k".into(),
        version: 1,
        state: proto::KeyState::Deactivated.into(),
        ..Default::default()
    };
    admin.keys().change_state(deactivate).await.unwrap();
    it.clock.advance_ms(1);
    let schedule = async || {
        let request = proto::ScheduleDestructionRequest {
            name: "k".into(),
            version: 1,
            ..Default::default()
        };
        admin.keys().schedule_destruction(request).await
    };
    let e = schedule().await.unwrap_err();
    assert_eq!(reason(&e), "KEY_VERSION_IN_USE");
    assert!(
        e.message().contains("600 data keys") && e.message().contains("rewrap kept --key k"),
        "{e:?}"
    );

    // One that only looks.
    let census = job(&worker, true, 0).await;
    work_on_kept(&it.app).await;
    let census = worker.job(&census.id).await.unwrap();
    let counts = census.counts.unwrap();
    assert_eq!((counts.seen, counts.left, counts.current), (605, 600, 5));
    assert_eq!(census.expected, 605);

    // Nobody else works on it, and it waits as every job does.
    let moves = job(&worker, false, 0).await;
    assert_eq!(moves.subject, "data keys kept by the appliance");
    let e = lease(&worker, &moves.id, "", true).await.unwrap_err();
    assert!(e.message().contains("by itself"), "{e:?}");
    work_on_kept(&it.app).await;
    assert_eq!(worker.job(&moves.id).await.unwrap().steps, 0);
    it.clock.advance_ms(WINDOW_MS.cast_signed());
    // A token that is away leaves nothing behind that is called left.
    it.device.inject([Fault::Unplugged]);
    work_on_kept(&it.app).await;
    assert!(worker.job(&moves.id).await.unwrap().ended_unix_ms == 0);
    it.device.plug_in();
    until_ready(&it).await;
    it.clock.advance_ms(11_000);
    work_on_kept(&it.app).await;
    let moved = worker.job(&moves.id).await.unwrap();
    let counts = moved.counts.unwrap();
    assert_eq!((counts.moved, counts.current, counts.left), (600, 5, 0));
    assert_eq!(moved.state(), proto::JobState::Completed);
    assert!(!it.records("moving_kept").is_empty());
    worker.job_report(&moves.id).await.unwrap();

    let opened = open(&user, ids(&made)).await.unwrap();
    assert!(opened.rewrap_due.is_empty());
    assert_eq!(opened.plaintexts[599], made[599].plaintext);
    it.clock.advance_ms(1);
    schedule().await.unwrap();
}

#[tokio::test]
async fn a_job_over_kept_data_keys_can_be_paused_and_goes_on() {
    let it = start().await;
    let user = it.client("red", "user").await;
    let worker = it.client("red", "rewrap").await;
    keep(&user, 300).await;
    it.rotate("red", "k").await;
    it.clock.advance_ms(WINDOW_MS.cast_signed());
    // 100 a second: three steps, of which two pause for a second each.
    let slow = job(&worker, false, 100).await;
    let app = std::sync::Arc::clone(&it.app);
    let works = tokio::spawn(async move { work_on_kept(&app).await });
    loop {
        let now = worker.job(&slow.id).await.unwrap();
        if now.steps > 0 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let pause = proto::JobChange::Pause;
    worker.change_job(&slow.id, pause).await.unwrap();
    works.await.unwrap();
    let paused = worker.job(&slow.id).await.unwrap();
    assert!(paused.counts.unwrap().moved < 300, "{paused:?}");
    work_on_kept(&it.app).await;
    assert_eq!(worker.job(&slow.id).await.unwrap().steps, paused.steps);
    let resume = proto::JobChange::Resume;
    worker.change_job(&slow.id, resume).await.unwrap();
    it.clock.advance_ms(11_000);
    work_on_kept(&it.app).await;
    let ended = worker.job(&slow.id).await.unwrap();
    assert_eq!(ended.state(), proto::JobState::Completed);
    assert_eq!(ended.counts.unwrap().moved, 300, "each once");
}
