//! The actions policies speak of, and one type for each, so that a permit for one
//! cannot be used for another.

/// What a caller wants to do; the names are those of the Cedar schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Seal under a key.
    Encrypt,
    /// Open what a key sealed.
    Decrypt,
    /// Move envelopes to the primary version.
    Rewrap,
    /// Open in order to seal under another DEK.
    ReencryptFrom,
    /// Seal what was opened.
    ReencryptTo,
    /// Random bytes.
    GenerateRandom,
    /// A new key.
    CreateKey,
    /// Read about a key.
    GetKey,
    /// Read about the keys of a tenant.
    ListKeys,
    /// A new version.
    RotateKey,
    /// What the HSM says about a key.
    GetKeyEvidence,
    /// Suspend, resume, deactivate, mark as compromised.
    ChangeState,
    /// Labels, rules, minimum version.
    UpdateKey,
    /// Plan the end of key material.
    ScheduleDestruction,
    /// Spare what was planned to end.
    CancelDestruction,
    /// Ask why oneself may or may not do something.
    Explain,
    /// Ask why somebody else may or may not.
    ExplainOther,
    /// The public half of a pair.
    GetPublicKey,
    /// Sign.
    Sign,
    /// Check signatures.
    Verify,
    /// Make MACs.
    Mac,
    /// Check MACs.
    VerifyMac,
    /// Open what was encrypted to a public key.
    AsymmetricDecrypt,
    /// A data key for the caller's own use.
    GenerateDataKey,
    /// Open a wrapped data key.
    DecryptDataKey,
    /// Borrow a data key, to seal without us.
    LeaseDataKey,
    /// End a data key that we keep.
    ForgetDataKey,
    /// A certificate under a profile.
    IssueCertificate,
    /// The same again, for who holds one.
    RenewCertificate,
    /// Read what is on record about certificates.
    GetCertificate,
    /// Revoke certificates of others.
    RevokeCertificate,
    /// Read about issuers and profiles.
    GetAuthority,
    /// Plan an authority.
    PlanCeremony,
    /// Say yes to a plan.
    ApproveCeremony,
    /// Carry a plan out.
    CommitCeremony,
    /// What an issuer may sign.
    ChangeIssuer,
    /// Put and retire profiles.
    ChangeProfile,
    /// Never certify a key again.
    BlockKey,
    /// Let ACME clients in.
    CreateAcmeKey,
    /// Begin a job that moves everything off old versions of a key.
    CreateJob,
    /// Read about jobs of a key.
    GetJob,
    /// Pause, resume, cancel jobs of a key.
    ChangeJob,
    /// Work on jobs of a key.
    RunJob,
}

impl Action {
    /// Every action.
    pub const ALL: [Self; 43] = [
        Self::Encrypt,
        Self::Decrypt,
        Self::Rewrap,
        Self::ReencryptFrom,
        Self::ReencryptTo,
        Self::GenerateRandom,
        Self::CreateKey,
        Self::GetKey,
        Self::ListKeys,
        Self::RotateKey,
        Self::GetKeyEvidence,
        Self::ChangeState,
        Self::UpdateKey,
        Self::ScheduleDestruction,
        Self::CancelDestruction,
        Self::Explain,
        Self::ExplainOther,
        Self::GetPublicKey,
        Self::Sign,
        Self::Verify,
        Self::Mac,
        Self::VerifyMac,
        Self::AsymmetricDecrypt,
        Self::GenerateDataKey,
        Self::DecryptDataKey,
        Self::LeaseDataKey,
        Self::ForgetDataKey,
        Self::IssueCertificate,
        Self::RenewCertificate,
        Self::GetCertificate,
        Self::RevokeCertificate,
        Self::GetAuthority,
        Self::PlanCeremony,
        Self::ApproveCeremony,
        Self::CommitCeremony,
        Self::ChangeIssuer,
        Self::ChangeProfile,
        Self::BlockKey,
        Self::CreateAcmeKey,
        Self::CreateJob,
        Self::GetJob,
        Self::ChangeJob,
        Self::RunJob,
    ];

