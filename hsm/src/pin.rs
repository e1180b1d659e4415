//! Where the PIN comes from, and the latch that keeps a wrong one from being tried
//! twice.
//!
//! Tokens lock after a few wrong PINs. A daemon that restarts in a loop must not
//! burn them: a refused PIN is remembered (as a slow salted hash, not as itself) in
//! a latch file, and is not sent again until the source holds another one.

use std::{
    fmt, fs,
    io::{Read, Write},
    num::NonZeroU32,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use aws_lc_rs::pbkdf2;
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use crate::{
    Result,
    error::{Error, Kind},
    key::os_random,
};

/// A user PIN: not printable, zeroised on drop.
#[derive(Clone)]
pub struct Pin(SecretString);

impl Pin {
    /// Takes over the text.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text.into())
    }

    pub(crate) fn secret(&self) -> &SecretString {
        &self.0
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pin(..)")
    }
}

/// Where the PIN is read from, each time it is needed.
#[derive(Debug, Clone)]
pub enum PinSource {
    /// A file that only its owner may read; also a systemd credential.
    File(PathBuf),
    /// An inherited file descriptor, read once at start.
    Given(Pin, &'static str),
}

/// Longest PIN read from a source.
const PIN_MAX_BYTES: u64 = 1024;

impl PinSource {
    /// Reads the PIN from an inherited file descriptor, to its end.
    ///
    /// # Errors
    /// [`Kind::Setup`] when the descriptor is not open or holds no PIN.
    pub fn from_fd(fd: i32) -> Result<Self> {
        let path = PathBuf::from(format!("/proc/self/fd/{fd}"));
        let pin = read_pin(&path, "file descriptor")?;
        Ok(Self::Given(pin, "the file descriptor"))
    }

    /// Reads the PIN now.
    ///
    /// # Errors
    /// [`Kind::Setup`] when the source is missing, empty or open to others.
    pub fn read(&self) -> Result<Pin> {
        match self {
            Self::Given(pin, _) => Ok(pin.clone()),
            Self::File(path) => {
                private_file(path)?;
                read_pin(path, "PIN file")
            }
        }
    }
}

impl fmt::Display for PinSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Given(_, what) => f.write_str(what),
        }
    }
}

fn private_file(path: &Path) -> Result<()> {
    let setup = |text: String| Error::new(Kind::Setup, text);
    let meta = fs::metadata(path)
        .map_err(|e| setup(format!("PIN file {} cannot be read: {e}", path.display())))?;
    if meta.mode() & 0o077 != 0 {
        return Err(setup(format!(
            "PIN file {} is open to other users (mode {:o}); run: chmod 600 {}",
            path.display(),
            meta.mode() & 0o777,
            path.display()
        )));
    }
    Ok(())
}

fn read_pin(path: &Path, what: &str) -> Result<Pin> {
    let setup = |text: String| Error::new(Kind::Setup, text);
    let mut text = Zeroizing::new(String::new());
    fs::File::open(path)
        .and_then(|f| f.take(PIN_MAX_BYTES).read_to_string(&mut text))
        .map_err(|e| setup(format!("{what} {} cannot be read: {e}", path.display())))?;
    let pin = text.trim_end_matches(['\r', '\n']);
    if pin.is_empty() {
        return Err(setup(format!("{what} {} holds no PIN", path.display())));
    }
    Ok(Pin::new(pin.to_owned()))
}

/// Remembers on disk which PIN a token refused.
#[derive(Debug, Clone)]
pub(crate) struct Latch {
    path: PathBuf,
}

const SALT_LEN: usize = 16;
const HASH_LEN: usize = 32;
/// Only paid when a latch exists; slow, so that the file does not give the PIN away.
const ROUNDS: NonZeroU32 = NonZeroU32::MIN.saturating_add(399_999);

impl Latch {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Was this very PIN refused before?
    pub(crate) fn holds(&self, pin: &Pin) -> bool {
        let Ok(bytes) = fs::read(&self.path) else {
            return false;
        };
        let Some((salt, hash)) = bytes.split_first_chunk::<SALT_LEN>() else {
            return false;
        };
        pbkdf2::verify(
            pbkdf2::PBKDF2_HMAC_SHA256,
            ROUNDS,
            salt,
            pin.secret().expose_secret().as_bytes(),
            hash,
        )
        .is_ok()
    }

    /// Remembers that the token refused this PIN.
    pub(crate) fn set(&self, pin: &Pin) -> Result<()> {
        let mut record = [0; SALT_LEN + HASH_LEN];
        let (salt, hash) = record.split_at_mut(SALT_LEN);
        os_random(salt)?;
        pbkdf2::derive(
            pbkdf2::PBKDF2_HMAC_SHA256,
            ROUNDS,
            salt,
            pin.secret().expose_secret().as_bytes(),
            hash,
        );
        fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&self.path)
            .and_then(|mut f| f.write_all(&record).and_then(|()| f.sync_all()))
            .map_err(|e| {
                Error::new(
                    Kind::Setup,
                    format!("PIN latch {} cannot be written: {e}", self.path.display()),
                )
            })
    }

    pub(crate) fn clear(&self) {
        // Nothing to clear is the normal case.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn file(dir: &tempfile::TempDir, text: &str, mode: u32) -> PathBuf {
        let path = dir.path().join("pin");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn a_pin_file_open_to_others_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = file(&dir, "1234\n", 0o644);
        let e = PinSource::File(path).read().unwrap_err();
        assert_eq!(e.kind(), Kind::Setup);
        assert!(e.to_string().contains("chmod 600"), "{e}");
    }

    #[test]
    fn trailing_newline_is_not_part_of_the_pin() {
        let dir = tempfile::tempdir().unwrap();
        let pin = PinSource::File(file(&dir, "12 34\r\n", 0o400))
            .read()
            .unwrap();
        assert_eq!(pin.secret().expose_secret(), "12 34");
        assert_eq!(format!("{pin:?}"), "Pin(..)");
    }

    #[test]
    fn an_empty_pin_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let e = PinSource::File(file(&dir, "\n", 0o600)).read().unwrap_err();
        assert!(e.to_string().contains("holds no PIN"), "{e}");
    }

    #[test]
    fn the_latch_holds_one_pin_only() {
        let dir = tempfile::tempdir().unwrap();
        let latch = Latch::new(dir.path().join("latch"));
        let (wrong, right) = (Pin::new("1111".into()), Pin::new("2222".into()));
        assert!(!latch.holds(&wrong));
        latch.set(&wrong).unwrap();
        assert!(latch.holds(&wrong) && !latch.holds(&right));
        let bytes = fs::read(dir.path().join("latch")).unwrap();
        assert!(!bytes.windows(4).any(|w| w == b"1111"));
        latch.clear();
        assert!(!latch.holds(&wrong));
    }
}
