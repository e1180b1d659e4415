//! What the process does to itself before it holds a secret: no core dumps, no
//! debugger, no swap, no files for others.

use rustix::{
    fs::Mode,
    io::Errno,
    mm::{MlockAllFlags, mlockall},
    process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit, umask},
};
use tracing::warn;

/// Hardens the process. What the system does not allow is warned about, except core
/// dumps: a start with those would be a promise broken.
///
/// # Errors
/// When core dumps cannot be switched off.
pub fn harden() -> Result<(), String> {
    umask(Mode::RWXG | Mode::RWXO);
    let no_core = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Core, no_core)
        .map_err(|e| format!("core dumps cannot be switched off: {e}"))?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|e| format!("the process cannot be closed to debuggers: {e}"))?;
    // ONFAULT: lock what is used, not every page an allocator has only reserved.
    let flags = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    match mlockall(flags) {
        Ok(()) => {}
        Err(Errno::NOMEM | Errno::PERM | Errno::AGAIN) => warn!(
            "memory is not locked (RLIMIT_MEMLOCK): keys in memory could be swapped out; set LimitMEMLOCK=infinity, or switch swap off"
        ),
        Err(e) => warn!(error = %e, "memory is not locked"),
    }
    Ok(())
}
