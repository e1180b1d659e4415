//! Tokens to tokens under the primary version. Only headers travel.

use std::io::{BufRead, Write};

use bytes::Bytes;

use super::{
    Counts, Progress, Summary,
    batch::{Batch, Place, split},
    page::Done,
    travel::{Work, run},
};
use crate::{Client, Failure, HEADER_LEN, proto, token};

struct Rewrap<'a> {
    key: Option<&'a str>,
}

impl Work for Rewrap<'_> {
    type Piece = proto::RewrapStreamRequest;
    /// The old items: their payloads go behind the new headers.
    type Kept = proto::Packed;

    fn ask(&self, batch: Batch) -> Result<(Place, proto::Packed, proto::RewrapRequest), Failure> {
        let (place, old) = batch.decode()?;
        let headers = split(&old)
            .map(|item| Bytes::copy_from_slice(item.get(..HEADER_LEN).unwrap_or(item)))
            .collect();
        let request = proto::RewrapRequest {
            envelopes: headers,
            key: self.key.unwrap_or_default().to_owned(),
            ..Default::default()
        };
        Ok((place, old, request))
    }

    fn lines(
        &self,
        place: Place,
        old: proto::Packed,
        answer: proto::RewrapResponse,
    ) -> Result<Done, Failure> {
        place.fail_on(&answer.errors)?;
        let lines = answer
            .envelopes
            .iter()
            .zip(split(&old))
            .map(|(header, old)| token::encode(header, old.get(HEADER_LEN..).unwrap_or_default()));
        let counts = Counts {
            rewrapped: Some(u64::from(answer.rewrapped)),
            already_current: Some(u64::from(answer.already_current)),
            ..Counts::default()
        };
        Done::new(place, lines, counts)
    }
}

/// Moves each token to the primary version of its key. Only headers travel.
///
/// # Errors
/// The lines that failed, or what the server says.
pub async fn rewrap(
    client: &Client,
    key: Option<&str>,
    input: impl BufRead,
    output: impl Write,
    progress: Progress<'_>,
) -> Result<Summary, Failure> {
    run(client, &Rewrap { key }, input, output, progress).await
}
