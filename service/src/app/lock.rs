//! One daemon per data directory: a lock file held for the life of the process.

use std::{
    fs::{self, DirBuilder, File, TryLockError},
    io::{Read, Seek, Write},
    os::unix::fs::DirBuilderExt,
    path::Path,
};

use super::StartError;

/// The data directory is ours while this lives.
#[derive(Debug)]
pub struct DataLock {
    _file: File,
}

impl DataLock {
    /// Creates the directory where needed and locks it.
    ///
    /// # Errors
    /// When another daemon has it, or it cannot be written.
    pub fn take(dir: &Path) -> Result<Self, StartError> {
        let error = |e: &dyn std::fmt::Display| {
            StartError::Data(format!("data directory {}: {e}", dir.display()))
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(|e| error(&e))?;
        let path = dir.join("lock");
        let mut file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|e| error(&e))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = file.take(32).read_to_string(&mut holder);
                return Err(StartError::Data(format!(
                    "data directory {} is in use by another keywrightd (process {}); stop it first, or give this one its own directory",
                    dir.display(),
                    holder.trim()
                )));
            }
            Err(TryLockError::Error(e)) => return Err(error(&e)),
        }
        // For the message above only; the lock is what counts.
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(|e| error(&e))?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_daemon_is_told_who_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let first = DataLock::take(dir.path()).unwrap();
        let e = DataLock::take(dir.path()).unwrap_err();
        assert!(
            e.to_string().contains(&std::process::id().to_string()),
            "{e}"
        );
        assert_eq!(e.exit_code(), 6);
        drop(first);
        DataLock::take(dir.path()).unwrap();
    }
}
