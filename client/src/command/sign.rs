//! `keywright sign` and `verify`: a file and its signature.

mod ways;

use std::io::{Read, Write};

use bytes::Bytes;
use keywright_client::{
    Client, Failure, FailureKind,
    proto::{self, SignRequest, VerifyRequest},
};
use serde_json::json;
pub(super) use ways::message;
use ways::{Way, first, ways};

use crate::{
    args::{How, Output},
    output::{self, Sink, input, print},
};

/// Inputs at most this long travel as they are: below the message limit of any server
/// with default limits. (Its limit of an item is lower still; it says so itself.)
pub(super) const INPUT_BYTES: u64 = 15 << 20;
/// A word of ours among the reasons of the server, which answers a check and fails nothing.
const NOT_VALID: &str = "NOT_VALID";
/// No signature is longer.
const SIGNATURE_BYTES: u64 = 4 << 10;

pub(crate) async fn sign(
    client: &Client,
    key: String,
    how: &How,
    from: Option<&std::path::Path>,
    to: Option<&std::path::Path>,
    output: Output,
) -> Result<(), Failure> {
    let ways = ways(how, input(from)?.0)?;
    let response = first(ways, async |way: Way| {
        let request = SignRequest {
            key: key.clone(),
            algorithm: Some(way.algorithm),
            inputs: vec![way.subject],
            ..Default::default()
        };
        Ok(client.crypto().sign(request).await?.into_inner())
    })
    .await?;
    let signature = response.signatures.into_iter().next().unwrap_or_default();
    let mut sink = Sink::open(to, false)?;
    sink.write_all(&signature)
        .map_err(|e| Failure::io("output", &e))?;
    sink.finish()?;
    let version = response.key_version;
    match output {
        Output::Table => anstream::eprintln!("signed with version {version} of {key}"),
        Output::Json => {
            anstream::eprintln!("{}", json!({ "key": key, "key_version": version }));
        }
    }
    Ok(())
}

pub(crate) async fn verify(
    client: &Client,
    key: String,
    how: &How,
    from: Option<&std::path::Path>,
    (signature, version): (&std::path::Path, Option<u32>),
    output: Output,
) -> Result<(), Failure> {
    let standard_input = std::path::Path::new("-");
    if signature == standard_input && from.is_none_or(|from| from == standard_input) {
        return Err(Failure::new(
            FailureKind::Usage,
            "standard input cannot be both the signature and what was signed; give --in FILE",
        ));
    }
    let file = input(Some(signature))?.0;
    let signature = whole(file, SIGNATURE_BYTES).map_err(|e| e.at(signature.display()))?;
    let ways = ways(how, input(from)?.0)?;
    let verdicts = first(ways, async |way: Way| {
        let request = VerifyRequest {
            key: key.clone(),
            algorithm: Some(way.algorithm),
            inputs: vec![way.subject],
            signatures: vec![signature.clone()],
            key_version: version.unwrap_or(0),
            ..Default::default()
        };
        let response = client.crypto().verify(request).await?.into_inner();
        match response.errors.first() {
            Some(error) => Err(Failure::item(error)),
            None => Ok(response.verdicts),
        }
    })
    .await?;
    said(&key, verdicts.first(), "signature", output)
}

/// Says what came of a check; not valid is exit code 6.
pub(super) fn said(
    key: &str,
    verdict: Option<&proto::Verdict>,
    what: &str,
    output: Output,
) -> Result<(), Failure> {
    let version = verdict.filter(|v| v.valid).map(|v| v.key_version);
    if output == Output::Json {
        output::json(&json!({ "valid": version.is_some(), "key": key, "key_version": version }))?;
    } else if let Some(version) = version {
        print(&format!("valid: made with version {version} of {key}\n"))?;
    }
    match version {
        Some(_) => Ok(()),
        None => Err(Failure::new(
            FailureKind::Data,
            format!(
                "not valid: no version of {key} that may verify made this {what} of this input this way"
            ),
        )
        .because(NOT_VALID)),
    }
}

/// An input that travels as it is.
pub(super) fn whole(from: impl Read, limit: u64) -> Result<Bytes, Failure> {
    let mut bytes = Vec::new();
    from.take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| Failure::io("input", &e))?;
    if bytes.len() as u64 > limit {
        return Err(Failure::new(
            FailureKind::Data,
            format!(
                "more than {limit} bytes; a server takes 1 MiB in one piece, if it is not told otherwise"
            ),
        ));
    }
    Ok(bytes.into())
}
