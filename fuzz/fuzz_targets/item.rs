//! Items from anywhere: none opens, and nothing of a refused one stays in the output.
#![no_main]

use std::collections::BTreeMap;

use keywright_hsm::Dek;
use keywright_service::{
    envelope::{Binding, Context, ITEM_OVERHEAD, Kind, Schedule},
    key::{KeyId, TenantId},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&[u8], &[u8])| {
    let (aad, item) = input;
    let context = Context::new(&BTreeMap::new()).expect("an empty context");
    let binding = Binding {
        kind: Kind::Items,
        key_id: KeyId([1; 16]),
        tenant: TenantId([2; 16]),
        salt: [3; 16],
        context: &context,
    };
    let schedule = Schedule::derive(&Dek::take(&mut [4; 32]), &binding).expect("a schedule");
    let opener = schedule.opener().expect("an opener");
    let mut out = vec![0xff; item.len().saturating_sub(ITEM_OVERHEAD)];
    assert!(opener.open(aad, item, &mut out).is_err(), "a forged item");
    assert!(out.iter().all(|b| *b == 0));
});
