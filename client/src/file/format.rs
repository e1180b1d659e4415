//! Layout of an encrypted file (`docs/file-format.md`).

use crate::{Failure, FailureKind, HEADER_LEN, ITEM_OVERHEAD};

/// `KW1F`, format 1, log2 of the chunk size, chunks of a segment u16, file id.
pub(super) const FILE_HEADER_LEN: usize = 24;
const MAGIC: &[u8; 4] = b"KW1F";
const FORMAT: u8 = 1;
/// 64 KiB.
const CHUNK_LOG2: u8 = 16;
/// 4 MiB of plaintext in one segment.
const CHUNKS: u16 = 64;
/// What a reader accepts, so that a forged header cannot ask for all memory.
const MAX_SEGMENT_BYTES: usize = 64 << 20;
/// file header, number of the chunk, last or not.
const AAD_LEN: usize = FILE_HEADER_LEN + 8 + 1;

/// How one file is cut, and which file it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileHeader {
    bytes: [u8; FILE_HEADER_LEN],
    chunk_bytes: usize,
    chunks: usize,
}

impl FileHeader {
    /// For a new file.
    pub(super) fn new() -> Result<Self, Failure> {
        let mut bytes = [0; FILE_HEADER_LEN];
        let (front, id) = bytes.split_at_mut(8);
        let [hi, lo] = CHUNKS.to_be_bytes();
        let [m0, m1, m2, m3] = *MAGIC;
        front.copy_from_slice(&[m0, m1, m2, m3, FORMAT, CHUNK_LOG2, hi, lo]);
        getrandom::fill(id)
            .map_err(|e| Failure::new(FailureKind::Other, format!("no random bytes: {e}")))?;
        Self::parse(&bytes)
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Failure> {
        let not_ours = |text: &str| Failure::new(FailureKind::Data, text);
        if bytes.starts_with(b"kw1.") {
            return Err(not_ours(
                "this is lines of kw1. tokens, not an encrypted file; use --lines",
            ));
        }
        let bytes: [u8; FILE_HEADER_LEN] = bytes.try_into().map_err(|_| {
            not_ours("not a file that keywright encrypted: it ends within its header")
        })?;
        let [m0, m1, m2, m3, format, log2, hi, lo, ..] = bytes;
        if [m0, m1, m2, m3] != *MAGIC {
            return Err(not_ours("not a file that keywright encrypted"));
        }
        if format != FORMAT {
            return Err(not_ours(
                "a keywright file of a newer format; a newer keywright can read it",
            ));
        }
        let chunks = usize::from(u16::from_be_bytes([hi, lo]));
        let chunk_bytes = 1usize.checked_shl(u32::from(log2)).unwrap_or(0);
        let segment = chunk_bytes.saturating_mul(chunks);
        if segment == 0 || segment > MAX_SEGMENT_BYTES {
            return Err(not_ours(
                "the header of this file was changed: its segment size makes no sense",
            ));
        }
        Ok(Self {
            bytes,
            chunk_bytes,
            chunks,
        })
    }

    pub(super) fn as_bytes(&self) -> &[u8; FILE_HEADER_LEN] {
        &self.bytes
    }

    /// Plaintext bytes of a full segment.
    pub(super) fn plain_segment_bytes(&self) -> usize {
        self.chunk_bytes * self.chunks
    }

    /// Bytes of a full segment in the encrypted file.
    pub(super) fn sealed_segment_bytes(&self) -> usize {
        HEADER_LEN + (self.chunk_bytes + ITEM_OVERHEAD) * self.chunks
    }

    /// Lengths of the chunks of a plaintext segment; an empty one is one empty chunk.
    pub(super) fn plain_lengths(&self, bytes: usize) -> Vec<u32> {
        lengths(bytes, self.chunk_bytes)
    }

    /// Lengths of the items of a sealed segment; `None` when the bytes cannot be items.
    pub(super) fn item_lengths(&self, bytes: usize) -> Option<Vec<u32>> {
        let lengths = lengths(bytes, self.chunk_bytes + ITEM_OVERHEAD);
        let fits = lengths.iter().all(|n| *n as usize >= ITEM_OVERHEAD);
        fits.then_some(lengths)
    }

    /// AADs of the chunks of a segment, one after the other, and their lengths.
    pub(super) fn aads(&self, segment: u64, chunks: usize, last: bool) -> (Vec<u8>, Vec<u32>) {
        let first = segment * self.chunks as u64;
        let mut data = Vec::with_capacity(chunks * AAD_LEN);
        for i in 0..chunks {
            data.extend_from_slice(&self.bytes);
            data.extend_from_slice(&(first + i as u64).to_be_bytes());
            data.push(u8::from(last && i + 1 == chunks));
        }
        (data, vec![AAD_LEN as u32; chunks])
    }
}

/// Where the envelope headers of a file are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FileLayout {
    /// Of the first one.
    pub(crate) first: usize,
    /// From one to the next.
    pub(crate) segment: usize,
}

impl FileLayout {
    /// Bytes at the front of a file that say it.
    pub(crate) const FRONT: usize = FILE_HEADER_LEN;

    /// None when this is not the front of an encrypted file.
    pub(crate) fn parse(front: &[u8]) -> Option<Self> {
        let header = FileHeader::parse(front).ok()?;
        Some(Self {
            first: FILE_HEADER_LEN,
            segment: header.sealed_segment_bytes(),
        })
    }
}

fn lengths(bytes: usize, each: usize) -> Vec<u32> {
    let length = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let mut out = vec![length(each); bytes / each];
    if bytes == 0 || !bytes.is_multiple_of(each) {
        out.push(length(bytes % each));
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_header_reads_back() {
        let header = FileHeader::new().unwrap();
        assert_eq!(FileHeader::parse(header.as_bytes()).unwrap(), header);
        assert_eq!(header.plain_segment_bytes(), 4 << 20);
        assert_ne!(
            header.as_bytes(),
            FileHeader::new().unwrap().as_bytes(),
            "every file has its id"
        );
    }

    #[test]
    fn lengths_cover_a_segment() {
        let header = FileHeader::new().unwrap();
        assert_eq!(header.plain_lengths(0), [0]);
        assert_eq!(header.plain_lengths(65_536), [65_536]);
        assert_eq!(header.plain_lengths(65_537), [65_536, 1]);
        assert_eq!(header.item_lengths(20).unwrap(), [20]);
        assert_eq!(header.item_lengths(65_556 + 21).unwrap(), [65_556, 21]);
        assert_eq!(header.item_lengths(65_556 + 19), None);
        assert_eq!(header.item_lengths(0), None);
    }

    #[test]
    fn every_chunk_of_a_file_has_its_own_aad() {
        let header = FileHeader::new().unwrap();
        let (a, _) = header.aads(0, 64, false);
        let (b, lengths) = header.aads(1, 2, true);
        let all: Vec<&[u8]> = a.chunks(AAD_LEN).chain(b.chunks(AAD_LEN)).collect();
        let mut unique = all.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), 66);
        assert_eq!(lengths, [33, 33]);
        assert_eq!(b.last(), Some(&1));
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_bounded(bytes in proptest::collection::vec(any::<u8>(), 0..40), ours in any::<bool>()) {
            let mut bytes = bytes;
            if ours && bytes.len() >= 5 { bytes[..5].copy_from_slice(b"KW1F\x01"); }
            if let Ok(header) = FileHeader::parse(&bytes) {
                prop_assert!(header.sealed_segment_bytes() <= 3 * MAX_SEGMENT_BYTES + HEADER_LEN + (1 << 21));
            }
        }
    }
}
