//! `keywright data-key` and `asymmetric-decrypt`: what other programs encrypt with.

use std::{io::Write, path::Path};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use keywright_client::{
    Client, Failure, FailureKind,
    proto::{
        AsymmetricDecryptRequest, DataKeyForm, DecryptDataKeysRequest, GenerateDataKeysRequest,
        OaepHash, RewrapRequest,
    },
};
use serde_json::{Value, json};

use super::{
    data::pairs,
    sign::{INPUT_BYTES, whole},
};
use crate::{
    args::{DataKey, Oaep, Output},
    output::{self, Sink, input, print},
};

pub(crate) async fn run(client: &Client, command: DataKey, output: Output) -> Result<(), Failure> {
    match command {
        DataKey::Generate {
            key,
            bytes,
            wrapped_only,
            keep,
            context,
        } => {
            let form = if wrapped_only {
                DataKeyForm::Wrapped
            } else {
                DataKeyForm::Both
            };
            let request = GenerateDataKeysRequest {
                key,
                context: pairs(context)?,
                lengths: vec![bytes],
                form: form.into(),
                keep,
                ..Default::default()
            };
            generate(client, request, output).await
        }
        DataKey::Rewrap { wrapped } => {
            let request = RewrapRequest {
                envelopes: vec![decode(&wrapped)?],
                ..Default::default()
            };
            let response = client.crypto().rewrap(request).await?.into_inner();
            let moved = response.envelopes.into_iter().next().unwrap_or_default();
            show(&[("wrapped", &moved)], output)
        }
        DataKey::Open {
            wrapped,
            id,
            bytes,
            context,
        } => {
            let decoded = wrapped.as_deref().map(decode).transpose()?;
            let request = DecryptDataKeysRequest {
                context: pairs(context)?,
                wrapped: decoded.into_iter().collect(),
                ids: id.iter().map(|id| Bytes::copy_from_slice(id)).collect(),
                lengths: vec![bytes],
                ..Default::default()
            };
            let response = client
                .crypto()
                .decrypt_data_keys(request)
                .await?
                .into_inner();
            let due = !response.rewrap_due.is_empty();
            let plaintext = response.plaintexts.into_iter().next().unwrap_or_default();
            if due && output == Output::Table {
                let how = match wrapped {
                    Some(wrapped) => format!("data-key rewrap {wrapped}"),
                    None => "rewrap kept --key NAME".to_owned(),
                };
                anstream::eprintln!(
                    "it is under an old version of its key, move it with: keywright {how}"
                );
            }
            opened(&plaintext, due, output)
        }
        DataKey::Forget { key, ids } => forget(client, key, &ids, output).await,
    }
}

async fn forget(
    client: &Client,
    key: String,
    ids: &[[u8; 16]],
    output: Output,
) -> Result<(), Failure> {
    let asked = ids.len();
    let ids = ids.iter().map(|id| Bytes::copy_from_slice(id)).collect();
    let forgotten = client.forget_data_keys(&key, ids).await?;
    match output {
        Output::Table => print(&format!("forgotten: {forgotten} of {asked}\n")),
        Output::Json => output::json(&json!({ "forgotten": forgotten, "asked": asked })),
    }
}

fn decode(wrapped: &str) -> Result<Bytes, Failure> {
    let bytes = BASE64_STANDARD.decode(wrapped.trim()).map_err(|_| {
        Failure::new(
            FailureKind::Usage,
            "the wrapped data key is base64, as `keywright data-key generate` prints it",
        )
    })?;
    Ok(bytes.into())
}

async fn generate(
    client: &Client,
    request: GenerateDataKeysRequest,
    output: Output,
) -> Result<(), Failure> {
    let response = client
        .crypto()
        .generate_data_keys(request)
        .await?
        .into_inner();
    let key = response.data_keys.into_iter().next().unwrap_or_default();
    let mut parts = vec![("plaintext", &key.plaintext), ("wrapped", &key.wrapped)];
    parts.retain(|(_, bytes)| !bytes.is_empty());
    let mut fields: Vec<(&str, String)> = encoded(&parts);
    if !key.id.is_empty() {
        fields.push(("id", hex::encode(&key.id)));
    }
    show_fields(fields, output)
}

