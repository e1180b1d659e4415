//! Accounts: register, find, update, give up, change the key (RFC 8555 §7.3).

use serde::Deserialize;
use serde_json::Value;

use super::{
    Acme, Member, Visit, Who,
    authenticate::{caller, member},
    key::mac_key,
    recorded,
};
use crate::{
    acme::{
        Account, AccountKey, AccountStatus, AcmeId, AcmeKey, Contact, Jws, Problem, ProblemKind,
        Signer,
    },
    store::StoreError,
};

/// newAccount.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NewAccount {
    #[serde(default)]
    only_return_existing: bool,
    #[serde(default)]
    contact: Vec<String>,
    external_account_binding: Option<Value>,
}

/// An account, and whether it is new.
#[derive(Debug)]
pub struct Registered {
    /// The account.
    pub account: Account,
    /// It was made just now.
    pub new: bool,
}

fn unknown() -> Problem {
    Problem::new(
        ProblemKind::Unauthorized,
        "the operator's key is not known, or the MAC is of another key",
    )
}

/// Registers a key, or finds its account.
///
/// # Errors
/// [`ProblemKind::AccountDoesNotExist`], [`ProblemKind::ExternalAccountRequired`],
/// [`ProblemKind::Unauthorized`], contacts, audit, store.
pub async fn new_account(acme: &Acme, visit: &Visit) -> Result<Registered, Problem> {
    let Who::Key(key) = &visit.who else {
        return Err(Problem::malformed(
            "sign this request with jwk, not with kid",
        ));
    };
    let request: NewAccount = visit.read()?;
    if let Some(account) = existing(acme, visit, key).await? {
        return Ok(Registered {
            account,
            new: false,
        });
    }
    if request.only_return_existing {
        return Err(Problem::new(
            ProblemKind::AccountDoesNotExist,
            "this key has no account here",
        ));
    }
    let contacts = Contact::list(&request.contact)?;
    let (bound, operators) = binding(acme, visit, request.external_account_binding).await?;
    let caller = caller(&visit.tenant, &operators);
    let peer = Some(visit.peer.clone());
    recorded(acme, caller, "AcmeNewAccount", peer, async |app, call| {
        let kid = operators.kid.clone();
        call.entry.detail.insert("acme_key", kid.to_string());
        let mac_key = mac_key(app, &operators, call).await?;
        let payload = bound.verify_mac(mac_key.expose()).map_err(|_| unknown())?;
        let jwk: Value = serde_json::from_slice(payload)
            .map_err(|_| Problem::malformed("the external account binding holds no JWK"))?;
        if AccountKey::from_jwk(&jwk)? != *key {
            return Err(Problem::malformed(
                "the external account binding is for another key",
            ));
        }
        let account = Account {
            id: acme.id()?,
            tenant: visit.tenant_id,
            key: key.clone(),
            status: AccountStatus::Valid,
            contacts,
            kid,
            created_ms: call.now_ms,
        };
        call.entry.detail.insert("account", account.id.to_string());
        match app.store.add_account(&account).await {
            Ok(()) => Ok(Registered { account, new: true }),
            // The same request came twice at once.
            Err(StoreError::Exists) => {
                let account = existing(acme, visit, key).await?;
                let account = account.ok_or(Problem::from(StoreError::Exists))?;
                Ok(Registered {
                    account,
                    new: false,
                })
            }
            Err(e) => Err(e.into()),
        }
    })
    .await
}

/// The external account binding (RFC 8555 §7.3.4), its MAC not checked yet, and the
/// operator's key that it names.
async fn binding(
    acme: &Acme,
    visit: &Visit,
    bound: Option<Value>,
) -> Result<(Jws, AcmeKey), Problem> {
    let bound = bound.ok_or_else(|| {
        Problem::new(
            ProblemKind::ExternalAccountRequired,
            "an account needs an external account binding; ask the operator for a key",
        )
    })?;
    let bound = Jws::from_value(bound)?;
    let Signer::Account(kid) = bound.signer() else {
        return Err(Problem::malformed(
            "the external account binding has no kid",
        ));
    };
    let kid = AcmeId::parse(kid).ok_or_else(unknown)?;
    let operators = acme.app.store.acme_key(visit.tenant_id, &kid).await?;
    if bound.nonce().is_some() || bound.url() != visit.url {
        return Err(Problem::malformed(
            "the external account binding must have the url of the request and no nonce",
        ));
    }
    Ok((bound, operators.ok_or_else(unknown)?))
}

