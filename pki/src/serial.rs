//! The number of a certificate within its issuer (RFC 5280 §4.1.2.2, rule C1).

use std::{fmt, str::FromStr};

/// A positive number of at most 20 octets, as DER writes it without tag and length.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Serial {
    /// The length is first, so that the derived order is the order of the numbers;
    /// octets behind it are zero.
    len: u8,
    octets: [u8; Self::MAX_LEN],
}

/// Not a serial number: empty, zero, negative, padded, or longer than 20 octets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not a serial number: it must be a positive DER integer of at most 20 octets")]
pub struct NotASerial;

impl Serial {
    /// RFC 5280 §4.1.2.2.
    pub const MAX_LEN: usize = 20;
    /// How many random bytes a new serial takes.
    pub const RANDOM_LEN: usize = 17;

    /// A new serial: a first octet from 0x01 to 0x7f, then 128 random bits. The
    /// caller draws the bytes and checks that the issuer never used the number.
    #[must_use]
    pub fn from_random(random: [u8; Self::RANDOM_LEN]) -> Self {
        let mut octets = [0; Self::MAX_LEN];
        let [first, rest @ ..] = random;
        for (to, from) in octets
            .iter_mut()
            .zip(std::iter::once(1 + first % 127).chain(rest))
        {
            *to = from;
        }
        Self { len: 17, octets }
    }

    /// A serial read from a certificate or a store.
    ///
    /// # Errors
    /// [`NotASerial`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, NotASerial> {
        let positive = match bytes {
            [first @ 1..=0x7f, ..] => *first != 0,
            [0, second, ..] => *second >= 0x80,
            _ => false,
        };
        let len = u8::try_from(bytes.len()).map_err(|_| NotASerial)?;
        if !positive || bytes.len() > Self::MAX_LEN {
            return Err(NotASerial);
        }
        let mut octets = [0; Self::MAX_LEN];
        for (to, from) in octets.iter_mut().zip(bytes) {
            *to = *from;
        }
        Ok(Self { len, octets })
    }

    /// The content octets of the INTEGER.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.octets.get(..usize::from(self.len)).unwrap_or_default()
    }
}

/// Lower-case hexadecimal, two digits for each octet.
impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_bytes()
            .iter()
            .try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Serial({self})")
    }
}

/// Hexadecimal of either case, as [`Display`](fmt::Display) writes it.
impl FromStr for Serial {
    type Err = NotASerial;

    fn from_str(text: &str) -> Result<Self, NotASerial> {
        let digits: Option<Vec<u8>> = text
            .chars()
            .map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok()))
            .collect();
        let digits = digits.ok_or(NotASerial)?;
        if !digits.len().is_multiple_of(2) {
            return Err(NotASerial);
        }
        let octets: Vec<u8> = digits
            .chunks_exact(2)
            .map(|pair| pair.iter().fold(0, |sum, d| sum << 4 | d))
            .collect();
        Self::from_bytes(&octets)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_positive_minimal_numbers_of_20_octets() {
        assert!(Serial::from_bytes(&[1]).is_ok());
        assert!(Serial::from_bytes(&[0, 0x80]).is_ok());
        assert!(Serial::from_bytes(&[0x7f; 20]).is_ok());
        for bad in [&[][..], &[0], &[0x80], &[0, 1], &[0, 0, 0x80], &[1; 21]] {
            assert_eq!(Serial::from_bytes(bad), Err(NotASerial), "{bad:?}");
        }
        assert!("0".parse::<Serial>().is_err() && "0g".parse::<Serial>().is_err());
    }

    proptest! {
        #[test]
        fn random_serials_keep_their_128_bits(random: [u8; 17]) {
            let serial = Serial::from_random(random);
            prop_assert_eq!(Serial::from_bytes(serial.as_bytes()), Ok(serial));
            prop_assert!((0x01..=0x7f).contains(&serial.as_bytes()[0]));
            prop_assert_eq!(&serial.as_bytes()[1..], &random[1..]);
            prop_assert_eq!(serial.to_string().parse(), Ok(serial));
        }

        #[test]
        fn order_is_the_order_of_numbers(a: u64, b: u64) {
            let serial = |n: u64| {
                let n = n.max(1);
                let wide = [vec![0], n.to_be_bytes().to_vec()].concat();
                let zeros = wide.windows(2).take_while(|w| w[0] == 0 && w[1] < 0x80).count();
                Serial::from_bytes(&wide[zeros..]).unwrap()
            };
            prop_assert_eq!(serial(a).cmp(&serial(b)), a.max(1).cmp(&b.max(1)));
        }
    }
}
