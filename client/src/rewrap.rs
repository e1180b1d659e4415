//! Rewrap jobs: everything in one place off the old versions of a key.
//!
//! A [`Place`] is where envelopes lie: a table, a directory, a text file. [`run`] takes the
//! lease of a job, reads the place page by page from the cursor of the job, moves what is
//! old with `Crypto.Rewrap` (only headers travel), has the place write it back, and
//! reports steps in the order of the place. So a worker that is killed loses nothing: the
//! next one goes on behind the last step that was reported, and what was moved behind it
//! is found moved.

mod cursor;
mod driver;
#[cfg(test)]
mod fake;
mod files;
mod lease;
mod mover;
mod pace;
mod patience;
mod place;
mod server;
mod sort;
mod table;
mod tally;
mod text;
#[cfg(test)]
mod trials;

use std::time::Duration;

#[cfg(fuzzing)]
pub use cursor::fuzz_cursor;
pub use driver::run;
pub use files::Files;
pub use patience::Stop;
pub use place::{Entry, Page, Place, Value, Written};
pub use server::Server;
pub use table::{Column, Table};
#[cfg(fuzzing)]
pub use text::fuzz_text;
pub use text::{Text, TextFormat, Whole};

use crate::proto;

/// What is wanted of a job.
#[derive(Debug, Clone)]
pub struct Order {
    /// Name of the key.
    pub key: String,
    /// Only look.
    pub dry_run: bool,
    /// Items a second to be moved; 0: as fast as it goes.
    pub rate: u32,
    /// Entries of a page.
    pub batch: usize,
    /// Pages worked on side by side.
    pub workers: usize,
    /// Take the lease also from a worker that has it.
    pub take_over: bool,
    /// How long a server or a database may be away.
    pub patience: Duration,
    /// A step is reported about this often.
    pub beat: Duration,
    /// Pause before another try; each further one is twice as long, up to 50 times this.
    pub pause: Duration,
}

impl Order {
    /// Everything old of this key, with what is usual.
    #[must_use]
    pub fn new(key: &str) -> Self {
        Self {
            key: key.to_owned(),
            dry_run: false,
            rate: 0,
            batch: 1_000,
            workers: 4,
            take_over: false,
            patience: Duration::from_secs(300),
            beat: Duration::from_secs(1),
            pause: Duration::from_millis(200),
        }
    }
}

/// What is said on the way.
#[derive(Debug)]
pub enum Event<'a> {
    /// The job that is worked on, and whether somebody worked on it before.
    Begin(&'a proto::Job, bool),
    /// Where it stands: counts in all steps and since, and how many there are in all.
    Progress(proto::JobCounts, u64),
    /// Nothing can be done now; why, and until when.
    Waiting(String),
    /// Something a person should know.
    Note(String),
}

/// Told what happens.
pub type Tell<'a> = &'a (dyn Fn(Event<'_>) + Sync);

/// The name of this machine.
fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname");
    match name.as_deref().map(str::trim) {
        Ok(name) if !name.is_empty() => name.to_owned(),
        _ => "localhost".to_owned(),
    }
}
