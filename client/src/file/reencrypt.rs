//! Re-encrypt a file: every segment opened and sealed again by the server, under another
//! key, another context or a new data key. The file keeps its id.

use std::io::{Read, Write};

use futures_util::{StreamExt, TryStreamExt, stream};

use super::{
    IN_FLIGHT, Piece, Pieces, Progress, Summary,
    decrypt::{explain, read_header, split},
    format::{FILE_HEADER_LEN, FileHeader},
};
use crate::{Client, Failure, HEADER_LEN, Move, proto};

/// Copies a file with every segment in a new envelope. Plaintext stays in the server.
///
/// # Errors
/// As for [`decrypt`](super::decrypt()), and what the server says of the new key.
pub async fn reencrypt(
    client: &Client,
    to: &Move<'_>,
    mut input: impl Read,
    mut output: impl Write,
    progress: Progress<'_>,
) -> Result<Summary, Failure> {
    let header = read_header(&mut input)?;
    let out = |e| Failure::io("output", &e);
    output.write_all(header.as_bytes()).map_err(out)?;
    let mut summary = Summary {
        bytes_in: FILE_HEADER_LEN as u64,
        bytes_out: FILE_HEADER_LEN as u64,
        ..Summary::default()
    };
    let moved = stream::iter(Pieces::new(input, header.sealed_segment_bytes()))
        .map(|piece| async move { exchange(client, to, &header, piece?).await })
        .buffered(IN_FLIGHT);
    let mut moved = std::pin::pin!(moved);
    while let Some((taken, response)) = moved.try_next().await? {
        let items = response.packed_items.unwrap_or_default();
        if response.header.len() != HEADER_LEN || (HEADER_LEN + items.data.len()) as u64 != taken {
            return Err(Failure::nonsense());
        }
        output.write_all(&response.header).map_err(out)?;
        output.write_all(&items.data).map_err(out)?;
        summary.bytes_in += taken;
        summary.bytes_out += taken;
        summary.segments += 1;
        progress(summary.bytes_in);
    }
    output.flush().map_err(out)?;
    Ok(summary)
}

async fn exchange(
    client: &Client,
    to: &Move<'_>,
    header: &FileHeader,
    piece: Piece,
) -> Result<(u64, proto::ReencryptResponse), Failure> {
    let taken = piece.bytes.len() as u64;
    let lengths = split(header, &piece)?;
    let (aads, aad_lengths) = header.aads(piece.number, lengths.len(), piece.last);
    let (number, mut envelope) = (piece.number, bytes::Bytes::from(piece.bytes));
    let data = envelope.split_off(HEADER_LEN);
    let request = proto::ReencryptRequest {
        form: proto::Form::Detached.into(),
        header: envelope,
        packed_items: Some(proto::Packed { data, lengths }),
        packed_aads: Some(proto::Packed {
            data: aads.into(),
            lengths: aad_lengths,
        }),
        ..to.request()
    };
    let response = client
        .crypto()
        .reencrypt(request)
        .await
        .map_err(|status| explain(status.into(), number))?
        .into_inner();
    match response.errors.first() {
        Some(error) => Err(explain(Failure::item(error), number)),
        None => Ok((taken, response)),
    }
}
