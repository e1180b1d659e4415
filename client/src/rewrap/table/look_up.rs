//! What the database says about a column: may it be worked on, and how?

use sqlx::{AssertSqlSafe, PgPool, Row, postgres::PgRow};

use super::{Column, connect::failure, front::Form, sql::Statements};
use crate::{Failure, FailureKind};

/// A column that may be worked on.
pub(super) struct Found {
    pub(super) schema: String,
    pub(super) table: String,
    pub(super) column: String,
    pub(super) form: Form,
    pub(super) key: String,
    /// As SQL.
    pub(super) key_type: String,
    /// Database and table by number: one of the same name, restored or behind another
    /// address, has others.
    pub(super) numbers: (i64, i64),
}

impl Found {
    pub(super) fn subject(&self) -> String {
        format!("{}.{}.{}", self.schema, self.table, self.column)
    }
}

/// Types whose text is the value, nothing more and nothing less.
const KEY_TYPES: [&str; 10] = [
    "int2",
    "int4",
    "int8",
    "oid",
    "numeric",
    "uuid",
    "text",
    "varchar",
    "date",
    "timestamp",
];

const TABLE: &str = "SELECT n.nspname, c.relname, c.relkind::text, c.oid::int8, \
    row_security_active(c.oid), \
    c.relkind = 'r' AND EXISTS (SELECT FROM pg_inherits i WHERE i.inhparent = c.oid), \
    current_setting('transaction_read_only') = 'on', \
    (SELECT d.oid::int8 FROM pg_database d WHERE d.datname = current_database()) \
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
    WHERE c.oid = to_regclass($1)";

const COLUMN: &str = "SELECT b.typname, format_type(a.atttypid, a.atttypmod), \
    a.attnotnull, a.attgenerated <> '', \
    has_column_privilege($1::int8::oid, a.attnum, 'SELECT'), \
    has_column_privilege($1::int8::oid, a.attnum, 'UPDATE'), \
    EXISTS (SELECT FROM pg_index i WHERE i.indrelid = a.attrelid AND i.indisunique \
        AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL \
        AND i.indnkeyatts = 1 AND i.indkey[0] = a.attnum) \
    FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid \
    JOIN pg_type b ON b.oid = CASE t.typtype WHEN 'd' THEN t.typbasetype ELSE t.oid END \
    WHERE a.attrelid = $1::int8::oid AND a.attname = $2 AND a.attnum > 0 AND NOT a.attisdropped";

const PRIMARY_KEY: &str = "SELECT a.attname FROM pg_index i \
    JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0] \
    WHERE i.indrelid = $1::int8::oid AND i.indisprimary AND i.indnkeyatts = 1";

fn refuse(kind: FailureKind, text: impl Into<String>) -> Failure {
    Failure::new(kind, text)
}

fn get<'r, T: sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>>(
    row: &'r PgRow,
    at: usize,
) -> Result<T, Failure> {
    row.try_get(at).map_err(|e| failure(&e))
}

/// Looks the table and both columns up.
pub(super) async fn look_up(pool: &PgPool, wanted: &Column<'_>) -> Result<Found, Failure> {
    let row = table_row(pool, wanted.table).await?;
    let oid: i64 = get(&row, 3)?;
    let (schema, table): (String, String) = (get(&row, 0)?, get(&row, 1)?);
    may_be_worked_on(&row, &format!("{schema}.{table}"), wanted.dry_run)?;
    let at = |column: &str| format!("{schema}.{table}.{column}");
    let c = column(pool, oid, wanted.column, &at(wanted.column)).await?;
    let form = match c.base.as_str() {
        "bytea" => Form::Binary,
        "text" | "varchar" => Form::Text,
        other => {
            let text = format!(
                "{} is {other}; envelopes are in bytea, tokens in text or varchar",
                at(wanted.column)
            );
            return Err(refuse(FailureKind::Usage, text));
        }
    };
    if c.generated {
        let text = format!(
            "{} is generated from other columns; name the column it comes from",
            at(wanted.column)
        );
        return Err(refuse(FailureKind::Usage, text));
    }
    if !c.select || !(c.update || wanted.dry_run) {
        let text = format!(
            "no right to read and change {}; grant SELECT and UPDATE on it to the role of the URL",
            at(wanted.column)
        );
        return Err(refuse(FailureKind::Denied, text));
    }
    let key = match wanted.key_column {
        Some(key) => key.to_owned(),
        None => primary_key(pool, oid, &format!("{schema}.{table}")).await?,
    };
    let k = column(pool, oid, &key, &at(&key)).await?;
    fits_as_key(&k, &at(&key))?;
    Ok(Found {
        schema,
        table,
        column: wanted.column.to_owned(),
        form,
        key,
        key_type: k.sql_type,
        numbers: (get(&row, 7)?, oid),
    })
}

