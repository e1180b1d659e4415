//! Weak keys made on purpose: each must be refused for its own reason.

use aws_lc_rs::{
    encoding::AsDer,
    rsa::{KeyPair, KeySize},
    signature::{EcdsaKeyPair, Ed25519KeyPair, KeyPair as _},
};
use der::{Encode, asn1::UintRef};
use proptest::prelude::*;

use super::*;
use crate::{
    key_kind::ShapeError,
    subject_key::{KeyError, SubjectKey},
    wire::{Writer, tag},
};

const RSA_ALGORITHM: &[u8] = b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00";

fn spki(algorithm: &[u8], key: &[u8]) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.nest(tag::SEQUENCE, |w| {
        w.nest(algorithm[0], |w| {
            algorithm[2..].iter().for_each(|b| w.raw(&[*b]));
        });
        w.bits(key);
    });
    writer.finish()
}

fn rsa_spki(modulus: &BigUint, exponent: &[u8]) -> Vec<u8> {
    let modulus = modulus.to_bytes_be();
    let key = RsaPublicKey {
        modulus: UintRef::new(&modulus).unwrap(),
        exponent: UintRef::new(exponent).unwrap(),
    };
    spki(RSA_ALGORITHM, &key.to_der().unwrap())
}

fn judge(modulus: &BigUint) -> Result<(), KeyError> {
    SubjectKey::from_spki(&rsa_spki(modulus, &[1, 0, 1])).map(|_| ())
}

fn weak(error: WeakKey) -> Result<(), KeyError> {
    Err(KeyError::Weak(error))
}

/// A probable prime: no small factor, and 2^(n-1) = 1 (mod n).
fn is_probable_prime(n: &BigUint) -> bool {
    small_factor(n).is_none() && BigUint::from(2u32).modpow(&(n - 1u32), n) == BigUint::from(1u32)
}

fn next_prime(mut from: BigUint, step: &BigUint) -> BigUint {
    while !is_probable_prime(&from) {
        from += step;
    }
    from
}

/// 1.5·2^(bits-1) and `salt`, odd: two of them multiply to a full 2·bits.
fn start(bits: u32, salt: u64) -> BigUint {
    (BigUint::from(3u32) << (bits - 2)) + (BigUint::from(salt) << (bits - 200)) + 1u32
}

fn two() -> BigUint {
    BigUint::from(2u32)
}

#[test]
fn a_fresh_key_of_each_size_passes() {
    for (size, kind) in [
        (KeySize::Rsa2048, KeyKind::Rsa2048),
        (KeySize::Rsa3072, KeyKind::Rsa3072),
    ] {
        let pair = KeyPair::generate(size).unwrap();
        let spki = AsDer::as_der(pair.public_key()).unwrap();
        let key = SubjectKey::from_spki(spki.as_ref()).unwrap();
        assert_eq!(key.kind(), kind);
        assert_eq!(key.spki(), spki.as_ref());
    }
    let far = next_prime(start(1024, 7), &two()) * next_prime(start(1024, 7_777_777), &two());
    assert_eq!(judge(&far), Ok(()));
}

#[test]
fn close_primes_are_found() {
    let p = next_prime(start(1024, 1), &two());
    let q = next_prime(&p + 2u32, &two());
    assert_eq!(judge(&(&p * &q)), weak(WeakKey::ClosePrimes));
    assert_eq!(judge(&(&p * &p)), weak(WeakKey::ClosePrimes));
    // b² = ((q-p)/2)² is met in round (q-p)²/(8·√n): a distance of 2^516 takes about 43.
    let q = next_prime(&p + (BigUint::from(1u32) << 516u32), &two());
    assert_eq!(judge(&(&p * &q)), weak(WeakKey::ClosePrimes));
}

#[test]
fn the_fingerprint_of_roca_is_found() {
    let primorial = (2..=ROCA_PRIME_MAX)
        .filter(|&n| is_prime(n))
        .fold(BigUint::from(1u32), |product, prime| product * prime);
    let shaped = |exponent: u32, salt| {
        let rest = BigUint::from(65537u32).modpow(&BigUint::from(exponent), &primorial);
        let multiple = start(1024, salt) / &primorial * &primorial;
        next_prime(multiple + rest, &primorial)
    };
    assert_eq!(
        judge(&(shaped(1_234, 3) * shaped(987_654, 999_999))),
        weak(WeakKey::Roca)
    );
}

