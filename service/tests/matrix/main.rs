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

#[path = "../common/mod.rs"]
mod common;
mod keys;
mod pki;

use common::{Appliance, ROLES, encrypt, reason};
use keys::{KEY, Sample, call, key_of};
use keywright_proto::DESCRIPTORS;
use keywright_service::api::grpc::{AUDITED_RPCS, rpc_name};
use prost::Message;
use prost_types::FileDescriptorSet;
use tonic::{Code, Status};

/// Roles that may call an RPC on a key of their own tenant, in the order of [`ROLES`]:
/// key-user, key-admin, rewrapper, auditor, node-operator, everything, pki-user, pki-admin.
const MATRIX: [(&str, [bool; 8]); 58] = [
    ("Crypto.Encrypt", [Y, N, N, N, N, Y, N, N]),
    ("Crypto.Decrypt", [Y, N, N, N, N, Y, N, N]),
    ("Crypto.Rewrap", [N, N, Y, N, N, Y, N, N]),
    ("Crypto.Reencrypt", [Y, N, N, N, N, Y, N, N]),
    ("Crypto.GenerateRandom", [Y, N, N, N, N, Y, N, N]),
    ("Keys.CreateKey", [N, Y, N, N, N, Y, N, N]),
    ("Keys.GetKey", [Y, Y, Y, Y, N, Y, N, N]),
    ("Keys.ListKeys", [Y, Y, Y, Y, N, Y, N, N]),
    ("Keys.RotateKey", [N, Y, N, N, N, Y, N, N]),
    ("Keys.GetKeyEvidence", [N, Y, N, Y, N, Y, N, N]),
    ("Keys.ChangeState", [N, Y, N, N, N, Y, N, N]),
    ("Keys.GetPublicKey", [Y, Y, N, Y, N, Y, N, N]),
    ("Crypto.Sign", [Y, N, N, N, N, Y, N, N]),
    ("Crypto.Verify", [Y, N, N, Y, N, Y, N, N]),
    ("Crypto.Mac", [Y, N, N, N, N, Y, N, N]),
    ("Crypto.VerifyMac", [Y, N, N, N, N, Y, N, N]),
    ("Crypto.AsymmetricDecrypt", [Y, N, N, N, N, Y, N, N]),
    ("Crypto.GenerateDataKeys", [Y, N, N, N, N, Y, N, N]),
    ("Crypto.DecryptDataKeys", [Y, N, N, N, N, Y, N, N]),
    ("Crypto.ForgetDataKeys", [Y, N, N, N, N, Y, N, N]),
    ("Crypto.LeaseDataKey", [Y, N, N, N, N, Y, N, N]),
    ("Crypto.EncryptStream", [Y, N, N, N, N, Y, N, N]),
    ("Crypto.DecryptStream", [Y, N, N, N, N, Y, N, N]),
    ("Crypto.RewrapStream", [N, N, Y, N, N, Y, N, N]),
    ("Crypto.SignStream", [Y, N, N, N, N, Y, N, N]),
    ("Keys.UpdateKey", [N, Y, N, N, N, Y, N, N]),
    ("Keys.ScheduleDestruction", [N, Y, N, N, N, Y, N, N]),
    ("Keys.CancelDestruction", [N, Y, N, N, N, Y, N, N]),
    ("Keys.Explain", [Y, Y, Y, Y, N, Y, N, N]),
    ("Jobs.CreateJob", [N, Y, Y, N, N, Y, N, N]),
    ("Jobs.GetJob", [N, Y, Y, Y, N, Y, N, N]),
    ("Jobs.ListJobs", [N, Y, Y, Y, N, Y, N, N]),
    ("Jobs.WatchJob", [N, Y, Y, Y, N, Y, N, N]),
    ("Jobs.ChangeJob", [N, Y, Y, N, N, Y, N, N]),
    ("Jobs.LeaseJob", [N, N, Y, N, N, Y, N, N]),
    ("Jobs.CheckpointJob", [N, N, Y, N, N, Y, N, N]),
    ("Jobs.GetJobReport", [N, Y, Y, Y, N, Y, N, N]),
    ("Pki.SignCsr", [N, N, N, N, N, Y, Y, N]),
    ("Pki.SignCsrBatch", [N, N, N, N, N, Y, Y, N]),
    ("Pki.DryRun", [N, N, N, N, N, Y, Y, N]),
    // Nobody's connection is made with a certificate from here: tests/pki/renew.rs.
    ("Pki.Renew", [N, N, N, N, N, N, N, N]),
    ("Pki.GetCertificate", [N, N, N, Y, N, Y, N, Y]),
    ("Pki.Search", [N, N, N, Y, N, Y, N, Y]),
    ("Pki.Revoke", [N, N, N, N, N, Y, N, Y]),
    ("Pki.GetCrl", [N, N, N, Y, N, Y, Y, Y]),
    ("Pki.GetBundle", [N, N, N, Y, N, Y, Y, Y]),
    ("PkiAdmin.PlanCeremony", [N, N, N, N, N, Y, N, Y]),
    ("PkiAdmin.ApproveCeremony", [N, N, N, N, N, Y, N, Y]),
    ("PkiAdmin.CommitCeremony", [N, N, N, N, N, Y, N, Y]),
    ("PkiAdmin.ImportIssuer", [N, N, N, N, N, Y, N, Y]),
    ("PkiAdmin.ListIssuers", [N, N, N, Y, N, Y, Y, Y]),
    ("PkiAdmin.SetIssuerUsage", [N, N, N, N, N, Y, N, Y]),
    ("PkiAdmin.PutProfile", [N, N, N, N, N, Y, N, Y]),
    ("PkiAdmin.GetProfile", [N, N, N, Y, N, Y, Y, Y]),
    ("PkiAdmin.ListProfiles", [N, N, N, Y, N, Y, Y, Y]),
    ("PkiAdmin.RetireProfile", [N, N, N, N, N, Y, N, Y]),
    ("PkiAdmin.BlockKey", [N, N, N, N, N, Y, N, Y]),
    ("PkiAdmin.CreateAcmeKey", [N, N, N, N, N, Y, N, Y]),
];
const Y: bool = true;
const N: bool = false;

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