/// By the name as SQL would have it, and as it was typed.
async fn table_row(pool: &PgPool, name: &str) -> Result<PgRow, Failure> {
    let (schema, table) = match name.split_once('.') {
        Some((schema, table)) => (Some(schema), table),
        None => (None, name),
    };
    let literal = match schema {
        Some(schema) => format!(
            "{}.{}",
            super::sql::quoted(schema),
            super::sql::quoted(table)
        ),
        None => super::sql::quoted(table),
    };
    // Words that cannot be parsed as a name are an error of their own: none is found then.
    for text in [literal, super::sql::quoted(name)] {
        let found = sqlx::query(TABLE).bind(text).fetch_optional(pool).await;
        if let Some(row) = found.map_err(|e| failure(&e))? {
            return Ok(row);
        }
    }
    let text = format!(
        "no table {name:?}; look at its spelling (capitals count) and give its schema: schema.table"
    );
    Err(refuse(FailureKind::NotFound, text))
}

fn may_be_worked_on(row: &PgRow, name: &str, dry_run: bool) -> Result<(), Failure> {
    let kind: String = get(row, 2)?;
    if !matches!(kind.as_str(), "r" | "p") {
        let text = format!(
            "{name} is a view, a foreign table or no table at all; name the table the rows are in"
        );
        return Err(refuse(FailureKind::Usage, text));
    }
    if get::<bool>(row, 4)? {
        let text = format!(
            "row-level security hides rows of {name} from this role; use its owner, or a role with BYPASSRLS, so that all rows are seen"
        );
        return Err(refuse(FailureKind::Denied, text));
    }
    if get::<bool>(row, 5)? {
        let text = format!(
            "{name} has tables that inherit from it, and no key over all of them; make it a partitioned table, or move the rows of each"
        );
        return Err(refuse(FailureKind::Usage, text));
    }
    if get::<bool>(row, 6)? && !dry_run {
        let text =
            "this database is read-only; give the address of the primary server, or --dry-run";
        return Err(refuse(FailureKind::State, text));
    }
    Ok(())
}

struct ColumnFacts {
    base: String,
    sql_type: String,
    not_null: bool,
    generated: bool,
    select: bool,
    update: bool,
    unique: bool,
}

async fn column(pool: &PgPool, oid: i64, name: &str, at: &str) -> Result<ColumnFacts, Failure> {
    let found = sqlx::query(COLUMN).bind(oid).bind(name.to_owned());
    let row = found.fetch_optional(pool).await.map_err(|e| failure(&e))?;
    let Some(row) = row else {
        let text = format!("no column {at}; look at its spelling (capitals count)");
        return Err(refuse(FailureKind::NotFound, text));
    };
    Ok(ColumnFacts {
        base: get(&row, 0)?,
        sql_type: get(&row, 1)?,
        not_null: get(&row, 2)?,
        generated: get(&row, 3)?,
        select: get(&row, 4)?,
        update: get(&row, 5)?,
        unique: get(&row, 6)?,
    })
}

async fn primary_key(pool: &PgPool, oid: i64, table: &str) -> Result<String, Failure> {
    let found = sqlx::query(PRIMARY_KEY).bind(oid);
    let row = found.fetch_optional(pool).await.map_err(|e| failure(&e))?;
    match row {
        Some(row) => get(&row, 0),
        None => Err(refuse(
            FailureKind::Usage,
            format!(
                "{table} has no primary key of one column; name a unique column with --key-column"
            ),
        )),
    }
}

fn fits_as_key(key: &ColumnFacts, at: &str) -> Result<(), Failure> {
    if !key.select {
        let text = format!("no right to read {at}; grant SELECT on it to the role of the URL");
        return Err(refuse(FailureKind::Denied, text));
    }
    if !key.unique || !key.not_null {
        let text = format!(
            "{at} cannot order the rows: it must be NOT NULL and have a unique index of its own"
        );
        return Err(refuse(FailureKind::Usage, text));
    }
    if !KEY_TYPES.contains(&key.base.as_str()) {
        let text = format!(
            "{at} is {}, which cannot order the rows: its text is not always its value; use one of {}",
            key.base,
            KEY_TYPES.join(", ")
        );
        return Err(refuse(FailureKind::Usage, text));
    }
    Ok(())
}

/// Below this, rows are counted; above, the database's own estimate is near enough.
const COUNTED: f32 = 100_000.0;
/// A table that was never analysed is counted up to this size.
const COUNTED_BYTES: i64 = 1 << 30;

/// About how many rows there are; 0: not known.
pub(super) async fn expected(pool: &PgPool, statements: &Statements) -> Result<u64, Failure> {
    let (schema, table) = statements.names.clone();
    let sql = "SELECT c.reltuples, pg_relation_size(c.oid) FROM pg_class c \
        JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = $2";
    let row = sqlx::query(sql).bind(schema).bind(table);
    let row = row.fetch_one(pool).await.map_err(|e| failure(&e))?;
    let (rows, bytes): (f32, i64) = (get(&row, 0)?, get(&row, 1)?);
    if rows >= COUNTED {
        return Ok(rows as u64);
    }
    if bytes > COUNTED_BYTES {
        return Ok(0);
    }
    let count = sqlx::query(AssertSqlSafe(statements.count.clone()));
    let row = count.fetch_one(pool).await.map_err(|e| failure(&e))?;
    Ok(u64::try_from(get::<i64>(&row, 0)?).unwrap_or(0))
}