async fn existing(
    acme: &Acme,
    visit: &Visit,
    key: &AccountKey,
) -> Result<Option<Account>, Problem> {
    let store = &acme.app.store;
    match store
        .account_by_key(visit.tenant_id, &key.thumbprint())
        .await?
    {
        None => Ok(None),
        Some(account) => Ok(Some(member(acme, &visit.tenant, account).await?.account)),
    }
}

#[derive(Deserialize)]
struct Update {
    contact: Option<Vec<String>>,
    status: Option<String>,
}

/// Changes contacts, or gives the account up; without a payload reads it.
///
/// # Errors
/// [`ProblemKind::Malformed`], contacts, audit, store.
pub async fn update_account(acme: &Acme, visit: &Visit, id: &AcmeId) -> Result<Account, Problem> {
    let member = own(visit, id)?;
    if visit.only_reads() {
        return Ok(member.account.clone());
    }
    let update: Update = visit.read()?;
    let mut next = member.account.clone();
    if let Some(contact) = &update.contact {
        next.contacts = Contact::list(contact)?;
    }
    match update.status.as_deref() {
        None | Some("valid") => {}
        Some("deactivated") => next.status = AccountStatus::Deactivated,
        Some(_) => return Err(Problem::malformed("the status can only become deactivated")),
    }
    change(acme, visit, member, "AcmeUpdateAccount", next).await
}

fn own<'a>(visit: &'a Visit, id: &AcmeId) -> Result<&'a Member, Problem> {
    let member = visit.member()?;
    if member.account.id == *id {
        Ok(member)
    } else {
        Err(Problem::new(
            ProblemKind::Unauthorized,
            "this is another account's",
        ))
    }
}

async fn change(
    acme: &Acme,
    visit: &Visit,
    member: &Member,
    rpc: &'static str,
    next: Account,
) -> Result<Account, Problem> {
    let peer = Some(visit.peer.clone());
    recorded(acme, member.caller.clone(), rpc, peer, async |app, call| {
        let detail = &mut call.entry.detail;
        detail.insert("account", next.id.to_string());
        detail.insert("status", next.status.name().to_owned());
        app.store.change_account(&next).await?;
        Ok(next)
    })
    .await
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct KeyChange {
    account: String,
    old_key: Value,
}

/// Another key for the same account (RFC 8555 §7.3.5): the old key signs outside, the new
/// one inside.
///
/// # Errors
/// [`ProblemKind::Malformed`]; 409 with its URL when the new key has an account.
pub async fn change_key(acme: &Acme, visit: &Visit) -> Result<Account, Problem> {
    let member = visit.member()?;
    let inner = Jws::from_value(visit.read()?)?;
    let Signer::Key(new) = inner.signer() else {
        return Err(Problem::malformed("the inner JWS has no jwk"));
    };
    if inner.nonce().is_some() || inner.url() != visit.url {
        return Err(Problem::malformed(
            "the inner JWS must have the url of the outer one and no nonce",
        ));
    }
    let asked: KeyChange = serde_json::from_slice(inner.verify(new)?)
        .map_err(|e| Problem::malformed(format!("the key change cannot be read: {e}")))?;
    let own = acme.url(&visit.tenant, &format!("acct/{}", member.account.id));
    if asked.account != own || AccountKey::from_jwk(&asked.old_key)? != member.account.key {
        return Err(Problem::malformed(
            "account or oldKey are not those of the outer JWS",
        ));
    }
    let found = acme
        .app
        .store
        .account_by_key(visit.tenant_id, &new.thumbprint())
        .await?;
    if let Some(other) = found {
        let url = acme.url(&visit.tenant, &format!("acct/{}", other.id));
        return Err(Problem::malformed("the new key has an account already")
            .with_status(409)
            .at(url));
    }
    let next = Account {
        key: new.clone(),
        ..member.account.clone()
    };
    change(acme, visit, member, "AcmeChangeKey", next).await
}
