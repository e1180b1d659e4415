//! A column of a PostgreSQL table, in the order of a key column.
//!
//! Rows are read by their key (`WHERE key > last ORDER BY key LIMIT n`), so a page costs
//! the same at the beginning and at the end, and of each value only the front travels, also
//! when the value is a gigabyte. Written back is only where that front is still the same.

mod connect;
mod front;
mod look_up;
mod read;
mod sql;
mod write;

use bytes::Bytes;
use sqlx::PgPool;

use super::{Page, Place, Written};
use crate::{Failure, proto::JobKind};

use front::Form;
use sql::Statements;

/// Which column of which table.
#[derive(Clone)]
pub struct Column<'a> {
    /// `postgres://user:password@host/db`.
    pub url: &'a str,
    /// `table` or `schema.table`.
    pub table: &'a str,
    /// Where the envelopes are.
    pub column: &'a str,
    /// What rows are ordered by; none: the primary key.
    pub key_column: Option<&'a str>,
    /// Nothing will be written.
    pub dry_run: bool,
    /// Pages worked on side by side.
    pub workers: usize,
}

/// A column that was looked up and may be worked on.
pub struct Table {
    pool: PgPool,
    form: Form,
    statements: Statements,
    /// `postgres://host:port/db/schema.table.column`.
    subject: String,
    key_column: String,
    numbers: (i64, i64),
}

impl Table {
    /// Connects and looks the column up.
    ///
    /// # Errors
    /// What is missing or not right, and who must mend it.
    pub async fn open(column: &Column<'_>) -> Result<Self, Failure> {
        let (pool, server) = connect::connect(column.url, column.workers).await?;
        let found = look_up::look_up(&pool, column).await?;
        let subject = format!("{server}/{}", found.subject());
        Ok(Self {
            statements: Statements::new(&found),
            form: found.form,
            key_column: found.key,
            numbers: found.numbers,
            pool,
            subject,
        })
    }
}

impl Place for Table {
    /// For each entry what its front has behind the header.
    type Own = Vec<Bytes>;

    fn kind(&self) -> JobKind {
        JobKind::Table
    }

    fn subject(&self) -> String {
        self.subject.clone()
    }

    fn order(&self) -> String {
        let (database, table) = self.numbers;
        format!(
            "table {table} of database {database} by {}",
            self.key_column
        )
    }

    async fn expected(&self) -> Result<u64, Failure> {
        look_up::expected(&self.pool, &self.statements).await
    }

    async fn read(
        &self,
        after: Option<&str>,
        most: usize,
    ) -> Result<Option<Page<Vec<Bytes>>>, Failure> {
        read::next(&self.pool, &self.statements, self.form, after, most).await
    }

    async fn write(
        &self,
        page: &Page<Vec<Bytes>>,
        new: &[(usize, Bytes)],
    ) -> Result<Written, Failure> {
        write::write(&self.pool, &self.statements, self.form, page, new).await
    }

    async fn again(
        &self,
        page: &Page<Vec<Bytes>>,
        which: &[usize],
    ) -> Result<Page<Vec<Bytes>>, Failure> {
        read::again(&self.pool, &self.statements, self.form, page, which).await
    }
}
