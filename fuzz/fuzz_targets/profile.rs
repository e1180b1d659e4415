//! Profiles: refused, or their canonical text is read as the same profile.
#![no_main]

use keywright_pki::Profile;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(profile) = Profile::parse(text)
    {
        assert_eq!(Profile::parse(profile.text()), Ok(profile));
    }
});
