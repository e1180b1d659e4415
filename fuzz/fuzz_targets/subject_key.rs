//! Public keys: refused, or the one DER of their content.
#![no_main]

use keywright_pki::SubjectKey;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(key) = SubjectKey::from_spki(bytes) {
        assert_eq!(key.spki(), bytes);
    }
});
