//! Who signed a request (RFC 8555 §6): nonce, url, key, signature, in front of everything.

use std::sync::Arc;

use super::Acme;
use crate::{
    acme::{
        Account, AccountKey, AccountStatus, AcmeId, AcmeKey, Jws, Problem, ProblemKind, Signer,
    },
    key::TenantId,
    policy::Caller,
};

/// A request as it came.
#[derive(Debug)]
pub struct Post<'a> {
    /// Tenant in its path.
    pub tenant: &'a str,
    /// The path behind the tenant.
    pub path: &'a str,
    /// The JWS.
    pub body: &'a [u8],
    /// From where.
    pub peer: String,
}

/// A request whose signature was checked.
#[derive(Debug)]
pub struct Visit {
    /// Name of the tenant.
    pub tenant: String,
    /// Its id.
    pub tenant_id: TenantId,
    /// What was signed.
    pub payload: Vec<u8>,
    /// By whom.
    pub who: Who,
    /// Where it was sent.
    pub url: String,
    /// From where.
    pub peer: String,
}

/// Who signed.
#[derive(Debug)]
pub enum Who {
    /// A key that came along.
    Key(AccountKey),
    /// An account.
    Member(Box<Member>),
}

/// An account, and as whom it is asked about.
#[derive(Debug, Clone)]
pub struct Member {
    /// The account.
    pub account: Account,
    /// The operator's key that let it in.
    pub key: AcmeKey,
    /// The identity of that key.
    pub caller: Arc<Caller>,
}

impl Visit {
    /// The account that signed.
    ///
    /// # Errors
    /// [`ProblemKind::Malformed`] for a request with a `jwk`.
    pub fn member(&self) -> Result<&Member, Problem> {
        match &self.who {
            Who::Member(member) => Ok(member),
            Who::Key(_) => Err(Problem::malformed(
                "sign this request with kid, not with jwk",
            )),
        }
    }

    /// Nothing was sent: POST-as-GET (RFC 8555 §6.3).
    #[must_use]
    pub fn only_reads(&self) -> bool {
        self.payload.is_empty()
    }

    /// The payload as a message.
    ///
    /// # Errors
    /// [`ProblemKind::Malformed`].
    pub fn read<'a, T: serde::Deserialize<'a>>(&'a self) -> Result<T, Problem> {
        serde_json::from_slice(&self.payload)
            .map_err(|e| Problem::malformed(format!("the payload cannot be read: {e}")))
    }
}

/// Checks a request. Its nonce is used afterwards, whatever comes of it.
///
/// # Errors
/// [`ProblemKind::Malformed`], [`ProblemKind::BadNonce`],
/// [`ProblemKind::AccountDoesNotExist`], [`ProblemKind::Unauthorized`],
/// [`ProblemKind::RateLimited`].
pub async fn authenticate(acme: &Acme, post: Post<'_>) -> Result<Visit, Problem> {
    let tenant_id = acme.tenant(post.tenant).ok_or_else(Problem::not_found)?;
    let jws = Jws::parse(post.body)?;
    let now_ms = acme.app.clock.now_ms();
    if !jws
        .nonce()
        .is_some_and(|nonce| acme.take_nonce(nonce, now_ms))
    {
        return Err(Problem::new(
            ProblemKind::BadNonce,
            "this nonce is not ours, too old or used; try again with the one that came along",
        ));
    }
    let url = acme.url(post.tenant, post.path);
    if jws.url() != url {
        return Err(Problem::new(
            ProblemKind::Unauthorized,
            format!("the request was signed for another url than {url}"),
        ));
    }
    let (who, payload) = match jws.signer() {
        Signer::Key(key) => (Who::Key(key.clone()), jws.verify(key)?),
        Signer::Account(kid) => {
            let member = member_by_url(acme, (post.tenant, tenant_id), kid).await?;
            let payload = jws.verify(&member.account.key)?;
            acme.requests.take(&member.account.id, now_ms)?;
            (Who::Member(Box::new(member)), payload)
        }
    };
    Ok(Visit {
        tenant: post.tenant.to_owned(),
        tenant_id,
        payload: payload.to_vec(),
        who,
        url,
        peer: post.peer,
    })
}

fn no_account() -> Problem {
    Problem::new(
        ProblemKind::AccountDoesNotExist,
        "there is no such account here; register first",
    )
}

async fn member_by_url(
    acme: &Acme,
    (tenant, tenant_id): (&str, TenantId),
    kid: &str,
) -> Result<Member, Problem> {
    let id = kid
        .strip_prefix(&acme.url(tenant, "acct/"))
        .and_then(AcmeId::parse);
    let id = id.ok_or_else(no_account)?;
    let account = acme
        .app
        .store
        .account(tenant_id, &id)
        .await?
        .ok_or_else(no_account)?;
    member(acme, tenant, account).await
}

/// An account that is in use, with the identity behind it.
pub(super) async fn member(acme: &Acme, tenant: &str, account: Account) -> Result<Member, Problem> {
    if account.status != AccountStatus::Valid {
        return Err(Problem::new(
            ProblemKind::Unauthorized,
            "this account was deactivated",
        ));
    }
    let key = acme
        .app
        .store
        .acme_key(account.tenant, &account.kid)
        .await?;
    let key = key.ok_or_else(|| crate::error::Error::internal("an account without its key"))?;
    Ok(Member {
        caller: caller(tenant, &key),
        account,
        key,
    })
}

/// The identity of an operator's key, as policies see it.
pub(super) fn caller(tenant: &str, key: &AcmeKey) -> Arc<Caller> {
    Arc::new(Caller {
        id: key.identity.clone(),
        tenant: key.tenant,
        tenant_name: tenant.into(),
        certificate: [0; 32],
        spki: [0; 32],
    })
}
