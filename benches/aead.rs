//! Sealing alone, on one core: what an appliance cannot be faster than.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use keywright_hsm::Dek;
use keywright_service::{
    envelope::{Binding, Context, ITEM_OVERHEAD, Kind, Schedule},
    key::{KeyId, TenantId},
};

/// Items per second, derivation once per batch.
///
/// # Panics
/// When AES-GCM cannot be had.
#[must_use]
#[allow(clippy::cast_precision_loss, reason = "a benchmark")]
pub fn per_second(count: usize, size: usize, window: Duration) -> f64 {
    let context = Context::new(&BTreeMap::new()).unwrap();
    let plaintext = vec![0x5a; size];
    let mut out = vec![0; count * (size + ITEM_OVERHEAD)];
    let start = Instant::now();
    let mut sealed = 0usize;
    while start.elapsed() < window {
        let binding = Binding {
            kind: Kind::Items,
            key_id: KeyId([1; 16]),
            tenant: TenantId([2; 16]),
            salt: [3; 16],
            context: &context,
        };
        let mut sealer = Schedule::derive(&Dek::take(&mut [7; 32]), &binding)
            .unwrap()
            .sealer()
            .unwrap();
        for item in out.chunks_mut(size + ITEM_OVERHEAD) {
            sealer.seal(b"", &plaintext, item).unwrap();
        }
        sealed += count;
    }
    sealed as f64 / start.elapsed().as_secs_f64()
}
