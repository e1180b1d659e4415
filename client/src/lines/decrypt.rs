//! Tokens to lines.

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
use crate::{Client, Failure, proto};

struct Decrypt<'a> {
    key: Option<&'a str>,
    context: &'a BTreeMap<String, String>,
}

impl Work for Decrypt<'_> {
    type Piece = proto::DecryptStreamRequest;
    type Kept = ();

    fn ask(&self, batch: Batch) -> Result<(Place, (), proto::DecryptRequest), Failure> {
        let (place, items) = batch.decode()?;
        let request = proto::DecryptRequest {
            context: self.context.clone(),
            form: proto::Form::Attached.into(),
            packed_items: Some(items),
            key: self.key.unwrap_or_default().to_owned(),
            ..Default::default()
        };
        Ok((place, (), request))
    }

    fn lines(&self, place: Place, (): (), answer: proto::DecryptResponse) -> Result<Done, Failure> {
        place.fail_on(&answer.errors)?;
        let plaintexts = answer.packed_plaintexts.unwrap_or_default();
        let counts = Counts {
            rewrap_due: Some(answer.rewrap_due.len() as u64),
            ..Counts::default()
        };
        Done::new(place, split(&plaintexts), counts)
    }
}

/// Decrypts each token to the line it was made of.
///
/// # Errors
/// The lines that failed, or what the server says.
pub async fn decrypt(
    client: &Client,
    key: Option<&str>,
    context: &BTreeMap<String, String>,
    input: impl BufRead,
    output: impl Write,
    progress: Progress<'_>,
) -> Result<Summary, Failure> {
    let work = Decrypt { key, context };
    run(client, &work, input, output, progress).await
}
