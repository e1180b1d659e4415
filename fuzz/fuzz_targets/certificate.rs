//! Certificates of others: read for search and revocation, and as issuers.
#![no_main]

use keywright_pki::{CertificateInfo, IssuerCert, Serial};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(info) = CertificateInfo::from_der(bytes) {
        assert_eq!(Serial::from_bytes(info.serial.as_bytes()), Ok(info.serial));
    }
    let _ = IssuerCert::from_der(bytes);
});
