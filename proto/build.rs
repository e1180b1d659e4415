//! Compiles the .proto files with protox, so that building needs no protoc,
//! and keeps the descriptor set for server reflection.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message;

const FILES: [&str; 5] = [
    "keywright/v1/batch.proto",
    "keywright/v1/crypto.proto",
    "keywright/v1/jobs.proto",
    "keywright/v1/keys.proto",
    "keywright/v1/pki.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=keywright");
    let descriptors = protox::compile(FILES, ["."])?;
    #[expect(
        clippy::disallowed_methods,
        reason = "how cargo tells a build script where to write"
    )]
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        // Payloads stay slices of the received message: no copy on the hot path.
        .bytes(".")
        // Context and labels in key order, which the canonical form needs anyway.
        .btree_map(".")
        .compile_fds(descriptors)?;
    Ok(())
}
