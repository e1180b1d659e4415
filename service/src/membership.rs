//! This node among the others: who it is, how far it has read, and whether it may serve.
//!
//! A node that cannot renew its lease stops by its own clock, before the database takes the
//! lease from it: who changes a key waits for nodes with a lease only, and must be sure that
//! nobody else goes on with what was. Its own clock is that of the time since the machine
//! started, sleep included; the database's times never come in here.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use crate::{
    clock::since_boot,
    error::{Error, Reason, Result},
    store::{Known, NodeId},
};

/// The lease in the database.
pub const LEASE: Duration = Duration::from_secs(5);
/// A node serves so long after it began to renew its lease. The second in between is for
/// what it is at, and for clocks that do not run alike.
const SERVES: Duration = Duration::from_secs(4);
/// How soon a node comes again that does not serve.
const LATER: Duration = Duration::from_secs(1);

/// One node's place among the others.
#[derive(Debug)]
pub struct Membership {
    id: NodeId,
    name: String,
    epoch: AtomicU64,
    /// Milliseconds after the machine started.
    serves_until: AtomicU64,
    left: AtomicBool,
}

impl Membership {
    /// The only one there is: it needs no lease.
    #[must_use]
    pub fn alone() -> Self {
        let alone = Self::of_many(NodeId([0; 16]), String::new(), Known::default());
        alone.serves_until.store(u64::MAX, Ordering::Release);
        alone
    }

    /// One of many, which has read so much and has no lease yet.
    #[must_use]
    pub fn of_many(id: NodeId, name: String, known: Known) -> Self {
        Self {
            id,
            name,
            epoch: known.epoch.into(),
            serves_until: AtomicU64::new(0),
            left: AtomicBool::new(false),
        }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// What people call it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// By what it serves.
    #[must_use]
    pub fn known(&self) -> Known {
        Known {
            epoch: self.epoch.load(Ordering::Acquire),
        }
    }

    /// From now on it serves by this.
    pub fn knows(&self, known: Known) {
        self.epoch.store(known.epoch, Ordering::Release);
    }

    /// The lease was renewed by what began then, after [`since_boot`].
    pub fn renewed(&self, began: Duration) {
        self.serves_until
            .fetch_max(millis(began + SERVES), Ordering::AcqRel);
    }

    /// It does nothing any more, whatever lease it has.
    pub fn leaves(&self) {
        self.left.store(true, Ordering::Release);
    }

    /// May it serve now?
    #[must_use]
    pub fn serves(&self) -> bool {
        !self.left.load(Ordering::Acquire)
            && millis(since_boot()) < self.serves_until.load(Ordering::Acquire)
    }

    /// Nothing is done by a node that may know less than the others.
    ///
    /// # Errors
    /// [`Reason::NodeFenced`].
    pub fn must_serve(&self) -> Result<()> {
        if self.serves() {
            return Ok(());
        }
        Err(Error::new(
            Reason::NodeFenced,
            "this node has lost touch with the others and answers nothing until it has it again; another node answers",
        )
        .retry_after(LATER))
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_serves_as_long_as_it_can_be_sure_of_its_lease() {
        assert!(Membership::alone().serves());
        let node = Membership::of_many(NodeId([1; 16]), "a".into(), Known::default());
        assert_eq!(node.must_serve().unwrap_err().reason(), Reason::NodeFenced);
        let now = since_boot();
        // The answer came late: what counts is when it was asked for.
        node.renewed(now.saturating_sub(SERVES));
        assert!(!node.serves());
        node.renewed(now);
        assert!(node.serves());
        node.renewed(now.saturating_sub(SERVES));
        assert!(node.serves(), "an older answer takes nothing away");
        node.leaves();
        assert!(!node.serves(), "who has left does nothing");
        assert!(SERVES < LEASE);
    }
}
