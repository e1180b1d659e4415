//! Certificate signing requests, as DER and as PEM.
#![no_main]

use keywright_pki::{Csr, San};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for csr in [
        Csr::from_der(bytes),
        Csr::from_pem(&String::from_utf8_lossy(bytes)),
    ]
    .into_iter()
    .flatten()
    {
        assert!(csr.names().len() <= Csr::MAX_NAMES);
        for name in csr.names() {
            assert_eq!(name.to_string().parse::<San>().as_ref(), Ok(name));
        }
    }
});
