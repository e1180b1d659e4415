//! Who may call what: every RPC of the descriptor × every role × own and other tenant.
//! A new RPC without a row fails.
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

use bytes::Bytes;
use common::{Appliance, ROLES, as_status, encrypt, reason};
use keywright_client::{Client, proto};
use keywright_hsm::{KeySpec, Oaep, PublicKey, RsaBits};
use keywright_proto::DESCRIPTORS;
use keywright_service::api::grpc::{AUDITED_RPCS, rpc_name};
use prost::Message;
use prost_types::FileDescriptorSet;
use tokio_stream::once;
use tonic::{Code, Status};

/// Roles that may call an RPC on a key of their own tenant, in the order of [`ROLES`]:
/// key-user, key-admin, rewrapper, auditor, node-operator, everything.
const MATRIX: [(&str, [bool; 6]); 27] = [
    ("Crypto.Encrypt", [Y, N, N, N, N, Y]),
    ("Crypto.Decrypt", [Y, N, N, N, N, Y]),
    ("Crypto.Rewrap", [N, N, Y, N, N, Y]),
    ("Crypto.Reencrypt", [Y, N, N, N, N, Y]),
    ("Crypto.GenerateRandom", [Y, N, N, N, N, Y]),
    ("Keys.CreateKey", [N, Y, N, N, N, Y]),
    ("Keys.GetKey", [Y, Y, Y, Y, N, Y]),
    ("Keys.ListKeys", [Y, Y, Y, Y, N, Y]),
    ("Keys.RotateKey", [N, Y, N, N, N, Y]),
    ("Keys.GetKeyEvidence", [N, Y, N, Y, N, Y]),
    ("Keys.ChangeState", [N, Y, N, N, N, Y]),
    ("Keys.GetPublicKey", [Y, Y, N, Y, N, Y]),
    ("Crypto.Sign", [Y, N, N, N, N, Y]),
    ("Crypto.Verify", [Y, N, N, Y, N, Y]),
    ("Crypto.Mac", [Y, N, N, N, N, Y]),
    ("Crypto.VerifyMac", [Y, N, N, N, N, Y]),
    ("Crypto.AsymmetricDecrypt", [Y, N, N, N, N, Y]),
    ("Crypto.GenerateDataKeys", [Y, N, N, N, N, Y]),
    ("Crypto.DecryptDataKeys", [Y, N, N, N, N, Y]),
    ("Crypto.EncryptStream", [Y, N, N, N, N, Y]),
    ("Crypto.DecryptStream", [Y, N, N, N, N, Y]),
    ("Crypto.RewrapStream", [N, N, Y, N, N, Y]),
    ("Crypto.SignStream", [Y, N, N, N, N, Y]),
    ("Keys.UpdateKey", [N, Y, N, N, N, Y]),
    ("Keys.ScheduleDestruction", [N, Y, N, N, N, Y]),
    ("Keys.CancelDestruction", [N, Y, N, N, N, Y]),
    ("Keys.Explain", [Y, Y, Y, Y, N, Y]),
];
const Y: bool = true;
const N: bool = false;

const KEY: &str = "matrix/key";

/// The key an RPC is tried on.
fn key_of(rpc: &str) -> &'static str {
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
struct Sample {
    header: Bytes,
    item: Bytes,
    wrapped: Bytes,
    ciphertext: Bytes,
}

impl Sample {
    /// Makes the keys of tenant red, and something under each.
    async fn make(it: &Appliance) -> Self {
        it.create("red", KEY).await;
        let admin = it.client("red", "admin").await;
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
        Self {
            header: sealed.header,
            item: sealed.items[0].clone(),
            wrapped: keys.into_inner().data_keys[0].wrapped.clone(),
            ciphertext: public.encrypt(Oaep::Sha256, b"x").unwrap().into(),
        }
    }

    /// The same, said to be of a key nobody has.
    fn of_nobody(&self) -> Self {
        let other = |header: &Bytes| {
            let mut header = header.to_vec();
            header[4..20].copy_from_slice(&[0xee; 16]);
            Bytes::from(header)
        };
        Self {
            header: other(&self.header),
            wrapped: other(&self.wrapped),
            ..self.clone()
        }
    }
}

/// Every RPC of `keywright.v1`, as `Service.Method`.
fn rpcs() -> Vec<String> {
    let set = FileDescriptorSet::decode(DESCRIPTORS).unwrap();
    let ours = set.file.iter().filter(|f| f.package() == "keywright.v1");
    ours.flat_map(|f| &f.service)
        .flat_map(|s| {
            s.method
                .iter()
                .map(|m| format!("{}.{}", s.name(), m.name()))
        })
        .collect()
}

