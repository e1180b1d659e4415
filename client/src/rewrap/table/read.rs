//! Rows: the next ones in the order of the key, and some of them once more.

use bytes::Bytes;
use sqlx::{AssertSqlSafe, PgPool, Row, ValueRef, postgres::PgRow};

use super::{connect::failure, front::Form, sql::Statements};
use crate::{
    Failure,
    rewrap::{Entry, Page},
};

/// The page behind a key.
pub(super) async fn next(
    pool: &PgPool,
    statements: &Statements,
    form: Form,
    after: Option<&str>,
    most: usize,
) -> Result<Option<Page<Vec<Bytes>>>, Failure> {
    let limit = i64::try_from(most).unwrap_or(i64::MAX);
    let query = match after {
        None => sqlx::query(AssertSqlSafe(statements.first.clone())).bind(limit),
        Some(after) => sqlx::query(AssertSqlSafe(statements.next.clone()))
            .bind(after.to_owned())
            .bind(limit),
    };
    let rows = query.fetch_all(pool).await.map_err(|e| failure(&e))?;
    let page = page(&rows, form)?;
    Ok((!page.entries.is_empty()).then_some(page))
}

/// Entries of a page as they are now.
pub(super) async fn again(
    pool: &PgPool,
    statements: &Statements,
    form: Form,
    old: &Page<Vec<Bytes>>,
    which: &[usize],
) -> Result<Page<Vec<Bytes>>, Failure> {
    let names = which.iter().filter_map(|i| old.entries.get(*i));
    let keys: Vec<String> = names.map(|e| e.name.clone()).collect();
    let query = sqlx::query(AssertSqlSafe(statements.again.clone())).bind(keys);
    let rows = query.fetch_all(pool).await.map_err(|e| failure(&e))?;
    page(&rows, form)
}

fn page(rows: &[PgRow], form: Form) -> Result<Page<Vec<Bytes>>, Failure> {
    let mut entries = Vec::with_capacity(rows.len());
    let mut own = Vec::with_capacity(rows.len());
    for row in rows {
        let name: String = row.try_get(0).map_err(|e| failure(&e))?;
        // As bytes, also of text: a database may hold text that is not UTF-8.
        let raw = row.try_get_raw(1).map_err(|e| failure(&e))?;
        let front = match raw.is_null() {
            true => None,
            false => raw.as_bytes().ok(),
        };
        let length: Option<i32> = row.try_get(2).map_err(|e| failure(&e))?;
        let length = usize::try_from(length.unwrap_or(0)).unwrap_or(0);
        let (value, behind) = form.parse(front, length);
        entries.push(Entry { name, value });
        own.push(behind);
    }
    let after = entries.last().map_or_else(String::new, |e| e.name.clone());
    Ok(Page {
        entries,
        after,
        own,
    })
}
