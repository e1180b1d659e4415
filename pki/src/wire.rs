//! Writing and reading DER (X.690 §10). Writing: what is nested is written first, its
//! length put in front of it after. Reading is strict and done by the der crate. Tags and
//! object identifiers are bytes, as they stand in the standards.

use der::{Decode, Reader, SliceReader, asn1::AnyRef};

/// Identifier octets.
pub(crate) mod tag {
    pub(crate) const BOOLEAN: u8 = 0x01;
    pub(crate) const INTEGER: u8 = 0x02;
    pub(crate) const BIT_STRING: u8 = 0x03;
    pub(crate) const OCTET_STRING: u8 = 0x04;
    pub(crate) const NULL: u8 = 0x05;
    pub(crate) const OID: u8 = 0x06;
    pub(crate) const ENUMERATED: u8 = 0x0a;
    pub(crate) const UTF8_STRING: u8 = 0x0c;
    pub(crate) const SEQUENCE: u8 = 0x30;
    pub(crate) const SET: u8 = 0x31;
    pub(crate) const PRINTABLE_STRING: u8 = 0x13;
    pub(crate) const UTC_TIME: u8 = 0x17;
    pub(crate) const GENERALIZED_TIME: u8 = 0x18;

    /// `[n]` of a primitive type, IMPLICIT.
    pub(crate) const fn primitive(n: u8) -> u8 {
        0x80 | n
    }

    /// `[n]` of a constructed type, or EXPLICIT.
    pub(crate) const fn constructed(n: u8) -> u8 {
        0xa0 | n
    }
}

/// Grows by one DER element after another.
#[derive(Debug, Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.0
    }

    /// One element with this content.
    pub(crate) fn put(&mut self, tag: u8, content: &[u8]) {
        self.0.push(tag);
        self.0.extend_from_slice(length(content.len()).as_ref());
        self.0.extend_from_slice(content);
    }

    /// One element whose content `fill` writes.
    pub(crate) fn nest(&mut self, tag: u8, fill: impl FnOnce(&mut Self)) {
        self.0.push(tag);
        let at = self.0.len();
        fill(self);
        let length = length(self.0.len() - at);
        self.0.splice(at..at, length.as_ref().iter().copied());
    }

    /// Bytes that are DER already.
    pub(crate) fn raw(&mut self, der: &[u8]) {
        self.0.extend_from_slice(der);
    }

    /// A BIT STRING of whole octets.
    pub(crate) fn bits(&mut self, octets: &[u8]) {
        self.nest(tag::BIT_STRING, |w| {
            w.raw(&[0]);
            w.raw(octets);
        });
    }

    /// An INTEGER that is not negative.
    pub(crate) fn unsigned(&mut self, n: u64) {
        let octets = n.to_be_bytes();
        let skip = octets.iter().take(7).take_while(|b| **b == 0).count();
        self.nest(tag::INTEGER, |w| {
            if octets.get(skip).is_some_and(|first| *first >= 0x80) {
                w.raw(&[0]);
            }
            w.raw(octets.get(skip..).unwrap_or_default());
        });
    }

    /// A `Time` (RFC 5280 §4.1.2.5): UTCTime until 2049, then GeneralizedTime.
    pub(crate) fn time(&mut self, unix_s: u64) {
        let text = generalized_time(unix_s);
        match text.split_at_checked(2) {
            Some((b"19" | b"20", rest)) if unix_s < Y2050 => self.put(tag::UTC_TIME, rest),
            _ => self.put(tag::GENERALIZED_TIME, &text),
        }
    }

    /// A GeneralizedTime in whole seconds.
    pub(crate) fn generalized_time(&mut self, unix_s: u64) {
        self.put(tag::GENERALIZED_TIME, &generalized_time(unix_s));
    }
}

/// The elements of a constructed one, in order. `None` is anything that is not DER or not
/// what was asked for.
pub(crate) struct Cursor<'a>(SliceReader<'a>);

impl<'a> Cursor<'a> {
    /// Over the content of a constructed element.
    pub(crate) fn over(content: &'a [u8]) -> Option<Self> {
        SliceReader::new(content).ok().map(Self)
    }

    /// Over the content of the one element that `der` is.
    pub(crate) fn within(tag: u8, der: &'a [u8]) -> Option<Self> {
        let mut whole = Self::over(der)?;
        let inner = whole.take(tag)?;
        whole.end()?;
        Self::over(inner)
    }

