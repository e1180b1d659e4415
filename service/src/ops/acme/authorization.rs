//! Proof of control: the client says that it is ready, and we look (RFC 8555 §7.5).

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;

use super::{Acme, Member, Visit, recorded};
use crate::{
    acme::{
        AcmeId, Authorization, AuthorizationStatus, Challenge, ChallengeKind, ChallengeStatus,
        Problem, ProblemKind,
    },
    metrics,
    validator::Claim,
};

/// A host that has just been set up may need a moment: pauses before each look.
const PAUSES: [Duration; 3] = [
    Duration::ZERO,
    Duration::from_secs(2),
    Duration::from_secs(6),
];

/// An authorization of the account that asks.
///
/// # Errors
/// 404, store.
pub async fn authorization(
    acme: &Arc<Acme>,
    visit: &Visit,
    id: &AcmeId,
) -> Result<Authorization, Problem> {
    let member = visit.member()?;
    let found = acme.app.store.authorization(&member.account.id, id).await?;
    let found = found.ok_or_else(Problem::not_found)?;
    // We were asked to look and were stopped in between.
    let waits = |c: &&Challenge| c.status == ChallengeStatus::Processing;
    if let (AuthorizationStatus::Pending, Some(challenge)) = (
        found.status_at(acme.app.clock.now_ms()),
        found.challenges.iter().find(waits),
    ) {
        look_later(acme, member, &found, challenge);
    }
    Ok(found)
}

/// Gives an authorization up.
///
/// # Errors
/// 404, audit, store.
pub async fn deactivate_authorization(
    acme: &Arc<Acme>,
    visit: &Visit,
    id: &AcmeId,
) -> Result<Authorization, Problem> {
    #[derive(serde::Deserialize)]
    struct Update {
        status: String,
    }
    let update: Update = visit.read()?;
    if update.status != "deactivated" {
        return Err(Problem::malformed("the status can only become deactivated"));
    }
    let member = visit.member()?;
    let found = authorization(acme, visit, id).await?;
    let peer = Some(visit.peer.clone());
    let caller = member.caller.clone();
    recorded(
        acme,
        caller,
        "AcmeDeactivateAuthorization",
        peer,
        async |app, call| {
            note(&mut call.entry.detail, member, &found);
            let next = found.deactivated();
            app.store.change_authorization(&next).await?;
            Ok(next)
        },
    )
    .await
}

/// The client is ready to be looked at.
///
/// # Errors
/// 404, [`ProblemKind::Malformed`] when the authorization has expired, audit, store.
pub async fn answer(
    acme: &Arc<Acme>,
    visit: &Visit,
    id: &AcmeId,
    kind: ChallengeKind,
) -> Result<(Authorization, Challenge), Problem> {
    let member = visit.member()?;
    let found = authorization(acme, visit, id).await?;
    let challenge = found
        .challenge(kind)
        .cloned()
        .ok_or_else(Problem::not_found)?;
    let open = found.status_at(acme.app.clock.now_ms()) == AuthorizationStatus::Pending;
    if visit.only_reads() || !open || challenge.status != ChallengeStatus::Pending {
        return Ok((found, challenge));
    }
    let peer = Some(visit.peer.clone());
    let caller = member.caller.clone();
    let next = recorded(
        acme,
        caller,
        "AcmeAnswerChallenge",
        peer,
        async |app, call| {
            note(&mut call.entry.detail, member, &found);
            call.entry
                .detail
                .insert("challenge", kind.name().to_owned());
            let next = found.answered(kind);
            app.store.change_authorization(&next).await?;
            Ok(next)
        },
    )
    .await?;
    let challenge = next
        .challenge(kind)
        .cloned()
        .ok_or_else(Problem::not_found)?;
    look_later(acme, member, &next, &challenge);
    Ok((next, challenge))
}

fn note(
    detail: &mut std::collections::BTreeMap<&'static str, String>,
    member: &Member,
    authorization: &Authorization,
) {
    detail.insert("account", member.account.id.to_string());
    detail.insert("authorization", authorization.id.to_string());
    detail.insert("names", authorization.name.to_string());
}

/// Begins to look, unless somebody does already.
fn look_later(
    acme: &Arc<Acme>,
    member: &Member,
    authorization: &Authorization,
    challenge: &Challenge,
) {
    if !acme.validating.lock().insert(authorization.id.clone()) {
        return;
    }
    let (acme, member) = (Arc::clone(acme), member.clone());
    let (authorization, challenge) = (authorization.clone(), challenge.clone());
    tokio::spawn(async move {
        if let Err(problem) = look(&acme, &member, &authorization, &challenge).await {
            tracing::warn!(problem = %problem, authorization = %authorization.id, "the outcome of a validation could not be stored");
        }
        acme.validating.lock().remove(&authorization.id);
    });
}

/// Looks, a few times if need be, and puts on record what was seen.
async fn look(
    acme: &Acme,
    member: &Member,
    authorization: &Authorization,
    challenge: &Challenge,
) -> Result<(), Problem> {
    let expected = challenge.key_authorization(&member.account.key);
    let authorities = &acme.app.authorities;
    let profile = authorities.profile(member.account.tenant, &authorization.profile, None);
    let claim = Claim {
        name: &authorization.name,
        token: &challenge.token,
        key_authorization: &expected,
        networks: profile.as_ref().map_or(&[], |p| p.rules.acme_networks()),
    };
    let mut seen = Ok(());
    for pause in PAUSES {
        sleep(pause).await;
        let Ok(_turn) = acme.looking.acquire().await else {
            return Ok(());
        };
        seen = acme.validator.look(challenge.kind, claim).await;
        if seen.is_ok() {
            break;
        }
    }
    metrics::acme_look(
        challenge.kind.name(),
        seen.as_ref().err().map_or("ok", |p| p.kind().name()),
    );
    recorded(
        acme,
        member.caller.clone(),
        "AcmeValidate",
        None,
        async |app, call| {
            note(&mut call.entry.detail, member, authorization);
            call.entry
                .detail
                .insert("challenge", challenge.kind.name().to_owned());
            let outcome = seen.as_ref().err().map_or("valid", |p| p.kind().name());
            call.entry.detail.insert("seen", outcome.to_owned());
            let judged = seen
                .as_ref()
                .map(|()| call.now_ms)
                .map_err(Problem::document);
            let next = authorization.judged(challenge.kind, judged);
            app.store.change_authorization(&next).await.map_err(|_| {
                Problem::new(
                    ProblemKind::Malformed,
                    "the authorization was changed in between",
                )
            })
        },
    )
    .await
}
