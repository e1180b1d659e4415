//! Decrypt a file.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
};

use futures_util::{StreamExt, TryStreamExt, stream};

use super::{
    IN_FLIGHT, Piece, Pieces, Progress, Summary,
    format::{FILE_HEADER_LEN, FileHeader},
};
use crate::{Client, Failure, FailureKind, HEADER_LEN, proto};

/// Decrypts a file. What is written before an error is genuine and in order, but it may
/// be only the beginning: whoever writes to a place where others look must write
/// elsewhere first.
///
/// # Errors
/// [`FailureKind::Data`] when the file was changed, cut short, extended, reordered, or
/// the context is another; else what the server says.
pub async fn decrypt(
    client: &Client,
    key: Option<&str>,
    context: &BTreeMap<String, String>,
    mut input: impl Read,
    mut output: impl Write,
    progress: Progress<'_>,
) -> Result<Summary, Failure> {
    let header = read_header(&mut input)?;
    let out = |e| Failure::io("output", &e);
    let mut summary = Summary {
        bytes_in: FILE_HEADER_LEN as u64,
        ..Summary::default()
    };
    let opened = stream::iter(Pieces::new(input, header.sealed_segment_bytes()))
        .map(|piece| async move { open(client, key, context, &header, piece?).await })
        .buffered(IN_FLIGHT);
    let mut opened = std::pin::pin!(opened);
    let mut due = 0;
    while let Some((taken, response)) = opened.try_next().await? {
        let plaintext = response.packed_plaintexts.unwrap_or_default().data;
        output.write_all(&plaintext).map_err(out)?;
        due += u64::from(!response.rewrap_due.is_empty());
        summary.bytes_in += taken;
        summary.bytes_out += plaintext.len() as u64;
        summary.segments += 1;
        progress(summary.bytes_in);
    }
    output.flush().map_err(out)?;
    summary.rewrap_due = Some(due);
    Ok(summary)
}

pub(super) fn read_header(input: &mut impl Read) -> Result<FileHeader, Failure> {
    let mut bytes = Vec::with_capacity(FILE_HEADER_LEN);
    input
        .take(FILE_HEADER_LEN as u64)
        .read_to_end(&mut bytes)
        .map_err(|e| Failure::io("input", &e))?;
    FileHeader::parse(&bytes)
}

/// The header of a segment's envelope and its items.
pub(super) fn split(header: &FileHeader, piece: &Piece) -> Result<Vec<u32>, Failure> {
    piece
        .bytes
        .len()
        .checked_sub(HEADER_LEN)
        .and_then(|items| header.item_lengths(items))
        .ok_or_else(|| {
            Failure::new(FailureKind::Data, "the file was cut short")
                .at(format_args!("segment {}", piece.number))
        })
}

async fn open(
    client: &Client,
    key: Option<&str>,
    context: &BTreeMap<String, String>,
    header: &FileHeader,
    piece: Piece,
) -> Result<(u64, proto::DecryptResponse), Failure> {
    let taken = piece.bytes.len() as u64;
    let lengths = split(header, &piece)?;
    let (aads, aad_lengths) = header.aads(piece.number, lengths.len(), piece.last);
    let (number, mut envelope) = (piece.number, bytes::Bytes::from(piece.bytes));
    let items = envelope.split_off(HEADER_LEN);
    let request = proto::DecryptRequest {
        context: context.clone(),
        form: proto::Form::Detached.into(),
        header: envelope,
        packed_items: Some(proto::Packed {
            data: items,
            lengths,
        }),
        packed_aads: Some(proto::Packed {
            data: aads.into(),
            lengths: aad_lengths,
        }),
        key: key.unwrap_or_default().to_owned(),
        ..Default::default()
    };
    let response = client
        .crypto()
        .decrypt(request)
        .await
        .map_err(|status| explain(status.into(), number))?
        .into_inner();
    match response.errors.first() {
        Some(error) => Err(explain(Failure::item(error), number)),
        None => Ok((taken, response)),
    }
}

pub(super) fn explain(failure: Failure, segment: u64) -> Failure {
    // What is wrong with the request itself needs no guess.
    if failure.kind() != FailureKind::Data || failure.reason() != Some("DECRYPTION_FAILED") {
        return failure;
    }
    let hint = if segment == 0 {
        "the context is another, or the file was changed"
    } else {
        "the file was changed, cut short, extended or reordered"
    };
    failure
        .hint(format_args!("; {hint}"))
        .at(format_args!("segment {segment}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_ours_keep_the_reason_of_the_server() {
        let said = Failure::new(FailureKind::Data, "no").because("DECRYPTION_FAILED");
        let failure = explain(said, 3);
        assert_eq!(failure.reason(), Some("DECRYPTION_FAILED"));
        assert_eq!(
            failure.to_string(),
            "segment 3: no; the file was changed, cut short, extended or reordered"
        );
    }
}
