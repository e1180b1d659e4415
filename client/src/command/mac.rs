//! `keywright mac` and `verify-mac`.

use std::path::Path;

use bytes::Bytes;
use keywright_client::{
    Client, Failure, FailureKind,
    proto::{MacRequest, VerifyMacRequest},
};
use serde_json::json;

use super::sign::{INPUT_BYTES, said, whole};
use crate::{
    args::Output,
    output::{self, input, print},
};

pub(crate) async fn mac(
    client: &Client,
    key: String,
    from: Option<&Path>,
    output: Output,
) -> Result<(), Failure> {
    let request = MacRequest {
        key: key.clone(),
        inputs: vec![whole(input(from)?.0, INPUT_BYTES)?],
        ..Default::default()
    };
    let response = client.crypto().mac(request).await?.into_inner();
    let mac = hex::encode(response.macs.first().map_or(&[][..], |m| m));
    match output {
        Output::Table => print(&format!("{mac}\n")),
        Output::Json => {
            output::json(&json!({ "mac": mac, "key": key, "key_version": response.key_version }))
        }
    }
}

pub(crate) async fn verify(
    client: &Client,
    key: String,
    (mac, version): (&str, Option<u32>),
    from: Option<&Path>,
    output: Output,
) -> Result<(), Failure> {
    let mac = hex::decode(mac.trim()).map_err(|_| {
        Failure::new(
            FailureKind::Usage,
            "--mac is hexadecimal, as `keywright mac` prints it",
        )
    })?;
    let request = VerifyMacRequest {
        key: key.clone(),
        inputs: vec![whole(input(from)?.0, INPUT_BYTES)?],
        macs: vec![Bytes::from(mac)],
        key_version: version.unwrap_or(0),
        ..Default::default()
    };
    let verdicts = client
        .crypto()
        .verify_mac(request)
        .await?
        .into_inner()
        .verdicts;
    said(&key, verdicts.first(), "MAC", output)
}
