//! Seals all rows as they are: when an appliance begins to, and when somebody accepts a
//! store that somebody else changed.

use keywright_hsm::WrappedDek;
use sha2::{Digest, Sha256};
use sqlx::{Any, AssertSqlSafe, Transaction};

use super::{
    KEYS, ROWS_KEY, SqlStore, TENANTS, VERSIONS,
    nodes::CLUSTER,
    pki::{ISSUERS, PROFILE},
    row::{
        KeyRow, TenantRow, VersionRow,
        pki::{IssuerRow, ProfileRow},
    },
    taken, unavailable, with_versions,
};
use crate::store::{
    Result, SealedState, StoreError,
    seal::{Sealed, Sealer},
};

/// One row to be sealed: what is in it, its seal as it is, its table and how it is found.
struct Found {
    row: Box<dyn Sealed + Send + Sync>,
    seal: Vec<u8>,
    table: &'static str,
    key: Vec<Value>,
}

enum Value {
    Bytes(&'static str, Vec<u8>),
    Text(&'static str, String),
    Number(&'static str, i64),
}

impl Value {
    const fn column(&self) -> &'static str {
        match self {
            Self::Bytes(column, _) | Self::Text(column, _) | Self::Number(column, _) => column,
        }
    }
}

/// Names of those that were not sealed so before.
pub(super) async fn seal_all(
    store: &SqlStore,
    sealer: &Sealer,
    key: Option<&WrappedDek>,
    state: Option<[u8; 32]>,
) -> Result<Vec<String>> {
    let _turn = store.turn().await;
    atomically!(store, tx => {
        let all = all(&mut tx).await?;
        if state.is_some_and(|state| state != digest(&all)) {
            return Err(StoreError::Conflict);
        }
        if let Some(key) = key {
            sqlx::query("INSERT INTO facts (name, value) VALUES ($1, $2)")
                .bind(ROWS_KEY)
                .bind(key.0.to_vec())
                .execute(&mut *tx)
                .await
                .map_err(taken)?;
        }
        let mut others = Vec::new();
        for found in all {
            if sealer.check(found.row.as_ref(), &found.seal).is_ok() {
                continue;
            }
            others.push(found.row.called());
            write(sealer, &mut tx, found).await?;
        }
        Ok(others)
    })
}

/// What is there, and changes nothing.
pub(super) async fn state(store: &SqlStore, sealer: Option<&Sealer>) -> Result<SealedState> {
    let mut tx = store.read().await?;
    let all = all(&mut tx).await?;
    let ours = |f: &&Found| sealer.is_some_and(|s| s.check(f.row.as_ref(), &f.seal).is_ok());
    let others = all.iter().filter(|found| !ours(found));
    Ok(SealedState {
        others: others.map(|found| found.row.called()).collect(),
        digest: digest(&all),
    })
}

/// Over what the seals are over, in the order in which it is read.
fn digest(all: &[Found]) -> [u8; 32] {
    let sealer = Sealer::open();
    let mut hash = Sha256::new();
    for found in all {
        hash.update(sealer.seal(found.row.as_ref()));
    }
    hash.finalize().into()
}

async fn all(tx: &mut Transaction<'static, Any>) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    let tenants: Vec<TenantRow> = rows(tx, TENANTS).await?;
    for tenant in tenants {
        let (tenant, seal) = tenant.tenant()?;
        let key = vec![Value::Bytes("id", tenant.id.0.to_vec())];
        found.push(Found::new(tenant, seal, "tenants", key));
    }
    let keys: Vec<KeyRow> = rows(tx, &format!("{KEYS} ORDER BY id")).await?;
    let versions = format!("{VERSIONS} ORDER BY key_id, number");
    let versions: Vec<VersionRow> = rows(tx, &versions).await?;
    for (key, seal) in with_versions(keys, versions)? {
        let id = vec![Value::Bytes("id", key.id.0.to_vec())];
        found.push(Found::new(key, seal, "keys", id));
    }
    let issuers: Vec<IssuerRow> = rows(tx, ISSUERS).await?;
    for issuer in issuers {
        let (issuer, seal) = issuer.issuer()?;
        let key = vec![Value::Bytes("id", issuer.id.0.to_vec())];
        found.push(Found::new(issuer, seal, "issuers", key));
    }
    let profiles: Vec<ProfileRow> = rows(tx, PROFILE).await?;
    for profile in profiles {
        let (profile, seal) = profile.profile()?;
        let key = vec![
            Value::Bytes("tenant_id", profile.tenant.0.to_vec()),
            Value::Text("name", profile.name.as_str().to_owned()),
            Value::Number("version", profile.version.into()),
        ];
        found.push(Found::new(profile, seal, "profiles", key));
    }
    let epochs: Vec<(i64, i64, Vec<u8>)> = rows(tx, CLUSTER).await?;
    for row in epochs {
        let (epochs, seal) = super::nodes::epochs_of(row)?;
        found.push(Found::new(
            epochs,
            seal,
            "cluster",
            vec![Value::Number("id", 0)],
        ));
    }
    Ok(found)
}

impl Found {
    fn new(
        row: impl Sealed + Send + Sync + 'static,
        seal: Vec<u8>,
        table: &'static str,
        key: Vec<Value>,
    ) -> Self {
        let row = Box::new(row);
        Self {
            row,
            seal,
            table,
            key,
        }
    }
}

async fn rows<T>(tx: &mut Transaction<'static, Any>, text: &str) -> Result<Vec<T>>
where
    T: for<'r> sqlx::FromRow<'r, sqlx::any::AnyRow> + Send + Unpin,
{
    sqlx::query_as(AssertSqlSafe(text.to_owned()))
        .fetch_all(&mut **tx)
        .await
        .map_err(unavailable)
}

async fn write(sealer: &Sealer, tx: &mut Transaction<'static, Any>, found: Found) -> Result<()> {
    let condition: Vec<String> = (2..)
        .zip(&found.key)
        .map(|(place, value)| format!("{} = ${place}", value.column()))
        .collect();
    let (table, condition) = (found.table, condition.join(" AND "));
    let text = format!("UPDATE {table} SET seal = $1 WHERE {condition}");
    let mut query = sqlx::query(AssertSqlSafe(text)).bind(sealer.seal(found.row.as_ref()));
    for value in found.key {
        query = match value {
            Value::Bytes(_, bytes) => query.bind(bytes),
            Value::Text(_, text) => query.bind(text),
            Value::Number(_, number) => query.bind(number),
        };
    }
    let sealed = query.execute(&mut **tx).await.map_err(unavailable)?;
    match sealed.rows_affected() {
        1 => Ok(()),
        _ => Err(StoreError::Conflict),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        authority::AuthorityName,
        store::{
            PkiStore, SqliteStore, Store,
            conformance::{key, pki, sealer, tenant},
        },
    };

    async fn store(dir: &tempfile::TempDir) -> SqlStore {
        SqliteStore::open(&dir.path().join("keywright.db"))
            .await
            .unwrap()
    }

    async fn filled(store: &SqlStore) {
        store.add_tenant(&tenant()).await.unwrap();
        store.create_key(&key(1, "a/b")).await.unwrap();
        store.create_key(&key(2, "c/d")).await.unwrap();
        store.add_issuer(&pki::issuer()).await.unwrap();
        store.add_profile(&pki::profile()).await.unwrap();
    }

    async fn run(store: &SqlStore, text: &str) {
        let query = sqlx::query(AssertSqlSafe(text.to_owned()));
        let done = query.execute(&store.pool.get()).await.unwrap();
        assert_eq!(done.rows_affected(), 1, "{text}");
    }

    #[tokio::test]
    async fn what_somebody_else_changed_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(&dir).await;
        store.seal_with(sealer());
        filled(&store).await;
        for (edit, back, found) in [
            (
                "UPDATE keys SET labels = '{}' WHERE name = 'a/b'",
                "UPDATE keys SET labels = '{\"team\":\"payments\"}' WHERE name = 'a/b'",
                "key a/b",
            ),
            (
                "UPDATE key_versions SET state = 'suspended' WHERE key_id IN
                     (SELECT id FROM keys WHERE name = 'c/d')",
                "UPDATE key_versions SET state = 'active' WHERE state = 'suspended'",
                "key c/d",
            ),
            (
                "UPDATE tenants SET name = 'ours'",
                "UPDATE tenants SET name = 'payments'",
                "tenant ours",
            ),
            (
                "UPDATE cluster SET epoch = epoch + 1",
                "UPDATE cluster SET epoch = epoch - 1",
                "the epoch of the store",
            ),
        ] {
            run(&store, edit).await;
            let e = store.load().await.unwrap_err().to_string();
            assert!(e.contains(&format!("row of {found} is not")), "{e}");
            run(&store, back).await;
            store.load().await.unwrap();
        }
        run(
            &store,
            "UPDATE issuers SET may_sign_crls = 1 - may_sign_crls",
        )
        .await;
        let e = store.load_authorities().await.unwrap_err().to_string();
        assert!(e.contains("row of issuer int-a is not"), "{e}");
        run(
            &store,
            "UPDATE issuers SET may_sign_crls = 1 - may_sign_crls",
        )
        .await;
        run(&store, "UPDATE profiles SET text = text || ' '").await;
        let e = store.load_authorities().await.unwrap_err().to_string();
        assert!(e.contains("version 1 of profile p is not"), "{e}");
        // Nor is it sealed on the way.
        let name = AuthorityName::parse("p").unwrap();
        store
            .retire_profile(tenant().id, &name, 5)
            .await
            .unwrap_err();
        run(&store, "UPDATE cluster SET epoch = epoch + 1").await;
        store.create_key(&key(3, "e/f")).await.unwrap_err();
    }

    #[tokio::test]
    async fn a_row_does_not_pass_for_another() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(&dir).await;
        store.seal_with(sealer());
        filled(&store).await;
        let other = "(SELECT seal FROM keys WHERE name = 'c/d')";
        run(
            &store,
            &format!("UPDATE keys SET seal = {other} WHERE name = 'a/b'"),
        )
        .await;
        store.load().await.unwrap_err();
    }

    #[tokio::test]
    async fn all_that_is_there_can_be_sealed() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(&dir).await;
        filled(&store).await;
        let key = WrappedDek([1; 60]);
        let sealed = store.seal_all(&sealer(), Some(&key)).await.unwrap();
        let again = store.seal_all(&sealer(), Some(&WrappedDek([2; 60]))).await;
        assert!(matches!(again, Err(StoreError::Exists)));
        store.seal_with(sealer());
        let all = [
            "tenant payments",
            "key a/b",
            "key c/d",
            "issuer int-a",
            "version 1 of profile p",
            "the epoch of the store",
        ];
        assert_eq!(sealed, all);
        assert_eq!(store.load().await.unwrap().rows_key, Some(key));
        store.load_authorities().await.unwrap();
        let again = store.seal_all(&sealer(), None).await.unwrap();
        assert!(again.is_empty(), "{again:?}");
        let before = store.sealed_state(Some(&sealer())).await.unwrap();
        assert!(before.others.is_empty());
        let unsealed = store.sealed_state(None).await.unwrap();
        assert_eq!(
            (unsealed.others.len(), unsealed.digest),
            (all.len(), before.digest)
        );
        run(&store, "UPDATE keys SET revision = 9 WHERE name = 'a/b'").await;
        store.load().await.unwrap_err();
        let edited = store.sealed_state(Some(&sealer())).await.unwrap();
        assert_eq!(edited.others, ["key a/b"]);
        assert_ne!(edited.digest, before.digest);
        // Only the state that somebody said yes to.
        let other = store.seal_state(&sealer(), None, before.digest).await;
        assert!(matches!(other, Err(StoreError::Conflict)));
        store.load().await.unwrap_err();
        let sealed = store.seal_state(&sealer(), None, edited.digest).await;
        let sealed = sealed.unwrap();
        assert_eq!(sealed, ["key a/b"]);
    }
}
