//! Key names: what is accepted is what was given, and has no way out of its folder.
#![no_main]

use keywright_service::key::KeyName;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(name) = KeyName::parse(text) {
        assert_eq!(name.as_str(), text);
        assert!(text.len() <= 255);
        assert!(
            text.split('/')
                .all(|part| !part.is_empty() && part != "." && part != "..")
        );
    }
});
