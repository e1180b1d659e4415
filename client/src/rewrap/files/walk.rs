//! The regular files below a directory, in the order of their paths, from any of them on.

use std::{
    ffi::OsString,
    fs, io,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
};

use super::copy::{LEFTOVER, remove_leftover};
use crate::Failure;

/// How names of files begin that one of our commands is still writing.
const HALF_WRITTEN: &str = ".keywright-";

/// Names that are still to be visited, deepest last; in each the next one last.
pub(super) struct Walk {
    root: PathBuf,
    levels: Vec<(PathBuf, Vec<OsString>)>,
    /// Only what comes behind.
    after: Option<PathBuf>,
    begun: bool,
}

impl Walk {
    pub(super) fn new(root: &Path, after: Option<&str>) -> Self {
        Self {
            root: root.to_owned(),
            levels: Vec::new(),
            after: after.map(unescape),
            begun: false,
        }
    }

    /// The next file, below the root.
    pub(super) fn next(&mut self) -> Result<Option<PathBuf>, Failure> {
        if !self.begun {
            self.begun = true;
            self.enter(PathBuf::new())?;
        }
        loop {
            let Some((dir, names)) = self.levels.last_mut() else {
                return Ok(None);
            };
            let Some(name) = names.pop() else {
                self.levels.pop();
                continue;
            };
            let path = dir.join(&name);
            // Components are compared, not characters: as the walk goes.
            if let Some(after) = &self.after
                && path <= *after
                && !after.starts_with(&path)
            {
                continue;
            }
            let full = self.root.join(&path);
            let kind = match fs::symlink_metadata(&full) {
                Ok(meta) => meta.file_type(),
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(Failure::io(full.display(), &e)),
            };
            if kind.is_dir() {
                self.enter(path)?;
            } else if kind.is_file() && name.as_bytes().starts_with(LEFTOVER.as_bytes()) {
                remove_leftover(&full);
            } else if name.as_bytes().starts_with(HALF_WRITTEN.as_bytes()) {
                // Another command of ours is at it, and will give it its name.
            } else if kind.is_file() && self.after.as_ref() != Some(&path) {
                return Ok(Some(path));
            }
        }
    }

    /// A directory that cannot be read ends the work: what is in it would be overlooked.
    fn enter(&mut self, path: PathBuf) -> Result<(), Failure> {
        let full = self.root.join(&path);
        let error = |e| Failure::io(full.display(), &e);
        let entries = match fs::read_dir(&full) {
            Err(e) if e.kind() == io::ErrorKind::NotFound && !self.levels.is_empty() => {
                return Ok(());
            }
            entries => entries.map_err(error)?,
        };
        let names = entries.map(|e| e.map(|e| e.file_name()));
        let mut names = names
            .collect::<io::Result<Vec<OsString>>>()
            .map_err(error)?;
        names.sort_unstable_by(|a, b| b.cmp(a));
        self.levels.push((path, names));
        Ok(())
    }
}

/// A path as text; what is not UTF-8, and the sign of it, in hexadecimal.
pub(super) fn escape(path: &Path) -> String {
    let mut text = String::new();
    for part in path.as_os_str().as_bytes().utf8_chunks() {
        text.push_str(&part.valid().replace('%', "%25"));
        for byte in part.invalid() {
            text.push_str(&format!("%{byte:02x}"));
        }
    }
    text
}

fn unescape(text: &str) -> PathBuf {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2).unwrap_or(("", part));
        bytes.extend(u8::from_str_radix(digits, 16).ok());
        bytes.extend_from_slice(rest.as_bytes());
    }
    OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    #[test]
    fn any_path_is_text_and_back() {
        for bytes in [&b"a/b%20"[..], b"\xff\xfe/x%", "\u{fc}/%zz".as_bytes()] {
            let path = Path::new(OsStr::from_bytes(bytes));
            assert_eq!(unescape(&escape(path)), path);
        }
    }
}
