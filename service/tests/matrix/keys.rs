//! One call for each RPC of the services Crypto and Keys.

use bytes::Bytes;
use keywright_client::{Client, proto};
use keywright_hsm::{KeySpec, Oaep, PublicKey, RsaBits};
use tokio_stream::once;
use tonic::Status;

use crate::common::{Appliance, as_status, encrypt};

pub(crate) const KEY: &str = "matrix/key";

/// The key an RPC is tried on.
pub(crate) fn key_of(rpc: &str) -> &'static str {
    match rpc {
        "Keys.GetPublicKey" | "Crypto.Sign" | "Crypto.Verify" | "Crypto.SignStream" => {
            "matrix/sign"
        }
        "Keys.ScheduleDestruction" => "matrix/old",
        "Keys.CancelDestruction" => "matrix/dying",
        "Crypto.Mac" | "Crypto.VerifyMac" => "matrix/mac",
        "Crypto.AsymmetricDecrypt" => "matrix/open",
        _ => KEY,
    }
}

/// What the keys of this test protected.
#[derive(Clone)]
pub(crate) struct Sample {
    header: Bytes,
    item: Bytes,
    wrapped: Bytes,
    ciphertext: Bytes,
    /// A job that goes on, its newest lease, and one that has ended.
    job: String,
    lease: String,
    ended: String,
}

impl Sample {
    /// Makes the keys of tenant red, and something under each.
    pub(crate) async fn make(it: &Appliance) -> Self {
        it.create("red", KEY).await;
        let admin = it.client("red", "admin").await;
        let lends = proto::UpdateKeyRequest {
            name: KEY.into(),
            rules: Some(proto::KeyRules {
                lease_seconds: 60,
                ..Default::default()
            }),
            ..Default::default()
        };
        admin.keys().update_key(lends).await.unwrap();
        for (name, spec, key_use) in [
            ("matrix/sign", proto::KeySpec::Ed25519, 0),
            ("matrix/mac", proto::KeySpec::HmacSha256, 0),
            (
                "matrix/open",
                proto::KeySpec::Rsa2048,
                proto::KeyUse::Decrypt.into(),
            ),
            ("matrix/old", proto::KeySpec::Aes256, 0),
            ("matrix/dying", proto::KeySpec::Aes256, 0),
        ] {
            let request = proto::CreateKeyRequest {
                name: name.into(),
                spec: spec.into(),
                r#use: key_use,
                ..Default::default()
            };
            admin.keys().create_key(request).await.unwrap();
        }
        for name in ["matrix/old", "matrix/dying"] {
            let request = proto::ChangeStateRequest {
                name: name.into(),
                state: proto::KeyState::Deactivated.into(),
                ..Default::default()
            };
            admin.keys().change_state(request).await.unwrap();
        }
        let request = proto::ScheduleDestructionRequest {
            name: "matrix/dying".into(),
            ..Default::default()
        };
        admin.keys().schedule_destruction(request).await.unwrap();
        let user = it.client("red", "user").await;
        let sealed = user.crypto().encrypt(encrypt(KEY, &[b"x"])).await;
        let sealed = sealed.unwrap().into_inner();
        let request = proto::GenerateDataKeysRequest {
            key: KEY.into(),
            lengths: vec![32],
            ..Default::default()
        };
        let keys = user.crypto().generate_data_keys(request).await.unwrap();
        let request = proto::GetPublicKeyRequest {
            name: "matrix/open".into(),
            version: 0,
        };
        let public = user.keys().get_public_key(request).await.unwrap();
        let spec = KeySpec::RsaDecrypt(RsaBits::B2048);
        let public = PublicKey::from_spki(spec, &public.into_inner().der).unwrap();
        let worker = it.client("red", "rewrap").await;
        let job = self::job(&worker, KEY, "going on").await.unwrap();
        let request = proto::LeaseJobRequest {
            id: job.clone(),
            ..Default::default()
        };
        let lease = worker.jobs().lease_job(request).await.unwrap();
        let ended = self::job(&worker, KEY, "ended").await.unwrap();
        change_job(&worker, &ended, proto::JobChange::Cancel)
            .await
            .unwrap();
        Self {
            job,
            lease: lease.into_inner().lease,
            ended,
            header: sealed.header,
            item: sealed.items[0].clone(),
            wrapped: keys.into_inner().data_keys[0].wrapped.clone(),
            ciphertext: public.encrypt(Oaep::Sha256, b"x").unwrap().into(),
        }
    }

