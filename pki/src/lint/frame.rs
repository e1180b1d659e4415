//! Rules on what stands before the extensions (RFC 5280 §4.1).

use x509_parser::{time::ASN1Time, x509::X509Version};

use super::{Verdict, ensure, reading::Reading};
use crate::{
    Algorithm, Serial,
    wire::{Cursor, tag},
};

/// How far notBefore may lie in the past, in seconds (rule C6).
const MAX_BACKDATE_S: u64 = 3600;

/// 2050-01-01T00:00:00Z.
const Y2050: i64 = 2_524_608_000;

/// C1: v3; the serial is the reserved one and well formed; no unique ids (§4.1.2.8).
pub(super) fn version_and_serial(r: &Reading<'_>) -> Verdict {
    ensure(r.tbs.version() == X509Version::V3, "the version is not v3")?;
    let unique_ids = r.tbs.issuer_uid.is_some() || r.tbs.subject_uid.is_some();
    ensure(
        !unique_ids,
        "it has a unique identifier, which CAs must not write",
    )?;
    let serial = Serial::from_bytes(r.tbs.raw_serial());
    let serial = serial.map_err(|e| format!("the serial {e}"))?;
    ensure(
        serial == r.plan.serial,
        "the serial is not the one that was reserved",
    )
}

/// C2: the algorithm inside is, byte for byte, the one that will stand outside.
pub(super) fn algorithm(r: &Reading<'_>) -> Verdict {
    let inner = algorithm_der(r.tbs.as_ref()).ok_or("the algorithm cannot be read")?;
    let right = inner == r.issuer.algorithm().der();
    ensure(right, "the algorithm is not the one the issuer signs with")
}

/// The `signature` field with its header.
fn algorithm_der(tbs: &[u8]) -> Option<&[u8]> {
    let mut fields = Cursor::within(tag::SEQUENCE, tbs)?;
    fields.take(tag::constructed(0))?;
    fields.take(tag::INTEGER)?;
    fields.element()
}

/// C3: the issuer is the subject of the issuer's certificate, in its bytes.
pub(super) fn issuer_name(r: &Reading<'_>) -> Verdict {
    let same = r.tbs.issuer().as_raw() == r.issuer.subject_der();
    ensure(
        same,
        "the issuer's name is not, byte for byte, the subject of the issuer's certificate",
    )
}

/// C4: UTCTime until 2049, GeneralizedTime after.
pub(super) fn time_types(r: &Reading<'_>) -> Verdict {
    let right = |time: ASN1Time| (time.timestamp() < Y2050) == time.is_utctime();
    let validity = r.tbs.validity();
    let both = right(validity.not_before) && right(validity.not_after);
    ensure(
        both,
        "a time is not UTCTime until 2049 and GeneralizedTime from 2050",
    )
}

/// C5: both ends are the planned ones; notAfter is the last second.
pub(super) fn validity_is_planned(r: &Reading<'_>) -> Verdict {
    let validity = r.tbs.validity();
    let same = |time: ASN1Time, unix_s: u64| i64::try_from(unix_s) == Ok(time.timestamp());
    ensure(
        same(validity.not_before, r.plan.not_before),
        "notBefore is not the planned one",
    )?;
    ensure(
        same(validity.not_after, r.plan.not_after),
        "notAfter is not the planned one",
    )
}

/// C6: not in the future, not too far back, within the issuer's validity.
pub(super) fn validity_fits(r: &Reading<'_>) -> Verdict {
    let (from, to) = (r.plan.not_before, r.plan.not_after);
    ensure(from <= r.now, "notBefore is in the future")?;
    let back = r.now.saturating_sub(from);
    ensure(
        back <= MAX_BACKDATE_S,
        "notBefore is more than an hour in the past",
    )?;
    ensure(from < to && r.now < to, "it would never be valid")?;
    // An issuer may be younger than the backdate: its notBefore must only have passed.
    ensure(
        r.issuer.not_before() <= r.now,
        "the issuer's certificate is not valid yet",
    )?;
    let fits = to <= r.issuer.not_after();
    ensure(
        fits,
        "notAfter is after that of the issuer; shorten the validity or renew the issuer",
    )
}

/// C20: the planned key in the one encoding of its kind.
pub(super) fn public_key(r: &Reading<'_>) -> Verdict {
    let spki = r.tbs.public_key().raw;
    ensure(
        spki == r.plan.key.spki(),
        "the public key is not the planned one",
    )?;
    let own = spki == r.issuer.key().spki();
    ensure(
        own == r.self_signed,
        if own {
            "the subject's key is the issuer's own"
        } else {
            "a root must have the key that signs it"
        },
    )?;
    Ok(())
}

/// C21: the hash follows the issuer's key; RSA may choose among SHA-2.
pub(super) fn hash_follows_key(r: &Reading<'_>) -> Verdict {
    let read = algorithm_der(r.tbs.as_ref()).and_then(Algorithm::from_der);
    let right = read.is_some_and(|algorithm| algorithm.fits(r.issuer.key().kind()));
    ensure(right, "the algorithm does not go with the issuer's key")
}
