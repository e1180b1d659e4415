//! Messages from the wire: decoding and the limits of a batch.
#![no_main]

use keywright_service::api::grpc::fuzzing::convert_all;
use libfuzzer_sys::fuzz_target;
use prost::Message;

fuzz_target!(|bytes: &[u8]| {
    convert_all(
        Message::decode(bytes).unwrap_or_default(),
        Message::decode(bytes).unwrap_or_default(),
        Message::decode(bytes).unwrap_or_default(),
        Message::decode(bytes).unwrap_or_default(),
    );
});
