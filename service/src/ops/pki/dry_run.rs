//! What would come of a request: the same decision and the same lint, and no signature.

use std::sync::Arc;

use super::{
    issue::{KEY_BLOCKED, KEY_USED, SignCsr, draft, issuer, plan, profile_label, wanted},
    seconds,
};
use crate::{
    error::Result,
    ops::{App, Call},
    policy::act,
    store::KeyStanding,
};

/// What would come of it.
#[derive(Debug)]
pub struct Dry {
    /// Under which version of which profile.
    pub profile: String,
    /// Who would sign.
    pub issuer: String,
    /// What it would name.
    pub names: Vec<String>,
    /// Why not; empty: it would be issued.
    pub violations: Vec<String>,
    /// Unix seconds; 0 where it does not come to that.
    pub not_before: u64,
    /// Unix seconds, inclusive.
    pub not_after: u64,
    /// With a serial that is used for nothing.
    pub tbs: Vec<u8>,
}

/// What [`sign_csr`](super::sign_csr) would do. Nothing is signed or stored.
///
/// # Errors
/// What is wrong with the request itself, and permission; what the profile or a rule
/// refuses is part of the answer.
pub async fn dry_run(app: &Arc<App>, call: &mut Call, request: SignCsr) -> Result<Dry> {
    let permit =
        call.open_profile::<act::IssueCertificate>(app, &request.profile, request.version)?;
    let profile = Arc::clone(permit.profile());
    let wanted = wanted(&call.caller, profile, request)?;
    let authority = issuer(app, &wanted)?;
    let mut dry = Dry {
        profile: profile_label(&wanted.profile),
        issuer: authority.issuer.name.to_string(),
        names: wanted.sans.iter().map(keywright_pki::San::value).collect(),
        violations: Vec::new(),
        not_before: 0,
        not_after: 0,
        tbs: Vec::new(),
    };
    match plan(app, &authority, &wanted, call.now_ms)? {
        Err(violations) => dry.violations = violations,
        Ok(plan) => {
            dry.names = plan.sans.iter().map(keywright_pki::San::value).collect();
            (dry.not_before, dry.not_after) = (plan.not_before, plan.not_after);
            let draft = draft(&authority, plan)?;
            dry.tbs = draft.tbs().to_vec();
            if let Err(findings) = draft.lint(seconds(call.now_ms)) {
                dry.violations = findings
                    .iter()
                    .map(|f| format!("{} {}", f.rule, f.message))
                    .collect();
            }
            let (spki, reuse) = (
                wanted.csr.key().spki_sha256(),
                wanted.profile.rules.key_reuse(),
            );
            let standing = app.store.key_standing(wanted.tenant, &spki, reuse).await?;
            dry.violations.extend(match standing {
                KeyStanding::Free => None,
                KeyStanding::Used => Some(KEY_USED.to_owned()),
                KeyStanding::Blocked => Some(KEY_BLOCKED.to_owned()),
            });
        }
    }
    Ok(dry)
}
