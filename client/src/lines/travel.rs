//! Batches on a stream: sent while there is room, answered in order.

use std::{
    io::{BufRead, Write},
    time::{Duration, Instant},
};

use super::{
    Progress, Summary,
    batch::{Batch, Batches, Place},
    page::{Done, Page},
};
use crate::{
    Client, Failure,
    stream::{BatchStream, Piece},
};

/// A server asks old connections to come again and gives what runs there some time (30
/// seconds by default). A stream is exchanged for a new one sooner than that, so that work
/// of many hours is not cut off.
const STREAM_AGE: Duration = Duration::from_secs(10);

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

/// A stream of work, and since when.
struct Way<W: Work> {
    stream: BatchStream<W::Piece, (Place, W::Kept)>,
    opened: Instant,
}

impl<W: Work> Way<W> {
    async fn open(client: &Client) -> Result<Self, Failure> {
        Ok(Self {
            stream: BatchStream::open(client).await?,
            opened: Instant::now(),
        })
    }

    /// Writes the next answer; false when nothing waits for one.
    async fn take(&mut self, work: &W, page: &mut Page<'_, impl Write>) -> Result<bool, Failure> {
        let answer = match self.stream.answer().await {
            Ok(Some(answer)) => answer,
            Ok(None) => return Ok(false),
            // Answers come in order: this is about the first one that is missing.
            Err(broken) => {
                return Err(match self.stream.next_note() {
                    Some((place, _)) => place.name(broken),
                    None => broken,
                });
            }
        };
        let ((place, kept), result) = answer;
        let answer = result.map_err(|e| place.name(e))?;
        page.put(&work.lines(place, kept, answer)?)?;
        Ok(true)
    }
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
    let mut way = Way::<W>::open(client).await?;
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
        if way.opened.elapsed() > STREAM_AGE {
            while way.take(work, page).await? {}
            way = Way::open(client).await?;
        }
        if way.stream.is_full() {
            way.take(work, page).await?;
        }
        way.stream.send((place, kept), request)?;
    }
    while way.take(work, page).await? {}
    bad_input
}
