//! Writes a page back, in one statement.

use std::collections::BTreeSet;

use bytes::Bytes;
use sqlx::{AssertSqlSafe, PgPool, Row};

use super::{connect::failure, front::Form, sql::Statements};
use crate::{
    Failure,
    rewrap::{Page, Value, Written},
};

/// New headers over old ones. Rows that are not what was read come back as lost.
pub(super) async fn write(
    pool: &PgPool,
    statements: &Statements,
    form: Form,
    page: &Page<Vec<Bytes>>,
    new: &[(usize, Bytes)],
) -> Result<Written, Failure> {
    let (mut keys, mut olds, mut news) = (Vec::new(), Vec::new(), Vec::new());
    for (i, header) in new {
        let entry = page.entries.get(*i).ok_or_else(Failure::nonsense)?;
        let behind = page.own.get(*i).ok_or_else(Failure::nonsense)?;
        let Value::Envelope(old) = &entry.value else {
            return Err(Failure::nonsense());
        };
        keys.push(entry.name.clone());
        olds.push(form.write(old, behind));
        news.push(form.write(header, behind));
    }
    let query = sqlx::query(AssertSqlSafe(statements.write.clone())).bind(keys.clone());
    let query = match form {
        Form::Binary => query.bind(olds).bind(news),
        Form::Text => query.bind(texts(olds)?).bind(texts(news)?),
    };
    let rows = query.fetch_all(pool).await.map_err(|e| failure(&e))?;
    let mut done = BTreeSet::new();
    for row in rows {
        done.insert(row.try_get::<String, _>(0).map_err(|e| failure(&e))?);
    }
    let lost = new.iter().zip(&keys).filter(|(_, k)| !done.contains(*k));
    Ok(Written {
        lost: lost.map(|((i, _), _)| *i).collect(),
        failed: Vec::new(),
    })
}

fn texts(fronts: Vec<Vec<u8>>) -> Result<Vec<String>, Failure> {
    let text = |front| String::from_utf8(front).map_err(|_| Failure::nonsense());
    fronts.into_iter().map(text).collect()
}
