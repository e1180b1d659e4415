//! `keywright random`.

use std::io::Write;

use base64::{Engine, prelude::BASE64_STANDARD};
use keywright_client::{Client, Failure, FailureKind, proto::GenerateRandomRequest};
use serde_json::json;

use crate::{
    args::{Encoding, Output},
    output::{self, print},
};

pub(crate) async fn run(
    client: &Client,
    bytes: u32,
    encoding: Encoding,
    output: Output,
) -> Result<(), Failure> {
    let request = GenerateRandomRequest {
        lengths: vec![bytes],
        ..Default::default()
    };
    let response = client.crypto().generate_random(request).await?.into_inner();
    let value = response.values.into_iter().next().unwrap_or_default();
    let (name, text) = match encoding {
        Encoding::Hex => ("hex", hex::encode(&value)),
        Encoding::Base64 => ("base64", BASE64_STANDARD.encode(&value)),
        Encoding::Raw if output == Output::Json => {
            return Err(Failure::new(
                FailureKind::Usage,
                "JSON holds no raw bytes; choose --encoding hex or base64",
            ));
        }
        Encoding::Raw => {
            return std::io::stdout()
                .write_all(&value)
                .map_err(|e| Failure::io("standard output", &e));
        }
    };
    match output {
        Output::Table => print(&format!("{text}\n")),
        Output::Json => output::json(&json!({ "encoding": name, "random": text })),
    }
}
