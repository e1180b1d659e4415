//! Everything from the embedded store into an empty database, and the proof that it is all
//! there. The embedded store itself says which tables and columns there are: no list in
//! which a new one could be forgotten.

use std::collections::HashSet;

use futures_util::TryStreamExt;
use sha2::{Digest, Sha256};
use sqlx::{
    Any, AssertSqlSafe, Row, Transaction,
    any::{AnyArguments, AnyRow},
    query::Query,
};

use super::{SqlStore, unavailable};
use crate::store::{Result, StoreError};

/// How many rows a table has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    /// Its name.
    pub table: String,
    /// In both stores.
    pub rows: u64,
}

/// Why the copy is not there, or not good.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// Somebody's data.
    #[error("table {0} of the database is not empty; name an empty database. Nothing was changed")]
    NotEmpty(String),
    /// After the copy.
    #[error(
        "table {table} is not the same in both: {missing} rows of the embedded store are missing or different, {extra} rows of the database are not in it. Drop the database, create it anew and start over; the embedded store is as it was"
    )]
    Different {
        /// Its name.
        table: String,
        /// Rows without a twin in the database.
        missing: usize,
        /// Rows without a twin in the embedded store.
        extra: usize,
    },
    /// One of the two.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What `STRICT` tables hold.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Bytes,
    Text,
    Number,
}

enum Value {
    Bytes(Vec<u8>),
    Text(String),
    Number(i64),
}

struct Table {
    name: String,
    columns: Vec<(String, Kind)>,
}

/// In one statement; a database takes 65,535 values in one.
const ROWS: usize = 500;

/// Copies all rows in one transaction.
///
/// # Errors
/// [`TransferError::NotEmpty`], or what a store says; the database is as it was then.
pub async fn copy(from: &SqlStore, to: &SqlStore) -> Result<(), TransferError> {
    let mut source = from.read().await?;
    let tables = tables(&mut source).await?;
    let mut target = to.write().await?;
    for table in &tables {
        let any = format!("SELECT 1 FROM \"{}\" LIMIT 1", table.name);
        let row = sqlx::query(AssertSqlSafe(any));
        let row = row.fetch_optional(&mut *target).await;
        if row.map_err(unavailable)?.is_some() {
            return Err(TransferError::NotEmpty(table.name.clone()));
        }
    }
    for table in &tables {
        let mut rows = sqlx::query(AssertSqlSafe(table.select())).fetch(&mut *source);
        let mut some = Vec::new();
        while let Some(row) = rows.try_next().await.map_err(unavailable)? {
            some.push(table.values(&row)?);
            if some.len() == ROWS {
                table.insert(&mut target, std::mem::take(&mut some)).await?;
            }
        }
        table.insert(&mut target, some).await?;
    }
    target.commit().await.map_err(unavailable)?;
    Ok(())
}

/// Reads both, row by row.
///
/// # Errors
/// [`TransferError::Different`], or what a store says.
pub async fn compare(from: &SqlStore, to: &SqlStore) -> Result<Vec<Counted>, TransferError> {
    let mut source = from.read().await?;
    let mut target = to.read().await?;
    let mut counted = Vec::new();
    for table in tables(&mut source).await? {
        // 32 bytes for each row, so that it need not matter in which order they come.
        let mut left = HashSet::new();
        let mut rows = sqlx::query(AssertSqlSafe(table.select())).fetch(&mut *source);
        while let Some(row) = rows.try_next().await.map_err(unavailable)? {
            left.insert(digest(&table.values(&row)?));
        }
        let (all, mut extra) = (left.len(), 0);
        let mut rows = sqlx::query(AssertSqlSafe(table.select())).fetch(&mut *target);
        while let Some(row) = rows.try_next().await.map_err(unavailable)? {
            extra += usize::from(!left.remove(&digest(&table.values(&row)?)));
        }
        if !left.is_empty() || extra > 0 {
            return Err(TransferError::Different {
                table: table.name,
                missing: left.len(),
                extra,
            });
        }
        counted.push(Counted {
            table: table.name,
            rows: all as u64,
        });
    }
    Ok(counted)
}

/// In the order in which they were made: what is referred to comes first.
async fn tables(source: &mut Transaction<'static, Any>) -> Result<Vec<Table>> {
    let names: Vec<String> = sqlx::query_scalar(
        "SELECT name FROM sqlite_master WHERE type = 'table'
             AND substr(name, 1, 7) <> 'sqlite_' AND substr(name, 1, 6) <> '_sqlx_'
         ORDER BY rowid",
    )
    .fetch_all(&mut **source)
    .await
    .map_err(unavailable)?;
    let mut tables = Vec::new();
    for name in names {
        let columns: Vec<(String, String)> =
            sqlx::query_as("SELECT name, type FROM pragma_table_info($1) ORDER BY cid")
                .bind(name.clone())
                .fetch_all(&mut **source)
                .await
                .map_err(unavailable)?;
        let kind = |(column, kind): (String, String)| {
            let kind = match kind.as_str() {
                "BLOB" => Kind::Bytes,
                "TEXT" => Kind::Text,
                "INTEGER" => Kind::Number,
                _ => return Err(StoreError::Corrupt(format!("{name}.{column}: {kind}"))),
            };
            Ok((column, kind))
        };
        let columns = columns.into_iter().map(kind).collect::<Result<_>>()?;
        tables.push(Table { name, columns });
    }
    Ok(tables)
}

