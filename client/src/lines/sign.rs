//! Lines to signatures.

use std::io::{BufRead, Write};

use base64::{Engine, prelude::BASE64_STANDARD};

use super::{
    Counts, Progress, Summary,
    batch::{Batch, Place, split},
    page::Done,
    travel::{Work, run},
};
use crate::{Client, Failure, proto};

struct Sign<'a> {
    key: &'a str,
    algorithm: proto::SignatureAlgorithm,
}

impl Work for Sign<'_> {
    type Piece = proto::SignStreamRequest;
    type Kept = ();

    fn ask(&self, batch: Batch) -> Result<(Place, (), proto::SignRequest), Failure> {
        let (place, inputs) = batch.packed();
        let request = proto::SignRequest {
            key: self.key.to_owned(),
            algorithm: Some(self.algorithm),
            packed_inputs: Some(inputs),
            ..Default::default()
        };
        Ok((place, (), request))
    }

    fn lines(&self, place: Place, (): (), answer: proto::SignResponse) -> Result<Done, Failure> {
        place.fail_on(&answer.errors)?;
        let signatures = answer.packed_signatures.unwrap_or_default();
        let lines = split(&signatures).map(|signature| BASE64_STANDARD.encode(signature));
        Done::new(place, lines, Counts::default())
    }
}

/// Signs each line, without its line end: one signature in base64 for each. `algorithm`
/// says how; the lines are messages, not digests.
///
/// # Errors
/// The lines that failed, or what the server says.
pub async fn sign(
    client: &Client,
    key: &str,
    algorithm: proto::SignatureAlgorithm,
    input: impl BufRead,
    output: impl Write,
    progress: Progress<'_>,
) -> Result<Summary, Failure> {
    let work = Sign { key, algorithm };
    run(client, &work, input, output, progress).await
}
