//! Roles and policies of an operator's folder.
#![no_main]

use std::collections::BTreeMap;

use keywright_service::policy::{Engine, Roles};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, &str)| {
    let (roles, policies) = input;
    let parsed = Roles::parse(roles).or_else(|_| Roles::parse("roles = {}"));
    if let Ok(parsed) = parsed {
        let files = BTreeMap::from([("fuzz.cedar".to_owned(), policies.to_owned())]);
        let _ = Engine::new(&files, roles, parsed);
    }
});
