//! The wire contract of Keywright and nothing else: what `keywright/v1/*.proto`
//! says, as Rust types. No logic lives here; every check is made where the
//! message is turned into a domain type (`service/src/api/grpc/convert.rs`).
#![forbid(unsafe_code)]

/// Package `keywright.v1`.
#[expect(
    missing_docs,
    clippy::all,
    reason = "generated code; the documentation stands in the .proto files"
)]
pub mod v1 {
    tonic::include_proto!("keywright.v1");
}

/// The encoded `FileDescriptorSet` of everything above, for server reflection
/// and for tests that must see every RPC.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
