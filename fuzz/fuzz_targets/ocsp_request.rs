//! OCSP requests, as anybody may send them.
#![no_main]

use keywright_pki::OcspRequest;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(request) = OcspRequest::from_der(bytes) {
        assert!((1..=OcspRequest::MAX_CERT_IDS).contains(&request.cert_ids.len()));
        assert!(bytes.len() <= OcspRequest::MAX_LEN);
    }
});
