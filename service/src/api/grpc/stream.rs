//! Streams of batches. Batches of one stream are worked on side by side, a few at a time,
//! and answered in order. The next one is read only when there is room for it: the HTTP/2
//! window then closes by itself, so a slow reader costs the server a few batches and no
//! more.

use std::{pin::Pin, sync::Arc};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use keywright_proto::v1 as proto;
use tokio::sync::Semaphore;
use tonic::{Code, Status, Streaming};

use super::{
    guard::Visit,
    status::{code, status},
};
use crate::{
    error::{Error, Reason, Result},
    ops::{App, Call, accounted},
};

/// What a handler of a stream answers with.
pub(super) type Answers<R> = Pin<Box<dyn Stream<Item = Result<R, Status>> + Send>>;

/// Longest reference.
const REFERENCE_BYTES: usize = 256;

/// A message of a stream: the caller's reference and a batch.
pub(super) trait Piece: Send + 'static {
    /// The batch.
    type Batch: Default + Send;
    /// Its answer.
    type Answer: Send;
    /// The message that carries the answer.
    type Reply: Send + 'static;

    fn open(self) -> (Bytes, Option<Self::Batch>);
    fn reply(
        reference: Bytes,
        answer: std::result::Result<Self::Answer, proto::BatchError>,
    ) -> Self::Reply;
}

macro_rules! pieces {
    ($($module:ident: $piece:ident, $batch:ident, $answer:ident, $reply:ident;)*) => {$(
        impl Piece for proto::$piece {
            type Batch = proto::$batch;
            type Answer = proto::$answer;
            type Reply = proto::$reply;

            fn open(self) -> (Bytes, Option<Self::Batch>) {
                (self.reference, self.batch)
            }

            fn reply(
                reference: Bytes,
                answer: std::result::Result<Self::Answer, proto::BatchError>,
            ) -> Self::Reply {
                use proto::$module::Result as Outcome;
                proto::$reply {
                    reference,
                    result: Some(answer.map_or_else(Outcome::Error, Outcome::Batch)),
                }
            }
        }
    )*};
}
pieces! {
    encrypt_stream_response: EncryptStreamRequest, EncryptRequest, EncryptResponse, EncryptStreamResponse;
    decrypt_stream_response: DecryptStreamRequest, DecryptRequest, DecryptResponse, DecryptStreamResponse;
    rewrap_stream_response: RewrapStreamRequest, RewrapRequest, RewrapResponse, RewrapStreamResponse;
    sign_stream_response: SignStreamRequest, SignRequest, SignResponse, SignStreamResponse;
}

/// Answers each piece, in order. `run` is the operation for one batch.
pub(super) fn answer<P, F>(
    app: Arc<App>,
    visit: Visit,
    pieces: Streaming<P>,
    run: fn(Arc<App>, Call, P::Batch) -> F,
) -> Answers<P::Reply>
where
    P: Piece,
    F: Future<Output = Result<P::Answer>> + Send + 'static,
{
    let window = app.limits.stream_batches;
    let slots = visit.slots();
    let mut number = 0u64;
    let answers = pieces
        .map(move |piece| {
            number += 1;
            let call = visit.call(&app, number);
            let (app, slots) = (Arc::clone(&app), Arc::clone(&slots));
            async move {
                // The stream itself is broken: the last thing that comes out of it.
                let (reference, batch) = match piece {
                    Ok(piece) => piece.open(),
                    Err(theirs) => return Err(broken(&app, call, theirs).await),
                };
                Ok(one::<P, F>(app, &slots, call, reference, batch, run).await)
            }
        })
        .buffered(window);
    Box::pin(answers)
}

async fn one<P, F>(
    app: Arc<App>,
    slots: &Semaphore,
    call: Call,
    reference: Bytes,
    batch: Option<P::Batch>,
    run: fn(Arc<App>, Call, P::Batch) -> F,
) -> P::Reply
where
    P: Piece,
    F: Future<Output = Result<P::Answer>> + Send + 'static,
{
    let id = call.entry.request_id.clone();
    if reference.len() > REFERENCE_BYTES {
        let error = Error::field(
            Reason::InvalidArgument,
            "reference",
            format!(
                "the reference has {} bytes; at most {REFERENCE_BYTES}",
                reference.len()
            ),
        );
        // It cannot come back as it went in.
        let refused = refuse(&app, call, error).await;
        return P::reply(Bytes::new(), Err(batch_error(&refused, &id)));
    }
    // A stream waits for its place in line; it is not turned away.
    let Ok(_slot) = slots.acquire().await else {
        let error = Error::new(Reason::Stopping, "the server is stopping");
        return P::reply(reference, Err(batch_error(&error, &id)));
    };
    let result = run(app, call, batch.unwrap_or_default()).await;
    P::reply(reference, result.map_err(|e| batch_error(&e, &id)))
}

/// What ends the stream: our words for a message over the limit, with its record; for all
/// else those of tonic.
async fn broken(app: &Arc<App>, call: Call, theirs: Status) -> Status {
    if theirs.code() != Code::OutOfRange {
        return theirs;
    }
    let id = call.entry.request_id.clone();
    let error = Error::too_long(app.limits.message_bytes);
    status(&refuse(app, call, error).await, &id)
}

/// Also what is refused here is written down.
async fn refuse(app: &Arc<App>, call: Call, error: Error) -> Error {
    let refused: Result<()> = accounted(app, call, async |_, _| Err(error)).await;
    refused.err().unwrap_or_else(Error::refused)
}

fn batch_error(error: &Error, request_id: &str) -> proto::BatchError {
    let pause = error.retry_pause().map_or(0, |p| p.as_millis());
    proto::BatchError {
        code: code(error.reason().kind()).into(),
        reason: error.reason().name().to_owned(),
        message: error.text().to_owned(),
        retry_after_ms: u64::try_from(pause).unwrap_or(u64::MAX),
        request_id: request_id.to_owned(),
    }
}
