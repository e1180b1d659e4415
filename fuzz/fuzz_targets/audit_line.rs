//! An audit log that holds anything: the verifier and the daemon say no in peace.
#![no_main]

use std::fs;

use keywright_service::{audit::Log, store::Anchors};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let dir = tempfile::tempdir().expect("a folder");
    let segment = dir.path().join("00000000000000000001.jsonl");
    fs::write(&segment, bytes).expect("a file");
    let verified = keywright_client::audit::verify(dir.path(), None);
    let opened = Log::open(dir.path(), 1 << 20, &Anchors::new());
    // Two readers, written apart, agree on what is a log.
    if let (Ok(report), Ok(opened)) = (&verified, &opened) {
        assert_eq!(report.records, opened.log.head().seq);
        assert_eq!(report.head, hex(&opened.log.head().hash));
    }
});

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
