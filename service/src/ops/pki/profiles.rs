//! Profiles: put in versions, never changed, retired as a whole.

use std::sync::Arc;

use keywright_pki::{Approval, AuthMethod};

use super::{ceremony::CEREMONY, ocsp::OCSP};
use crate::{
    authority::{AuthorityName, Profile, ProfileRecord},
    error::{Error, Reason, Result},
    key::TenantId,
    ops::{App, Call},
    policy::act,
    store::StoreError,
};

/// Puts the next version of a profile.
///
/// # Errors
/// [`Reason::TextRefused`] with place and reason, [`Reason::AuthorityExists`] for a
/// version that is not the next one, permission, store.
pub async fn put_profile(app: &Arc<App>, call: &mut Call, text: String) -> Result<Arc<Profile>> {
    let grant = call.grant::<act::ChangeProfile>(app, None)?;
    let tenant = grant.tenant();
    let refused = |text: String| Error::field(Reason::TextRefused, "text", text);
    let rules = keywright_pki::Profile::parse(&text).map_err(|e| refused(e.to_string()))?;
    let name = AuthorityName::parse(rules.name()).map_err(|e| refused(format!("name: {e}")))?;
    if [CEREMONY, OCSP].contains(&name.as_str()) {
        return Err(refused(format!(
            "the name {name} is taken for the certificates of authorities"
        )));
    }
    kept(&rules).map_err(|text| refused(text.into()))?;
    issuers_exist(app, tenant, &rules).map_err(refused)?;
    let version = rules.version();
    call.entry
        .detail
        .insert("profile", format!("{name}@{version}"));
    let change = app.authorities.begin_change().await;
    let newest = app.authorities.any_profile(tenant, &name, None);
    let next = newest.map_or(1, |p| p.record.version + 1);
    if version != next {
        return Err(Error::field(
            Reason::AuthorityExists,
            "version",
            format!(
                "the next version of profile {name} is {next}, not {version}; versions never change"
            ),
        ));
    }
    let record = ProfileRecord {
        tenant,
        name,
        version,
        text,
        created_by: call.caller.id.to_string(),
        created_ms: call.now_ms,
        retired_ms: None,
    };
    app.store.add_profile(&record).await.map_err(|e| match e {
        StoreError::Exists => Error::new(
            Reason::AuthorityExists,
            "this version of the profile exists already",
        ),
        e => e.into(),
    })?;
    Ok(change.publish_profile(Profile { record, rules }))
}

/// A profile that could never issue is a mistake that somebody else would meet.
fn issuers_exist(
    app: &App,
    tenant: TenantId,
    rules: &keywright_pki::Profile,
) -> std::result::Result<(), String> {
    for name in rules.issuers() {
        let parsed = AuthorityName::parse(name).map_err(|e| format!("issuer {name}: {e}"))?;
        let Some(authority) = app.authorities.issuer(tenant, &parsed) else {
            return Err(format!(
                "there is no issuer {name}; plan it first: keywright pki ceremony plan"
            ));
        };
        if authority.issuer.is_root() {
            return Err(format!(
                "{name} is a root, which signs authorities and nothing else; name an intermediate"
            ));
        }
    }
    Ok(())
}

/// One version of a profile, or its newest; also a retired one.
///
/// # Errors
/// [`Reason::ProfileNotFound`], permission.
pub async fn get_profile(
    app: &App,
    call: &mut Call,
    name: &AuthorityName,
    version: Option<u32>,
) -> Result<Arc<Profile>> {
    let grant = call.grant::<act::GetAuthority>(app, None)?;
    app.authorities
        .any_profile(grant.tenant(), name, version)
        .ok_or_else(no_such_profile)
}

/// The newest version of each profile.
///
/// # Errors
/// Permission.
pub async fn list_profiles(app: &App, call: &mut Call) -> Result<Vec<Arc<Profile>>> {
    let grant = call.grant::<act::GetAuthority>(app, None)?;
    Ok(app.authorities.profiles_of(grant.tenant()))
}

/// Ends a profile: nothing is issued under any of its versions, what was issued stays
/// good. A newer version brings the name back.
///
/// # Errors
/// [`Reason::ProfileNotFound`], permission, store.
pub async fn retire_profile(
    app: &Arc<App>,
    call: &mut Call,
    name: &AuthorityName,
) -> Result<Arc<Profile>> {
    let grant = call.grant::<act::ChangeProfile>(app, None)?;
    let tenant = grant.tenant();
    call.entry.detail.insert("profile", name.to_string());
    let change = app.authorities.begin_change().await;
    if app.authorities.any_profile(tenant, name, None).is_none() {
        return Err(no_such_profile());
    }
    app.store.retire_profile(tenant, name, call.now_ms).await?;
    change.retire(tenant, name, call.now_ms);
    app.authorities
        .any_profile(tenant, name, None)
        .ok_or_else(no_such_profile)
}

/// A profile says nothing that nobody keeps.
fn kept(rules: &keywright_pki::Profile) -> std::result::Result<(), &'static str> {
    let authz = rules.authz();
    if !authz.require.contains(&AuthMethod::Mtls) {
        return Err("authz.require: callers come with client certificates only; use [\"mtls\"]");
    }
    if authz.approve != Approval::None {
        return Err(
            "authz.approve: approval of single certificates is not offered; use \"none\" and let fewer identities use the profile",
        );
    }
    if authz.rate.is_some() {
        return Err("authz.rate: rates for single callers are not offered; leave it out");
    }
    Ok(())
}

fn no_such_profile() -> Error {
    Error::new(Reason::ProfileNotFound, "there is no such profile here")
}
