//! Files of any size, in constant memory (`docs/file-format.md`).
//!
//! A file becomes a 24-byte file header and a row of segments, each an envelope of up to
//! 64 chunks. The AAD of a chunk is the file header, the number of the chunk in the file
//! and whether it is the last one, so a file that was cut short, extended, reordered or
//! put together from two does not open.
//!
//! Rewrap exchanges the 68-byte tail of each envelope header and nothing else.

mod decrypt;
mod encrypt;
mod format;
mod reencrypt;
mod rewrap;

use std::io::Read;

use serde::Serialize;

pub use decrypt::decrypt;
pub use encrypt::{encrypt, encrypt_here};
pub(crate) use format::FileLayout;
pub use reencrypt::reencrypt;
pub use rewrap::rewrap;

use crate::Failure;

/// What `fuzz/` drives: the 24 bytes in front of a file and the cut of its segments.
#[cfg(fuzzing)]
pub fn fuzz_header(bytes: &[u8], segment: usize) {
    if let Ok(header) = format::FileHeader::parse(bytes) {
        assert!(header.sealed_segment_bytes() <= 256 << 20);
        let segment = segment % header.sealed_segment_bytes();
        if let Some(items) = header.item_lengths(segment) {
            assert_eq!(items.iter().map(|n| *n as usize).sum::<usize>(), segment);
        }
    }
}

/// What was done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Bytes read.
    pub bytes_in: u64,
    /// Bytes written.
    pub bytes_out: u64,
    /// Envelopes.
    pub segments: u64,
    /// Envelopes whose header moved to the primary version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rewrapped: Option<u64>,
    /// Envelopes that were there already.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub already_current: Option<u64>,
    /// Envelopes that were opened under a version that is no longer the primary one:
    /// rewrap them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rewrap_due: Option<u64>,
}

/// Told how many bytes of the input are done.
pub type Progress<'a> = &'a (dyn Fn(u64) + Sync);

/// Segments on their way to the server at one time.
const IN_FLIGHT: usize = 4;

/// One piece of the input, and whether it is the last one.
struct Piece {
    number: u64,
    bytes: Vec<u8>,
    last: bool,
}

/// Cuts the input into pieces of one size. The last one may be shorter, also empty when
/// there is nothing at all; it is known to be the last because the input was asked for
/// one byte more.
struct Pieces<R> {
    input: R,
    size: usize,
    number: u64,
    ahead: Option<u8>,
    done: bool,
}

impl<R: Read> Pieces<R> {
    fn new(input: R, size: usize) -> Self {
        Self {
            input,
            size,
            number: 0,
            ahead: None,
            done: false,
        }
    }

    fn piece(&mut self) -> std::io::Result<Piece> {
        let mut bytes = Vec::with_capacity(self.size);
        bytes.extend(self.ahead.take());
        let room = self.size.saturating_sub(bytes.len()) as u64;
        self.input.by_ref().take(room).read_to_end(&mut bytes)?;
        let mut next = [0];
        loop {
            match self.input.read(&mut next) {
                Ok(0) => self.done = true,
                Ok(_) => self.ahead = next.first().copied(),
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            }
            break;
        }
        let number = self.number;
        self.number += 1;
        Ok(Piece {
            number,
            bytes,
            last: self.done,
        })
    }
}

impl<R: Read> Iterator for Pieces<R> {
    type Item = Result<Piece, Failure>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        Some(self.piece().map_err(|e| {
            self.done = true;
            Failure::io("input", &e)
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(len: usize, size: usize) -> Vec<(usize, bool)> {
        Pieces::new(vec![7; len].as_slice(), size)
            .map(|p| p.map(|p| (p.bytes.len(), p.last)).unwrap())
            .collect()
    }

    #[test]
    fn the_last_piece_knows_that_it_is_the_last() {
        assert_eq!(sizes(0, 4), [(0, true)]);
        assert_eq!(sizes(3, 4), [(3, true)]);
        assert_eq!(sizes(4, 4), [(4, true)]);
        assert_eq!(sizes(5, 4), [(4, false), (1, true)]);
        assert_eq!(sizes(8, 4), [(4, false), (4, true)]);
    }
}