    /// The same, said to be of a key nobody has.
    pub(crate) fn of_nobody(&self) -> Self {
        let other = |header: &Bytes| {
            let mut header = header.to_vec();
            header[4..20].copy_from_slice(&[0xee; 16]);
            Bytes::from(header)
        };
        Self {
            header: other(&self.header),
            wrapped: other(&self.wrapped),
            job: "ee".repeat(16),
            ended: "ee".repeat(16),
            lease: format!("{}.1", "ee".repeat(16)),
            ..self.clone()
        }
    }
}

async fn schedule(client: &Client, name: &str) -> Result<(), Status> {
    let request = proto::ScheduleDestructionRequest {
        name: name.into(),
        ..Default::default()
    };
    client.keys().schedule_destruction(request).await.map(drop)
}

async fn cancel(client: &Client, name: &str) -> Result<(), Status> {
    let request = proto::CancelDestructionRequest {
        name: name.into(),
        ..Default::default()
    };
    client.keys().cancel_destruction(request).await.map(drop)
}

async fn job(client: &Client, key: &str, subject: &str) -> Result<String, Status> {
    let request = proto::CreateJobRequest {
        key: key.into(),
        kind: proto::JobKind::Table.into(),
        subject: subject.into(),
        ..Default::default()
    };
    let response = client.jobs().create_job(request).await?;
    Ok(response.into_inner().job.unwrap().id)
}

async fn change_job(client: &Client, id: &str, change: proto::JobChange) -> Result<(), Status> {
    let request = proto::ChangeJobRequest {
        id: id.into(),
        change: change.into(),
    };
    client.jobs().change_job(request).await.map(drop)
}

/// The one answer of a stream with one batch.
async fn only<T>(answers: tonic::Response<tonic::Streaming<T>>) -> Result<T, Status> {
    let mut answers = answers.into_inner();
    let answer = answers.message().await?.expect("an answer");
    assert!(answers.message().await?.is_none(), "one batch, one answer");
    Ok(answer)
}

