//! What stands in requests and settings as one word: leases of jobs, database URLs.
#![no_main]

use keywright_service::{job::Lease, store::PostgresUrl};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Some(lease) = Lease::parse(text) {
        assert_eq!(Lease::parse(&lease.to_string()), Some(lease));
    }
    // Its errors may be shown: a password in it must not.
    let url = format!("postgres://user:{text}@host/db");
    if let Err(error) = PostgresUrl::parse(&url) {
        assert!(text.len() < 8 || !error.contains(text), "{error}");
    }
    let _ = PostgresUrl::parse(text);
});
