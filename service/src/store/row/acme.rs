//! Rows of ACME's tables.

use keywright_hsm::WrappedDek;
use keywright_pki::{San, Serial};
use sqlx::{FromRow, Row, any::AnyRow};

use super::{StoreError, id, pki::list};
use crate::{
    acme::{
        Account, AccountKey, AccountStatus, AcmeId, AcmeKey, Authorization, AuthorizationStatus,
        Contact, Order, Outcome,
    },
    authority::{AuthorityName, CertificateRef, IssuerId},
    key::TenantId,
    store::Result,
};

rows! {
    struct AcmeKeyRow {
        kid: String,
        tenant_id: Vec<u8>,
        identity: String,
        profiles: String,
        wrapped: Vec<u8>,
        created_by: String,
        created_ms: i64,
    }

    struct AccountRow {
        id: String,
        tenant_id: Vec<u8>,
        jwk: String,
        status: String,
        contacts: String,
        kid: String,
        created_ms: i64,
    }

    struct OrderRow {
        id: String,
        account_id: String,
        profile: String,
        names: String,
        authorizations: String,
        issuer_id: Vec<u8>,
        serial: Vec<u8>,
        failure: String,
        replaces: Vec<u8>,
        expires_ms: i64,
        created_ms: i64,
    }

    struct AuthorizationRow {
        id: String,
        account_id: String,
        name: String,
        profile: String,
        status: String,
        challenges: String,
        expires_ms: i64,
        revision: i64,
    }
}

fn corrupt(what: &str) -> StoreError {
    StoreError::Corrupt(what.to_owned())
}

fn acme_id(text: &str) -> Result<AcmeId> {
    AcmeId::parse(text).ok_or_else(|| corrupt("acme id"))
}

/// Issuer id and serial; empty for none.
pub(in crate::store) fn certificate_bytes(name: Option<&CertificateRef>) -> Vec<u8> {
    name.map_or_else(Vec::new, |n| [&n.issuer.0, n.serial.as_bytes()].concat())
}

fn certificate(bytes: &[u8]) -> Result<Option<CertificateRef>> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let (issuer, serial) = bytes
        .split_first_chunk()
        .ok_or_else(|| corrupt("acme certificate"))?;
    Ok(Some(CertificateRef {
        issuer: IssuerId(*issuer),
        serial: Serial::from_bytes(serial).map_err(|_| corrupt("acme certificate"))?,
    }))
}

impl AcmeKeyRow {
    pub(in crate::store) fn key(self) -> Result<AcmeKey> {
        let profile = |p: &String| AuthorityName::parse(p).map_err(|_| corrupt("acme profiles"));
        let wrapped = self.wrapped.try_into().map_err(|_| corrupt("acme key"))?;
        Ok(AcmeKey {
            kid: acme_id(&self.kid)?,
            tenant: TenantId(id(self.tenant_id, "tenant id")?),
            identity: keywright_pki::SpiffeId::parse(&self.identity)
                .map_err(|_| corrupt("acme identity"))?,
            profiles: list(&self.profiles)?
                .iter()
                .map(profile)
                .collect::<Result<_>>()?,
            wrapped: WrappedDek(wrapped),
            created_by: self.created_by,
            created_ms: self.created_ms,
        })
    }
}

impl AccountRow {
    pub(in crate::store) fn account(self) -> Result<Account> {
        Ok(Account {
            id: acme_id(&self.id)?,
            tenant: TenantId(id(self.tenant_id, "tenant id")?),
            key: AccountKey::parse(&self.jwk).ok_or_else(|| corrupt("acme jwk"))?,
            status: AccountStatus::parse(&self.status).ok_or_else(|| corrupt("acme status"))?,
            contacts: Contact::list(&list(&self.contacts)?).map_err(|_| corrupt("contacts"))?,
            kid: acme_id(&self.kid)?,
            created_ms: self.created_ms,
        })
    }
}

impl OrderRow {
    pub(in crate::store) fn order(self) -> Result<Order> {
        let issued = certificate(&[self.issuer_id, self.serial].concat())?;
        let outcome = match (issued, self.failure) {
            (None, failure) if failure.is_empty() => Outcome::Open,
            (None, failure) => Outcome::Failed(failure),
            (Some(certificate), _) => Outcome::Issued(certificate),
        };
        let name = |n: &String| n.parse::<San>().map_err(|_| corrupt("acme names"));
        let ids = list(&self.authorizations)?;
        Ok(Order {
            id: acme_id(&self.id)?,
            account: acme_id(&self.account_id)?,
            profile: AuthorityName::parse(&self.profile).map_err(|_| corrupt("acme profile"))?,
            names: list(&self.names)?.iter().map(name).collect::<Result<_>>()?,
            authorizations: ids.iter().map(|i| acme_id(i)).collect::<Result<_>>()?,
            outcome,
            replaces: certificate(&self.replaces)?,
            expires_ms: self.expires_ms,
            created_ms: self.created_ms,
        })
    }
}

impl AuthorizationRow {
    pub(in crate::store) fn authorization(self) -> Result<Authorization> {
        Ok(Authorization {
            id: acme_id(&self.id)?,
            account: acme_id(&self.account_id)?,
            name: self.name.parse().map_err(|_| corrupt("acme name"))?,
            profile: AuthorityName::parse(&self.profile).map_err(|_| corrupt("acme profile"))?,
            status: AuthorizationStatus::parse(&self.status)
                .ok_or_else(|| corrupt("acme status"))?,
            challenges: serde_json::from_str(&self.challenges)
                .map_err(|_| corrupt("acme challenges"))?,
            expires_ms: self.expires_ms,
            revision: self.revision,
        })
    }
}
