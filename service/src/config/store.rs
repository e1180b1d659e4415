//! Where the store is, when it is not the file under the data directory. The password of
//! the database stands in a file of its own, never here.

use std::{fmt, fs, io::Read, os::unix::fs::MetadataExt, path::PathBuf};

use serde::{Deserialize, de::IgnoredAny};
use zeroize::Zeroizing;

use crate::store::PostgresUrl;

/// A PostgreSQL database.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreConfig {
    /// `postgres://user@host:port/database?sslmode=verify-full`.
    postgres: String,
    /// A file only its owner can read.
    pub(super) password_file: Option<PathBuf>,
    /// Known, so that whoever tries it hears why not instead of reading it in an error.
    password: Option<IgnoredAny>,
}

/// Longest password read from a file.
const PASSWORD_MAX_BYTES: u64 = 1024;

impl StoreConfig {
    /// As from a configuration file.
    #[must_use]
    pub fn new(postgres: String, password_file: Option<PathBuf>) -> Self {
        Self {
            postgres,
            password_file,
            password: None,
        }
    }

    pub(super) fn check(&self) -> Result<(), String> {
        if self.password.is_some() {
            return Err("store.password: a password does not stand here; put it into a file of its own and name that with password_file".into());
        }
        self.url().map(|_| ())
    }

    /// The address.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn url(&self) -> Result<PostgresUrl, String> {
        PostgresUrl::parse(&self.postgres).map_err(|e| format!("store.postgres: {e}"))
    }

    /// Reads the password now, if there is to be one.
    ///
    /// # Errors
    /// When the file is missing, empty or open to others.
    pub fn password(&self) -> Result<Option<Zeroizing<String>>, String> {
        let Some(path) = &self.password_file else {
            return Ok(None);
        };
        let file = path.display();
        let unread = |e| format!("password file {file} cannot be read: {e}");
        let mode = fs::metadata(path).map_err(unread)?.mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(format!(
                "password file {file} is open to other users (mode {mode:o}); run: chmod 600 {file}"
            ));
        }
        let mut text = Zeroizing::new(String::new());
        fs::File::open(path)
            .and_then(|f| f.take(PASSWORD_MAX_BYTES).read_to_string(&mut text))
            .map_err(unread)?;
        match text.trim_end_matches(['\r', '\n']) {
            "" => Err(format!("password file {file} holds no password")),
            password => Ok(Some(Zeroizing::new(password.to_owned()))),
        }
    }
}

/// Without the address as it stands in the file: it may hold what it must not.
impl fmt::Debug for StoreConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreConfig")
            .field("postgres", &self.url().ok())
            .field("password_file", &self.password_file)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_password_file_is_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        let url = "postgres://k@127.0.0.1/k".to_owned();
        let store = StoreConfig::new(url, Some(path.clone()));
        let refused = |why: &str| {
            let e = store.password().unwrap_err();
            assert!(e.contains(why) && !e.contains("geheim"), "{e}");
        };
        refused("cannot be read");
        fs::write(&path, "geheim \n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        refused("chmod 600");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(*store.password().unwrap().unwrap(), "geheim ");
        fs::write(&path, "\n").unwrap();
        refused("no password");
    }
}
