//! Let clients in: a key for external account binding. Its MAC key is minted in the HSM
//! and leaves once, to the operator; the store has it wrapped.

use std::sync::Arc;

use keywright_hsm::Unwrap;
use keywright_pki::SpiffeId;
use zeroize::Zeroizing;

use crate::{
    acme::{AcmeId, AcmeKey},
    authority::AuthorityName,
    error::{Error, Reason, Result},
    ops::{App, Call},
    policy::act,
};

/// What an operator asks for.
#[derive(Debug)]
pub struct CreateAcmeKey {
    /// Policies are asked, and placeholders expanded, for this identity.
    pub identity: SpiffeId,
    /// What may be asked for; the first is the default.
    pub profiles: Vec<AuthorityName>,
}

/// A new key; shown once.
pub struct NewAcmeKey {
    /// Its name.
    pub kid: AcmeId,
    /// 32 bytes for HMAC-SHA256.
    pub hmac_key: Zeroizing<Vec<u8>>,
}

impl std::fmt::Debug for NewAcmeKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NewAcmeKey({})", self.kid)
    }
}

const MAX_PROFILES: usize = 16;

/// Makes a key.
///
/// # Errors
/// [`Reason::InvalidArgument`], [`Reason::ProfileNotFound`], permission, HSM, store.
pub async fn create_acme_key(
    app: &Arc<App>,
    call: &mut Call,
    request: CreateAcmeKey,
) -> Result<NewAcmeKey> {
    let tenant = call.grant::<act::CreateAcmeKey>(app, None)?.tenant();
    if request.profiles.is_empty() || request.profiles.len() > MAX_PROFILES {
        let text = format!("name 1 to {MAX_PROFILES} profiles");
        return Err(Error::field(Reason::InvalidArgument, "profiles", text));
    }
    for name in &request.profiles {
        if app.authorities.profile(tenant, name, None).is_none() {
            let text = format!("there is no profile {name} in use");
            return Err(Error::field(Reason::ProfileNotFound, "profiles", text));
        }
    }
    // An operator may let in only identities of its own tenant.
    if request.identity.trust_domain() != call.caller.id.trust_domain() {
        return Err(Error::field(
            Reason::InvalidArgument,
            "identity",
            format!(
                "the identity must be of trust domain {}",
                call.caller.id.trust_domain()
            ),
        ));
    }
    let mut random = [0; 16];
    app.entropy.fill(&mut random)?;
    let kid = AcmeId::from_random(random);
    let own = own_key(app)?;
    let aad = AcmeKey::aad(tenant, &kid);
    let (mac_key, wrapped) = app.hsm.mint(&own, aad, call.deadline).await?;
    let detail = &mut call.entry.detail;
    detail.insert("acme_key", kid.to_string());
    detail.insert("identity", request.identity.to_string());
    let names: Vec<&str> = request.profiles.iter().map(AuthorityName::as_str).collect();
    detail.insert("profiles", names.join(" "));
    let key = AcmeKey {
        kid: kid.clone(),
        tenant,
        identity: request.identity,
        profiles: request.profiles,
        wrapped,
        created_by: call.caller.id.to_string(),
        created_ms: call.now_ms,
    };
    app.store.add_acme_key(&key).await?;
    Ok(NewAcmeKey {
        kid,
        hmac_key: Zeroizing::new(mac_key.expose().to_vec()),
    })
}

/// The MAC key of a key on record.
pub(super) async fn mac_key(app: &App, key: &AcmeKey, call: &Call) -> Result<keywright_hsm::Dek> {
    let job = Unwrap {
        key: own_key(app)?,
        aad: AcmeKey::aad(key.tenant, &key.kid),
        wrapped: key.wrapped,
    };
    let opened = app.hsm.unwrap(vec![job], call.deadline).await.pop();
    Ok(opened.ok_or_else(|| Error::internal("the HSM answered nothing"))??)
}

fn own_key(app: &App) -> Result<keywright_hsm::KeyRef> {
    app.hsm
        .watched()
        .ok_or_else(|| Error::internal("the appliance's own key is not known"))
}
