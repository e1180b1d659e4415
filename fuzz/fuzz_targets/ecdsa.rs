//! ECDSA signatures in DER: refused, or the one DER of their numbers.
#![no_main]

use keywright_pki::{ecdsa_from_der, ecdsa_to_der};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for field in [32, 48] {
        if let Some(raw) = ecdsa_from_der(bytes, field) {
            assert_eq!(raw.len(), 2 * field);
            assert_eq!(ecdsa_to_der(&raw).as_deref(), Some(bytes));
        }
    }
});
