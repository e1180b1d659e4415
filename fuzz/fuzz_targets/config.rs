//! Configuration files that hold anything.
#![no_main]

use std::path::Path;

use keywright_service::config::Config;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Err(error) = Config::parse(text, Path::new("/etc/keywright/keywrightd.toml")) {
        assert!(
            error
                .to_string()
                .starts_with("/etc/keywright/keywrightd.toml")
        );
    }
});
