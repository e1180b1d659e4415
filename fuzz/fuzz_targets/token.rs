//! `kw1.` tokens: bytes that are no token are refused, and a token has one spelling.
#![no_main]

use keywright_client::token;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(attached) = token::decode(bytes) {
        assert_eq!(
            token::encode_attached(&attached).as_bytes(),
            bytes.trim_ascii()
        );
    }
});