    /// As in the schema.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Encrypt => "encrypt",
            Self::Decrypt => "decrypt",
            Self::Rewrap => "rewrap",
            Self::ReencryptFrom => "reencrypt_from",
            Self::ReencryptTo => "reencrypt_to",
            Self::GenerateRandom => "generate_random",
            Self::CreateKey => "create_key",
            Self::GetKey => "get_key",
            Self::ListKeys => "list_keys",
            Self::RotateKey => "rotate_key",
            Self::GetKeyEvidence => "get_key_evidence",
            Self::ChangeState => "change_state",
            Self::UpdateKey => "update_key",
            Self::ScheduleDestruction => "schedule_destruction",
            Self::CancelDestruction => "cancel_destruction",
            Self::Explain => "explain",
            Self::ExplainOther => "explain_other",
            Self::GetPublicKey => "get_public_key",
            Self::Sign => "sign",
            Self::Verify => "verify",
            Self::Mac => "mac",
            Self::VerifyMac => "verify_mac",
            Self::AsymmetricDecrypt => "asymmetric_decrypt",
            Self::GenerateDataKey => "generate_data_key",
            Self::DecryptDataKey => "decrypt_data_key",
            Self::LeaseDataKey => "lease_data_key",
            Self::ForgetDataKey => "forget_data_key",
            Self::IssueCertificate => "issue_certificate",
            Self::RenewCertificate => "renew_certificate",
            Self::GetCertificate => "get_certificate",
            Self::RevokeCertificate => "revoke_certificate",
            Self::GetAuthority => "get_authority",
            Self::PlanCeremony => "plan_ceremony",
            Self::ApproveCeremony => "approve_ceremony",
            Self::CommitCeremony => "commit_ceremony",
            Self::ChangeIssuer => "change_issuer",
            Self::ChangeProfile => "change_profile",
            Self::BlockKey => "block_key",
            Self::CreateAcmeKey => "create_acme_key",
            Self::CreateJob => "create_job",
            Self::GetJob => "get_job",
            Self::ChangeJob => "change_job",
            Self::RunJob => "run_job",
        }
    }

    /// What it is done to.
    #[must_use]
    pub fn about(self) -> About {
        match self {
            Self::IssueCertificate | Self::RenewCertificate => About::Profile,
            Self::ListKeys
            | Self::GenerateRandom
            | Self::GetCertificate
            | Self::RevokeCertificate
            | Self::GetAuthority
            | Self::PlanCeremony
            | Self::ApproveCeremony
            | Self::CommitCeremony
            | Self::ChangeIssuer
            | Self::ChangeProfile
            | Self::BlockKey
            | Self::CreateAcmeKey => About::Tenant,
            _ => About::Key,
        }
    }

    /// The inverse of [`Action::name`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|a| a.name() == text)
    }
}

/// What an action is done to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    /// A key, also one that is to be made.
    Key,
    /// A profile for certificates.
    Profile,
    /// A tenant as a whole.
    Tenant,
}

/// An action on a key that exists; sealed.
pub trait KeyAction: sealed::Sealed + Send + Sync + 'static {
    /// Its value.
    const ACTION: Action;
}

/// An action on a tenant, or on a key that does not exist yet; sealed.
pub trait TenantAction: sealed::Sealed + Send + Sync + 'static {
    /// Its value.
    const ACTION: Action;
}

/// An action under a profile; sealed.
pub trait ProfileAction: sealed::Sealed + Send + Sync + 'static {
    /// Its value.
    const ACTION: Action;
}

mod sealed {
    pub trait Sealed {}
}

/// One type for each action.
pub mod act {
    use super::{Action, KeyAction, ProfileAction, TenantAction, sealed::Sealed};

    macro_rules! actions {
        ($kind:ident: $($action:ident)*) => {$(
            #[doc = concat!("[`Action::", stringify!($action), "`] as a type.")]
            #[derive(Debug, Clone, Copy)]
            pub struct $action;
            impl Sealed for $action {}
            impl $kind for $action {
                const ACTION: Action = Action::$action;
            }
        )*};
    }
    actions!(KeyAction: Encrypt Decrypt Rewrap ReencryptFrom ReencryptTo GetKey RotateKey GetKeyEvidence ChangeState
        UpdateKey ScheduleDestruction CancelDestruction Explain ExplainOther GetPublicKey Sign Verify Mac VerifyMac AsymmetricDecrypt GenerateDataKey DecryptDataKey LeaseDataKey ForgetDataKey
        CreateJob GetJob ChangeJob RunJob);
    actions!(TenantAction: GenerateRandom CreateKey ListKeys GetCertificate RevokeCertificate GetAuthority PlanCeremony
        ApproveCeremony CommitCeremony ChangeIssuer ChangeProfile BlockKey CreateAcmeKey);
    actions!(ProfileAction: IssueCertificate RenewCertificate);
}
