//! Streams of batches. Batches go out one after another, a few of them before the first
//! answer is there; answers come back in order, each with the note that went in with its
//! batch. A batch that fails does not end the stream.

use std::{collections::VecDeque, error::Error};

use bytes::Bytes;
use futures_util::{Stream, stream};
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use crate::{Client, Failure, FailureKind, proto};

/// Batches without an answer on one stream; a default server works on as many side by
/// side.
pub const WAITING: usize = 4;

/// A message of a stream: a batch and its reference.
pub trait Piece: Sized + Send + 'static {
    /// The batch.
    type Batch;
    /// Its answer.
    type Answer;
    /// The message that carries the answer.
    type Reply: Send + 'static;

    /// A batch under a reference.
    fn new(reference: Bytes, batch: Self::Batch) -> Self;

    /// The reference and what came of the batch; none: the server said neither.
    fn read(reply: Self::Reply) -> (Bytes, Option<Result<Self::Answer, proto::BatchError>>);

    /// Opens the stream.
    fn open(
        client: &Client,
        pieces: impl Stream<Item = Self> + Send + 'static,
    ) -> impl Future<Output = Result<Streaming<Self::Reply>, Status>> + Send;
}

macro_rules! pieces {
    ($($rpc:ident, $module:ident: $piece:ident, $batch:ident, $answer:ident, $reply:ident;)*) => {
        $(impl Piece for proto::$piece {
            type Batch = proto::$batch;
            type Answer = proto::$answer;
            type Reply = proto::$reply;

            fn new(reference: Bytes, batch: Self::Batch) -> Self {
                Self { reference, batch: Some(batch) }
            }

            fn read(
                reply: Self::Reply,
            ) -> (Bytes, Option<Result<Self::Answer, proto::BatchError>>) {
                use proto::$module::Result as Outcome;
                let result = reply.result.map(|outcome| match outcome {
                    Outcome::Batch(answer) => Ok(answer),
                    Outcome::Error(error) => Err(error),
                });
                (reply.reference, result)
            }

            async fn open(
                client: &Client,
                pieces: impl Stream<Item = Self> + Send + 'static,
            ) -> Result<Streaming<Self::Reply>, Status> {
                Ok(client.crypto().$rpc(pieces).await?.into_inner())
            }
        })*

        /// Streams; `T` is a note of the caller's that comes back with each answer.
        impl Client {
            $(
                /// Opens a stream of this RPC.
                ///
                /// # Errors
                /// What the server says.
                pub async fn $rpc<T>(&self) -> Result<BatchStream<proto::$piece, T>, Failure> {
                    BatchStream::open(self).await
                }
            )*
        }
    };
}
pieces! {
    encrypt_stream, encrypt_stream_response: EncryptStreamRequest, EncryptRequest, EncryptResponse, EncryptStreamResponse;
    decrypt_stream, decrypt_stream_response: DecryptStreamRequest, DecryptRequest, DecryptResponse, DecryptStreamResponse;
    rewrap_stream, rewrap_stream_response: RewrapStreamRequest, RewrapRequest, RewrapResponse, RewrapStreamResponse;
    sign_stream, sign_stream_response: SignStreamRequest, SignRequest, SignResponse, SignStreamResponse;
}

/// An open stream.
///
/// ```no_run
/// # async fn example(client: &keywright_client::Client) -> Result<(), keywright_client::Failure> {
/// use keywright_client::proto::SignRequest;
///
/// let mut stream = client.sign_stream().await?;
/// for name in ["a.tar", "b.tar"] {
///     let batch = SignRequest {
///         key: "releases/linux".into(),
///         inputs: vec![name.into()],
///         ..Default::default()
///     };
///     stream.send(name, batch)?;
/// }
/// while let Some((name, answer)) = stream.answer().await? {
///     println!("{name}: {} signatures", answer?.signatures.len());
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct BatchStream<P: Piece, T> {
    pieces: mpsc::Sender<P>,
    answers: Streaming<P::Reply>,
    /// In the order they were sent.
    waiting: VecDeque<(Bytes, T)>,
    sent: u64,
}

impl<P: Piece, T> BatchStream<P, T> {
    pub(crate) async fn open(client: &Client) -> Result<Self, Failure> {
        match Self::try_open(client).await {
            // The server took leave of an old connection while it was quiet, and that is
            // seen only now. The next attempt makes a new one; nothing was sent.
            Err(status) if status.source().is_some() => Ok(Self::try_open(client).await?),
            opened => Ok(opened?),
        }
    }

    async fn try_open(client: &Client) -> Result<Self, Status> {
        let (pieces, mut receiver) = mpsc::channel(WAITING);
        let receiver = stream::poll_fn(move |context| receiver.poll_recv(context));
        Ok(Self {
            pieces,
            answers: P::open(client, receiver).await?,
            waiting: VecDeque::with_capacity(WAITING),
            sent: 0,
        })
    }

    /// Is an answer to be taken before the next batch is sent?
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.waiting.len() >= WAITING
    }

    /// The note of the batch whose answer comes next. When [`BatchStream::answer`] has
    /// failed: the first one that has no answer.
    #[must_use]
    pub fn next_note(&self) -> Option<&T> {
        self.waiting.front().map(|(_, note)| note)
    }

    /// Sends a batch. That the stream is broken is heard from [`BatchStream::answer`].
    ///
    /// # Errors
    /// [`FailureKind::Usage`] when [`WAITING`] batches have no answer yet.
    pub fn send(&mut self, note: T, batch: P::Batch) -> Result<(), Failure> {
        if self.is_full() {
            return Err(Failure::new(
                FailureKind::Usage,
                format!("{WAITING} batches wait for answers; take one before you send the next"),
            ));
        }
        let reference = Bytes::copy_from_slice(&self.sent.to_be_bytes());
        self.sent += 1;
        // There is room: what is in the channel is waiting too. Closed means broken.
        let _ = self.pieces.try_send(P::new(reference.clone(), batch));
        self.waiting.push_back((reference, note));
        Ok(())
    }

    /// The next answer with the note of its batch; none when no batch waits for one.
    ///
    /// # Errors
    /// The stream broke; nothing more comes out of it. What the server says of a batch is
    /// inside.
    pub async fn answer(&mut self) -> Result<Option<(T, Result<P::Answer, Failure>)>, Failure> {
        let Some((reference, _)) = self.waiting.front() else {
            return Ok(None);
        };
        let reply = self.answers.message().await?.ok_or_else(|| {
            Failure::new(
                FailureKind::Unavailable,
                "the server ended the stream before every batch had its answer",
            )
        })?;
        let (of, result) = P::read(reply);
        let (true, Some(result)) = (of == *reference, result) else {
            return Err(Failure::nonsense());
        };
        Ok(self
            .waiting
            .pop_front()
            .map(|(_, note)| (note, result.map_err(|e| Failure::batch(&e)))))
    }
}
