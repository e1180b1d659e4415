//! Lines to tokens.

use std::{
    collections::BTreeMap,
    io::{BufRead, Write},
};

use super::{
    Counts, Progress, Summary,
    batch::{Batch, Place, split},
    page::Done,
    travel::{Work, run},
};
use crate::{Client, Failure, proto, token};

struct Encrypt<'a> {
    key: &'a str,
    context: &'a BTreeMap<String, String>,
}

impl Work for Encrypt<'_> {
    type Piece = proto::EncryptStreamRequest;
    type Kept = ();

    fn ask(&self, batch: Batch) -> Result<(Place, (), proto::EncryptRequest), Failure> {
        let (place, plaintexts) = batch.packed();
        let request = proto::EncryptRequest {
            key: self.key.to_owned(),
            context: self.context.clone(),
            packed_plaintexts: Some(plaintexts),
            form: proto::Form::Detached.into(),
            ..Default::default()
        };
        Ok((place, (), request))
    }

    fn lines(&self, place: Place, (): (), answer: proto::EncryptResponse) -> Result<Done, Failure> {
        place.fail_on(&answer.errors)?;
        let items = answer.packed_items.unwrap_or_default();
        let lines = split(&items).map(|item| token::encode(&answer.header, item));
        Done::new(place, lines, Counts::default())
    }
}

/// Encrypts each line under the primary version of a key.
///
/// # Errors
/// The lines that failed, or what the server says.
pub async fn encrypt(
    client: &Client,
    key: &str,
    context: &BTreeMap<String, String>,
    input: impl BufRead,
    output: impl Write,
    progress: Progress<'_>,
) -> Result<Summary, Failure> {
    let work = Encrypt { key, context };
    run(client, &work, input, output, progress).await
}
