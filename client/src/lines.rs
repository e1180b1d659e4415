//! Line by line: each input line becomes one line of the output, a `kw1.` token or a
//! signature, batched underneath. Line ends stay as they are: a last line without one
//! stays without.
//!
//! The batches travel on a stream, except for re-encryption, which has none, and for what
//! is encrypted here. Memory holds
//! the few batches that have no answer yet.

mod batch;
mod decrypt;
mod encrypt;
mod page;
mod reencrypt;
mod rewrap;
mod sign;
mod travel;

pub(crate) use batch::cut;
pub use decrypt::decrypt;
pub use encrypt::{encrypt, encrypt_here};
pub use reencrypt::reencrypt;
pub use rewrap::rewrap;
use serde::Serialize;
pub use sign::sign;

/// What was done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Lines.
    pub lines: u64,
    /// Batches they travelled in.
    pub batches: u64,
    /// Of each kind of line.
    #[serde(flatten)]
    pub counts: Counts,
}

/// How many lines; none where the work does not tell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Lines whose header moved to the primary version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rewrapped: Option<u64>,
    /// Lines that were there already.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub already_current: Option<u64>,
    /// Lines that were opened under a version that is no longer the primary one: rewrap
    /// them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rewrap_due: Option<u64>,
}

impl Counts {
    fn add(&mut self, more: Self) {
        let add = |sum: &mut Option<u64>, more: Option<u64>| {
            if let Some(more) = more {
                *sum = Some(sum.unwrap_or(0) + more);
            }
        };
        add(&mut self.rewrapped, more.rewrapped);
        add(&mut self.already_current, more.already_current);
        add(&mut self.rewrap_due, more.rewrap_due);
    }
}

/// Told how many bytes of the input are done.
pub type Progress<'a> = &'a (dyn Fn(u64) + Sync);
