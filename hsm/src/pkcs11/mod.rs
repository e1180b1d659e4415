//! Any PKCS#11 module, by absolute path.
//!
//! ```text
//!   open ─► Module ─► Device ─ probe ─ attack ─► Connector ─► Pkcs11Token per worker
//! ```
//!
//! [`open`] loads the module, finds the token by label or serial (never by slot
//! number: slots move), logs in once, finds out what really works (`probe`) and
//! tries to get throw-away keys out (`attack`). A module that lets a key out is
//! refused with the list of what came out.
//!
//! Only this folder knows `cryptoki`; only `template` knows CKA names, `mechanism`
//! CKM names, `classify` CKR names, and only `raw` is unsafe. `vectors` is for tests,
//! and no release can contain it.

mod attack;
mod classify;
mod data;
mod device;
mod mechanism;
mod module;
mod objects;
mod params;
mod probe;
mod provision;
mod quirks;
mod raw;
mod session;
mod template;
mod turn;
#[cfg(feature = "vectors")]
pub mod vectors;

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

pub use device::{Device, is_there, open};
pub use module::Scout;
pub use provision::{NewToken, provision};
pub use quirks::Quirks;

use crate::{
    PinSource, Result,
    error::{Error, Kind},
};

/// Which module, which token, which PIN.
#[derive(Debug, Clone)]
pub struct TokenConfig {
    /// Absolute path of the PKCS#11 library.
    pub module: PathBuf,
    /// For modules that want it (`C_Initialize` reserved argument), as in p11-kit's
    /// `x-init-reserved`.
    pub init_reserved: Option<String>,
    /// CK_TOKEN_INFO.label. At least one of label and serial is needed; where both
    /// are given both must match.
    pub label: Option<String>,
    /// CK_TOKEN_INFO.serialNumber.
    pub serial: Option<String>,
    /// Read at every login.
    pub pin: PinSource,
    /// Where a refused PIN is remembered over restarts.
    pub pin_latch: Option<PathBuf>,
    /// Says whether a restart of the module would bring a token back, where other tokens
    /// of the module are in use. Without one it is not restarted under them.
    pub scout: Option<Scout>,
}

impl TokenConfig {
    fn is_there(&self, serial: Option<&str>) -> bool {
        let (label, serial) = match serial {
            Some(serial) => (None, Some(serial)),
            None => (self.label.as_deref(), self.serial.as_deref()),
        };
        self.scout.as_ref().is_some_and(|s| s.sees(label, serial))
    }
}

/// Checks the path of a module before anything of it is executed: absolute, a file, ours
/// or root's, and not for others to change. Gives the real path.
///
/// # Errors
/// [`Kind::Setup`], with what to do.
pub fn module_path(path: &Path) -> Result<PathBuf> {
    let setup = |text: String| Error::new(Kind::Setup, text);
    let shown = path.display();
    if !path.is_absolute() {
        return Err(setup(format!(
            "PKCS#11 module {shown}: give the absolute path of the library"
        )));
    }
    let real = fs::canonicalize(path).map_err(|e| {
        setup(format!(
            "PKCS#11 module {shown} cannot be opened: {e}; install the vendor's module (for SoftHSM: apt-get install softhsm2) or correct the path"
        ))
    })?;
    let meta = fs::metadata(&real)
        .map_err(|e| setup(format!("PKCS#11 module {shown} cannot be opened: {e}")))?;
    if !meta.is_file() {
        return Err(setup(format!("PKCS#11 module {shown} is not a file")));
    }
    if meta.mode() & 0o022 != 0 {
        return Err(setup(format!(
            "PKCS#11 module {shown} can be changed by others than its owner (mode {:o}); run: chmod go-w {}",
            meta.mode() & 0o777,
            real.display()
        )));
    }
    let us = rustix::process::geteuid().as_raw();
    if meta.uid() != 0 && meta.uid() != us {
        return Err(setup(format!(
            "PKCS#11 module {shown} belongs to user {}, neither root nor this user",
            meta.uid()
        )));
    }
    Ok(real)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_bare_name_is_refused() {
        let e = module_path(Path::new("libsofthsm2.so")).unwrap_err();
        assert!(e.to_string().contains("absolute path"), "{e}");
    }

    #[test]
    fn a_missing_module_says_what_to_install() {
        let e = module_path(Path::new("/nowhere/libsofthsm2.so")).unwrap_err();
        assert_eq!(e.kind(), Kind::Setup);
        assert!(e.to_string().contains("/nowhere/libsofthsm2.so"), "{e}");
        assert!(e.to_string().contains("install"), "{e}");
    }

    #[test]
    fn a_module_others_can_write_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.so");
        fs::write(&path, b"x").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        let e = module_path(&path).unwrap_err();
        assert!(e.to_string().contains("chmod go-w"), "{e}");
    }

    #[test]
    fn a_file_that_is_no_library_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.so");
        fs::write(&path, b"not a library").unwrap();
        let e = raw::Raw::load(&path).err().unwrap();
        assert_eq!(e.kind(), Kind::Setup);
        assert!(e.to_string().contains("is not a PKCS#11 module"), "{e}");
    }
}
