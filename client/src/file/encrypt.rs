//! Encrypt a file: there, or here under a data key that is lent.

use std::io::{Read, Write};

use bytes::Bytes;
use futures_util::{TryStreamExt, stream};

use super::{
    IN_FLIGHT, Piece, Pieces, Progress, Summary,
    format::{FILE_HEADER_LEN, FileHeader},
};
use crate::{Client, Context, Failure, HEADER_LEN, LocalSealer, Plain, lines::cut, proto};

/// An envelope of the file, and how much of the input is in it.
struct Segment {
    taken: u64,
    header: Bytes,
    /// One after the other.
    items: Vec<Bytes>,
}

/// Encrypts everything `input` has under the primary version of a key.
///
/// # Errors
/// What the server says, or the file.
pub async fn encrypt(
    client: &Client,
    key: &str,
    context: &Context,
    input: impl Read,
    output: impl Write,
    progress: Progress<'_>,
) -> Result<Summary, Failure> {
    let seal = |file, piece| there(client, key, context, file, piece);
    all(seal, input, output, progress).await
}

/// The same without the content travelling.
///
/// # Errors
/// As for [`LocalSealer::seal`], or the file.
pub async fn encrypt_here(
    sealer: &LocalSealer,
    context: &Context,
    input: impl Read,
    output: impl Write,
    progress: Progress<'_>,
) -> Result<Summary, Failure> {
    let seal = |file, piece| here(sealer, context, file, piece);
    all(seal, input, output, progress).await
}

async fn all<F>(
    seal: impl Fn(FileHeader, Piece) -> F,
    input: impl Read,
    mut output: impl Write,
    progress: Progress<'_>,
) -> Result<Summary, Failure>
where
    F: Future<Output = Result<Segment, Failure>>,
{
    let header = FileHeader::new()?;
    let out = |e| Failure::io("output", &e);
    let mut summary = Summary {
        bytes_out: FILE_HEADER_LEN as u64,
        ..Summary::default()
    };
    let sealed = stream::iter(Pieces::new(input, header.plain_segment_bytes()))
        .map_ok(|piece| seal(header, piece))
        .try_buffered(IN_FLIGHT);
    let mut sealed = std::pin::pin!(sealed);
    while let Some(segment) = sealed.try_next().await? {
        if summary.segments == 0 {
            // Not before the server has said yes.
            output.write_all(header.as_bytes()).map_err(out)?;
        }
        for part in [&segment.header].into_iter().chain(&segment.items) {
            output.write_all(part).map_err(out)?;
            summary.bytes_out += part.len() as u64;
        }
        summary.bytes_in += segment.taken;
        summary.segments += 1;
        progress(summary.bytes_in);
    }
    output.flush().map_err(out)?;
    Ok(summary)
}

async fn there(
    client: &Client,
    key: &str,
    context: &Context,
    file: FileHeader,
    piece: Piece,
) -> Result<Segment, Failure> {
    let taken = piece.bytes.len() as u64;
    let lengths = file.plain_lengths(piece.bytes.len());
    let (aads, aad_lengths) = file.aads(piece.number, lengths.len(), piece.last);
    let request = proto::EncryptRequest {
        key: key.to_owned(),
        context: context.clone(),
        packed_plaintexts: Some(proto::Packed {
            data: piece.bytes.into(),
            lengths,
        }),
        packed_aads: Some(proto::Packed {
            data: aads.into(),
            lengths: aad_lengths,
        }),
        form: proto::Form::Detached.into(),
        ..Default::default()
    };
    let response = client.crypto().encrypt(request).await?.into_inner();
    if response.header.len() != HEADER_LEN || !response.errors.is_empty() {
        return Err(Failure::nonsense());
    }
    Ok(Segment {
        taken,
        header: response.header,
        items: vec![response.packed_items.unwrap_or_default().data],
    })
}

async fn here(
    sealer: &LocalSealer,
    context: &Context,
    file: FileHeader,
    piece: Piece,
) -> Result<Segment, Failure> {
    let lengths = file.plain_lengths(piece.bytes.len());
    let (aads, aad_lengths) = file.aads(piece.number, lengths.len(), piece.last);
    let chunks = cut(&piece.bytes, &lengths).zip(cut(&aads, &aad_lengths));
    let chunks: Vec<Plain<'_>> = chunks
        .map(|(plaintext, aad)| Plain { aad, plaintext })
        .collect();
    let sealed = sealer.seal(context, &chunks).await?;
    Ok(Segment {
        taken: piece.bytes.len() as u64,
        header: sealed.header,
        items: sealed.items,
    })
}
