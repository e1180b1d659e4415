//! Which keys are too weak to certify, whatever the profile says.
//!
//! The rules are those of the public web (Baseline Requirements 6.1.6, and
//! `goodkey` of boulder): exact sizes, e = 65537, no small factor, no close primes, not
//! from the library with CVE-2017-15361, and points that lie on their curve. The list of
//! blocked keys is the caller's, by [`crate::SubjectKey::spki_sha256`].

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ECDSA_P521_SHA512_ASN1, ED25519,
    ParsedPublicKey, VerificationAlgorithm,
};
use der::Decode;
use num_bigint::BigUint;

use crate::key_kind::{KeyKind, RsaPublicKey, Shape};

/// Why a key of a known kind is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WeakKey {
    /// Another public exponent than 65537.
    #[error("the RSA exponent is not 65537")]
    Exponent,
    /// An even modulus or one that a prime up to 751 divides.
    #[error("the RSA modulus is divisible by {0}")]
    SmallFactor(u32),
    /// The primes are so close that Fermat's method finds them.
    #[error("the two RSA primes are close together and were found")]
    ClosePrimes,
    /// The fingerprint of ROCA.
    #[error("the RSA modulus has the fingerprint of ROCA (CVE-2017-15361)")]
    Roca,
    /// Not on the curve, or not a point at all.
    #[error("the point does not lie on its curve")]
    NotOnCurve,
}

/// The Baseline Requirements ask for 100, boulder makes 110.
const FERMAT_ROUNDS: u32 = 110;
/// Primes below this are tried: 752 is what the Baseline Requirements name.
const SMALL_PRIME_END: u32 = 752;

/// Judges a key whose shape is right.
pub(crate) fn check(key: Shape<'_>) -> Result<(), WeakKey> {
    match key.kind {
        KeyKind::EcP256 => on_curve(&ECDSA_P256_SHA256_ASN1, key.key),
        KeyKind::EcP384 => on_curve(&ECDSA_P384_SHA384_ASN1, key.key),
        KeyKind::EcP521 => on_curve(&ECDSA_P521_SHA512_ASN1, key.key),
        KeyKind::Ed25519 => on_curve(&ED25519, key.key),
        KeyKind::Rsa2048 | KeyKind::Rsa3072 | KeyKind::Rsa4096 => rsa(key.key),
    }
}

/// SP 800-56A 5.6.2.3.2; these curves have cofactor 1, so on the curve is enough.
fn on_curve(curve: &'static dyn VerificationAlgorithm, point: &[u8]) -> Result<(), WeakKey> {
    ParsedPublicKey::new(curve, point)
        .map(|_| ())
        .map_err(|_| WeakKey::NotOnCurve)
}

fn rsa(key: &[u8]) -> Result<(), WeakKey> {
    let key = RsaPublicKey::from_der(key).map_err(|_| WeakKey::Exponent)?;
    if key.exponent.as_bytes() != [1, 0, 1] {
        return Err(WeakKey::Exponent);
    }
    let modulus = BigUint::from_bytes_be(key.modulus.as_bytes());
    if let Some(prime) = small_factor(&modulus) {
        return Err(WeakKey::SmallFactor(prime));
    }
    if is_roca(&modulus) {
        return Err(WeakKey::Roca);
    }
    if has_close_primes(&modulus) {
        return Err(WeakKey::ClosePrimes);
    }
    Ok(())
}

fn small_factor(modulus: &BigUint) -> Option<u32> {
    (2..SMALL_PRIME_END)
        .filter(|&n| is_prime(n))
        .find(|&prime| rest(modulus, prime) == 0)
}

fn is_prime(n: u32) -> bool {
    (2..n)
        .take_while(|d| d * d <= n)
        .all(|d| !n.is_multiple_of(d))
}

fn rest(number: &BigUint, by: u32) -> u32 {
    // Smaller than `by`, so it fits.
    (number % by).to_u32_digits().first().copied().unwrap_or(0)
}

/// The fingerprint looks at the odd primes up to here (Nemec et al., CCS 2017, §2).
const ROCA_PRIME_MAX: u32 = 167;

/// Primes of the flawed library are k·M + (65537^a mod M), M the product of the first
/// primes, so the modulus is a power of 65537 modulo each of them. A random modulus
/// practically never is.
fn is_roca(modulus: &BigUint) -> bool {
    let mut primes = (3..=ROCA_PRIME_MAX).filter(|&n| is_prime(n));
    primes.all(|prime| {
        let wanted = rest(modulus, prime);
        let mut power = 1;
        (0..prime).any(|_| {
            let found = power == wanted;
            power = power * (65537 % prime) % prime;
            found
        })
    })
}

/// Fermat: n = a² − b² with a just above √n when the primes are close.
fn has_close_primes(modulus: &BigUint) -> bool {
    let mut a = modulus.sqrt();
    if &a * &a < *modulus {
        a += 1u32;
    }
    let mut b2 = &a * &a - modulus;
    for _ in 0..FERMAT_ROUNDS {
        if is_square(&b2) {
            return true;
        }
        // (a+1)² − n = (a² − n) + 2a + 1
        b2 += &a * 2u32 + 1u32;
        a += 1u32;
    }
    false
}

fn is_square(number: &BigUint) -> bool {
    // Squares are 0, 1, 4 or 9 modulo 16: spares three roots of four.
    let low = number.iter_u32_digits().next().unwrap_or(0) % 16;
    if ![0, 1, 4, 9].contains(&low) {
        return false;
    }
    let root = number.sqrt();
    &root * &root == *number
}

#[cfg(test)]
mod tests;
