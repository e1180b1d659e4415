//! A few batches on a stream: what goes in through one comes out through another.

use std::collections::BTreeMap;

use bytes::Bytes;
use keywright_client::proto::{
    self, decrypt_stream_response::Result as Opened, encrypt_stream_response::Result as Sealed,
    sign_stream_response::Result as Signed,
};
use tonic::{Status, Streaming};

use crate::user::{DATA, Done, SIGN, User, check, text};

/// Everything a stream answers. Each answer is one call in the tally: it has a record.
async fn all<T>(user: &mut User, mut answers: Streaming<T>) -> Result<Vec<T>, String> {
    let mut read = Vec::new();
    while let Some(answer) = answers.message().await.map_err(status)? {
        user.tally.calls += 1;
        read.push(answer);
    }
    Ok(read)
}

fn status(e: Status) -> String {
    text(e.into())
}

fn batches(user: &mut User) -> Vec<Vec<Bytes>> {
    (0..=user.rng.below(4))
        .map(|_| user.rng.strings(8, 1024))
        .collect()
}

fn reference(n: usize) -> Bytes {
    Bytes::from(n.to_string())
}

/// Seals on one stream, opens on another.
pub(crate) async fn encrypt_and_decrypt(user: &mut User) -> Done {
    let plain = batches(user);
    let context = BTreeMap::from([("by".to_owned(), user.own.clone())]);
    let piece = |(n, plaintexts): (usize, &Vec<Bytes>)| proto::EncryptStreamRequest {
        reference: reference(n),
        batch: Some(proto::EncryptRequest {
            key: DATA.into(),
            context: context.clone(),
            plaintexts: plaintexts.clone(),
            ..Default::default()
        }),
    };
    let pieces: Vec<_> = plain.iter().enumerate().map(piece).collect();
    user.tally.calls += 1;
    let mut crypto = user.client.crypto();
    let answers = crypto.encrypt_stream(tokio_stream::iter(pieces)).await;
    let answers = all(user, answers.map_err(status)?.into_inner()).await?;
    check(answers.len() == plain.len(), "answers of encrypt-stream")?;
    let mut pieces = Vec::new();
    for (n, answer) in answers.into_iter().enumerate() {
        check(answer.reference == reference(n), "order of encrypt-stream")?;
        let Some(Sealed::Batch(sealed)) = answer.result else {
            return Err(format!("encrypt-stream: {:?}", answer.result));
        };
        pieces.push(proto::DecryptStreamRequest {
            reference: answer.reference,
            batch: Some(proto::DecryptRequest {
                context: context.clone(),
                header: sealed.header,
                items: sealed.items,
                ..Default::default()
            }),
        });
    }
    user.tally.calls += 1;
    let answers = crypto.decrypt_stream(tokio_stream::iter(pieces)).await;
    let answers = all(user, answers.map_err(status)?.into_inner()).await?;
    check(answers.len() == plain.len(), "answers of decrypt-stream")?;
    for (answer, plaintexts) in answers.into_iter().zip(plain) {
        let Some(Opened::Batch(opened)) = answer.result else {
            return Err(format!("decrypt-stream: {:?}", answer.result));
        };
        check(
            opened.errors.is_empty() && opened.plaintexts == plaintexts,
            "what decrypt-stream gave back",
        )?;
    }
    Ok(())
}

/// Signs on a stream; all of it is valid.
pub(crate) async fn sign(user: &mut User) -> Done {
    let inputs = batches(user);
    let piece = |(n, inputs): (usize, &Vec<Bytes>)| proto::SignStreamRequest {
        reference: reference(n),
        batch: Some(proto::SignRequest {
            key: SIGN.into(),
            inputs: inputs.clone(),
            ..Default::default()
        }),
    };
    let pieces: Vec<_> = inputs.iter().enumerate().map(piece).collect();
    user.tally.calls += 1;
    let mut crypto = user.client.crypto();
    let answers = crypto.sign_stream(tokio_stream::iter(pieces)).await;
    let answers = all(user, answers.map_err(status)?.into_inner()).await?;
    check(answers.len() == inputs.len(), "answers of sign-stream")?;
    let mut signatures = Vec::new();
    for answer in answers {
        let Some(Signed::Batch(signed)) = answer.result else {
            return Err(format!("sign-stream: {:?}", answer.result));
        };
        signatures.extend(signed.signatures);
    }
    let request = proto::VerifyRequest {
        key: SIGN.into(),
        inputs: inputs.concat(),
        signatures,
        ..Default::default()
    };
    user.tally.calls += 1;
    let checked = crypto.verify(request).await.map_err(status)?.into_inner();
    check(
        checked.errors.is_empty() && checked.verdicts.iter().all(|v| v.valid),
        "signatures of a stream",
    )
}
