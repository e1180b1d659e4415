//! Processes on one machine log in to their tokens one after the other.
//!
//! SoftHSM2 2.6 truncates `token.object` at every login before it locks it, so another
//! process that logs in, or looks at a key it just made, in that moment sees a token
//! without a PIN, no token at all, or a key without attributes, which every attack then
//! gets through. The lock is advisory and on the module's own file: whoever uses another
//! module does not wait, and nothing is left behind by a process that dies.

use std::{fs::File, path::Path, sync::mpsc, thread, time::Duration};

use tracing::warn;

/// Longer than any login; after it we go on, because a process that hangs in its HSM must
/// not keep the others from theirs.
const PATIENCE: Duration = Duration::from_secs(20);

/// Held while a process opens a token; it ends with the value.
#[derive(Debug)]
pub(super) struct Turn {
    _lock: Option<File>,
}

/// Waits until no other process on this machine opens a token of this module.
pub(super) fn take(module: &Path) -> Turn {
    take_within(module, PATIENCE)
}

fn take_within(module: &Path, patience: Duration) -> Turn {
    let Ok(file) = File::open(module) else {
        return Turn { _lock: None };
    };
    let (turn, taken) = mpsc::channel();
    // When nobody waits any more, the lock ends with the file that could not be sent.
    thread::spawn(move || turn.send(file.lock().map(|()| file)));
    match taken.recv_timeout(patience) {
        Ok(Ok(file)) => Turn { _lock: Some(file) },
        late => {
            warn!(
                module = %module.display(), answer = ?late,
                "not waiting for other processes that open this module"
            );
            Turn { _lock: None }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "this is a test")]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_and_none_for_ever() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let first = take(file.path());
        assert!(first._lock.is_some());
        let second = take_within(file.path(), Duration::from_millis(20));
        assert!(second._lock.is_none());
        drop(first);
        assert!(take(file.path())._lock.is_some());
    }

    #[test]
    fn a_module_that_is_not_there_is_for_the_loader_to_report() {
        assert!(take(Path::new("/nowhere.so"))._lock.is_none());
    }
}
