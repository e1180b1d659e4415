//! ACME's tables.

use async_trait::async_trait;

use super::{SqlStore, pki::one, taken, unavailable};
use crate::{
    acme::{Account, AcmeId, AcmeKey, Authorization, Contact, Order, Outcome},
    authority::CertificateRef,
    key::TenantId,
    store::{
        AcmeStore, Result, StoreError,
        row::{
            acme::{AccountRow, AcmeKeyRow, AuthorizationRow, OrderRow, certificate_bytes},
            pki::{list, list_text},
        },
    },
};

const ACCOUNT: &str = "SELECT id, tenant_id, jwk, status, contacts, kid, created_ms
    FROM acme_accounts WHERE tenant_id = $1 AND ";
const ORDER: &str = "SELECT id, account_id, profile, names, authorizations, issuer_id, serial,
    failure, replaces, expires_ms, created_ms FROM acme_orders WHERE ";

fn sql(head: &str, condition: &str) -> sqlx::AssertSqlSafe<String> {
    // Both are constants of this file.
    sqlx::AssertSqlSafe(format!("{head}{condition}"))
}

fn texts<T: ToString>(list: &[T]) -> String {
    list_text(&list.iter().map(ToString::to_string).collect::<Vec<_>>())
}

fn contacts(account: &Account) -> String {
    let texts = account.contacts.iter().map(Contact::as_str);
    list_text(&texts.map(str::to_owned).collect::<Vec<_>>())
}

fn challenges(authorization: &Authorization) -> Result<String> {
    serde_json::to_string(&authorization.challenges).map_err(|e| StoreError::Corrupt(e.to_string()))
}

#[async_trait]
impl AcmeStore for SqlStore {
    async fn add_acme_key(&self, key: &AcmeKey) -> Result<()> {
        sqlx::query(
            "INSERT INTO acme_keys (kid, tenant_id, identity, profiles, wrapped, created_by,
                 created_ms)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(key.kid.as_str().to_owned())
        .bind(key.tenant.0.to_vec())
        .bind(key.identity.to_string())
        .bind(texts(&key.profiles))
        .bind(key.wrapped.0.to_vec())
        .bind(key.created_by.clone())
        .bind(key.created_ms)
        .execute(&self.pool.get())
        .await
        .map_err(taken)?;
        Ok(())
    }

    async fn acme_key(&self, tenant: TenantId, kid: &AcmeId) -> Result<Option<AcmeKey>> {
        let row: Option<AcmeKeyRow> = sqlx::query_as(
            "SELECT kid, tenant_id, identity, profiles, wrapped, created_by, created_ms
             FROM acme_keys WHERE tenant_id = $1 AND kid = $2",
        )
        .bind(tenant.0.to_vec())
        .bind(kid.as_str().to_owned())
        .fetch_optional(&self.pool.get())
        .await
        .map_err(unavailable)?;
        row.map(AcmeKeyRow::key).transpose()
    }

    async fn acme_profiles(&self, tenant: TenantId) -> Result<Vec<String>> {
        let lists: Vec<String> =
            sqlx::query_scalar("SELECT DISTINCT profiles FROM acme_keys WHERE tenant_id = $1")
                .bind(tenant.0.to_vec())
                .fetch_all(&self.pool.get())
                .await
                .map_err(unavailable)?;
        let mut all = std::collections::BTreeSet::new();
        for text in lists {
            all.extend(list(&text)?);
        }
        Ok(all.into_iter().collect())
    }

    async fn add_account(&self, account: &Account) -> Result<()> {
        sqlx::query(
            "INSERT INTO acme_accounts (id, tenant_id, thumbprint, jwk, status, contacts, kid,
                 created_ms)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind(account.id.as_str().to_owned())
        .bind(account.tenant.0.to_vec())
        .bind(account.key.thumbprint())
        .bind(account.key.canonical().to_owned())
        .bind(account.status.name().to_owned())
        .bind(contacts(account))
        .bind(account.kid.as_str().to_owned())
        .bind(account.created_ms)
        .execute(&self.pool.get())
        .await
        .map_err(taken)?;
        Ok(())
    }