    /// The next element with its header.
    pub(crate) fn element(&mut self) -> Option<&'a [u8]> {
        self.0.tlv_bytes().ok()
    }

    /// The content of the next element, which has this tag.
    pub(crate) fn take(&mut self, tag: u8) -> Option<&'a [u8]> {
        if !self.at(tag) {
            return None;
        }
        AnyRef::from_der(self.element()?).ok().map(AnyRef::value)
    }

    /// The elements of the next element, which has this tag.
    pub(crate) fn enter(&mut self, tag: u8) -> Option<Self> {
        Self::over(self.take(tag)?)
    }

    /// Has the next element this tag?
    pub(crate) fn at(&self, tag: u8) -> bool {
        self.0.peek_byte() == Some(tag)
    }

    /// What is left, unread.
    pub(crate) fn rest(mut self) -> Option<&'a [u8]> {
        self.0.read_slice(self.0.remaining_len()).ok()
    }

    /// Is nothing left?
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_finished()
    }

    /// Nothing may be left.
    pub(crate) fn end(self) -> Option<()> {
        self.is_empty().then_some(())
    }
}

/// 2050-01-01T00:00:00Z.
const Y2050: u64 = 2_524_608_000;

/// `YYYYMMDDHHMMSSZ`. A year above 9999 is written as 9999-12-31T23:59:59Z; a draft
/// refuses it before.
fn generalized_time(unix_s: u64) -> [u8; 15] {
    let unix_s = unix_s.min(crate::plan::NO_EXPIRY);
    let (day, second) = (unix_s / 86_400, unix_s % 86_400);
    // Civil date from days: years begin in March, eras have 400 years of 146,097 days.
    let day = day + 719_468;
    let (era, day) = (day / 146_097, day % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    let pairs = [
        year / 100,
        year % 100,
        month,
        day,
        second / 3_600,
        second / 60 % 60,
        second % 60,
    ];
    let mut text = [b'Z'; 15];
    for (to, pair) in text.chunks_exact_mut(2).zip(pairs) {
        for (to, digit) in to.iter_mut().zip([pair / 10, pair % 10]) {
            *to = b'0' + (digit % 10) as u8;
        }
    }
    text
}

/// At most five length octets: 4 GiB.
struct Length {
    octets: [u8; 5],
    len: usize,
}

impl AsRef<[u8]> for Length {
    fn as_ref(&self) -> &[u8] {
        self.octets.get(..self.len).unwrap_or_default()
    }
}

/// X.690 §10.1: definite, as few octets as possible.
fn length(content: usize) -> Length {
    let [.., a, b, c, d] = content.to_be_bytes();
    let (octets, len) = match content {
        0..=0x7f => ([d, 0, 0, 0, 0], 1),
        0x80..=0xff => ([0x81, d, 0, 0, 0], 2),
        0x100..=0xffff => ([0x82, c, d, 0, 0], 3),
        0x1_0000..=0xff_ffff => ([0x83, b, c, d, 0], 4),
        _ => ([0x84, a, b, c, d], 5),
    };
    Length { octets, len }
}

#[cfg(test)]
mod tests {
    use der::{DateTime, Encode, asn1};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lengths_are_minimal() {
        for (content, len) in [(0, 1), (127, 1), (128, 2), (255, 2), (256, 3), (65_536, 4)] {
            let mut writer = Writer::default();
            writer.nest(tag::OCTET_STRING, |w| w.raw(&vec![7; content]));
            let der = writer.finish();
            let expected = asn1::OctetString::new(vec![7; content])
                .unwrap()
                .to_der()
                .unwrap();
            assert_eq!(der, expected);
            assert_eq!(der.len(), 1 + len + content);
        }
    }

    #[test]
    fn the_year_2050_changes_the_type() {
        let time = |t| {
            let mut writer = Writer::default();
            writer.time(t);
            writer.finish()
        };
        assert_eq!(time(Y2050 - 1), b"\x17\x0d491231235959Z");
        assert_eq!(time(Y2050), b"\x18\x0f20500101000000Z");
        assert_eq!(time(crate::plan::NO_EXPIRY), b"\x18\x0f99991231235959Z");
        assert_eq!(time(0), b"\x17\x0d700101000000Z");
    }

    proptest! {
        #[test]
        fn times_are_those_of_another_calendar(unix_s in 0..=crate::plan::NO_EXPIRY) {
            let date = DateTime::from_unix_duration(std::time::Duration::from_secs(unix_s)).unwrap();
            let mut writer = Writer::default();
            writer.generalized_time(unix_s);
            prop_assert_eq!(writer.finish(), asn1::GeneralizedTime::from(date).to_der().unwrap());
        }
    }
}