#[test]
fn small_factors_are_found() {
    let q = next_prime(start(1024, 5), &two());
    for factor in [3u32, 751] {
        let p = start(1024, 99) / factor * factor;
        let p = if p.bit(0) { p } else { p + factor };
        // 3 may be met first.
        let found = judge(&(&p * &q));
        assert!(matches!(found, Err(KeyError::Weak(WeakKey::SmallFactor(f))) if f <= factor));
    }
    let even = (start(1024, 9) + 1u32) * &q;
    assert_eq!(judge(&even), weak(WeakKey::SmallFactor(2)));
}

#[test]
fn other_exponents_and_sizes_are_refused() {
    let n = next_prime(start(1024, 7), &two()) * next_prime(start(1024, 77_777), &two());
    for exponent in [&[1][..], &[3], &[17], &[1, 0, 3], &[1, 0, 0, 1]] {
        let got = SubjectKey::from_spki(&rsa_spki(&n, exponent));
        assert_eq!(got, Err(KeyError::Weak(WeakKey::Exponent)), "{exponent:?}");
    }
    for bits in [1024u32, 2047, 2049, 2056, 8192] {
        let n = (BigUint::from(1u32) << (bits - 1)) + 1u32;
        assert_eq!(
            judge(&n),
            Err(KeyError::Shape(ShapeError::RsaSize(bits as usize)))
        );
    }
}

#[test]
fn curves_points_and_parameters_are_exact() {
    let pair = EcdsaKeyPair::generate(&aws_lc_rs::signature::ECDSA_P256_SHA256_ASN1_SIGNING);
    let pair = pair.unwrap();
    let good = AsDer::as_der(pair.public_key()).unwrap().as_ref().to_vec();
    assert_eq!(
        SubjectKey::from_spki(&good).unwrap().kind(),
        KeyKind::EcP256
    );

    let mut off_curve = good.clone();
    *off_curve.last_mut().unwrap() ^= 1;
    let got = SubjectKey::from_spki(&off_curve);
    assert_eq!(got, Err(KeyError::Weak(WeakKey::NotOnCurve)));

    let point = pair.public_key().as_ref().to_vec();
    let p256 = &good[2..23];
    assert_eq!(spki(p256, &point), good);
    let compressed = [&[2 + (point[64] & 1)], &point[1..33]].concat();
    let refused = |algorithm: &[u8], key: &[u8]| {
        let got = SubjectKey::from_spki(&spki(algorithm, key));
        assert!(matches!(got, Err(KeyError::Shape(_))), "{got:?}");
    };
    refused(p256, &compressed);
    refused(p256, &[0]);
    refused(p256, &[&[6], &point[1..]].concat());
    // secp256k1; no curve; explicit NULL; Ed25519 with NULL; RSA without.
    refused(
        b"\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x0a",
        &point,
    );
    refused(b"\x30\x09\x06\x07\x2a\x86\x48\xce\x3d\x02\x01", &point);
    refused(
        b"\x30\x0b\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x05\x00",
        &point,
    );
    refused(b"\x30\x07\x06\x03\x2b\x65\x70\x05\x00", &[0; 32]);
    refused(
        b"\x30\x0b\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01",
        &point,
    );
    let longer = [good.clone(), vec![0]].concat();
    let got = SubjectKey::from_spki(&longer);
    assert_eq!(got, Err(KeyError::Shape(ShapeError::Malformed)));
}

#[test]
fn ed25519_passes_and_its_key_id_is_that_of_rfc_7093() {
    let pair = Ed25519KeyPair::generate().unwrap();
    let der = spki(b"\x30\x05\x06\x03\x2b\x65\x70", pair.public_key().as_ref());
    let key = SubjectKey::from_spki(&der).unwrap();
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, pair.public_key().as_ref());
    assert_eq!(key.key_id(), hash.as_ref()[..20]);
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &der);
    assert_eq!(key.spki_sha256(), hash.as_ref());
}

proptest! {
    #[test]
    fn any_bytes_are_refused_without_a_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..400),
    ) {
        prop_assert!(SubjectKey::from_spki(&bytes).is_err());
        for algorithm in [RSA_ALGORITHM, b"\x30\x05\x06\x03\x2b\x65\x70"] {
            let _ = SubjectKey::from_spki(&spki(algorithm, &bytes));
        }
    }
}
