//! SPIFFE IDs as text, and in certificates.
#![no_main]

use keywright_pki::{SpiffeId, client_id};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = client_id(bytes);
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(id) = SpiffeId::parse(text)
    {
        assert_eq!(id.as_str(), text);
    }
});
