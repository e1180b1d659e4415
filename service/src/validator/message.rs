//! DNS messages (RFC 1035 §4): one question out, the records of its type back.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    A,
    Txt,
    Aaaa,
}

impl Type {
    fn code(self) -> u16 {
        match self {
            Self::A => 1,
            Self::Txt => 16,
            Self::Aaaa => 28,
        }
    }
}

/// A record of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Data {
    Address(IpAddr),
    /// Its strings put together (RFC 8555 §8.4 compares the whole).
    Text(Vec<u8>),
}

/// What a resolver said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reply {
    Records(Vec<Data>),
    /// There is no such name.
    NoName,
    /// It did not fit; ask again over TCP.
    Truncated,
    /// SERVFAIL and the like, by number.
    Failed(u8),
}

const INTERNET: u16 = 1;
const RECURSION_DESIRED: u16 = 0x0100;
const RESPONSE: u8 = 0x80;
const TRUNCATED: u8 = 0x02;
const NAME_ERROR: u8 = 3;
/// More answers than that are not read.
const MAX_RECORDS: u16 = 200;

/// A question; `name` is a checked host name, perhaps with `_acme-challenge` in front.
pub(super) fn question(id: u16, name: &str, kind: Type) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(18 + name.len());
    for field in [id, RECURSION_DESIRED, 1, 0, 0, 0] {
        out.extend(field.to_be_bytes());
    }
    for label in name.split('.') {
        let len = u8::try_from(label.len())
            .ok()
            .filter(|n| (1..=63).contains(n))?;
        out.push(len);
        out.extend(label.bytes());
    }
    out.push(0);
    out.extend(kind.code().to_be_bytes());
    out.extend(INTERNET.to_be_bytes());
    Some(out)
}

/// Reads the reply to `question`; `None` when it is not one. Records of the type that was
/// asked for count whatever their owner: a recursive resolver has followed the aliases.
pub(super) fn reply(question: &[u8], kind: Type, bytes: &[u8]) -> Option<Reply> {
    let mut reader = Reader { bytes, at: 0 };
    let id = reader.take(2)?;
    let [flags, more] = reader.take(2)? else {
        return None;
    };
    let (asked, answers) = (reader.number()?, reader.number()?);
    reader.take(4)?;
    // The question comes back as it was, but for the case of its letters.
    let own = question.get(12..)?;
    let echoed = reader.take(own.len())?;
    if question.get(..2)? != id
        || flags & RESPONSE == 0
        || asked != 1
        || !echoed.eq_ignore_ascii_case(own)
    {
        return None;
    }
    if flags & TRUNCATED != 0 {
        return Some(Reply::Truncated);
    }
    match more & 0x0f {
        0 => {}
        NAME_ERROR => return Some(Reply::NoName),
        code => return Some(Reply::Failed(code)),
    }
    let mut records = Vec::new();
    for _ in 0..answers.min(MAX_RECORDS) {
        reader.skip_name()?;
        let (found, class) = (reader.number()?, reader.number()?);
        reader.take(4)?;
        let len = usize::from(reader.number()?);
        let data = reader.take(len)?;
        if found == kind.code() && class == INTERNET {
            records.push(read(kind, data)?);
        }
    }
    Some(Reply::Records(records))
}

fn read(kind: Type, data: &[u8]) -> Option<Data> {
    Some(match kind {
        Type::A => Data::Address(Ipv4Addr::from(<[u8; 4]>::try_from(data).ok()?).into()),
        Type::Aaaa => Data::Address(Ipv6Addr::from(<[u8; 16]>::try_from(data).ok()?).into()),
        Type::Txt => {
            let (mut text, mut rest) = (Vec::new(), data);
            while let Some((len, behind)) = rest.split_first() {
                let (string, next) = behind.split_at_checked(usize::from(*len))?;
                text.extend(string);
                rest = next;
            }
            Data::Text(text)
        }
    })
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(len)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    fn number(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    /// A name is labels up to an empty one or to a pointer (§4.1.4), which is not followed.
    fn skip_name(&mut self) -> Option<()> {
        loop {
            let len = *self.take(1)?.first()?;
            match len {
                0 => return Some(()),
                1..=63 => drop(self.take(usize::from(len))?),
                0xc0.. => return self.take(1).map(drop),
                _ => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn answer(question: &[u8], records: &[(u16, &[u8])]) -> Vec<u8> {
        let mut out = question.to_vec();
        out[2] |= RESPONSE;
        out[7] = u8::try_from(records.len()).unwrap();
        for (kind, data) in records {
            out.extend([0xc0, 12]);
            out.extend(kind.to_be_bytes());
            out.extend([0, 1, 0, 0, 0, 60]);
            out.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
            out.extend(*data);
        }
        out
    }

    #[test]
    fn records_of_the_type_come_back_whole() {
        let q = question(7, "_acme-challenge.a.example", Type::Txt).unwrap();
        let bytes = answer(&q, &[(5, b"\x01a\x00"), (16, b"\x03abc\x02de")]);
        let records = Reply::Records(vec![Data::Text(b"abcde".to_vec())]);
        assert_eq!(reply(&q, Type::Txt, &bytes), Some(records));
        let q = question(7, "a.example", Type::A).unwrap();
        let bytes = answer(&q, &[(1, &[192, 0, 2, 1])]);
        let address = Data::Address("192.0.2.1".parse().unwrap());
        assert_eq!(
            reply(&q, Type::A, &bytes),
            Some(Reply::Records(vec![address]))
        );
    }

    #[test]
    fn a_reply_to_another_question_is_none() {
        let q = question(7, "a.example", Type::A).unwrap();
        let other_id = question(8, "a.example", Type::A).unwrap();
        let other_name = question(7, "b.example", Type::A).unwrap();
        assert_eq!(reply(&q, Type::A, &answer(&other_id, &[])), None);
        assert_eq!(reply(&q, Type::A, &answer(&other_name, &[])), None);
        assert_eq!(reply(&q, Type::A, &q), None);
        let mut failed = answer(&q, &[]);
        failed[3] = 3;
        assert_eq!(reply(&q, Type::A, &failed), Some(Reply::NoName));
        failed[2] |= TRUNCATED;
        assert_eq!(reply(&q, Type::A, &failed), Some(Reply::Truncated));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(tail: Vec<u8>, count: u8) {
            let q = question(7, "a.example", Type::Txt).unwrap();
            let mut bytes = answer(&q, &[]);
            bytes[7] = count;
            bytes.extend(&tail);
            let _ = reply(&q, Type::Txt, &bytes);
            let _ = reply(&q, Type::Txt, &tail);
        }
    }
}
