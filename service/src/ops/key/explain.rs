//! Why somebody may or may not do something with a key, and which version it would be
//! done with. Nothing is done, and the HSM is not asked.

use keywright_pki::SpiffeId;

use crate::{
    envelope::Context,
    error::{Error, Reason, Result},
    key::{Key, KeyName, KeyUse, VersionNumber},
    ops::{App, Call, lease::to_lend},
    policy::{Action, Asking, Caller, Verdict, act},
};

/// What is asked.
#[derive(Debug)]
pub struct Explain {
    /// Which key.
    pub key: KeyName,
    /// What would be done with it.
    pub action: Action,
    /// The context that would come along.
    pub context: Context,
    /// Somebody else of the tenant; none: who asks.
    pub principal: Option<SpiffeId>,
    /// The version that made what would be processed, for actions that process; none: the
    /// primary one.
    pub version: Option<u32>,
}

/// What would happen.
#[derive(Debug)]
pub struct Explanation {
    /// What the policies say.
    pub verdict: Verdict,
    /// Roles of the one it is about.
    pub roles: Vec<String>,
    /// The version, for actions that use one.
    pub version: Option<VersionNumber>,
    /// Why the key cannot be used.
    pub unusable: Option<Error>,
}

/// Asks the policies and the key, and does nothing.
///
/// # Errors
/// Permission to ask, [`Reason::InvalidArgument`] for an action that is not about a key,
/// a version for an action that does not process, a principal of another tenant.
pub fn explain(app: &App, call: &mut Call, request: &Explain) -> Result<Explanation> {
    let name = &request.key;
    let detail = &mut call.entry.detail;
    detail.insert("asked", request.action.name().to_owned());
    if let Some(principal) = &request.principal {
        detail.insert("principal", principal.to_string());
    }
    call.bind(&request.context);
    let key = match request.principal {
        None => call.open::<act::Explain>(app, name)?.shared_key(),
        Some(_) => call.open::<act::ExplainOther>(app, name)?.shared_key(),
    };
    call.note(&key, None);
    if matches!(
        request.action,
        Action::ListKeys | Action::GenerateRandom | Action::CreateKey
    ) {
        let text = format!(
            "{} is not about a key that exists; choose an action that is",
            request.action.name()
        );
        return Err(Error::field(Reason::InvalidArgument, "action", text));
    }
    if request.version.is_some() && !takes_version(request.action) {
        let text = format!(
            "{} does not process what a version made; leave the version out",
            request.action.name()
        );
        return Err(Error::field(Reason::InvalidArgument, "key_version", text));
    }
    if let Some(id) = &request.principal {
        // The tenant is a trust domain: who is of another one is nobody here, and what
        // roles they have there is not for us to say.
        if id.trust_domain() != call.caller.id.trust_domain() {
            let text = format!(
                "{id} is not of your tenant, whose trust domain is {}",
                call.caller.id.trust_domain()
            );
            return Err(Error::field(Reason::InvalidArgument, "principal", text));
        }
    }
    let other = request.principal.clone().map(|id| Caller {
        id,
        ..Caller::clone(&call.caller)
    });
    let asking = Asking {
        caller: other.as_ref().unwrap_or(&call.caller),
        now_ms: call.now_ms,
        context: Some(&request.context),
    };
    let (verdict, roles) = app.keyring.explain(&asking, request.action, &key);
    let number = request.version.unwrap_or(key.primary.get());
    let (version, unusable) = match version(&key, request.action, number) {
        Ok(version) => (version, None),
        Err(e) => (None, Some(e)),
    };
    Ok(Explanation {
        verdict,
        roles,
        version,
        unusable,
    })
}

/// Does the action process what some version made?
fn takes_version(action: Action) -> bool {
    matches!(
        action,
        Action::Decrypt
            | Action::ReencryptFrom
            | Action::DecryptDataKey
            | Action::Rewrap
            | Action::Verify
            | Action::VerifyMac
            | Action::AsymmetricDecrypt
    )
}

/// The version an action would use.
fn version(key: &Key, action: Action, number: u32) -> Result<Option<VersionNumber>> {
    let protect = |wanted| Ok(Some(key.to_protect(wanted)?.get().number));
    let process = |wanted| Ok(Some(key.to_process(wanted, number)?.get().number));
    match action {
        Action::Encrypt | Action::ReencryptTo | Action::GenerateDataKey | Action::CreateJob => {
            protect(KeyUse::Encrypt)
        }
        Action::LeaseDataKey => Ok(Some(to_lend(key)?.0.number)),
        // From the one to the other.
        Action::Rewrap => process(KeyUse::Encrypt).and_then(|_| protect(KeyUse::Encrypt)),
        Action::Decrypt | Action::ReencryptFrom | Action::DecryptDataKey => {
            process(KeyUse::Encrypt)
        }
        Action::Sign => protect(KeyUse::Sign),
        Action::Verify => process(KeyUse::Sign),
        Action::Mac => protect(KeyUse::Mac),
        Action::VerifyMac => process(KeyUse::Mac),
        Action::AsymmetricDecrypt => process(KeyUse::Decrypt),
        Action::GenerateRandom
        | Action::CreateKey
        | Action::GetKey
        | Action::ListKeys
        | Action::RotateKey
        | Action::GetKeyEvidence
        | Action::ForgetDataKey
        | Action::ChangeState
        | Action::UpdateKey
        | Action::ScheduleDestruction
        | Action::CancelDestruction
        | Action::Explain
        | Action::ExplainOther
        | Action::GetPublicKey
        | Action::IssueCertificate
        | Action::RenewCertificate
        | Action::GetCertificate
        | Action::RevokeCertificate
        | Action::GetAuthority
        | Action::PlanCeremony
        | Action::ApproveCeremony
        | Action::CommitCeremony
        | Action::ChangeIssuer
        | Action::ChangeProfile
        | Action::BlockKey
        | Action::CreateAcmeKey
        | Action::GetJob
        | Action::ChangeJob
        | Action::RunJob => Ok(None),
    }
}
