//! Rewrap a file: the tails of its envelope headers and nothing else.

use std::io::{Read, Write};

use futures_util::{StreamExt, TryStreamExt, stream};

use super::{
    IN_FLIGHT, Piece, Pieces, Progress, Summary,
    decrypt::{read_header, split},
    format::{FILE_HEADER_LEN, FileHeader},
};
use crate::{Client, Failure, HEADER_LEN, proto};

/// Bytes of a header that rewrap must not change.
const FIXED_LEN: usize = 68;

/// Copies a file with every envelope moved to the primary version of its key. Only
/// headers travel; the payload stays here.
///
/// # Errors
/// [`FailureKind::Data`](crate::FailureKind::Data) when this is not an encrypted file, else what the server says.
pub async fn rewrap(
    client: &Client,
    key: Option<&str>,
    mut input: impl Read,
    mut output: impl Write,
    progress: Progress<'_>,
) -> Result<Summary, Failure> {
    let header = read_header(&mut input)?;
    let out = |e| Failure::io("output", &e);
    output.write_all(header.as_bytes()).map_err(out)?;
    let mut summary = Summary {
        bytes_in: FILE_HEADER_LEN as u64,
        ..Summary::default()
    };
    let (mut rewrapped, mut current) = (0, 0);
    let moved = stream::iter(Pieces::new(input, header.sealed_segment_bytes()))
        .map(|piece| async move { exchange(client, key, &header, piece?).await })
        .buffered(IN_FLIGHT);
    let mut moved = std::pin::pin!(moved);
    while let Some((piece, response)) = moved.try_next().await? {
        let (new, payload) = checked(&piece, &response)?;
        output.write_all(new).map_err(out)?;
        output.write_all(payload).map_err(out)?;
        rewrapped += u64::from(response.rewrapped);
        current += u64::from(response.already_current);
        summary.bytes_in += piece.bytes.len() as u64;
        summary.segments += 1;
        progress(summary.bytes_in);
    }
    output.flush().map_err(out)?;
    summary.bytes_out = summary.bytes_in;
    summary.rewrapped = Some(rewrapped);
    summary.already_current = Some(current);
    Ok(summary)
}

async fn exchange(
    client: &Client,
    key: Option<&str>,
    header: &FileHeader,
    piece: Piece,
) -> Result<(Piece, proto::RewrapResponse), Failure> {
    split(header, &piece)?;
    let envelope = piece.bytes.get(..HEADER_LEN).unwrap_or_default();
    let request = proto::RewrapRequest {
        envelopes: vec![bytes::Bytes::copy_from_slice(envelope)],
        key: key.unwrap_or_default().to_owned(),
        ..Default::default()
    };
    let response = client
        .crypto()
        .rewrap(request)
        .await
        .map_err(|status| Failure::from(status).at(format_args!("segment {}", piece.number)))?;
    Ok((piece, response.into_inner()))
}

/// The new header, if it belongs in front of the old payload.
fn checked<'a>(
    piece: &'a Piece,
    response: &'a proto::RewrapResponse,
) -> Result<(&'a [u8], &'a [u8]), Failure> {
    let (old, payload) = piece.bytes.split_at_checked(HEADER_LEN).unwrap_or_default();
    match response.envelopes.as_slice() {
        [new] if new.len() == HEADER_LEN && new.get(..FIXED_LEN) == old.get(..FIXED_LEN) => {
            Ok((new, payload))
        }
        _ => Err(Failure::nonsense()),
    }
}
