//! Where the keywrightd is that this program runs for what only the daemon knows.

use std::path::{Path, PathBuf};

pub(super) const DAEMON: &str = "keywrightd";

/// The one beside us, which is of our release; else the one on the PATH.
pub(super) fn daemon() -> PathBuf {
    std::env::current_exe()
        .ok()
        .and_then(|this| this.parent().map(|dir| dir.join(DAEMON)))
        .filter(|beside| beside.is_file())
        .unwrap_or_else(|| Path::new(DAEMON).to_owned())
}
