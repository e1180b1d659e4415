//! Reads a `ResponseData` again and holds it against the plan (R8, R10, R12).

use der::{Decode, asn1::GeneralizedTime};

use super::{CertStatus, OcspPlan, OcspResponder};
use crate::{
    Finding, Findings, Reason,
    lint::{Verdict, ensure},
    oid,
    wire::{Cursor, tag},
};

pub(super) fn answer(
    tbs: &[u8],
    plan: &OcspPlan,
    responder: &OcspResponder,
    now: u64,
) -> Result<(), Findings> {
    let read = read(tbs)
        .ok_or_else(|| Findings::one("DER", "the ResponseData is not DER of that structure"))?;
    let found = [
        ("R8", statuses(&read, plan, now)),
        ("R9", signer(&read, plan, responder)),
        ("R10", nonce(&read, plan)),
        ("R12", times(&read, plan, now)),
    ];
    Findings::none(
        found
            .into_iter()
            .filter_map(|(rule, verdict)| {
                Some(Finding {
                    rule,
                    message: verdict.err()?,
                })
            })
            .collect(),
    )
}

struct Read<'a> {
    key_hash: &'a [u8],
    produced_at: u64,
    answers: Vec<Single<'a>>,
    nonce: Option<&'a [u8]>,
}

struct Single<'a> {
    cert_id: &'a [u8],
    status: CertStatus,
    this_update: u64,
    next_update: u64,
}

fn read(tbs: &[u8]) -> Option<Read<'_>> {
    let mut data = Cursor::within(tag::SEQUENCE, tbs)?;
    let mut by_key = data.enter(tag::constructed(2))?;
    let key_hash = by_key.take(tag::OCTET_STRING)?;
    by_key.end()?;
    let produced_at = time(&mut data)?;
    let mut list = data.enter(tag::SEQUENCE)?;
    let mut answers = Vec::new();
    while !list.is_empty() {
        answers.push(single(list.enter(tag::SEQUENCE)?)?);
    }
    let nonce = if data.is_empty() {
        None
    } else {
        Some(read_nonce(&mut data)?)
    };
    data.end()?;
    Some(Read {
        key_hash,
        produced_at,
        answers,
        nonce,
    })
}

fn time(from: &mut Cursor<'_>) -> Option<u64> {
    let time = GeneralizedTime::from_der(from.element()?).ok()?;
    Some(time.to_unix_duration().as_secs())
}

fn single(mut fields: Cursor<'_>) -> Option<Single<'_>> {
    let cert_id = fields.element()?;
    let status = if fields.at(tag::primitive(0)) {
        fields
            .take(tag::primitive(0))?
            .is_empty()
            .then_some(CertStatus::Good)?
    } else if fields.at(tag::primitive(2)) {
        fields
            .take(tag::primitive(2))?
            .is_empty()
            .then_some(CertStatus::Unknown)?
    } else {
        revoked(fields.enter(tag::constructed(1))?)?
    };
    let this_update = time(&mut fields)?;
    let mut next = fields.enter(tag::constructed(0))?;
    let next_update = time(&mut next)?;
    next.end()?;
    fields.end()?;
    Some(Single {
        cert_id,
        status,
        this_update,
        next_update,
    })
}

fn revoked(mut info: Cursor<'_>) -> Option<CertStatus> {
    let at = time(&mut info)?;
    let reason = if info.is_empty() {
        None
    } else {
        let mut wrapped = info.enter(tag::constructed(0))?;
        let reason = Reason::from_code(wrapped.take(tag::ENUMERATED)?)?;
        wrapped.end()?;
        info.end()?;
        Some(reason)
    };
    Some(CertStatus::Revoked { at, reason })
}

/// `[1] EXPLICIT Extensions` with the nonce alone, not critical.
fn read_nonce<'a>(data: &mut Cursor<'a>) -> Option<&'a [u8]> {
    let mut wrapped = data.enter(tag::constructed(1))?;
    let mut list = wrapped.enter(tag::SEQUENCE)?;
    let mut extension = list.enter(tag::SEQUENCE)?;
    let oid = extension.take(tag::OID)?;
    let mut value = extension.enter(tag::OCTET_STRING)?;
    let nonce = value.take(tag::OCTET_STRING)?;
    value.end()?;
    extension.end()?;
    list.end()?;
    wrapped.end()?;
    (oid == oid::OCSP_NONCE).then_some(nonce)
}

/// R8: the planned status of each certificate that was asked for, in that order.
fn statuses(read: &Read<'_>, plan: &OcspPlan, now: u64) -> Verdict {
    ensure(
        !plan.answers.is_empty(),
        "the answer is about no certificate",
    )?;
    let same = read.answers.len() == plan.answers.len()
        && read
            .answers
            .iter()
            .zip(&plan.answers)
            .all(|(read, planned)| {
                read.cert_id == planned.cert_id.as_der() && read.status == planned.status
            });
    ensure(same, "the statuses are not the planned ones")?;
    for planned in &plan.answers {
        let known = planned.cert_id.serial().is_some() || planned.status == CertStatus::Unknown;
        ensure(
            known,
            "a serial that no certificate can have is not unknown",
        )?;
        if let CertStatus::Revoked { at, .. } = planned.status {
            ensure(at <= now, "a certificate is revoked in the future")?;
        }
    }
    Ok(())
}

/// R9: named by the hash of its key, and valid while the answer is.
fn signer(read: &Read<'_>, plan: &OcspPlan, responder: &OcspResponder) -> Verdict {
    ensure(
        read.key_hash == responder.key_hash(),
        "the responder is not named by its key",
    )?;
    let valid = responder.not_before <= plan.produced_at && plan.next_update <= responder.not_after;
    ensure(
        valid,
        "the answer outlives the responder's certificate; shorten it or renew the responder",
    )
}

/// R10: the nonce of the request.
fn nonce(read: &Read<'_>, plan: &OcspPlan) -> Verdict {
    let same = read.nonce == plan.nonce.as_ref().map(super::Nonce::as_bytes);
    ensure(same, "the nonce is not that of the request")
}

/// R12: the planned times, around now.
fn times(read: &Read<'_>, plan: &OcspPlan, now: u64) -> Verdict {
    let same = read.produced_at == plan.produced_at
        && read
            .answers
            .iter()
            .all(|a| a.this_update == plan.this_update && a.next_update == plan.next_update);
    ensure(same, "a time is not the planned one")?;
    let around = plan.this_update <= now && plan.produced_at <= now && now < plan.next_update;
    ensure(
        around && plan.this_update <= plan.produced_at,
        "thisUpdate ≤ producedAt ≤ now < nextUpdate does not hold",
    )
}
