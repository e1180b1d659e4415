//! The series that every request touches, looked up once. To look one up by its labels
//! costs more than to count, and takes memory each time.

use std::{collections::BTreeMap, sync::Arc};

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use parking_lot::RwLock;

use super::{
    HSM_QUEUE_SECONDS, HSM_SECONDS, IN_FLIGHT, ITEM_BYTES, ITEMS, REQUEST_SECONDS, REQUESTS,
};

/// Of one RPC.
pub(super) struct OfRpc {
    pub(super) in_flight: Gauge,
    /// Requests that ended well.
    pub(super) ok: Counter,
    pub(super) seconds: Histogram,
}

/// Of the items of one RPC.
pub(super) struct OfItems {
    /// Items that went well.
    pub(super) ok: Counter,
    pub(super) bytes: Counter,
}

/// Of one kind of job of the HSM.
pub(super) struct OfJob {
    pub(super) queued: Histogram,
    pub(super) ran: Histogram,
}

/// Handles by a constant word.
pub(super) struct Handles<T> {
    known: RwLock<BTreeMap<&'static str, Arc<T>>>,
    new: fn(&'static str) -> T,
}

impl<T> Handles<T> {
    pub(super) const fn new(new: fn(&'static str) -> T) -> Self {
        Self {
            known: RwLock::new(BTreeMap::new()),
            new,
        }
    }

    pub(super) fn of(&self, word: &'static str) -> Arc<T> {
        if let Some(known) = self.known.read().get(word) {
            return Arc::clone(known);
        }
        let new = Arc::new((self.new)(word));
        let mut known = self.known.write();
        Arc::clone(known.entry(word).or_insert(new))
    }
}

pub(super) static RPCS: Handles<OfRpc> = Handles::new(|rpc| OfRpc {
    in_flight: gauge!(IN_FLIGHT),
    ok: counter!(REQUESTS, "rpc" => rpc, "outcome" => "OK"),
    seconds: histogram!(REQUEST_SECONDS, "rpc" => rpc),
});

pub(super) static RPC_ITEMS: Handles<OfItems> = Handles::new(|rpc| OfItems {
    ok: counter!(ITEMS, "rpc" => rpc, "result" => "ok"),
    bytes: counter!(ITEM_BYTES, "rpc" => rpc),
});

pub(super) static JOBS: Handles<OfJob> = Handles::new(|op| OfJob {
    queued: histogram!(HSM_QUEUE_SECONDS, "op" => op),
    ran: histogram!(HSM_SECONDS, "op" => op),
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_for_each_word() {
        let handles = Handles::new(|word| word.len());
        let (first, again) = (handles.of("abc"), handles.of("abc"));
        assert!(Arc::ptr_eq(&first, &again));
        assert_eq!(*handles.of("de"), 2);
    }
}
