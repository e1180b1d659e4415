//! The store for many nodes: a PostgreSQL database, or one that speaks like it.
//!
//! Passwords come beside the address and never in it, so that the address can be shown.

mod url;

use std::time::Duration;

use sqlx::{AnyConnection, Connection, any::AnyPoolOptions};
use tokio::time::timeout;
use zeroize::Zeroizing;

pub use self::url::PostgresUrl;
use super::{
    Result, StoreError,
    sql::{Dialect, Pool, SqlStore, migrations, not_migrated, unavailable},
};

/// Opens a PostgreSQL database.
#[derive(Debug)]
pub enum PostgresStore {}

const MIGRATIONS: [(&str, &str); 3] = [
    (
        "tables",
        include_str!("../../migrations/postgres/0001_tables.sql"),
    ),
    (
        "seals",
        include_str!("../../migrations/postgres/0002_seals.sql"),
    ),
    (
        "data keys",
        include_str!("../../migrations/postgres/0003_data_keys.sql"),
    ),
];

/// Whoever waits longer than this gets an error instead.
const PATIENCE: Duration = Duration::from_secs(5);
const CONNECTIONS: u32 = 8;
/// Of leases: one for them, and one for who asks who is first.
const BEAT_CONNECTIONS: u32 = 3;
const BEAT_PATIENCE: Duration = Duration::from_secs(1);
/// A node that stands still must not hold back the others, whatever the database thinks
/// of patience: between two statements of a transaction are microseconds. A statement by
/// itself needs no more than "read committed".
const SETTINGS: &str = "SET statement_timeout = '30s'; SET lock_timeout = '5s';
    SET idle_in_transaction_session_timeout = '2s';
    SET default_transaction_isolation = 'read committed'";

impl PostgresStore {
    /// Connects and brings the schema up to date. Nodes that do so at the same time wait
    /// for each other: sqlx takes an advisory lock for it.
    ///
    /// # Errors
    /// [`StoreError::Newer`] for a schema of a newer release, else
    /// [`StoreError::Unavailable`].
    pub async fn open(url: &PostgresUrl, password: Option<&str>) -> Result<SqlStore> {
        // By itself first: a pool would only say that it waited, and migrations take
        // their time.
        let mut first = connect(url, password).await?;
        let migrated = migrations(&MIGRATIONS).run(&mut first).await;
        migrated.map_err(not_migrated)?;
        first.close().await.map_err(unavailable)?;
        let address = Zeroizing::new(url.with_password(password));
        let pool = |most, patience| {
            let address = address.clone();
            let pool = Pool::new(move || {
                AnyPoolOptions::new()
                    .max_connections(most)
                    .acquire_timeout(patience)
                    .after_connect(|connection, _| {
                        Box::pin(async move {
                            sqlx::raw_sql(SETTINGS).execute(connection).await?;
                            Ok(())
                        })
                    })
                    .connect_lazy(&address)
            });
            pool.map_err(unavailable)
        };
        let beats = pool(BEAT_CONNECTIONS, BEAT_PATIENCE)?;
        Ok(SqlStore::new(
            Dialect::Postgres,
            pool(CONNECTIONS, PATIENCE)?,
            beats,
        ))
    }

    /// Connects and changes nothing: would it let us in, and write?
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] with what to change.
    pub async fn probe(url: &PostgresUrl, password: Option<&str>) -> Result<()> {
        let connection = connect(url, password).await?;
        connection.close().await.map_err(unavailable)
    }
}

async fn connect(url: &PostgresUrl, password: Option<&str>) -> Result<AnyConnection> {
    sqlx::any::install_default_drivers();
    let address = url.with_password(password);
    let connected = timeout(PATIENCE, AnyConnection::connect(&address)).await;
    let no_answer = |_| StoreError::Unavailable(format!("no answer within {PATIENCE:?}"));
    let mut connection = connected.map_err(no_answer)?.map_err(not_connected)?;
    for (setting, refused, advice) in [
        (
            "transaction_read_only",
            "on",
            "the database is read-only: a standby, or default_transaction_read_only is on; name the primary, or set it off",
        ),
        (
            "synchronous_commit",
            "off",
            "synchronous_commit is off: a crash of the database would lose what was acknowledged; set it on",
        ),
    ] {
        // The names are those above.
        let show = sqlx::AssertSqlSafe(format!("SHOW {setting}"));
        let value: String = sqlx::query_scalar(show)
            .fetch_one(&mut connection)
            .await
            .map_err(unavailable)?;
        if value == refused {
            return Err(StoreError::Unavailable(advice.to_owned()));
        }
    }
    Ok(connection)
}

