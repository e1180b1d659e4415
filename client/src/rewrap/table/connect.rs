//! The way to the database, and what its errors mean for people. The URL holds a password:
//! no message has it.

use std::{str::FromStr, time::Duration};

use sqlx::{
    Connection, Executor, PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use crate::{Failure, FailureKind};

/// What a session needs: nobody waits for our locks for long, nor we for theirs, and a key
/// written as text reads the same everywhere.
const SESSION: &str = "SET lock_timeout = '10s'; SET application_name = 'keywright rewrap'; \
                       SET DateStyle = 'ISO, YMD'; SET TimeZone = 'UTC'";

/// A pool, and the server and database in words.
pub(super) async fn connect(url: &str, workers: usize) -> Result<(PgPool, String), Failure> {
    let usage = |text: &str| Failure::new(FailureKind::Usage, text);
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        return Err(usage(
            "the database is not given as postgres://user@host/db",
        ));
    }
    // The error may quote the URL.
    let options = PgConnectOptions::from_str(url)
        .map_err(|_| usage("the URL of the database cannot be read; a password in it must be percent-encoded, sslmode is one of disable, prefer, require, verify-ca, verify-full"))?;
    let database = options.get_database().unwrap_or(options.get_username());
    let server = match options.get_socket() {
        Some(path) => format!("postgres://{}/{database}", path.display()),
        None => {
            let (host, port) = (options.get_host(), options.get_port());
            format!("postgres://{host}:{port}/{database}")
        }
    };
    let connections = u32::try_from(workers).unwrap_or(4).clamp(1, 64) + 1;
    let pool = PgPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(Duration::from_secs(10))
        .after_connect(|session, _| {
            Box::pin(async move { session.execute(SESSION).await.map(|_| ()) })
        })
        .connect_lazy_with(options.clone());
    // Asked once past the pool, so that what is wrong is said at once.
    match PgConnection::connect_with(&options).await {
        Ok(session) => {
            let _ = session.close().await;
            Ok((pool, server))
        }
        Err(e) => Err(failure(&e).at(&server)),
    }
}

/// A query that failed. What may be different in a moment is
/// [`FailureKind::Unavailable`]: it is tried again.
pub(super) fn failure(error: &sqlx::Error) -> Failure {
    let away = |e: &dyn std::error::Error| {
        let text = format!("the database cannot be reached: {}", Failure::chain(e));
        Failure::new(FailureKind::Unavailable, text)
    };
    match error {
        sqlx::Error::Database(e) => {
            let code = e.code().unwrap_or_default();
            said(&code, e.message())
        }
        sqlx::Error::Tls(e) => Failure::new(
            FailureKind::Usage,
            format!(
                "no TLS to the database: {}; look at sslmode and sslrootcert of the URL",
                Failure::chain(e.as_ref())
            ),
        ),
        sqlx::Error::Io(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => away(error),
        other => Failure::new(
            FailureKind::Other,
            format!("database: {}", Failure::chain(other)),
        ),
    }
}

/// What the database said, by SQLSTATE.
fn said(code: &str, message: &str) -> Failure {
    let (kind, hint) = match code {
        // Deadlock, serialization, lock: somebody else was first.
        "40P01" | "40001" | "55P03" => (FailureKind::Unavailable, ""),
        // Shutting down, starting, crashed, full of connections.
        "57P01" | "57P02" | "57P03" | "53300" => (FailureKind::Unavailable, ""),
        "25006" => (
            FailureKind::State,
            "; this database is read-only: give the address of the primary server (or --dry-run)",
        ),
        "42501" => (
            FailureKind::Denied,
            "; the role needs SELECT on the key column, and SELECT and UPDATE on the column",
        ),
        "28P01" | "28000" => (
            FailureKind::Denied,
            "; look at user and password of the URL, and at pg_hba.conf",
        ),
        "3D000" => (FailureKind::NotFound, "; look at the URL"),
        _ if code.starts_with("08") => (FailureKind::Unavailable, ""),
        _ => (FailureKind::Other, ""),
    };
    Failure::new(kind, format!("database: {message} ({code}){hint}")).because(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_is_tried_again_and_the_rest_names_who_must_act() {
        for code in ["40P01", "40001", "55P03", "57P01", "57P03", "08006"] {
            assert_eq!(said(code, "x").kind(), FailureKind::Unavailable, "{code}");
        }
        assert_eq!(said("25006", "x").kind(), FailureKind::State);
        assert_eq!(said("42501", "x").kind(), FailureKind::Denied);
        assert_eq!(said("23514", "x").kind(), FailureKind::Other);
    }

    #[tokio::test]
    async fn no_message_has_the_password() {
        for url in [
            "postgres://u:hunter2@h:notaport/db",
            "mysql://u:hunter2@h/db",
            "postgres://u:hunter2@h/db?sslmode=nonsense",
            "postgres://u:hunter2@127.0.0.1:1/db",
        ] {
            let failure = connect(url, 1).await.unwrap_err().to_string();
            assert!(!failure.contains("hunter2"), "{failure}");
        }
    }
}
