//! Jobs as their workers and their operators see them, and the gate they guard.
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
#[path = "jobs/kept.rs"]
mod kept;

use common::{Appliance, encrypt, reason};
use keywright_client::{
    Client,
    proto::{self, JobChange, JobState as S, KeyState},
};
use keywright_service::{config::Limits, ops::keep_rules};
use tonic::{Code, Status};

const WINDOW_MS: u64 = 60_000;

async fn start() -> Appliance {
    let it = Appliance::with(Limits {
        job_window_ms: WINDOW_MS,
        job_lease_ms: 10_000,
        retirement_quiet_ms: 0,
        ..Limits::default()
    })
    .await;
    it.create("red", "k").await;
    it
}

async fn create(client: &Client, subject: &str, dry_run: bool) -> Result<proto::Job, Status> {
    let request = proto::CreateJobRequest {
        key: "k".into(),
        kind: proto::JobKind::Table.into(),
        subject: subject.into(),
        dry_run,
        rate_per_second: 0,
    };
    let response = client.jobs().create_job(request).await?;
    Ok(response.into_inner().job.unwrap())
}

async fn lease(
    client: &Client,
    id: &str,
    lease: &str,
    take_over: bool,
) -> Result<proto::LeaseJobResponse, Status> {
    let request = proto::LeaseJobRequest {
        id: id.into(),
        worker: "host-1".into(),
        lease: lease.into(),
        take_over,
    };
    Ok(client.jobs().lease_job(request).await?.into_inner())
}

/// So many moved off version 1, so many left.
fn step(id: &str, lease: &str, step: u64, moved: u64, left: u64) -> proto::CheckpointJobRequest {
    proto::CheckpointJobRequest {
        id: id.into(),
        lease: lease.into(),
        step,
        cursor: step.to_be_bytes().to_vec().into(),
        counts: Some(proto::JobCounts {
            seen: moved + left,
            moved,
            left,
            ..Default::default()
        }),
        census: vec![proto::VersionCount {
            version: 1,
            found: moved + left,
            left,
        }],
        expected: 100,
        completed: false,
    }
}

async fn tell(client: &Client, step: proto::CheckpointJobRequest) -> Result<proto::Job, Status> {
    let response = client.jobs().checkpoint_job(step).await?;
    Ok(response.into_inner().job.unwrap())
}

async fn change(client: &Client, id: &str, change: JobChange) -> Result<proto::Job, Status> {
    let request = proto::ChangeJobRequest {
        id: id.into(),
        change: change.into(),
    };
    Ok(client
        .jobs()
        .change_job(request)
        .await?
        .into_inner()
        .job
        .unwrap())
}

async fn deactivate(admin: &Client, version: u32) {
    let request = proto::ChangeStateRequest {
        name: "k".into(),
        version,
        state: KeyState::Deactivated.into(),
        revision: 0,
    };
    admin.keys().change_state(request).await.unwrap();
}

async fn schedule(admin: &Client, brown_out_minutes: u32) -> Result<proto::Key, Status> {
    let request = proto::ScheduleDestructionRequest {
        name: "k".into(),
        version: 1,
        brown_out_minutes,
        ..Default::default()
    };
    let response = admin.keys().schedule_destruction(request).await?;
    Ok(response.into_inner().key.unwrap())
}

