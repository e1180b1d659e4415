//! `keywright random`.

use std::io::Write;

use base64::{Engine, prelude::BASE64_STANDARD};
use keywright_client::{Client, Failure, proto::GenerateRandomRequest};

use crate::args::Encoding;

pub(crate) async fn run(client: &Client, bytes: u32, encoding: Encoding) -> Result<(), Failure> {
    let request = GenerateRandomRequest {
        lengths: vec![bytes],
    };
    let response = client.crypto().generate_random(request).await?.into_inner();
    let value = response.values.into_iter().next().unwrap_or_default();
    match encoding {
        Encoding::Hex => anstream::println!("{}", hex::encode(&value)),
        Encoding::Base64 => anstream::println!("{}", BASE64_STANDARD.encode(&value)),
        Encoding::Raw => std::io::stdout()
            .write_all(&value)
            .map_err(|e| Failure::io("standard output", &e))?,
    }
    Ok(())
}
