//! JSON Lines and CSV that hold anything, and cursors of jobs.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    keywright_client::rewrap::fuzz_text(bytes);
    keywright_client::rewrap::fuzz_cursor(bytes);
});