#[tokio::test]
async fn a_job_waits_is_worked_on_and_ends_once() {
    let it = start().await;
    it.rotate("red", "k").await;
    let worker = it.client("red", "rewrap").await;
    let job = create(&worker, "t", false).await.unwrap();
    assert_eq!((job.state(), job.target_version), (S::Waiting, 2));
    assert!(job.not_before_unix_ms > job.created_unix_ms);
    let twin = create(&worker, "t", false).await.unwrap_err();
    assert_eq!(
        (twin.code(), reason(&twin).as_str()),
        (Code::AlreadyExists, "JOB_EXISTS")
    );
    assert!(twin.message().contains(&job.id), "{twin:?}");
    let early = lease(&worker, &job.id, "", false).await.unwrap_err();
    assert_eq!(reason(&early), "JOB_STATE");
    it.clock.advance_ms(WINDOW_MS.cast_signed());

    let first = lease(&worker, &job.id, "", false).await.unwrap();
    assert_eq!(first.job.unwrap().state(), S::Open);
    let held = lease(&worker, &job.id, "", false).await.unwrap_err();
    assert_eq!(reason(&held), "JOB_LEASED");
    assert!(held.message().contains("host-1"), "{held:?}");
    let told = tell(&worker, step(&job.id, &first.lease, 1, 3, 0))
        .await
        .unwrap();
    let again = tell(&worker, step(&job.id, &first.lease, 1, 3, 0))
        .await
        .unwrap();
    assert_eq!(told.counts, again.counts, "told twice, counted once");
    assert_eq!(again.counts.unwrap().moved, 3);

    // Another worker takes over: from here on the first one's reports do not count.
    let second = lease(&worker, &job.id, "", true).await.unwrap();
    assert_eq!(second.cursor, 1u64.to_be_bytes().to_vec());
    let lost = tell(&worker, step(&job.id, &first.lease, 2, 5, 0)).await;
    assert_eq!(reason(&lost.unwrap_err()), "JOB_LEASE_LOST");
    let renewal = lease(&worker, &job.id, &first.lease, false).await;
    assert_eq!(reason(&renewal.unwrap_err()), "JOB_LEASE_LOST");
    // A lease that ran out is anybody's.
    it.clock.advance_ms(10_001);
    let third = lease(&worker, &job.id, "", false).await.unwrap();

    let mut last = step(&job.id, &third.lease, 2, 4, 1);
    last.completed = true;
    let ended = tell(&worker, last).await.unwrap();
    assert_eq!(ended.state(), S::Completed);
    assert_eq!((ended.counts.unwrap().moved, ended.census[0].left), (7, 1));
    let more = tell(&worker, step(&job.id, &third.lease, 3, 9, 0)).await;
    assert_eq!(more.unwrap().counts, ended.counts, "it has ended");

    // Over a restart everything is as it was.
    let it = it.restart().await;
    let worker = it.client("red", "rewrap").await;
    let request = proto::GetJobRequest { id: job.id.clone() };
    let read = worker.jobs().get_job(request).await.unwrap();
    assert_eq!(read.into_inner().job.unwrap().counts, ended.counts);
    let records = it.records("CheckpointJob");
    assert!(
        records
            .iter()
            .all(|r| r["detail"]["job"] == job.id.as_str())
    );
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_with_a_reason() {
    let it = start().await;
    let worker = it.client("red", "rewrap").await;
    let (one, two) = (
        create(&worker, "one", true).await.unwrap(),
        create(&worker, "two", true).await.unwrap(),
    );
    let of_two = lease(&worker, &two.id, "", false).await.unwrap().lease;
    let of_one = lease(&worker, &one.id, "", false).await.unwrap().lease;
    let e = tell(&worker, step(&one.id, &of_two, 1, 1, 0)).await;
    let e = e.unwrap_err();
    assert_eq!(reason(&e), "INVALID_ARGUMENT");
    assert!(e.message().contains("this lease is of job"), "{e:?}");
    let e = tell(&worker, step(&one.id, &of_one, 2, 1, 0)).await;
    assert_eq!(reason(&e.unwrap_err()), "CONFLICT", "step 1 is missing");
    let mut wrong = step(&one.id, &of_one, 1, 1, 0);
    wrong.counts.as_mut().unwrap().seen = 7;
    assert_eq!(
        reason(&tell(&worker, wrong).await.unwrap_err()),
        "INVALID_ARGUMENT"
    );
    // More than can be counted.
    let mut wrong = step(&one.id, &of_one, 1, 1, 1);
    wrong.counts.as_mut().unwrap().moved = u64::MAX;
    assert_eq!(
        reason(&tell(&worker, wrong).await.unwrap_err()),
        "INVALID_ARGUMENT"
    );
    let mut wrong = step(&one.id, &of_one, 1, 1, 0);
    wrong.cursor = vec![0; 1025].into();
    assert_eq!(
        reason(&tell(&worker, wrong).await.unwrap_err()),
        "INVALID_ARGUMENT"
    );
    for (subject, kind) in [("", 1), ("a\nb", 1), (&*"x".repeat(256), 1), ("x", 0)] {
        let request = proto::CreateJobRequest {
            key: "k".into(),
            kind,
            subject: subject.into(),
            ..Default::default()
        };
        let e = worker.jobs().create_job(request).await.unwrap_err();
        assert_eq!(reason(&e), "INVALID_ARGUMENT", "{subject:?} {kind}");
    }
    for id in ["", "1", &*"z".repeat(32)] {
        let request = proto::GetJobRequest { id: id.into() };
        let e = worker.jobs().get_job(request).await.unwrap_err();
        assert_eq!(reason(&e), "INVALID_ARGUMENT", "{id:?}");
    }
    let request = proto::GetJobReportRequest { id: one.id.clone() };
    let e = worker.jobs().get_job_report(request).await.unwrap_err();
    assert_eq!(reason(&e), "JOB_STATE", "not ended");
    let e = change(&worker, &one.id, JobChange::Resume).await;
    assert_eq!(reason(&e.unwrap_err()), "JOB_STATE", "not paused");
}

#[tokio::test]
async fn who_watches_sees_every_state_and_the_end() {
    let it = start().await;
    let worker = it.client("red", "rewrap").await;
    let job = create(&worker, "t", true).await.unwrap();
    let request = proto::WatchJobRequest { id: job.id.clone() };
    let watch = worker.jobs().watch_job(request).await.unwrap();
    let mut watch = watch.into_inner();
    let mut next = async || {
        let seen = watch.message().await.unwrap();
        seen.map(|r| r.job.unwrap())
    };
    assert_eq!(next().await.unwrap().state(), S::Open);
    let taken = lease(&worker, &job.id, "", false).await.unwrap();
    assert!(next().await.unwrap().worker.contains("host-1"));
    it.clock.advance_ms(2_000);
    tell(&worker, step(&job.id, &taken.lease, 1, 0, 20))
        .await
        .unwrap();
    let seen = next().await.unwrap();
    assert!(
        seen.items_per_second > 0.0 && seen.eta_seconds > 0,
        "{seen:?}"
    );
    change(&worker, &job.id, JobChange::Pause).await.unwrap();
    assert_eq!(next().await.unwrap().state(), S::Paused);
    let e = lease(&worker, &job.id, "", true).await.unwrap_err();
    assert!(e.message().contains("resume it first"), "{e:?}");
    change(&worker, &job.id, JobChange::Cancel).await.unwrap();
    assert_eq!(next().await.unwrap().state(), S::Cancelled);
    assert!(next().await.is_none(), "the end of the stream");
}

#[tokio::test]
async fn a_report_is_signed_and_says_what_was_found() {
    let it = start().await;
    let worker = it.client("red", "rewrap").await;
    let job = create(&worker, "t", true).await.unwrap();
    let taken = lease(&worker, &job.id, "", false).await.unwrap();
    let mut last = step(&job.id, &taken.lease, 1, 0, 2);
    last.completed = true;
    tell(&worker, last).await.unwrap();
    let ask = async |it: &Appliance| {
        let auditor = it.client("red", "auditor").await;
        let request = proto::GetJobReportRequest { id: job.id.clone() };
        let report = auditor.jobs().get_job_report(request).await;
        report.unwrap().into_inner()
    };
    let report = ask(&it).await;
    let said: serde_json::Value = serde_json::from_slice(&report.report).unwrap();
    assert_eq!(said["job"], job.id.as_str());
    assert_eq!(said["key"], "k");
    assert_eq!(said["census"][0]["left"], 2);
    assert_eq!(said["reported_by"], "spiffe://red.example/rewrap host-1");
    let pem = report.public_key_pem.clone();
    let der = <rustls_pki_types::SubjectPublicKeyInfoDer<'_> as rustls_pki_types::pem::PemObject>::from_pem_slice(pem.as_bytes());
    let spec = keywright_hsm::KeySpec::parse("ec-p256", None).unwrap();
    let public = keywright_hsm::PublicKey::from_spki(spec, &der.unwrap()).unwrap();
    let signature = keywright_pki::ecdsa_from_der(&report.signature, 32).unwrap();
    let digest: [u8; 32] = sha2::Digest::finalize(sha2::Digest::chain_update(
        <sha2::Sha256 as sha2::Digest>::new(),
        &report.report,
    ))
    .into();
    let how = keywright_hsm::Signing::Ecdsa;
    public.verify(how, &digest, &signature).unwrap();
    // The same key signs after a restart, and belongs to the appliance.
    let it = it.restart().await;
    assert_eq!(ask(&it).await.public_key_pem, pem);
}

#[tokio::test]
async fn nothing_is_destroyed_that_a_job_or_somebody_still_needs() {
    let it = start().await;
    let (admin, worker, user) = (
        it.client("red", "admin").await,
        it.client("red", "rewrap").await,
        it.client("red", "user").await,
    );
    let sealed = user.crypto().encrypt(encrypt("k", &[b"x"])).await;
    let sealed = sealed.unwrap().into_inner();
    it.rotate("red", "k").await;
    it.clock.advance_ms(WINDOW_MS.cast_signed());
    deactivate(&admin, 1).await;
    let job = create(&worker, "t", false).await.unwrap();
    let refused = async |what: &str| {
        let e = schedule(&admin, 0).await.unwrap_err();
        assert_eq!(
            (e.code(), reason(&e).as_str()),
            (Code::FailedPrecondition, "KEY_VERSION_IN_USE")
        );
        assert!(e.message().contains(what), "{what}: {e:?}");
    };
    refused("has not gone through").await;
    let taken = lease(&worker, &job.id, "", false).await.unwrap();
    let mut last = step(&job.id, &taken.lease, 1, 1, 2);
    last.completed = true;
    tell(&worker, last).await.unwrap();
    refused("left 2 under it").await;

    // Another round moves the rest.
    let job = create(&worker, "t", false).await.unwrap();
    let taken = lease(&worker, &job.id, "", false).await.unwrap();
    let mut last = step(&job.id, &taken.lease, 1, 2, 0);
    last.completed = true;
    tell(&worker, last).await.unwrap();

    // A try first: whoever still wants it is refused, and seen.
    let open = proto::DecryptRequest {
        header: sealed.header,
        items: sealed.items,
        ..Default::default()
    };
    let key = schedule(&admin, 30).await.unwrap();
    assert!(key.versions[0].brown_out_until_unix_ms > 0);
    let e = user.crypto().decrypt(open.clone()).await.unwrap_err();
    assert!(e.message().contains("does nothing until"), "{e:?}");
    it.clock.advance_ms(31 * 60 * 1000);
    keep_rules(&it.app).await;
    user.crypto().decrypt(open).await.unwrap();
    assert_eq!(it.records("brown_out_ending").len(), 1);
    let get = proto::GetKeyRequest { name: "k".into() };
    let key = admin.keys().get_key(get).await.unwrap().into_inner();
    assert!(key.key.unwrap().versions[0].last_refused_unix_ms > 0);

    schedule(&admin, 0).await.unwrap();
    it.clock.advance_days(31);
    keep_rules(&it.app).await;
    assert_eq!(it.records("destroyed").len(), 1);
}

/// With a window of quiet, the last use holds the gate.
#[tokio::test]
async fn the_gate_opens_when_a_version_has_been_quiet() {
    let it = Appliance::with(Limits {
        retirement_quiet_ms: 3_600_000,
        ..Limits::default()
    })
    .await;
    it.create("red", "k").await;
    let (admin, user) = (
        it.client("red", "admin").await,
        it.client("red", "user").await,
    );
    let sealed = user.crypto().encrypt(encrypt("k", &[b"x"])).await;
    let sealed = sealed.unwrap().into_inner();
    it.rotate("red", "k").await;
    deactivate(&admin, 1).await;
    let e = schedule(&admin, 0).await.unwrap_err();
    assert!(e.message().contains("it last protected"), "{e:?}");
    it.clock.advance_ms(3_600_000);
    let open = proto::DecryptRequest {
        header: sealed.header.clone(),
        items: sealed.items,
        ..Default::default()
    };
    user.crypto().decrypt(open).await.unwrap();
    let e = schedule(&admin, 0).await.unwrap_err();
    assert!(e.message().contains("open or verify"), "{e:?}");
    it.clock.advance_ms(3_600_001);
    // Moving something off it is no use of it.
    let worker = it.client("red", "rewrap").await;
    let request = proto::RewrapRequest {
        envelopes: vec![sealed.header],
        ..Default::default()
    };
    worker.crypto().rewrap(request).await.unwrap();
    schedule(&admin, 0).await.unwrap();
}

#[tokio::test]
async fn the_appliance_rotates_and_deactivates_by_rule() {
    let it = start().await;
    let (admin, user) = (
        it.client("red", "admin").await,
        it.client("red", "user").await,
    );
    let rules = async |rules: proto::KeyRules| {
        let request = proto::UpdateKeyRequest {
            name: "k".into(),
            rules: Some(rules),
            ..Default::default()
        };
        admin.keys().update_key(request).await.unwrap();
    };
    let show = async || {
        let request = proto::GetKeyRequest { name: "k".into() };
        let response = admin.keys().get_key(request).await.unwrap();
        response.into_inner().key.unwrap()
    };
    let by_age = proto::KeyRules {
        rotate_after_days: 30,
        rotate_by_hand: true,
        deactivate_after_days: 10,
        ..Default::default()
    };
    rules(by_age).await;
    it.clock.advance_days(31);
    keep_rules(&it.app).await;
    let key = show().await;
    assert!(key.versions[0].rotation_due && key.primary_version == 1);
    rules(proto::KeyRules {
        rotate_by_hand: false,
        ..by_age
    })
    .await;
    keep_rules(&it.app).await;
    keep_rules(&it.app).await;
    let key = show().await;
    assert_eq!(key.primary_version, 2, "once");
    assert!(key.rotation_unix_ms > it.app.clock.now_ms());
    let rotating = it.records("rotating").pop().unwrap();
    assert_eq!(rotating["event"]["rotating"]["due"], "age");
    assert_eq!(it.records("rotated")[0]["keys"][0]["version"], 2);
    it.clock.advance_days(11);
    keep_rules(&it.app).await;
    assert_eq!(show().await.versions[0].state(), KeyState::Deactivated);
    assert_eq!(it.records("deactivating")[0]["keys"][0]["version"], 1);

    rules(proto::KeyRules {
        rotate_after_bytes: 1 << 20,
        ..Default::default()
    })
    .await;
    let megabyte = vec![0; 1 << 19];
    for _ in 0..2 {
        keep_rules(&it.app).await;
        assert_eq!(show().await.primary_version, 2);
        let request = encrypt("k", &[&megabyte]);
        user.crypto().encrypt(request).await.unwrap();
    }
    keep_rules(&it.app).await;
    assert_eq!(show().await.primary_version, 3, "by bytes");
    // Nothing is done that cannot be recorded, and a key that is stopped is left alone.
    let due = it.records("rotating").len();
    let suspend = proto::ChangeStateRequest {
        name: "k".into(),
        version: 3,
        state: KeyState::Suspended.into(),
        revision: 0,
    };
    rules(proto::KeyRules {
        rotate_after_days: 1,
        ..Default::default()
    })
    .await;
    admin.keys().change_state(suspend).await.unwrap();
    it.clock.advance_days(2);
    keep_rules(&it.app).await;
    assert_eq!(it.records("rotating").len(), due);
}