    async fn change_account(&self, next: &Account) -> Result<()> {
        let changed = sqlx::query(
            "UPDATE acme_accounts SET status = $1, contacts = $2, jwk = $3, thumbprint = $4
             WHERE id = $5 AND status = 'valid'",
        )
        .bind(next.status.name().to_owned())
        .bind(contacts(next))
        .bind(next.key.canonical().to_owned())
        .bind(next.key.thumbprint())
        .bind(next.id.as_str().to_owned())
        .execute(&self.pool.get())
        .await
        .map_err(taken)?;
        one(changed.rows_affected())
    }

    async fn account(&self, tenant: TenantId, id: &AcmeId) -> Result<Option<Account>> {
        let row: Option<AccountRow> = sqlx::query_as(sql(ACCOUNT, "id = $2"))
            .bind(tenant.0.to_vec())
            .bind(id.as_str().to_owned())
            .fetch_optional(&self.pool.get())
            .await
            .map_err(unavailable)?;
        row.map(AccountRow::account).transpose()
    }

    async fn account_by_key(&self, tenant: TenantId, thumbprint: &str) -> Result<Option<Account>> {
        let row: Option<AccountRow> = sqlx::query_as(sql(ACCOUNT, "thumbprint = $2"))
            .bind(tenant.0.to_vec())
            .bind(thumbprint.to_owned())
            .fetch_optional(&self.pool.get())
            .await
            .map_err(unavailable)?;
        row.map(AccountRow::account).transpose()
    }

