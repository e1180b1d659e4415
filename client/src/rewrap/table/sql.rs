//! The statements for one column, with names that may hold anything.

use super::look_up::Found;

/// A name as SQL: quotes are doubled (PostgreSQL manual, 4.1.1).
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// What is asked of the table.
pub(super) struct Statements {
    /// $1 how many.
    pub(super) first: String,
    /// $1 the last key, $2 how many.
    pub(super) next: String,
    /// $1 keys.
    pub(super) again: String,
    /// $1 keys, $2 old fronts, $3 new fronts.
    pub(super) write: String,
    pub(super) count: String,
    /// $1 schema, $2 table.
    pub(super) names: (String, String),
}

impl Statements {
    pub(super) fn new(found: &Found) -> Self {
        let table = format!("{}.{}", quoted(&found.schema), quoted(&found.table));
        let (k, c) = (quoted(&found.key), quoted(&found.column));
        let key_type = &found.key_type;
        let front = found.form.length();
        let array = match found.form {
            super::Form::Binary => "bytea[]",
            super::Form::Text => "text[]",
        };
        // The front and the length of a value, without the rest of it.
        let fields =
            format!("t.{k}::text, substring(t.{c} from 1 for {front}), octet_length(t.{c})");
        // Keys are compared and ordered by the database, in the collation of the column.
        // A row that changed since it was read has another front and is not touched: the
        // header is the only thing that is compared because it is the only thing that is
        // replaced; the payload behind it is the row's own, as it is at that moment. (The
        // items of one batch share a header, so an item may have been exchanged for its
        // neighbour: then the neighbour is moved, which is right as well.)
        let write = format!(
            "UPDATE {table} AS t SET {c} = n.new || substring(t.{c} from {}) \
             FROM unnest($1::text[], $2::{array}, $3::{array}) AS n(k, old, new) \
             WHERE t.{k} = CAST(n.k AS {key_type}) \
             AND substring(t.{c} from 1 for {front}) = n.old RETURNING t.{k}::text",
            front + 1
        );
        Self {
            first: format!("SELECT {fields} FROM {table} AS t ORDER BY t.{k} LIMIT $1"),
            next: format!(
                "SELECT {fields} FROM {table} AS t WHERE t.{k} > CAST($1 AS {key_type}) \
                 ORDER BY t.{k} LIMIT $2"
            ),
            again: format!(
                "SELECT {fields} FROM {table} AS t WHERE t.{k} IN \
                 (SELECT CAST(n.k AS {key_type}) FROM unnest($1::text[]) AS n(k)) \
                 ORDER BY t.{k}"
            ),
            write,
            count: format!("SELECT count(*) FROM {table}"),
            names: (found.schema.clone(), found.table.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nasty_names_stay_names() {
        assert_eq!(quoted("pan"), "\"pan\"");
        assert_eq!(
            quoted("a\"; DROP TABLE x; --"),
            "\"a\"\"; DROP TABLE x; --\""
        );
        assert_eq!(quoted("\"\""), "\"\"\"\"\"\"");
        assert_eq!(quoted("Gr\u{f6}\u{df}e $1"), "\"Gr\u{f6}\u{df}e $1\"");
    }
}
