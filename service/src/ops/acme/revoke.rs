//! Revoke (RFC 8555 §7.6): the account that got the certificate, an account with control
//! of all its names, or who holds its key.

use std::sync::Arc;

use keywright_pki::SpiffeId;
use serde::Deserialize;

use super::{Acme, Visit, Who, authenticate::caller, recorded};
use crate::{
    acme::{Problem, ProblemKind, decode64},
    audit::Decision,
    authority::{CertificateRecord, CertificateState, Reason as Why},
    ops::pki::{self, Revoke, Target},
    policy::Caller,
};

#[derive(Deserialize)]
struct Request {
    certificate: String,
    #[serde(default)]
    reason: u8,
}

/// Revokes a certificate.
///
/// # Errors
/// [`ProblemKind::Unauthorized`], [`ProblemKind::AlreadyRevoked`],
/// [`ProblemKind::BadRevocationReason`], audit, store.
pub async fn revoke(acme: &Acme, visit: &Visit) -> Result<(), Problem> {
    let request: Request = visit.read()?;
    let why = Why::from_code(request.reason)
        .filter(|why| *why != Why::CaCompromise)
        .ok_or_else(|| {
            Problem::new(
                ProblemKind::BadRevocationReason,
                "offered are the reasons 0, 1, 3, 4, 5 and 9",
            )
        })?;
    let der = decode64(&request.certificate)
        .ok_or_else(|| Problem::malformed("certificate is not base64url"))?;
    let wanted = Revoke {
        target: Target::Certificate(der),
        why,
        invalidity_ms: None,
        key_proof: None,
    };
    let (authority, record) = pki::target(&acme.app, visit.tenant_id, &wanted.target).await?;
    let (caller, right) = right(acme, visit, &record).await?;
    let peer = Some(visit.peer.clone());
    recorded(acme, caller, "AcmeRevoke", peer, async |app, call| {
        if let Who::Member(member) = &visit.who {
            call.entry
                .detail
                .insert("account", member.account.id.to_string());
        }
        call.entry.decide(Decision::Allow, &[right.to_owned()]);
        if record.state == CertificateState::Revoked {
            return Err(Problem::new(
                ProblemKind::AlreadyRevoked,
                "it was revoked before",
            ));
        }
        pki::carry_out(app, call, (&authority, &record), &wanted).await?;
        Ok(())
    })
    .await
}

/// Who asks, and what gives the right; nothing of it is a policy's to give.
async fn right(
    acme: &Acme,
    visit: &Visit,
    record: &CertificateRecord,
) -> Result<(Arc<Caller>, &'static str), Problem> {
    let no = || {
        Problem::new(
            ProblemKind::Unauthorized,
            "neither this account nor this key may revoke it",
        )
    };
    let store = &acme.app.store;
    let order = store.order_of(&record.intended.name).await?;
    match &visit.who {
        Who::Member(member) => {
            if order.is_some_and(|o| o.account == member.account.id) {
                return Ok((member.caller.clone(), "account of the certificate"));
            }
            let now_ms = acme.app.clock.now_ms();
            for name in &record.intended.names {
                if !store.has_control(&member.account.id, name, now_ms).await? {
                    return Err(no());
                }
            }
            if record.intended.names.is_empty() {
                return Err(no());
            }
            Ok((member.caller.clone(), "control of all names"))
        }
        Who::Key(key) => {
            if key.spki_sha256() != record.intended.spki {
                return Err(no());
            }
            // On record stands the identity that got the certificate.
            let found = match SpiffeId::parse(&record.intended.requested_by) {
                Ok(id) => Some(Arc::new(Caller {
                    id,
                    tenant: visit.tenant_id,
                    tenant_name: visit.tenant.as_str().into(),
                    certificate: [0; 32],
                    spki: record.intended.spki,
                })),
                Err(_) => owner(acme, visit, order).await?,
            };
            Ok((found.ok_or_else(no)?, "key of the certificate"))
        }
    }
}

async fn owner(
    acme: &Acme,
    visit: &Visit,
    order: Option<crate::acme::Order>,
) -> Result<Option<Arc<Caller>>, Problem> {
    let Some(order) = order else { return Ok(None) };
    let store = &acme.app.store;
    let Some(account) = store.account(visit.tenant_id, &order.account).await? else {
        return Ok(None);
    };
    let key = store.acme_key(visit.tenant_id, &account.kid).await?;
    Ok(key.map(|key| caller(&visit.tenant, &key)))
}
