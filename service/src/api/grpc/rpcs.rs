//! The names of RPCs, in records and metrics.

/// Every RPC of `keywright.v1`: path and name in records and metrics.
pub const AUDITED_RPCS: [(&str, &str); 58] = [
    ("/keywright.v1.Crypto/Encrypt", "Encrypt"),
    ("/keywright.v1.Crypto/Decrypt", "Decrypt"),
    ("/keywright.v1.Crypto/Rewrap", "Rewrap"),
    ("/keywright.v1.Crypto/Reencrypt", "Reencrypt"),
    ("/keywright.v1.Crypto/GenerateRandom", "GenerateRandom"),
    ("/keywright.v1.Keys/CreateKey", "CreateKey"),
    ("/keywright.v1.Keys/GetKey", "GetKey"),
    ("/keywright.v1.Keys/ListKeys", "ListKeys"),
    ("/keywright.v1.Keys/RotateKey", "RotateKey"),
    ("/keywright.v1.Keys/GetKeyEvidence", "GetKeyEvidence"),
    ("/keywright.v1.Keys/ChangeState", "ChangeState"),
    ("/keywright.v1.Keys/GetPublicKey", "GetPublicKey"),
    ("/keywright.v1.Crypto/Sign", "Sign"),
    ("/keywright.v1.Crypto/Verify", "Verify"),
    ("/keywright.v1.Crypto/Mac", "Mac"),
    ("/keywright.v1.Crypto/VerifyMac", "VerifyMac"),
    (
        "/keywright.v1.Crypto/AsymmetricDecrypt",
        "AsymmetricDecrypt",
    ),
    ("/keywright.v1.Crypto/GenerateDataKeys", "GenerateDataKeys"),
    ("/keywright.v1.Crypto/DecryptDataKeys", "DecryptDataKeys"),
    ("/keywright.v1.Crypto/ForgetDataKeys", "ForgetDataKeys"),
    ("/keywright.v1.Crypto/LeaseDataKey", "LeaseDataKey"),
    ("/keywright.v1.Crypto/EncryptStream", "EncryptStream"),
    ("/keywright.v1.Crypto/DecryptStream", "DecryptStream"),
    ("/keywright.v1.Crypto/RewrapStream", "RewrapStream"),
    ("/keywright.v1.Crypto/SignStream", "SignStream"),
    ("/keywright.v1.Keys/UpdateKey", "UpdateKey"),
    (
        "/keywright.v1.Keys/ScheduleDestruction",
        "ScheduleDestruction",
    ),
    ("/keywright.v1.Keys/CancelDestruction", "CancelDestruction"),
    ("/keywright.v1.Keys/Explain", "Explain"),
    ("/keywright.v1.Jobs/CreateJob", "CreateJob"),
    ("/keywright.v1.Jobs/GetJob", "GetJob"),
    ("/keywright.v1.Jobs/ListJobs", "ListJobs"),
    ("/keywright.v1.Jobs/WatchJob", "WatchJob"),
    ("/keywright.v1.Jobs/ChangeJob", "ChangeJob"),
    ("/keywright.v1.Jobs/LeaseJob", "LeaseJob"),
    ("/keywright.v1.Jobs/CheckpointJob", "CheckpointJob"),
    ("/keywright.v1.Jobs/GetJobReport", "GetJobReport"),
    ("/keywright.v1.Pki/SignCsr", "SignCsr"),
    ("/keywright.v1.Pki/SignCsrBatch", "SignCsrBatch"),
    ("/keywright.v1.Pki/DryRun", "DryRun"),
    ("/keywright.v1.Pki/Renew", "Renew"),
    ("/keywright.v1.Pki/GetCertificate", "GetCertificate"),
    ("/keywright.v1.Pki/Search", "Search"),
    ("/keywright.v1.Pki/Revoke", "Revoke"),
    ("/keywright.v1.Pki/GetCrl", "GetCrl"),
    ("/keywright.v1.Pki/GetBundle", "GetBundle"),
    ("/keywright.v1.PkiAdmin/PlanCeremony", "PlanCeremony"),
    ("/keywright.v1.PkiAdmin/ApproveCeremony", "ApproveCeremony"),
    ("/keywright.v1.PkiAdmin/CommitCeremony", "CommitCeremony"),
    ("/keywright.v1.PkiAdmin/ImportIssuer", "ImportIssuer"),
    ("/keywright.v1.PkiAdmin/ListIssuers", "ListIssuers"),
    ("/keywright.v1.PkiAdmin/SetIssuerUsage", "SetIssuerUsage"),
    ("/keywright.v1.PkiAdmin/PutProfile", "PutProfile"),
    ("/keywright.v1.PkiAdmin/GetProfile", "GetProfile"),
    ("/keywright.v1.PkiAdmin/ListProfiles", "ListProfiles"),
    ("/keywright.v1.PkiAdmin/RetireProfile", "RetireProfile"),
    ("/keywright.v1.PkiAdmin/BlockKey", "BlockKey"),
    ("/keywright.v1.PkiAdmin/CreateAcmeKey", "CreateAcmeKey"),
];

const HEALTH: &str = "/grpc.health.v1.Health/";
const REFLECTION: &str = "/grpc.reflection.v1";

/// A constant name for a path: metrics must not grow with what callers invent.
#[must_use]
pub fn rpc_name(path: &str) -> &'static str {
    match AUDITED_RPCS.iter().find(|(p, _)| *p == path) {
        Some((_, name)) => name,
        None if path.starts_with(HEALTH) => "Health",
        None if path.starts_with(REFLECTION) => "Reflection",
        None => "Unknown",
    }
}
