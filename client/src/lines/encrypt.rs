//! Lines to tokens: there, or here under a data key that is lent.

use std::io::{BufRead, Write};

use super::{
    Counts, Progress, Summary,
    batch::{Batch, Batches, Place, split},
    page::{Done, Page},
    travel::{Work, run},
};
use crate::{Client, Context, Failure, LocalSealer, Plain, proto, token};

struct Encrypt<'a> {
    key: &'a str,
    context: &'a Context,
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
    context: &Context,
    input: impl BufRead,
    output: impl Write,
    progress: Progress<'_>,
) -> Result<Summary, Failure> {
    let work = Encrypt { key, context };
    run(client, &work, input, output, progress).await
}

/// The same without the lines travelling.
///
/// # Errors
/// As for [`LocalSealer::seal`].
pub async fn encrypt_here(
    sealer: &LocalSealer,
    context: &Context,
    input: impl BufRead,
    output: impl Write,
    progress: Progress<'_>,
) -> Result<Summary, Failure> {
    let mut page = Page::new(output, progress);
    let result = all_here(sealer, context, input, &mut page).await;
    page.end(result)
}

async fn all_here(
    sealer: &LocalSealer,
    context: &Context,
    input: impl BufRead,
    page: &mut Page<'_, impl Write>,
) -> Result<(), Failure> {
    for batch in Batches::new(input) {
        let batch = batch?;
        let lines: Vec<Plain<'_>> = batch.lines().map(Plain::from).collect();
        let sealed = sealer.seal(context, &lines).await;
        let sealed = sealed.map_err(|e| batch.place.name(e))?;
        let tokens = sealed.items.iter();
        let tokens = tokens.map(|item| token::encode(&sealed.header, item));
        page.put(&Done::new(batch.place, tokens, Counts::default())?)?;
    }
    Ok(())
}