    async fn add_order(&self, order: &Order, authorizations: &[Authorization]) -> Result<()> {
        atomically!(self, tx => {
            let replaces = certificate_bytes(order.replaces.as_ref());
            if !replaces.is_empty() {
                let taken: Option<i64> = sqlx::query_scalar(
                    "SELECT COUNT(*) FROM acme_orders WHERE replaces = $1
                     AND length(replaces) > 0 AND (length(serial) > 0 OR (failure = '' AND expires_ms > $2))",
                )
                .bind(replaces.clone())
                .bind(order.created_ms)
                .fetch_one(&mut *tx)
                .await
                .map_err(unavailable)?;
                if taken != Some(0) {
                    return Err(StoreError::Exists);
                }
            }
            for authorization in authorizations {
                sqlx::query(
                    "INSERT INTO acme_authorizations (id, account_id, name, profile, status,
                         challenges, expires_ms, revision)
                     VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
                )
                .bind(authorization.id.as_str().to_owned())
                .bind(authorization.account.as_str().to_owned())
                .bind(authorization.name.to_string())
                .bind(authorization.profile.as_str().to_owned())
                .bind(authorization.status.name().to_owned())
                .bind(challenges(authorization)?)
                .bind(authorization.expires_ms)
                .bind(authorization.revision)
                .execute(&mut *tx)
                .await
                .map_err(taken)?;
            }
            sqlx::query(
                "INSERT INTO acme_orders (id, account_id, profile, names, authorizations, issuer_id,
                     serial, failure, replaces, expires_ms, created_ms)
                 VALUES ($1, $2, $3, $4, $5, $6, $6, '', $7, $8, $9)",
            )
            .bind(order.id.as_str().to_owned())
            .bind(order.account.as_str().to_owned())
            .bind(order.profile.as_str().to_owned())
            .bind(texts(&order.names))
            .bind(texts(&order.authorizations))
            .bind(Vec::new())
            .bind(replaces)
            .bind(order.expires_ms)
            .bind(order.created_ms)
            .execute(&mut *tx)
            .await
            .map_err(taken)?;
            Ok(())
        })
    }

    async fn decide_order(&self, next: &Order) -> Result<()> {
        let (issuer, serial, failure) = match &next.outcome {
            Outcome::Open => (Vec::new(), Vec::new(), String::new()),
            Outcome::Failed(why) => (Vec::new(), Vec::new(), why.clone()),
            Outcome::Issued(name) => (
                name.issuer.0.to_vec(),
                name.serial.as_bytes().to_vec(),
                String::new(),
            ),
        };
        let changed = sqlx::query(
            "UPDATE acme_orders SET issuer_id = $1, serial = $2, failure = $3
             WHERE id = $4 AND length(serial) = 0 AND failure = ''",
        )
        .bind(issuer)
        .bind(serial)
        .bind(failure)
        .bind(next.id.as_str().to_owned())
        .execute(&self.pool.get())
        .await
        .map_err(unavailable)?;
        one(changed.rows_affected())
    }

    async fn order(&self, account: &AcmeId, id: &AcmeId) -> Result<Option<Order>> {
        let row: Option<OrderRow> = sqlx::query_as(sql(ORDER, "account_id = $1 AND id = $2"))
            .bind(account.as_str().to_owned())
            .bind(id.as_str().to_owned())
            .fetch_optional(&self.pool.get())
            .await
            .map_err(unavailable)?;
        row.map(OrderRow::order).transpose()
    }

    async fn orders(&self, account: &AcmeId, limit: u32) -> Result<Vec<AcmeId>> {
        let ids: Vec<String> = sqlx::query_scalar(
            "SELECT id FROM acme_orders WHERE account_id = $1 ORDER BY created_ms DESC, id LIMIT $2",
        )
        .bind(account.as_str().to_owned())
        .bind(i64::from(limit))
        .fetch_all(&self.pool.get())
        .await
        .map_err(unavailable)?;
        let id = |text: &String| {
            AcmeId::parse(text).ok_or_else(|| StoreError::Corrupt("acme order".into()))
        };
        ids.iter().map(id).collect()
    }

    async fn order_of(&self, certificate: &CertificateRef) -> Result<Option<Order>> {
        let row: Option<OrderRow> = sqlx::query_as(sql(ORDER, "issuer_id = $1 AND serial = $2"))
            .bind(certificate.issuer.0.to_vec())
            .bind(certificate.serial.as_bytes().to_vec())
            .fetch_optional(&self.pool.get())
            .await
            .map_err(unavailable)?;
        row.map(OrderRow::order).transpose()
    }

    async fn change_authorization(&self, next: &Authorization) -> Result<()> {
        let changed = sqlx::query(
            "UPDATE acme_authorizations SET status = $1, challenges = $2, revision = $3
             WHERE id = $4 AND revision = $5",
        )
        .bind(next.status.name().to_owned())
        .bind(challenges(next)?)
        .bind(next.revision)
        .bind(next.id.as_str().to_owned())
        .bind(next.revision - 1)
        .execute(&self.pool.get())
        .await
        .map_err(unavailable)?;
        one(changed.rows_affected())
    }

    async fn authorization(&self, account: &AcmeId, id: &AcmeId) -> Result<Option<Authorization>> {
        let row: Option<AuthorizationRow> = sqlx::query_as(
            "SELECT id, account_id, name, profile, status, challenges, expires_ms, revision
             FROM acme_authorizations WHERE account_id = $1 AND id = $2",
        )
        .bind(account.as_str().to_owned())
        .bind(id.as_str().to_owned())
        .fetch_optional(&self.pool.get())
        .await
        .map_err(unavailable)?;
        row.map(AuthorizationRow::authorization).transpose()
    }

    async fn has_control(&self, account: &AcmeId, name: &str, now_ms: i64) -> Result<bool> {
        let valid: i64 = sqlx::query_scalar(
            "SELECT COUNT(*) FROM acme_authorizations
             WHERE account_id = $1 AND name = $2 AND status = 'valid' AND expires_ms > $3",
        )
        .bind(account.as_str().to_owned())
        .bind(name.to_owned())
        .bind(now_ms)
        .fetch_one(&self.pool.get())
        .await
        .map_err(unavailable)?;
        Ok(valid > 0)
    }
}
