//! Envelope headers from anywhere: read, and written back as they were.
#![no_main]

use keywright_service::envelope::Header;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(header) = Header::parse(bytes) {
        assert_eq!(header.as_bytes().as_slice(), bytes);
        let _ = (header.key_id(), header.key_version(), header.wrapped());
    }
});