/// What an RPC answers to a caller; creating is done under a fresh name.
pub(crate) async fn call(
    client: &Client,
    rpc: &str,
    key: &str,
    sample: &Sample,
) -> Result<(), Status> {
    let name = key.to_owned();
    let Sample {
        header,
        item,
        wrapped,
        ciphertext,
        job: id,
        lease,
        ended,
    } = sample.clone();
    let (items, inputs) = (vec![item], vec![Bytes::from("m")]);
    match rpc {
        "Keys.ChangeState" => {
            // Back and forth, for the next role.
            for state in [proto::KeyState::Suspended, proto::KeyState::Active] {
                let request = proto::ChangeStateRequest {
                    name: name.clone(),
                    version: 1,
                    state: state.into(),
                    revision: 0,
                };
                client.keys().change_state(request).await?;
            }
            Ok(())
        }
        "Keys.UpdateKey" => {
            let request = proto::UpdateKeyRequest {
                name,
                minimum_version: 1,
                ..Default::default()
            };
            client.keys().update_key(request).await.map(drop)
        }
        // There and back again, for the next role.
        "Keys.ScheduleDestruction" => {
            schedule(client, &name).await?;
            cancel(client, &name).await
        }
        "Keys.CancelDestruction" => {
            cancel(client, &name).await?;
            schedule(client, &name).await
        }
        // Begun and ended, for the next role.
        "Jobs.CreateJob" => {
            let id = job(client, &name, "of the matrix").await?;
            change_job(client, &id, proto::JobChange::Cancel).await
        }
        "Jobs.GetJob" => {
            let request = proto::GetJobRequest { id };
            client.jobs().get_job(request).await.map(drop)
        }
        "Jobs.ListJobs" => {
            let request = proto::ListJobsRequest {
                key: name,
                ..Default::default()
            };
            client.jobs().list_jobs(request).await.map(drop)
        }
        "Jobs.WatchJob" => {
            let request = proto::WatchJobRequest { id: ended };
            let answers = client.jobs().watch_job(request).await?;
            only(answers).await.map(drop)
        }
        // There and back again, for the next role.
        "Jobs.ChangeJob" => {
            change_job(client, &id, proto::JobChange::Pause).await?;
            change_job(client, &id, proto::JobChange::Resume).await
        }
        "Jobs.LeaseJob" => {
            let request = proto::LeaseJobRequest {
                id,
                lease,
                ..Default::default()
            };
            client.jobs().lease_job(request).await.map(drop)
        }
        // Told again and again it counts once.
        "Jobs.CheckpointJob" => {
            let request = proto::CheckpointJobRequest {
                id,
                lease,
                step: 1,
                ..Default::default()
            };
            client.jobs().checkpoint_job(request).await.map(drop)
        }
        "Jobs.GetJobReport" => {
            let request = proto::GetJobReportRequest { id: ended };
            client.jobs().get_job_report(request).await.map(drop)
        }
        "Keys.Explain" => {
            let request = proto::ExplainRequest {
                key: name,
                action: "encrypt".into(),
                ..Default::default()
            };
            client.keys().explain(request).await.map(drop)
        }
        "Crypto.EncryptStream" => {
            use proto::encrypt_stream_response::Result as R;
            let request = proto::EncryptStreamRequest {
                batch: Some(encrypt(key, &[b"x"])),
                ..Default::default()
            };
            let answers = client.crypto().encrypt_stream(once(request)).await?;
            match only(answers).await?.result.unwrap() {
                R::Batch(_) => Ok(()),
                R::Error(e) => Err(as_status(&e)),
            }
        }
        "Crypto.DecryptStream" => {
            use proto::decrypt_stream_response::Result as R;
            let batch = Some(proto::DecryptRequest {
                header,
                items,
                ..Default::default()
            });
            let request = proto::DecryptStreamRequest {
                batch,
                ..Default::default()
            };
            let answers = client.crypto().decrypt_stream(once(request)).await?;
            match only(answers).await?.result.unwrap() {
                R::Batch(_) => Ok(()),
                R::Error(e) => Err(as_status(&e)),
            }
        }
        "Crypto.RewrapStream" => {
            use proto::rewrap_stream_response::Result as R;
            let batch = Some(proto::RewrapRequest {
                envelopes: vec![header],
                ..Default::default()
            });
            let request = proto::RewrapStreamRequest {
                batch,
                ..Default::default()
            };
            let answers = client.crypto().rewrap_stream(once(request)).await?;
            match only(answers).await?.result.unwrap() {
                R::Batch(_) => Ok(()),
                R::Error(e) => Err(as_status(&e)),
            }
        }
        "Crypto.SignStream" => {
            use proto::sign_stream_response::Result as R;
            let batch = Some(proto::SignRequest {
                key: name,
                inputs,
                ..Default::default()
            });
            let request = proto::SignStreamRequest {
                batch,
                ..Default::default()
            };
            let answers = client.crypto().sign_stream(once(request)).await?;
            match only(answers).await?.result.unwrap() {
                R::Batch(_) => Ok(()),
                R::Error(e) => Err(as_status(&e)),
            }
        }
        "Keys.GetPublicKey" => {
            let request = proto::GetPublicKeyRequest { name, version: 0 };
            client.keys().get_public_key(request).await.map(drop)
        }
        "Crypto.Sign" => {
            let request = proto::SignRequest {
                key: name,
                inputs,
                ..Default::default()
            };
            client.crypto().sign(request).await.map(drop)
        }
        "Crypto.Verify" => {
            let request = proto::VerifyRequest {
                key: name,
                inputs,
                signatures: vec![Bytes::from("s")],
                ..Default::default()
            };
            client.crypto().verify(request).await.map(drop)
        }
        "Crypto.Mac" => {
            let request = proto::MacRequest {
                key: name,
                inputs,
                ..Default::default()
            };
            client.crypto().mac(request).await.map(drop)
        }
        "Crypto.VerifyMac" => {
            let request = proto::VerifyMacRequest {
                key: name,
                inputs,
                macs: vec![Bytes::from("s")],
                ..Default::default()
            };
            client.crypto().verify_mac(request).await.map(drop)
        }
        "Crypto.AsymmetricDecrypt" => {
            let request = proto::AsymmetricDecryptRequest {
                key: name,
                ciphertexts: vec![ciphertext],
                ..Default::default()
            };
            client.crypto().asymmetric_decrypt(request).await.map(drop)
        }
        "Crypto.GenerateDataKeys" => {
            let request = proto::GenerateDataKeysRequest {
                key: name,
                lengths: vec![16],
                ..Default::default()
            };
            client.crypto().generate_data_keys(request).await.map(drop)
        }
        "Crypto.ForgetDataKeys" => {
            let request = proto::ForgetDataKeysRequest {
                key: name,
                ids: vec![Bytes::from_static(&[9; 16])],
            };
            client.crypto().forget_data_keys(request).await.map(drop)
        }
        "Crypto.LeaseDataKey" => {
            let request = proto::LeaseDataKeyRequest { key: name };
            client.crypto().lease_data_key(request).await.map(drop)
        }
        "Crypto.DecryptDataKeys" => {
            let request = proto::DecryptDataKeysRequest {
                wrapped: vec![wrapped],
                ..Default::default()
            };
            client.crypto().decrypt_data_keys(request).await.map(drop)
        }
        "Crypto.Encrypt" => client
            .crypto()
            .encrypt(encrypt(key, &[b"x"]))
            .await
            .map(drop),
        "Crypto.Decrypt" => {
            let request = proto::DecryptRequest {
                header,
                items,
                ..Default::default()
            };
            client.crypto().decrypt(request).await.map(drop)
        }
        "Crypto.Rewrap" => {
            let request = proto::RewrapRequest {
                envelopes: vec![header],
                ..Default::default()
            };
            client.crypto().rewrap(request).await.map(drop)
        }
        "Crypto.Reencrypt" => {
            let request = proto::ReencryptRequest {
                key: name,
                header,
                items,
                ..Default::default()
            };
            client.crypto().reencrypt(request).await.map(drop)
        }
        "Crypto.GenerateRandom" => {
            let request = proto::GenerateRandomRequest {
                lengths: vec![16],
                ..Default::default()
            };
            client.crypto().generate_random(request).await.map(drop)
        }
        "Keys.CreateKey" => {
            let spec = proto::KeySpec::Aes256.into();
            let request = proto::CreateKeyRequest {
                name,
                spec,
                ..Default::default()
            };
            client.keys().create_key(request).await.map(drop)
        }
        "Keys.GetKey" => client
            .keys()
            .get_key(proto::GetKeyRequest { name })
            .await
            .map(drop),
        "Keys.ListKeys" => {
            let request = proto::ListKeysRequest {
                prefix: name.clone(),
                ..Default::default()
            };
            let page = client.keys().list_keys(request).await?.into_inner();
            if page.keys.iter().any(|k| k.name == name) {
                Ok(())
            } else {
                Err(Status::not_found("not listed"))
            }
        }
        "Keys.RotateKey" => client
            .keys()
            .rotate_key(proto::RotateKeyRequest { name })
            .await
            .map(drop),
        "Keys.GetKeyEvidence" => {
            let request = proto::GetKeyEvidenceRequest { name, version: 0 };
            client.keys().get_key_evidence(request).await.map(drop)
        }
        other => panic!("{other} has no call in this test"),
    }
}
