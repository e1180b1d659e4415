//! The header of an encrypted file: refused, or a bounded segment size.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&[u8], usize)| {
    keywright_client::file::fuzz_header(input.0, input.1);
});
