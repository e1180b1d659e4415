//! One call for each RPC of the services Pki and PkiAdmin.

use bytes::Bytes;
use keywright_client::{Client, proto};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::common::{
    Appliance,
    authority::{self, PROFILE, ROOT, crl, csr, dns, hierarchy, sign},
    reason,
};

/// What tenant red has.
pub(crate) struct Sample {
    csr: Bytes,
    issued: proto::CertificateRef,
    root: String,
}

impl Sample {
    pub(crate) async fn make(it: &Appliance) -> Self {
        hierarchy(it, "red").await;
        let retired = PROFILE.replace("service-tls", "unused");
        authority::put(it, "red", &retired).await.unwrap();
        let (issued, _) = authority::issued(it, "red").await;
        crl(it, "root", 0, 0).await;
        let key = rcgen::KeyPair::generate().unwrap();
        Self {
            csr: csr(&key, vec![dns("x.apps.example.internal")]),
            issued: issued.r#ref.unwrap(),
            root: ROOT.replace("ec-p384", "ec-p256"),
        }
    }
}

/// Does the call name what only tenant red has?
pub(crate) fn names_something(rpc: &str) -> bool {
    !matches!(
        rpc,
        "Pki.Search"
            | "Pki.GetBundle"
            | "PkiAdmin.PlanCeremony"
            | "PkiAdmin.ListIssuers"
            | "PkiAdmin.PutProfile"
            | "PkiAdmin.ListProfiles"
            | "PkiAdmin.BlockKey"
            | "PkiAdmin.ApproveCeremony"
            | "PkiAdmin.CommitCeremony"
            | "PkiAdmin.ImportIssuer"
    )
}

/// Who comes as far as to hear this may make the call.
fn but(expected: &str, answer: Result<(), Status>) -> Result<(), Status> {
    match answer {
        Err(e) if reason(&e) == expected => Ok(()),
        Ok(()) => panic!("{expected} was expected"),
        e => e,
    }
}

/// The error of a batch of one.
fn only(batch: &proto::SignCsrBatchResponse) -> Result<(), Status> {
    let Some(e) = batch.errors.first() else {
        return Ok(());
    };
    let details = ErrorDetails::with_error_info(&e.reason, "keywright", []);
    let code = Code::from(e.code);
    Err(Status::with_error_details(code, &e.message, details))
}

/// What an RPC answers to a caller; `n` is the number of the role.
pub(crate) async fn call(
    client: &Client,
    rpc: &str,
    n: usize,
    sample: &Sample,
) -> Result<(), Status> {
    let (mut pki, mut admin) = (client.pki(), client.pki_admin());
    let (request, issued) = (sign(sample.csr.clone()), sample.issued.clone());
    let unknown = Bytes::from(vec![0xee; 16]);
    let text = match rpc {
        "PkiAdmin.PlanCeremony" => sample
            .root
            .replace("\"root\"\nkind", &format!("\"root-{n}\"\nkind")),
        _ => PROFILE.replace("service-tls", &format!("profile-{n}")),
    };
    let profile = "service-tls".to_owned();
    match rpc {
        "Pki.SignCsr" => pki.sign_csr(request).await.map(drop),
        "Pki.SignCsrBatch" => {
            let requests = vec![request];
            let batch = pki.sign_csr_batch(proto::SignCsrBatchRequest { requests });
            only(&batch.await?.into_inner())
        }
        "Pki.DryRun" => {
            let request = Some(request);
            pki.dry_run(proto::DryRunRequest { request })
                .await
                .map(drop)
        }
        "Pki.Renew" => {
            let request = proto::RenewRequest {
                csr_der: request.csr_der,
                idempotency_key: request.idempotency_key,
                ..Default::default()
            };
            pki.renew(request).await.map(drop)
        }
        "Pki.GetCertificate" => {
            let r#ref = Some(issued);
            let request = proto::GetCertificateRequest { r#ref };
            pki.get_certificate(request).await.map(drop)
        }
        "Pki.Search" => pki.search(proto::SearchRequest::default()).await.map(drop),
        "Pki.Revoke" => {
            let target = Some(proto::revoke_request::Target::Ref(issued));
            let request = proto::RevokeRequest {
                target,
                ..Default::default()
            };
            pki.revoke(request).await.map(drop)
        }
        "Pki.GetCrl" => {
            let issuer = "root".into();
            let request = proto::GetCrlRequest { issuer, shard: 0 };
            pki.get_crl(request).await.map(drop)
        }
        "Pki.GetBundle" => pki.get_bundle(proto::GetBundleRequest {}).await.map(drop),
        "PkiAdmin.PlanCeremony" => {
            let request = proto::PlanCeremonyRequest { text };
            admin.plan_ceremony(request).await.map(drop)
        }
        "PkiAdmin.ApproveCeremony" => {
            let request = proto::ApproveCeremonyRequest {
                id: unknown,
                ..Default::default()
            };
            let answer = admin.approve_ceremony(request).await.map(drop);
            but("ISSUER_NOT_FOUND", answer)
        }
        "PkiAdmin.CommitCeremony" => {
            let request = proto::CommitCeremonyRequest { id: unknown };
            let answer = admin.commit_ceremony(request).await.map(drop);
            but("ISSUER_NOT_FOUND", answer)
        }
        "PkiAdmin.ImportIssuer" => {
            let request = proto::ImportIssuerRequest {
                id: unknown,
                ..Default::default()
            };
            let answer = admin.import_issuer(request).await.map(drop);
            but("ISSUER_NOT_FOUND", answer)
        }
        "PkiAdmin.ListIssuers" => {
            let request = proto::ListIssuersRequest {};
            admin.list_issuers(request).await.map(drop)
        }
        "PkiAdmin.SetIssuerUsage" => {
            let request = proto::SetIssuerUsageRequest {
                issuer: "int-a".into(),
                may_issue: true,
                may_sign_crls: true,
            };
            admin.set_issuer_usage(request).await.map(drop)
        }
        "PkiAdmin.PutProfile" => {
            let request = proto::PutProfileRequest { text };
            admin.put_profile(request).await.map(drop)
        }
        "PkiAdmin.GetProfile" => {
            let request = proto::GetProfileRequest { profile };
            admin.get_profile(request).await.map(drop)
        }
        "PkiAdmin.ListProfiles" => {
            let request = proto::ListProfilesRequest {};
            admin.list_profiles(request).await.map(drop)
        }
        "PkiAdmin.RetireProfile" => {
            let name = "unused".into();
            let request = proto::RetireProfileRequest { name };
            admin.retire_profile(request).await.map(drop)
        }
        "PkiAdmin.BlockKey" => {
            let request = proto::BlockKeyRequest {
                spki_sha256: vec![7; 32].into(),
                why: "seen on a paste site".into(),
            };
            admin.block_key(request).await.map(drop)
        }
        "PkiAdmin.CreateAcmeKey" => {
            let request = proto::CreateAcmeKeyRequest {
                identity: "spiffe://red.example/web".into(),
                profiles: vec![profile],
            };
            admin.create_acme_key(request).await.map(drop)
        }
        other => panic!("{other} has no call in this test"),
    }
}
