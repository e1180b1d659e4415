//! Lengths of time and hexadecimal numbers, as they are typed.

/// A length of time, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) seconds: u64,
}

/// Bytes that are typed in hexadecimal: serials, digests, ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bytes(pub(crate) Vec<u8>);

/// Longer means nothing here, and the milliseconds of it fit everywhere.
const MOST_SECONDS: u64 = 36_525 * 86_400;
/// The longest that is typed is a SHA-256; a serial has at most 20.
const MOST_BYTES: usize = 32;

/// `90s`, `5m`, `24h`, `30d`, as in profiles.
pub(in crate::args) fn span(text: &str) -> Result<Span, String> {
    let wrong = || format!("{text:?} is not a length of time such as 90s, 5m, 24h or 30d");
    let unit = match text.chars().last() {
        Some('s') => 1,
        Some('m') => 60,
        Some('h') => 3600,
        Some('d') => 86_400,
        _ => return Err(wrong()),
    };
    let digits = text.get(..text.len() - 1).unwrap_or_default();
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong());
    }
    let seconds = digits.parse().ok().and_then(|n: u64| n.checked_mul(unit));
    match seconds {
        Some(0) => Err(format!("{text:?}: must be longer than nothing")),
        Some(seconds) if seconds <= MOST_SECONDS => Ok(Span { seconds }),
        Some(_) | None => Err(format!("{text:?}: at most 36525d, a hundred years")),
    }
}

/// `3a5f01`, also in capitals and with the colons that openssl prints.
pub(super) fn octets(text: &str) -> Result<Bytes, String> {
    let bytes = if text.contains(':') {
        let pair = |pair: &str| Some(pair).filter(|p| p.len() == 2).and_then(decode);
        let pairs: Option<Vec<_>> = text.split(':').map(pair).collect();
        pairs.map(|pairs| pairs.concat())
    } else {
        decode(text)
    };
    bytes
        .filter(|b| (1..=MOST_BYTES).contains(&b.len()))
        .map(Bytes)
        .ok_or_else(|| {
            format!("{text:?} is not hexadecimal with two digits for each byte, up to {MOST_BYTES}")
        })
}

/// A positive number, as DER writes it (X.690 §8.3): openssl prints it without the zero in
/// front that keeps it positive.
pub(super) fn serial(text: &str) -> Result<Bytes, String> {
    let Bytes(mut bytes) = octets(text)?;
    let zeros = bytes.iter().take_while(|b| **b == 0).count();
    bytes.drain(..zeros);
    match bytes.first() {
        None => Err("no certificate has the serial 0".to_owned()),
        Some(0x80..) => Ok(Bytes([vec![0], bytes].concat())),
        Some(_) => Ok(Bytes(bytes)),
    }
}

fn decode(text: &str) -> Option<Vec<u8>> {
    hex::decode(text).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lengths_of_time_have_a_unit_and_a_limit() {
        let seconds = |text| span(text).map(|s| s.seconds).ok();
        assert_eq!(seconds("90s"), Some(90));
        assert_eq!(seconds("5m"), Some(300));
        assert_eq!(seconds("24h"), Some(86_400));
        assert_eq!(seconds("30d"), Some(2_592_000));
        assert_eq!(seconds("36525d"), Some(MOST_SECONDS));
        for bad in [
            "",
            "h",
            "24",
            "0s",
            "-1h",
            "+1h",
            "1.5h",
            "1 h",
            "1w",
            "1é",
            "36526d",
            "99999999999999999999d",
        ] {
            assert_eq!(seconds(bad), None, "{bad}");
        }
    }

    #[test]
    fn hexadecimal_is_read_as_openssl_prints_it() {
        let three = Ok(Bytes(vec![0x3a, 0x5f, 1]));
        for text in ["3a5f01", "3A5F01", "3a:5f:01"] {
            assert_eq!(octets(text), three, "{text}");
        }
        let long = "00".repeat(MOST_BYTES + 1);
        for bad in ["", "3", "3a5", "zz", "3a:5", "3a::5f", ":3a", "0x3a", &long] {
            assert!(octets(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn serials_are_positive() {
        let read = |text| serial(text).map(|Bytes(b)| b).ok();
        assert_eq!(read("3a5f"), Some(vec![0x3a, 0x5f]));
        assert_eq!(read("00003a"), Some(vec![0x3a]));
        assert_eq!(read("8000"), Some(vec![0, 0x80, 0]));
        assert_eq!(read("008000"), Some(vec![0, 0x80, 0]));
        assert_eq!(read("00"), None);
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,80}") {
            let _ = span(&text);
            let _ = octets(&text);
        }

        #[test]
        fn bytes_come_back(bytes in prop::collection::vec(any::<u8>(), 1..=MOST_BYTES)) {
            prop_assert_eq!(octets(&hex::encode(&bytes)), Ok(Bytes(bytes)));
        }
    }
}
