//! Encrypt a file.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
};

use futures_util::{StreamExt, TryStreamExt, stream};

use super::{
    IN_FLIGHT, Piece, Pieces, Progress, Summary,
    format::{FILE_HEADER_LEN, FileHeader},
};
use crate::{Client, Failure, HEADER_LEN, proto};

/// Encrypts everything `input` has under the primary version of a key.
///
/// # Errors
/// What the server says, or the file.
pub async fn encrypt(
    client: &Client,
    key: &str,
    context: &BTreeMap<String, String>,
    input: impl Read,
    mut output: impl Write,
    progress: Progress<'_>,
) -> Result<Summary, Failure> {
    let header = FileHeader::new()?;
    let out = |e| Failure::io("output", &e);
    let mut summary = Summary {
        bytes_out: FILE_HEADER_LEN as u64,
        ..Summary::default()
    };
    let sealed = stream::iter(Pieces::new(input, header.plain_segment_bytes()))
        .map(|piece| async move { seal(client, key, context, &header, piece?).await })
        .buffered(IN_FLIGHT);
    let mut sealed = std::pin::pin!(sealed);
    while let Some((taken, response)) = sealed.try_next().await? {
        let items = response.packed_items.unwrap_or_default();
        if response.header.len() != HEADER_LEN || !response.errors.is_empty() {
            return Err(Failure::nonsense());
        }
        if summary.segments == 0 {
            // Not before the server has said yes.
            output.write_all(header.as_bytes()).map_err(out)?;
        }
        output.write_all(&response.header).map_err(out)?;
        output.write_all(&items.data).map_err(out)?;
        summary.bytes_in += taken;
        summary.bytes_out += (HEADER_LEN + items.data.len()) as u64;
        summary.segments += 1;
        progress(summary.bytes_in);
    }
    output.flush().map_err(out)?;
    Ok(summary)
}

async fn seal(
    client: &Client,
    key: &str,
    context: &BTreeMap<String, String>,
    header: &FileHeader,
    piece: Piece,
) -> Result<(u64, proto::EncryptResponse), Failure> {
    let taken = piece.bytes.len() as u64;
    let lengths = header.plain_lengths(piece.bytes.len());
    let (aads, aad_lengths) = header.aads(piece.number, lengths.len(), piece.last);
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
    let response = client.crypto().encrypt(request).await?;
    Ok((taken, response.into_inner()))
}