fn opened(plaintext: &Bytes, rewrap_due: bool, output: Output) -> Result<(), Failure> {
    match output {
        Output::Table => show(&[("plaintext", plaintext)], output),
        Output::Json => output::json(&json!({
            "plaintext": BASE64_STANDARD.encode(plaintext),
            "rewrap_due": rewrap_due,
        })),
    }
}

fn show(parts: &[(&str, &Bytes)], output: Output) -> Result<(), Failure> {
    show_fields(encoded(parts), output)
}

fn encoded<'a>(parts: &[(&'a str, &Bytes)]) -> Vec<(&'a str, String)> {
    let encode = |(name, bytes): &(&'a str, &Bytes)| (*name, BASE64_STANDARD.encode(bytes));
    parts.iter().map(encode).collect()
}

fn show_fields(fields: Vec<(&str, String)>, output: Output) -> Result<(), Failure> {
    let fields = fields.into_iter();
    match output {
        Output::Table => {
            let lines: Vec<String> = fields
                .map(|(name, text)| format!("{name:<9}  {text}\n"))
                .collect();
            print(&lines.concat())
        }
        Output::Json => {
            let fields = fields.map(|(name, text)| (name.to_owned(), Value::from(text)));
            output::json(&Value::Object(fields.collect()))
        }
    }
}

pub(crate) async fn asymmetric_decrypt(
    client: &Client,
    key: String,
    version: Option<u32>,
    hash: Oaep,
    from: Option<&Path>,
    to: Option<&Path>,
) -> Result<(), Failure> {
    let request = AsymmetricDecryptRequest {
        key,
        key_version: version.unwrap_or(0),
        hash: match hash {
            Oaep::Sha1 => OaepHash::Sha1.into(),
            Oaep::Sha256 => OaepHash::Sha256.into(),
            Oaep::Sha384 => OaepHash::Sha384.into(),
            Oaep::Sha512 => OaepHash::Sha512.into(),
        },
        ciphertexts: vec![whole(input(from)?.0, INPUT_BYTES)?],
        ..Default::default()
    };
    let response = client
        .crypto()
        .asymmetric_decrypt(request)
        .await
        .map_err(|status| not_opened(status.into(), hash))?
        .into_inner();
    let plaintext = response.plaintexts.into_iter().next().unwrap_or_default();
    let mut sink = Sink::open(to, true)?;
    sink.write_all(&plaintext)
        .map_err(|e| Failure::io("output", &e))?;
    sink.finish()
}

/// There is no context here: what may be wrong is something else.
fn not_opened(failure: Failure, hash: Oaep) -> Failure {
    if failure.reason() != Some("DECRYPTION_FAILED") {
        return failure;
    }
    let hash = match hash {
        Oaep::Sha1 => "sha1",
        Oaep::Sha256 => "sha256",
        Oaep::Sha384 => "sha384",
        Oaep::Sha512 => "sha512",
    };
    failure.reworded(format!(
        "the ciphertext does not open with --hash {hash}: it was made with another hash (openssl takes sha1 unless rsa_oaep_md says otherwise), for another key or --version, with a label, or it was changed"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_open_speaks_of_the_hash() {
        let said = |reason: &str| {
            let failure = Failure::new(FailureKind::Data, "context").because(reason);
            not_opened(failure, Oaep::Sha384)
        };
        let failure = said("DECRYPTION_FAILED");
        let text = failure.to_string();
        assert!(
            text.contains("--hash sha384") && !text.contains("context"),
            "{text}"
        );
        assert_eq!(failure.reason(), Some("DECRYPTION_FAILED"));
        assert_eq!(said("ITEM_TOO_LARGE").to_string(), "context");
    }
}
