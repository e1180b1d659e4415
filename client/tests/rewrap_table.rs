//! A column of a real PostgreSQL table as a place, with a server in memory.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

#[path = "../../service/tests/common/postgres.rs"]
mod postgres;

use std::sync::{
    Mutex,
    atomic::{AtomicU64, Ordering},
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use bytes::Bytes;
use keywright_client::{
    Failure, FailureKind,
    proto::{self, Job, JobState},
    rewrap::{Column, Order, Place, Server, Stop, Table, run},
    token,
};
use sqlx::{AssertSqlSafe, PgPool, Row};

const KEY_ID: [u8; 16] = [7; 16];

fn url(database: &str) -> String {
    postgres::Postgres::shared().create_database(database)
}

fn header(row: u32, version: u32) -> Vec<u8> {
    let mut h = vec![1, 1, 1, 0];
    h.extend(KEY_ID);
    h.extend(row.to_be_bytes());
    h.extend([0; 44]);
    h.extend([1, 0, 0, 0]);
    h.extend(version.to_be_bytes());
    h.extend([version as u8; 60]);
    h
}

fn payload(row: u32) -> Vec<u8> {
    let mut p = vec![row as u8; 20 + row as usize % 50];
    p[..4].copy_from_slice(&row.to_be_bytes());
    p
}

/// One job; moves headers to version 3 by rule.
#[derive(Default)]
struct Memory {
    job: Mutex<Option<Job>>,
    cursor: Mutex<Bytes>,
    calls: AtomicU64,
    /// Statements run after this many calls of rewrap, by somebody else.
    meddle: Mutex<Vec<(u64, String)>>,
    pool: Option<PgPool>,
}

impl Memory {
    fn now(&self) -> Job {
        self.job.lock().unwrap().clone().unwrap()
    }
}

impl Server for Memory {
    async fn key(&self, name: &str) -> Result<proto::Key, Failure> {
        Ok(proto::Key {
            name: name.into(),
            id: KEY_ID.to_vec().into(),
            primary_version: 3,
            ..Default::default()
        })
    }

    async fn open_job(&self, _: &str, subject: &str) -> Result<Option<Job>, Failure> {
        let job = self.job.lock().unwrap().clone();
        Ok(job.filter(|j| j.subject == subject && j.ended_unix_ms == 0))
    }

    async fn create(&self, request: proto::CreateJobRequest) -> Result<Job, Failure> {
        assert!(request.subject.len() < 256 && !request.subject.contains("secret"));
        *self.job.lock().unwrap() = Some(Job {
            id: "0".repeat(32),
            key: request.key,
            subject: request.subject,
            target_version: 3,
            state: JobState::Open.into(),
            counts: Some(proto::JobCounts::default()),
            ..Default::default()
        });
        Ok(self.now())
    }

    async fn job(&self, _: &str) -> Result<Job, Failure> {
        Ok(self.now())
    }

    async fn lease(&self, _: proto::LeaseJobRequest) -> Result<proto::LeaseJobResponse, Failure> {
        Ok(proto::LeaseJobResponse {
            job: Some(self.now()),
            lease: "l".into(),
            cursor: self.cursor.lock().unwrap().clone(),
            lease_ms: 30_000,
        })
    }

    async fn checkpoint(
        &self,
        request: proto::CheckpointJobRequest,
    ) -> Result<proto::CheckpointJobResponse, Failure> {
        let mut guard = self.job.lock().unwrap();
        let job = guard.as_mut().unwrap();
        assert_eq!(request.step, job.steps + 1);
        job.steps += 1;
        *self.cursor.lock().unwrap() = request.cursor;
        let (c, more) = (job.counts.as_mut().unwrap(), request.counts.unwrap());
        c.seen += more.seen;
        c.moved += more.moved;
        c.current += more.current;
        c.empty += more.empty;
        c.foreign += more.foreign;
        c.left += more.left;
        if request.completed {
            job.state = JobState::Completed.into();
            job.ended_unix_ms = 1;
        }
        Ok(proto::CheckpointJobResponse {
            job: Some(job.clone()),
            lease_ms: 30_000,
        })
    }

    async fn rewrap(&self, _: &str, old: Vec<Bytes>) -> Result<proto::RewrapResponse, Failure> {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        let due: Vec<String> = {
            let meddle = self.meddle.lock().unwrap();
            let due = meddle.iter().filter(|(at, _)| *at == call);
            due.map(|(_, sql)| sql.clone()).collect()
        };
        for statement in due {
            let pool = self.pool.as_ref().unwrap();
            sqlx::query(AssertSqlSafe(statement))
                .execute(pool)
                .await
                .unwrap();
        }
        let new = old.iter().map(|h| {
            let row = u32::from_be_bytes(h[20..24].try_into().unwrap());
            Bytes::from(header(row, 3))
        });
        Ok(proto::RewrapResponse {
            envelopes: new.collect(),
            ..Default::default()
        })
    }
}

async fn sql(pool: &PgPool, text: impl Into<String>) {
    let text = text.into();
    sqlx::query(AssertSqlSafe(text))
        .execute(pool)
        .await
        .unwrap();
}

/// Rows 0.. under version 1, in a table of its own.
async fn fill(pool: &PgPool, table: &str, key: &str, kind: &str, rows: u32) {
    sql(pool, format!("DROP TABLE IF EXISTS {table}")).await;
    let create = format!("CREATE TABLE {table} ({key} PRIMARY KEY, \"c \"\"o\" {kind}, n int)");
    sql(pool, create).await;
    let key = match key.split(' ').next_back().unwrap() {
        "uuid" => "CAST(md5(n::text) AS uuid)",
        "text" => "CASE WHEN n % 2 = 0 THEN md5(n::text) ELSE '\u{c4}x''\" ' || n END",
        _ => "n - 10000",
    };
    for from in (0..rows).step_by(2_000) {
        let numbers: Vec<i32> = (from..(from + 2_000).min(rows)).map(|n| n as i32).collect();
        let values = numbers.iter().map(|n| {
            let n = *n as u32;
            match kind {
                "bytea" => [header(n, 1), payload(n)].concat(),
                _ => token::encode(&header(n, 1), &payload(n)).into_bytes(),
            }
        });
        let value = if kind == "bytea" {
            "v"
        } else {
            "convert_from(v, 'UTF8')"
        };
        let insert = format!(
            "INSERT INTO {table} SELECT {key}, {value}, n FROM unnest($1::int[], $2::bytea[]) AS u(n, v)"
        );
        let query = sqlx::query(AssertSqlSafe(insert)).bind(numbers.clone());
        let values: Vec<Vec<u8>> = values.collect();
        query.bind(values).execute(pool).await.unwrap();
    }
}

async fn values(pool: &PgPool, table: &str, kind: &str) -> Vec<(u32, Option<Vec<u8>>)> {
    let select = format!("SELECT n, \"c \"\"o\" FROM {table} ORDER BY n");
    let rows = sqlx::query(AssertSqlSafe(select))
        .fetch_all(pool)
        .await
        .unwrap();
    let value = |row: &sqlx::postgres::PgRow| match kind {
        "bytea" => row.get::<Option<Vec<u8>>, _>(1),
        _ => row.get::<Option<String>, _>(1).map(|t| {
            let body = t.strip_prefix("kw1.").unwrap_or_default();
            BASE64_URL_SAFE_NO_PAD.decode(body).unwrap()
        }),
    };
    rows.iter()
        .map(|r| (r.get::<i32, _>(0) as u32, value(r)))
        .collect()
}

fn order() -> Order {
    Order {
        batch: 300,
        patience: std::time::Duration::from_secs(3),
        ..Order::new("cards")
    }
}

#[tokio::test]
async fn every_row_is_moved_whatever_its_key_and_its_names() {
    let url = url("keys");
    let pool = PgPool::connect(&url).await.unwrap();
    for (i, (key, kind)) in [
        ("\"K\"\"ey x\" int", "bytea"),
        ("\"K\"\"ey x\" uuid", "text"),
        ("\"K\"\"ey x\" text", "varchar(4000)"),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("odd \"; name.{i}");
        let table = format!("\"odd \"\"; name.{i}\"");
        fill(&pool, &table, key, kind, 5_000).await;
        let column = Column {
            url: &url,
            table: &name,
            column: "c \"o",
            key_column: None,
            dry_run: false,
            workers: 4,
        };
        let server = Memory::default();
        let place = Table::open(&column).await.unwrap();
        assert_eq!(place.expected().await.unwrap(), 5_000);
        let stop = Stop::never();
        let job = Box::pin(run(&server, &place, &order(), &|_| (), &stop))
            .await
            .unwrap();
        let c = job.counts.unwrap();
        assert_eq!((c.seen, c.moved), (5_000, 5_000), "{key} {kind}");
        for (n, value) in values(&pool, &table, kind).await {
            assert_eq!(value.unwrap(), [header(n, 3), payload(n)].concat(), "{n}");
        }
        sql(&pool, format!("DROP TABLE {table}")).await;
    }
}

#[tokio::test]
async fn writers_in_between_lose_nothing_and_a_lost_connection_is_made_up_for() {
    let url = url("writers");
    let pool = PgPool::connect(&url).await.unwrap();
    let table = "rewrap_writers";
    fill(&pool, table, "id int", "bytea", 20_000).await;
    let odd = "UPDATE rewrap_writers SET \"c \"\"o\" =";
    let fresh = [header(900_000, 2), payload(4)].concat();
    let current = [header(900_001, 3), payload(5)].concat();
    // While the first pages are on their way to the server.
    let meddle = vec![
        (0, format!("{odd} '\\x{}' WHERE n = 10", hex::encode(&fresh))),
        (0, format!("{odd} '\\x{}' WHERE n = 11", hex::encode(&current))),
        (0, format!("{odd} NULL WHERE n = 12")),
        (0, format!("{odd} 'not ours' WHERE n = 13")),
        (0, "DELETE FROM rewrap_writers WHERE n = 14".to_owned()),
        // Only the payload: its header is moved, and the payload is the new one.
        (0, format!("{odd} substring(\"c \"\"o\" from 1 for 136) || '\\x{}' WHERE n = 15", "ab".repeat(44))),
        (9, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'keywright rewrap'".to_owned()),
    ];
    let server = Memory {
        meddle: Mutex::new(meddle),
        pool: Some(pool.clone()),
        ..Memory::default()
    };
    let column = Column {
        url: &url,
        table,
        column: "c \"o",
        key_column: Some("id"),
        dry_run: false,
        workers: 4,
    };
    let place = Table::open(&column).await.unwrap();
    let stop = Stop::never();
    let job = Box::pin(run(&server, &place, &order(), &|_| (), &stop))
        .await
        .unwrap();
    let c = job.counts.unwrap();
    assert_eq!((c.seen, c.left), (19_999, 0), "{c:?}");
    assert_eq!((c.empty, c.foreign), (1, 1), "{c:?}");
    for (n, value) in values(&pool, table, "bytea").await {
        match (n, value) {
            (10, v) => assert_eq!(v.unwrap(), [header(900_000, 3), payload(4)].concat()),
            (11, v) => assert_eq!(v.unwrap(), current),
            (12, v) => assert_eq!(v, None),
            (13, v) => assert_eq!(v.unwrap(), b"not ours"),
            (15, v) => assert_eq!(v.unwrap(), [header(15, 3), vec![0xab; 44]].concat()),
            (n, v) => assert_eq!(v.unwrap(), [header(n, 3), payload(n)].concat(), "{n}"),
        }
    }
    sql(&pool, "DROP TABLE rewrap_writers").await;
}

#[tokio::test]
async fn columns_that_cannot_be_worked_on_are_refused_with_a_reason() {
    let url = url("refused");
    let pool = PgPool::connect(&url).await.unwrap();
    for statement in [
        "DROP VIEW IF EXISTS rr_view",
        "DROP TABLE IF EXISTS rr",
        "CREATE TABLE rr (id int PRIMARY KEY, f float8 UNIQUE NOT NULL, u int UNIQUE, t text NOT NULL, \
         c bytea, g bytea GENERATED ALWAYS AS (c) STORED, j jsonb)",
        "CREATE VIEW rr_view AS SELECT * FROM rr",
    ] {
        sql(&pool, statement).await;
    }
    let refused = async |table: &str, column: &str, key: &str| {
        let column = Column {
            url: &url,
            table,
            column,
            key_column: Some(key),
            dry_run: false,
            workers: 1,
        };
        let failure = Table::open(&column).await.err();
        failure.map(|f| (f.kind(), f.to_string())).unwrap()
    };
    for (table, column, key, word) in [
        ("rr_none", "c", "id", "no table"),
        ("public.rr", "x", "id", "no column public.rr.x"),
        ("rr", "c", "x", "no column public.rr.x"),
        ("rr_view", "c", "id", "is a view"),
        ("rr", "g", "id", "is generated"),
        ("rr", "j", "id", "is jsonb"),
        ("rr", "c", "u", "must be NOT NULL"),
        ("rr", "c", "t", "must be NOT NULL"),
        ("rr", "c", "f", "float8"),
    ] {
        let (kind, text) = refused(table, column, key).await;
        assert!(text.contains(word), "{table} {column} {key}: {text}");
        assert_ne!(kind, FailureKind::Other, "{text}");
    }
    sql(&pool, "DROP VIEW rr_view").await;
    sql(&pool, "DROP TABLE rr").await;
}