#[tokio::test]
async fn every_rpc_for_every_role_in_its_own_and_the_other_tenant() {
    let it = Appliance::start().await;
    let sample = Sample::make(&it).await;
    for (rpc, roles) in MATRIX
        .into_iter()
        .filter(|(rpc, _)| !rpc.starts_with("Pki"))
    {
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

#[tokio::test]
async fn every_rpc_about_certificates_for_every_role() {
    let it = Appliance::start().await;
    let sample = pki::Sample::make(&it).await;
    for (rpc, roles) in MATRIX.into_iter().filter(|(rpc, _)| rpc.starts_with("Pki")) {
        for (n, ((role, name), allowed)) in ROLES.iter().zip(roles).enumerate() {
            let own = pki::call(&it.client("red", name).await, rpc, n, &sample).await;
            assert_eq!(own.is_ok(), allowed, "{rpc} as {role}: {own:?}");
            if let Err(e) = own {
                let expected = [Code::PermissionDenied, Code::NotFound];
                assert!(expected.contains(&e.code()), "{rpc} as {role}: {e:?}");
            }
            if pki::names_something(rpc) {
                let other = pki::call(&it.client("blue", name).await, rpc, n, &sample).await;
                let e = other.unwrap_err();
                assert!(
                    matches!(e.code(), Code::NotFound | Code::PermissionDenied),
                    "{rpc} as {role} of the other tenant: {e:?}"
                );
            }
        }
        let nobody = pki::call(&it.client("red", "nobody").await, rpc, 99, &sample).await;
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
        for (rpc, _) in MATRIX
            .into_iter()
            .filter(|(rpc, _)| !rpc.starts_with("Pki"))
        {
            if matches!(
                rpc,
                "Crypto.GenerateRandom" | "Keys.CreateKey" | "Keys.ListKeys"
            ) {
                continue;
            }
            let missing_is = match rpc {
                "Jobs.CreateJob" | "Jobs.ListJobs" => "KEY_NOT_FOUND",
                _ if rpc.starts_with("Jobs.") => "JOB_NOT_FOUND",
                _ => "KEY_NOT_FOUND",
            };
            let forbidden = call(&client, rpc, key_of(rpc), &sample).await.unwrap_err();
            let missing = call(&client, rpc, "no/such/key", &of_nobody)
                .await
                .unwrap_err();
            let said = |e: &Status| (e.code(), reason(e), e.message().to_owned());
            assert_eq!(said(&forbidden), said(&missing), "{rpc} as {tenant}/{name}");
            assert_eq!(reason(&missing), missing_is, "{rpc} as {tenant}/{name}");
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