#[test]
fn every_rpc_has_a_row_and_a_name_in_the_audit_log() {
    let mut rows: Vec<&str> = MATRIX.iter().map(|(rpc, _)| *rpc).collect();
    let mut rpcs = rpcs();
    rows.sort_unstable();
    rpcs.sort_unstable();
    assert_eq!(rows, rpcs);
    for rpc in &rpcs {
        let path = format!("/keywright.v1.{}", rpc.replace('.', "/"));
        assert_ne!(rpc_name(&path), "Unknown", "{path}");
    }
    assert_eq!(AUDITED_RPCS.len(), rpcs.len());
}

#[test]
fn no_message_lets_a_caller_choose_a_nonce_or_bring_a_key() {
    let set = FileDescriptorSet::decode(DESCRIPTORS).unwrap();
    for message in set.file.iter().flat_map(|f| &f.message_type) {
        for field in &message.field {
            for word in ["nonce", "iv", "salt", "dek", "secret", "pin"] {
                // A length out of three, not a salt.
                let a_length = field.name() == "pss_salt";
                let hit = !a_length && field.name().split('_').any(|part| part == word);
                assert!(!hit, "{}.{}", message.name(), field.name());
            }
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

/// The one answer of a stream with one batch.
async fn only<T>(answers: tonic::Response<tonic::Streaming<T>>) -> Result<T, Status> {
    let mut answers = answers.into_inner();
    let answer = answers.message().await?.expect("an answer");
    assert!(answers.message().await?.is_none(), "one batch, one answer");
    Ok(answer)
}

/// What an RPC answers to a caller; creating is done under a fresh name.
async fn call(client: &Client, rpc: &str, key: &str, sample: &Sample) -> Result<(), Status> {
    let name = key.to_owned();
    let Sample {
        header,
        item,
        wrapped,
        ciphertext,
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

#[tokio::test]
async fn every_rpc_for_every_role_in_its_own_and_the_other_tenant() {
    let it = Appliance::start().await;
    let sample = Sample::make(&it).await;
    for (rpc, roles) in MATRIX {
        for (n, ((role, name), allowed)) in ROLES.iter().zip(roles).enumerate() {
            let key = if rpc == "Keys.CreateKey" {
                format!("created/by-{n}")
            } else {
                key_of(rpc).into()
            };
            let own = call(&it.client("red", name).await, rpc, &key, &sample).await;
            assert_eq!(
                own.is_ok(),
                allowed,
                "{rpc} as {role} in its own tenant: {own:?}"
            );
            if let Err(e) = own {
                let expected = [Code::PermissionDenied, Code::NotFound];
                assert!(expected.contains(&e.code()), "{rpc} as {role}: {e:?}");
            }
            // The other tenant: whatever the role, the key is not there.
            if !matches!(rpc, "Crypto.GenerateRandom" | "Keys.CreateKey") {
                let other = call(&it.client("blue", name).await, rpc, &key, &sample).await;
                let e = other.unwrap_err();
                assert!(
                    matches!(e.code(), Code::NotFound | Code::PermissionDenied),
                    "{rpc} as {role} of the other tenant: {e:?}"
                );
            }
        }
        let nobody = call(&it.client("red", "nobody").await, rpc, "new/key", &sample).await;
        assert!(nobody.is_err(), "{rpc} without any role");
    }
}

/// To whoever may not see a key, it looks exactly like one that does not exist.
#[tokio::test]
async fn a_missing_key_and_a_forbidden_one_look_alike() {
    let it = Appliance::start().await;
    let sample = Sample::make(&it).await;
    let of_nobody = sample.of_nobody();
    for (tenant, name) in [
        ("blue", "developer"),
        ("blue", "user"),
        ("red", "nobody"),
        ("red", "node"),
    ] {
        let client = it.client(tenant, name).await;
        for (rpc, _) in MATRIX {
            if matches!(
                rpc,
                "Crypto.GenerateRandom" | "Keys.CreateKey" | "Keys.ListKeys"
            ) {
                continue;
            }
            let forbidden = call(&client, rpc, key_of(rpc), &sample).await.unwrap_err();
            let missing = call(&client, rpc, "no/such/key", &of_nobody)
                .await
                .unwrap_err();
            let said = |e: &Status| (e.code(), reason(e), e.message().to_owned());
            assert_eq!(said(&forbidden), said(&missing), "{rpc} as {tenant}/{name}");
            assert_eq!(
                reason(&missing),
                "KEY_NOT_FOUND",
                "{rpc} as {tenant}/{name}"
            );
        }
    }
    // Who may see it is told the truth.
    let admin = it.client("red", "admin").await;
    let e = admin
        .crypto()
        .encrypt(encrypt(KEY, &[b"x"]))
        .await
        .unwrap_err();
    assert_eq!(
        (e.code(), reason(&e).as_str()),
        (Code::PermissionDenied, "PERMISSION_DENIED")
    );
    let e = admin
        .crypto()
        .encrypt(encrypt("no/such", &[b"x"]))
        .await
        .unwrap_err();
    assert_eq!(reason(&e), "KEY_NOT_FOUND");
}
