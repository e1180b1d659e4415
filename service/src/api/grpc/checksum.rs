//! CRC32C over the byte strings of a message (RFC 3720 §12.1): against bits that flip
//! where TLS does not look, in the memory of either side. No defence against people.

use crate::error::{Error, Reason, Result};

/// Whether the response gets a checksum: when the request had one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Checksum(bool);

impl Checksum {
    /// Checks the one that came along, if there is one.
    pub(super) fn check<'a>(
        given: Option<u32>,
        parts: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<Self> {
        let Some(given) = given else {
            return Ok(Self(false));
        };
        let arrived = sum(parts);
        if arrived == given {
            return Ok(Self(true));
        }
        Err(Error::field(
            Reason::ChecksumMismatch,
            "crc32c",
            format!(
                "what arrived has the CRC32C {arrived:#010x}, not {given:#010x}: it was changed on its way, or summed in another order; nothing was done"
            ),
        ))
    }

    /// For requests without anything to check.
    pub(super) fn wanted(wanted: bool) -> Self {
        Self(wanted)
    }

    /// For the response, when it is to have one.
    pub(super) fn of<'a>(self, parts: impl IntoIterator<Item = &'a [u8]>) -> Option<u32> {
        self.0.then(|| sum(parts))
    }
}

fn sum<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> u32 {
    parts.into_iter().fold(0, crc32c::crc32c_append)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_standard_value_in_any_pieces() {
        // RFC 3720, appendix B.4: 32 bytes of zeros; and the common check value.
        assert_eq!(sum([&[0; 32][..]]), 0x8a91_36aa);
        assert_eq!(sum([&b"1234"[..], b"", b"56789"]), 0xe306_9283);
        let checked = Checksum::check(Some(0xe306_9283), [&b"123456789"[..]]).unwrap();
        assert_eq!(checked.of([&b"123456789"[..]]), Some(0xe306_9283));
        let e = Checksum::check(Some(1), [&b"x"[..]]).unwrap_err();
        assert_eq!(e.reason(), Reason::ChecksumMismatch);
        let unasked = Checksum::check(None, [&b"x"[..]]).unwrap();
        assert_eq!(unasked.of([&b"x"[..]]), None);
    }
}
