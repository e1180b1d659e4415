//! Tokens to tokens under another data key: another key, another context, or both. There
//! is no stream of this; the batches are calls, a few at a time.

use std::io::{BufRead, Write};

use futures_util::{StreamExt, TryStreamExt, stream};

use super::{
    Counts, Progress, Summary,
    batch::{Batch, Batches, split},
    page::{Done, Page},
};
use crate::{Client, Failure, HEADER_LEN, Move, WAITING, proto, token};

/// Opens each token and seals its line again, in the server: under another key, another
/// context or a new data key.
///
/// # Errors
/// The lines that failed, or what the server says.
pub async fn reencrypt(
    client: &Client,
    to: &Move<'_>,
    input: impl BufRead,
    output: impl Write,
    progress: Progress<'_>,
) -> Result<Summary, Failure> {
    let mut page = Page::new(output, progress);
    let done = stream::iter(Batches::new(input))
        .map(|batch| async { one(client, to, batch?).await })
        .buffered(WAITING);
    let mut done = std::pin::pin!(done);
    let result = loop {
        match done.try_next().await {
            Ok(Some(done)) => match page.put(&done) {
                Ok(()) => {}
                Err(e) => break Err(e),
            },
            Ok(None) => break Ok(()),
            Err(e) => break Err(e),
        }
    };
    page.end(result)
}

async fn one(client: &Client, to: &Move<'_>, batch: Batch) -> Result<Done, Failure> {
    let (place, items) = batch.decode()?;
    let request = proto::ReencryptRequest {
        form: proto::Form::Attached.into(),
        packed_items: Some(items),
        ..to.request()
    };
    let answer = client
        .crypto()
        .reencrypt(request)
        .await
        .map_err(|status| place.name(status.into()))?
        .into_inner();
    place.fail_on(&answer.errors)?;
    let items = answer.packed_items.unwrap_or_default();
    let lines = split(&items).map(|item| {
        let (header, payload) = item.split_at_checked(HEADER_LEN).unwrap_or((item, &[]));
        token::encode(header, payload)
    });
    Done::new(place, lines, Counts::default())
}