/// What the server says, and who must act.
fn not_connected(e: sqlx::Error) -> StoreError {
    let code = e.as_database_error().and_then(|d| d.code());
    let advice = match (code.as_deref(), &e) {
        (Some("28P01" | "28000"), _) => {
            "correct the password file, or the database's users and pg_hba.conf"
        }
        (Some("3D000"), _) => "create it: CREATE DATABASE … OWNER …",
        (_, sqlx::Error::Io(_)) => "see that it runs and that the address is right",
        (_, sqlx::Error::Tls(_)) => "see sslmode and sslrootcert, and the server's certificate",
        _ => return unavailable(e),
    };
    StoreError::Unavailable(format!("{e}; {advice}"))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::store::{
        Store, conformance,
        server::{GUARDED, Postgres},
    };

    fn url(text: &str) -> PostgresUrl {
        PostgresUrl::parse(text).unwrap()
    }

    async fn refused(text: &str, password: Option<&str>) -> String {
        let e = PostgresStore::open(&url(text), password).await.unwrap_err();
        assert!(matches!(e, StoreError::Unavailable(_)), "{e:?}");
        format!("{e} {e:?}")
    }

    #[tokio::test]
    async fn conforms() {
        let url = url(&Postgres::shared().create_database("conforms"));
        let reopen = || async { PostgresStore::open(&url, None).await.unwrap() };
        conformance::run(&reopen).await;
    }

    #[tokio::test]
    async fn nodes_that_start_at_once_make_the_schema_once() {
        let url = url(&Postgres::shared().create_database("at_once"));
        let open = || async { PostgresStore::open(&url, None).await.unwrap() };
        let all = futures_util::future::join_all((0..6).map(|_| open())).await;
        for store in all {
            assert!(store.load().await.unwrap().keys.is_empty());
        }
    }

    #[tokio::test]
    async fn a_schema_of_a_newer_release_is_refused() {
        let server = Postgres::shared();
        let url = url(&server.create_database("newer"));
        drop(PostgresStore::open(&url, None).await.unwrap());
        server.sql(
            "newer",
            "INSERT INTO _sqlx_migrations VALUES (9999, 'future', now(), true, '', 0)",
        );
        let e = PostgresStore::open(&url, None).await.unwrap_err();
        assert!(matches!(e, StoreError::Newer(9999)), "{e}");
    }

    #[tokio::test]
    async fn a_database_that_does_not_keep_what_it_takes_is_refused() {
        let server = Postgres::shared();
        let text = server.create_database("careless");
        for (setting, word) in [
            ("default_transaction_read_only = on", "read-only"),
            ("synchronous_commit = off", "synchronous_commit"),
        ] {
            server.sql("postgres", "ALTER DATABASE careless RESET ALL");
            let alter = format!("ALTER DATABASE careless SET {setting}");
            server.sql("postgres", &alter);
            let e = refused(&text, None).await;
            assert!(e.contains(word), "{e}");
        }
    }

    #[tokio::test]
    async fn who_does_not_come_in_hears_why_and_never_a_password() {
        let server = Postgres::shared();
        server.create_database("locked");
        let role = format!("CREATE ROLE {GUARDED} LOGIN PASSWORD 'the right one &%'");
        server.sql("postgres", &role);
        server.sql(
            "locked",
            &format!("GRANT CREATE ON SCHEMA public TO {GUARDED}"),
        );
        let text = server.url_of(GUARDED, "locked");
        for wrong in [None, Some("geheim")] {
            let e = refused(&text, wrong).await;
            assert!(e.contains("password") && !e.contains("geheim"), "{e}");
        }
        let store = PostgresStore::open(&url(&text), Some("the right one &%")).await;
        let shown = format!("{:?}", store.unwrap());
        assert!(!shown.contains("right"), "{shown}");

        let e = refused(&server.url_of("postgres", "nowhere"), None).await;
        assert!(
            e.contains("nowhere") && e.contains("CREATE DATABASE"),
            "{e}"
        );
        let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = nobody.local_addr().unwrap().port();
        drop(nobody);
        let e = refused(&format!("postgres://k@127.0.0.1:{port}/k"), None).await;
        assert!(e.contains("see that it runs"), "{e}");
    }
}
