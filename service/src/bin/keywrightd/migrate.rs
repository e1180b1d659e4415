//! `migrate-store`: from the embedded store to PostgreSQL.

use std::path::{Path, PathBuf};

use keywright_service::{
    app::StartError,
    config::{Config, StoreConfig},
    migrate::migrate_store,
    store::Counted,
};

use crate::block_on;

pub(crate) fn migrate(
    config: &Path,
    to_postgres: String,
    password_file: Option<PathBuf>,
) -> Result<(), StartError> {
    let config = Config::read(config)?;
    let mut lines = format!("[store]\npostgres = {to_postgres:?}\n");
    if let Some(file) = &password_file {
        let file = std::path::absolute(file).unwrap_or_else(|_| file.clone());
        lines.push_str(&format!("password_file = {file:?}\n"));
    }
    let target = StoreConfig::new(to_postgres, password_file);
    for Counted { table, rows } in block_on(migrate_store(&config, &target))? {
        anstream::println!("{table:<20} {rows:>12}");
    }
    anstream::println!(
        "every row is the same in both. Put this at the end of the configuration, and start the daemon:\n\n{lines}"
    );
    Ok(())
}