impl Table {
    fn columns(&self) -> String {
        let quoted = self.columns.iter().map(|(name, _)| format!("\"{name}\""));
        quoted.collect::<Vec<_>>().join(", ")
    }

    fn select(&self) -> String {
        format!("SELECT {} FROM \"{}\"", self.columns(), self.name)
    }

    fn values(&self, row: &AnyRow) -> Result<Vec<Value>> {
        let value = |(i, (_, kind)): (usize, &(String, Kind))| {
            Ok(match kind {
                Kind::Bytes => Value::Bytes(row.try_get(i)?),
                Kind::Text => Value::Text(row.try_get(i)?),
                Kind::Number => Value::Number(row.try_get(i)?),
            })
        };
        let values = self.columns.iter().enumerate().map(value);
        let values: sqlx::Result<_> = values.collect();
        values.map_err(|e| StoreError::Corrupt(format!("{}: {e}", self.name)))
    }

    async fn insert(
        &self,
        target: &mut Transaction<'static, Any>,
        rows: Vec<Vec<Value>>,
    ) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let places = super::places(rows.len(), self.columns.len());
        let (name, columns) = (&self.name, self.columns());
        let text = format!("INSERT INTO \"{name}\" ({columns}) VALUES {places}");
        let query = sqlx::query(AssertSqlSafe(text));
        let query = rows.into_iter().flatten().fold(query, bind);
        query.execute(&mut **target).await.map_err(unavailable)?;
        Ok(())
    }
}

fn bind(query: Query<'_, Any, AnyArguments>, value: Value) -> Query<'_, Any, AnyArguments> {
    match value {
        Value::Bytes(bytes) => query.bind(bytes),
        Value::Text(text) => query.bind(text),
        Value::Number(number) => query.bind(number),
    }
}

fn digest(row: &[Value]) -> [u8; 32] {
    let mut hash = Sha256::new();
    let mut add = |kind: u8, bytes: &[u8]| {
        hash.update([kind]);
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    };
    for value in row {
        match value {
            Value::Bytes(bytes) => add(0, bytes),
            Value::Text(text) => add(1, text.as_bytes()),
            Value::Number(number) => add(2, &number.to_be_bytes()),
        }
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{
        PkiStore, PostgresStore, PostgresUrl, Search, SqliteStore, Store, conformance,
        server::Postgres,
    };

    /// All that a store says when it is asked.
    async fn said(store: &SqlStore) -> String {
        let tenant = conformance::tenant().id;
        let all = Search {
            limit: 1000,
            ..Search::default()
        };
        let certificates = store.search(tenant, &all).await.unwrap();
        assert!(certificates.len() > 40);
        let acme = conformance::acme::said(store).await;
        let contents = store.load().await.unwrap();
        let authorities = store.load_authorities().await.unwrap();
        format!("{contents:?} {authorities:?} {certificates:?} {acme}")
    }

    #[tokio::test]
    async fn everything_arrives_once_and_what_is_not_the_same_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keywright.db");
        let reopen = || async { SqliteStore::open(&path).await.unwrap() };
        conformance::run(&reopen).await;
        let from = reopen().await;
        let server = Postgres::shared();
        let url = PostgresUrl::parse(&server.create_database("moved")).unwrap();
        let to = PostgresStore::open(&url, None).await.unwrap();

        copy(&from, &to).await.unwrap();
        let counted = compare(&from, &to).await.unwrap();
        assert_eq!(counted.len(), 20);
        assert!(counted.iter().all(|c| c.rows > 0), "{counted:?}");
        assert_eq!(said(&from).await, said(&to).await);

        let e = copy(&from, &to).await.unwrap_err();
        assert!(matches!(&e, TransferError::NotEmpty(table) if table == "tenants"));
        for (edit, back, expected) in [
            (
                "UPDATE keys SET labels = '{\"x\":\"y\"}' WHERE name = 'finished'",
                "UPDATE keys SET labels = '{\"team\":\"payments\"}' WHERE name = 'finished'",
                ("keys", 1, 1),
            ),
            (
                "UPDATE key_versions SET proof = proof || '\\x00' WHERE wraps_reserved = 0",
                "UPDATE key_versions SET proof = substr(proof, 1, length(proof) - 1) WHERE wraps_reserved = 0",
                ("key_versions", 1, 1),
            ),
            (
                "INSERT INTO facts VALUES ('x', '')",
                "DELETE FROM facts WHERE name = 'x'",
                ("facts", 0, 1),
            ),
            ("DELETE FROM intents", "", ("intents", 1, 0)),
        ] {
            server.sql("moved", edit);
            let e = compare(&from, &to).await.unwrap_err();
            let TransferError::Different {
                table,
                missing,
                extra,
            } = e
            else {
                panic!("{e}")
            };
            assert_eq!((table.as_str(), missing, extra), expected);
            if !back.is_empty() {
                server.sql("moved", back);
                compare(&from, &to).await.unwrap();
            }
        }
    }
}
