//! Look at authorities, and say what they may sign.

use std::sync::Arc;

use super::no_such_issuer;
use crate::{
    authorities::Authority,
    authority::{AuthorityName, CertificateRef, CertificateState, Parent, Stage, Usage},
    error::{Error, Reason, Result},
    key::Revision,
    ops::{App, Call},
    policy::act,
};

/// What an issuer may sign from now on.
#[derive(Debug)]
pub struct SetUsage {
    /// Which.
    pub issuer: AuthorityName,
    /// What.
    pub usage: Usage,
}

/// All authorities of the caller's tenant, by name, also those that are planned.
///
/// # Errors
/// Permission.
pub async fn list_issuers(app: &App, call: &mut Call) -> Result<Vec<Arc<Authority>>> {
    let grant = call.grant::<act::GetAuthority>(app, None)?;
    Ok(app.authorities.issuers_of(grant.tenant()))
}

/// Certificates to trust, and those in between.
///
/// # Errors
/// Permission.
pub async fn bundle(app: &App, call: &mut Call) -> Result<(Vec<Vec<u8>>, Vec<Vec<u8>>)> {
    let grant = call.grant::<act::GetAuthority>(app, None)?;
    let (mut roots, mut between): (Vec<Vec<u8>>, Vec<Vec<u8>>) = (Vec::new(), Vec::new());
    for authority in app.authorities.issuers_of(grant.tenant()) {
        let issuer = &authority.issuer;
        if issuer.stage != Stage::Active {
            continue;
        }
        match issuer.chain.split_last() {
            None => roots.push(issuer.certificate.clone()),
            Some((root, above)) => {
                between.push(issuer.certificate.clone());
                between.extend(above.iter().cloned());
                roots.push(root.clone());
            }
        }
    }
    for list in [&mut roots, &mut between] {
        list.sort();
        list.dedup();
    }
    Ok((roots, between))
}

/// Lets an issuer sign, or stops it. Letting one sign again that was stopped by its
/// self-check clears the alarm: somebody has looked.
///
/// # Errors
/// [`Reason::IssuerNotFound`], [`Reason::IssuerState`] for one without a certificate,
/// permission, store.
pub async fn set_issuer_usage(
    app: &Arc<App>,
    call: &mut Call,
    request: SetUsage,
) -> Result<Arc<Authority>> {
    let grant = call.grant::<act::ChangeIssuer>(app, None)?;
    let name = &request.issuer;
    call.entry.detail.insert("issuer", name.to_string());
    call.entry.detail.insert(
        "usage",
        format!("issue={} crl={}", request.usage.issue, request.usage.crl),
    );
    let change = app.authorities.begin_change().await;
    let authority = app
        .authorities
        .issuer(grant.tenant(), name)
        .ok_or_else(|| no_such_issuer(name.as_str()))?;
    if authority.issuer.stage != Stage::Active {
        return Err(Error::new(
            Reason::IssuerState,
            format!("issuer {name} has no certificate yet"),
        ));
    }
    if request.usage.issue && is_revoked(app, &authority).await? {
        return Err(Error::new(
            Reason::IssuerState,
            format!(
                "the certificate of issuer {name}, or of one above it, is revoked; it never issues again"
            ),
        ));
    }
    let mut next = authority.issuer.clone();
    next.usage = request.usage;
    if request.usage.issue {
        next.alarm.clear();
    }
    next.revision = Revision(next.revision.0 + 1);
    app.store.change_issuer(&next).await?;
    let authority = change.publish_issuer(next)?;
    // What was revoked while it made no lists.
    app.authorities.crl_is_due(authority.issuer.id);
    Ok(authority)
}

/// Stops an issuer by itself, and says why for whoever looks.
pub(super) async fn raise_alarm(app: &App, authority: &Authority, why: &str) {
    stop(app, authority, false, why).await;
}

/// The same, but its lists go on.
pub(super) async fn stop_issuing(app: &App, authority: &Authority, why: &str) {
    stop(app, authority, true, why).await;
}

/// The authority above, when it is here.
pub(super) fn above(app: &App, authority: &Authority) -> Option<Arc<Authority>> {
    match &authority.spec.parent {
        Parent::Issuer(parent) => app.authorities.issuer(authority.issuer.tenant, parent),
        _ => None,
    }
}

/// Is the certificate of an authority revoked, or of one above it?
pub(super) async fn is_revoked(app: &App, authority: &Arc<Authority>) -> Result<bool> {
    let mut at = Some(Arc::clone(authority));
    while let Some(one) = at {
        let over = above(app, &one);
        let name = CertificateRef {
            issuer: over.as_ref().map_or(one.issuer.id, |o| o.issuer.id),
            serial: one.issuer.serial,
        };
        let record = app.store.certificate(one.issuer.tenant, &name).await?;
        if record.is_some_and(|r| r.state == CertificateState::Revoked) {
            return Ok(true);
        }
        at = over;
    }
    Ok(false)
}

async fn stop(app: &App, authority: &Authority, lists_go_on: bool, why: &str) {
    let change = app.authorities.begin_change().await;
    let issuer = &authority.issuer;
    let Some(current) = app.authorities.issuer(issuer.tenant, &issuer.name) else {
        return;
    };
    let mut next = current.issuer.clone();
    next.usage = Usage {
        issue: false,
        crl: lists_go_on && next.usage.crl,
    };
    why.clone_into(&mut next.alarm);
    next.revision = Revision(next.revision.0 + 1);
    if let Err(e) = app.store.change_issuer(&next).await {
        // In memory all the same: this daemon signs nothing with it any more.
        tracing::error!(issuer = %issuer.name, error = %e, "the alarm could not be stored");
    }
    if let Err(e) = change.publish_issuer(next) {
        tracing::error!(issuer = %issuer.name, error = ?e, "the issuer could not be stopped");
    }
}
