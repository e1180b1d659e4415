//! How an ECDSA signature is written: `Ecdsa-Sig-Value ::= SEQUENCE { r, s }`
//! (RFC 3279 §2.2.3), or r and s side by side, each as long as the field.

use der::{Decode, Encode, Sequence, asn1::UintRef};

#[derive(Sequence)]
struct EcdsaSigValue<'a> {
    r: UintRef<'a>,
    s: UintRef<'a>,
}

/// r‖s to DER; `None` when the halves are not of one length.
#[must_use]
pub fn ecdsa_to_der(raw: &[u8]) -> Option<Vec<u8>> {
    let (r, s) = raw.split_at_checked(raw.len() / 2)?;
    if r.len() != s.len() {
        return None;
    }
    let value = EcdsaSigValue {
        r: UintRef::new(r).ok()?,
        s: UintRef::new(s).ok()?,
    };
    value.to_der().ok()
}

/// DER to r‖s with halves of `field` bytes; `None` for anything but the one DER of
/// two positive numbers that fit: trailing bytes, padding and BER are refused.
#[must_use]
pub fn ecdsa_from_der(der: &[u8], field: usize) -> Option<Vec<u8>> {
    let EcdsaSigValue { r, s } = EcdsaSigValue::from_der(der).ok()?;
    let mut raw = vec![0; 2 * field];
    for (half, number) in raw.chunks_exact_mut(field).zip([r, s]) {
        let bytes = number.as_bytes();
        let at = field.checked_sub(bytes.len())?;
        half.get_mut(at..)?.copy_from_slice(bytes);
    }
    // The decoder's idea of canonical, checked by writing it again.
    (ecdsa_to_der(&raw)? == der).then_some(raw)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn strange_der_is_refused() {
        let raw = [[0x80; 32], [1; 32]].concat();
        let good = ecdsa_to_der(&raw).unwrap();
        assert_eq!(ecdsa_from_der(&good, 32).unwrap(), raw);
        // Too long for the field, one byte more, one byte less, BER length.
        assert_eq!(ecdsa_from_der(&good, 31), None);
        assert_eq!(ecdsa_from_der(&[good.clone(), vec![0]].concat(), 32), None);
        assert_eq!(ecdsa_from_der(&good[..good.len() - 1], 32), None);
        let ber = [&[0x30, 0x81, good[1]], &good[2..]].concat();
        assert_eq!(ecdsa_from_der(&ber, 32), None);
        // Negative r, padded r.
        assert_eq!(
            ecdsa_from_der(b"\x30\x06\x02\x01\x80\x02\x01\x01", 32),
            None
        );
        let padded = b"\x30\x07\x02\x02\x00\x01\x02\x01\x01";
        assert_eq!(ecdsa_from_der(padded, 32), None);
        assert_eq!(ecdsa_to_der(&[1; 63]), None);
    }

    proptest! {
        #[test]
        fn both_ways(raw in proptest::collection::vec(any::<u8>(), 96..=96)) {
            let der = ecdsa_to_der(&raw).unwrap();
            prop_assert_eq!(ecdsa_from_der(&der, 48), Some(raw));
        }

        #[test]
        fn any_bytes_are_refused_or_canonical(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Some(raw) = ecdsa_from_der(&bytes, 32) {
                prop_assert_eq!(ecdsa_to_der(&raw).unwrap(), bytes);
            }
        }
    }
}
