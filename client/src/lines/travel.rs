//! Batches on a stream: sent while there is room, answered in order.

use std::io::{BufRead, Write};

use super::{
    Progress, Summary,
    batch::{Batch, Batches, Place},
    page::{Done, Page},
};
use crate::{
    Client, Failure,
    stream::{BatchStream, Piece},
};

/// What is done with lines.
pub(super) trait Work: Sized {
    /// On which stream.
    type Piece: Piece;
    /// What the answer is put together with.
    type Kept;

    /// The batch to send.
    fn ask(&self, batch: Batch) -> Result<(Place, Self::Kept, BatchOf<Self>), Failure>;

    /// The lines that come of it.
    fn lines(
        &self,
        place: Place,
        kept: Self::Kept,
        answer: <Self::Piece as Piece>::Answer,
    ) -> Result<Done, Failure>;
}

/// What is sent.
type BatchOf<W> = <<W as Work>::Piece as Piece>::Batch;

/// A stream of work.
type Way<W> = BatchStream<<W as Work>::Piece, (Place, <W as Work>::Kept)>;

/// Writes the next answer; false when nothing waits for one.
async fn take<W: Work>(
    way: &mut Way<W>,
    work: &W,
    page: &mut Page<'_, impl Write>,
) -> Result<bool, Failure> {
    let ((place, kept), result) = match way.answer().await {
        Ok(Some(answer)) => answer,
        Ok(None) => return Ok(false),
        // Answers come in order: this is about the first one that is missing.
        Err(broken) => {
            return Err(match way.next_note() {
                Some((place, _)) => place.name(broken),
                None => broken,
            });
        }
    };
    let answer = result.map_err(|e| place.name(e))?;
    page.put(&work.lines(place, kept, answer)?)?;
    Ok(true)
}

/// Does the work on every line of the input.
pub(super) async fn run<W: Work>(
    client: &Client,
    work: &W,
    input: impl BufRead,
    output: impl Write,
    progress: Progress<'_>,
) -> Result<Summary, Failure> {
    let mut page = Page::new(output, progress);
    let result = all(client, work, input, &mut page).await;
    page.end(result)
}

async fn all<W: Work>(
    client: &Client,
    work: &W,
    input: impl BufRead,
    page: &mut Page<'_, impl Write>,
) -> Result<(), Failure> {
    let mut way: Way<W> = BatchStream::open(client).await?;
    let mut bad_input = Ok(());
    for batch in Batches::new(input) {
        let (place, kept, request) = match batch.and_then(|b| work.ask(b)) {
            Ok(asked) => asked,
            // What was sent before it is still to be written.
            Err(e) => {
                bad_input = Err(e);
                break;
            }
        };
        if way.is_full() {
            take(&mut way, work, page).await?;
        }
        way.send((place, kept), request)?;
    }
    while take(&mut way, work, page).await? {}
    bad_input
}
