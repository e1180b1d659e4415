//! Reads a `TBSCertList` again and holds it against the plan (R1 to R7). Entries are read
//! one by one with the der crate, so that a million of them do not fill the memory; the
//! extensions with x509-parser.

use std::collections::HashSet;

use der::Decode;
use x509_cert::time::Time;
use x509_parser::{
    extensions::{DistributionPointName, ParsedExtension, X509Extension},
    prelude::FromDer,
};

use super::{CrlPlan, Revoked, Scope};
use crate::{
    Finding, Findings, IssuerCert, Serial,
    lint::{Verdict, ensure, is_url},
    oid,
    wire::{Cursor, tag},
};

/// 2050-01-01T00:00:00Z.
const Y2050: u64 = 2_524_608_000;

/// The fields, each with its header where bytes are compared.
struct Fields<'a> {
    version: &'a [u8],
    algorithm: &'a [u8],
    issuer: &'a [u8],
    this_update: &'a [u8],
    next_update: &'a [u8],
    entries: Option<Cursor<'a>>,
    extensions: Vec<&'a [u8]>,
}

pub(super) fn crl(
    tbs: &[u8],
    plan: &CrlPlan,
    issuer: &IssuerCert,
    entries: &[Revoked],
    now: u64,
) -> Result<(), Findings> {
    let fields = read(tbs)
        .ok_or_else(|| Findings::one("DER", "the TBSCertList is not DER of that structure"))?;
    let found = [
        ("R1", frame(&fields, issuer)),
        ("R4", extensions(&fields.extensions, plan, issuer)),
        ("R7", times(&fields, plan, now)),
        ("R3", dates(entries, now)),
        ("R2", listed(fields.entries, entries)),
    ];
    Findings::none(
        found
            .into_iter()
            .filter_map(|(rule, verdict)| {
                let message = verdict.err()?;
                // The number is R1's, though it stands among the extensions.
                let rule = if message.contains("CRL number") {
                    "R1"
                } else {
                    rule
                };
                Some(Finding { rule, message })
            })
            .collect(),
    )
}

fn read(tbs: &[u8]) -> Option<Fields<'_>> {
    let mut list = Cursor::within(tag::SEQUENCE, tbs)?;
    let (version, algorithm, issuer) = (list.take(tag::INTEGER)?, list.element()?, list.element()?);
    let (this_update, next_update) = (list.element()?, list.element()?);
    let entries = if list.at(tag::SEQUENCE) {
        Some(list.enter(tag::SEQUENCE)?)
    } else {
        None
    };
    let mut wrapped = list.enter(tag::constructed(0))?;
    let mut inner = wrapped.enter(tag::SEQUENCE)?;
    wrapped.end()?;
    list.end()?;
    let mut extensions = Vec::new();
    while !inner.is_empty() {
        extensions.push(inner.element()?);
    }
    Some(Fields {
        version,
        algorithm,
        issuer,
        this_update,
        next_update,
        entries,
        extensions,
    })
}

/// R1: v2, the issuer's algorithm and name.
fn frame(fields: &Fields<'_>, issuer: &IssuerCert) -> Verdict {
    ensure(fields.version == [1], "the version is not v2")?;
    let right = fields.algorithm == issuer.algorithm().der();
    ensure(right, "the algorithm is not the one the issuer signs with")?;
    ensure(
        fields.issuer == issuer.subject_der(),
        "the issuer's name is not its own bytes",
    )
}

/// R1, R4, R5: AKI, number, and for a shard alone the issuing distribution point.
fn extensions(read: &[&[u8]], plan: &CrlPlan, issuer: &IssuerCert) -> Verdict {
    ensure(plan.number > 0, "the CRL number is zero")?;
    let mut next = read.iter();
    let mut take = |critical: bool| {
        let (rest, extension) = X509Extension::from_der(next.next()?).ok()?;
        // DEFAULT FALSE is not written.
        (rest.is_empty() && extension.critical == critical).then_some(extension)
    };
    let aki = take(false).is_some_and(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(aki) => {
            aki.key_identifier
                .as_ref()
                .is_some_and(|id| id.0 == issuer.ski())
                && aki.authority_cert_issuer.is_none()
                && aki.authority_cert_serial.is_none()
        }
        _ => false,
    });
    ensure(
        aki,
        "the first extension is not the issuer's key identifier, not critical",
    )?;
    let number = take(false).is_some_and(|extension| match extension.parsed_extension() {
        ParsedExtension::CRLNumber(number) => *number == plan.number.into(),
        _ => false,
    });
    ensure(
        number,
        "the second extension is not the CRL number, not critical",
    )?;
    if let Scope::Shard { url } = &plan.scope {
        ensure(
            url.starts_with("http://"),
            "the URL of the shard is not http",
        )?;
        let point = take(true).is_some_and(|extension| match extension.parsed_extension() {
            ParsedExtension::IssuingDistributionPoint(point) => {
                let named = match &point.distribution_point {
                    Some(DistributionPointName::FullName(names)) => is_url(names, url),
                    _ => false,
                };
                named
                    && point.only_contains_user_certs
                    && !point.only_contains_ca_certs
                    && !point.only_contains_attribute_certs
                    && !point.indirect_crl
                    && point.only_some_reasons.is_none()
            }
            _ => false,
        });
        ensure(
            point,
            "the third extension is not the critical distribution point of the shard",
        )?;
    }
    ensure(
        next.next().is_none(),
        "there is an extension more than planned",
    )?;
    read.iter().try_for_each(|extension| {
        let canonical = canonical(extension).is_some();
        ensure(canonical, "an extension is not the one DER of its content")
    })
}

/// Strict DER down to the elements of the value.
fn canonical(extension: &[u8]) -> Option<()> {
    let mut parts = Cursor::within(tag::SEQUENCE, extension)?;
    let oid = parts.take(tag::OID)?;
    if parts.at(tag::BOOLEAN) && parts.take(tag::BOOLEAN)? != [0xff] {
        return None;
    }
    let value = parts.take(tag::OCTET_STRING)?;
    parts.end()?;
    if oid == oid::AUTHORITY_KEY_ID {
        let mut aki = Cursor::within(tag::SEQUENCE, value)?;
        aki.take(tag::primitive(0))?;
        return aki.end();
    }
    if oid == oid::CRL_NUMBER {
        der::asn1::UintRef::from_der(value).ok()?;
        return Some(());
    }
    let mut point = Cursor::within(tag::SEQUENCE, value)?;
    let mut name = point.enter(tag::constructed(0))?;
    let mut full = name.enter(tag::constructed(0))?;
    full.take(tag::primitive(6))?;
    full.end()?;
    name.end()?;
    let only_user = point.take(tag::primitive(1))? == [0xff];
    point.end()?;
    only_user.then_some(())
}

/// R7: the planned times, in the right type, around now.
fn times(fields: &Fields<'_>, plan: &CrlPlan, now: u64) -> Verdict {
    let same = time(fields.this_update) == Some(plan.this_update)
        && time(fields.next_update) == Some(plan.next_update);
    ensure(same, "a time is not the planned one")?;
    let around = plan.this_update <= now && now < plan.next_update;
    ensure(around, "thisUpdate is in the future, or nextUpdate is not")
}

/// A `Time` with its header; `None` also for the wrong type of the two.
fn time(element: &[u8]) -> Option<u64> {
    let time = Time::from_der(element).ok()?;
    let unix_s = time.to_unix_duration().as_secs();
    let utc = matches!(time, Time::UtcTime(_));
    (utc == (unix_s < Y2050)).then_some(unix_s)
}

/// R3: nothing was revoked in the future.
fn dates(entries: &[Revoked], now: u64) -> Verdict {
    let past = entries
        .iter()
        .all(|e| e.revoked_at <= now && e.invalidity_date.is_none_or(|date| date <= e.revoked_at));
    ensure(
        past,
        "a certificate is revoked in the future, or invalid only after it was revoked",
    )
}

/// R2, R3: exactly the planned entries, each serial once; none is no list at all.
fn listed(read: Option<Cursor<'_>>, planned: &[Revoked]) -> Verdict {
    let Some(mut read) = read else {
        return ensure(
            planned.is_empty(),
            "the list of revoked certificates is absent",
        );
    };
    ensure(
        !planned.is_empty(),
        "an empty list of revoked certificates must be absent",
    )?;
    for planned in planned {
        if read.enter(tag::SEQUENCE).and_then(entry).as_ref() != Some(planned) {
            return Err(format!(
                "the entry of {} is not the planned one",
                planned.serial
            ));
        }
    }
    ensure(read.is_empty(), "there are more entries than planned")?;
    let rising = planned.is_sorted_by(|a, b| a.serial < b.serial);
    let mut seen = HashSet::new();
    let once = rising || planned.iter().all(|entry| seen.insert(entry.serial));
    ensure(once, "a serial is listed twice")
}

fn entry(mut fields: Cursor<'_>) -> Option<Revoked> {
    let serial = Serial::from_bytes(fields.take(tag::INTEGER)?).ok()?;
    let revoked_at = time(fields.element()?)?;
    let mut revoked = Revoked {
        serial,
        revoked_at,
        reason: None,
        invalidity_date: None,
    };
    if fields.is_empty() {
        return Some(revoked);
    }
    let mut list = fields.enter(tag::SEQUENCE)?;
    fields.end()?;
    let mut at_reason = true;
    while !list.is_empty() {
        let mut extension = list.enter(tag::SEQUENCE)?;
        let oid = extension.take(tag::OID)?;
        let value = extension.take(tag::OCTET_STRING)?;
        extension.end()?;
        if oid == oid::REASON_CODE && at_reason {
            let mut code = Cursor::over(value)?;
            revoked.reason = Some(super::Reason::from_code(code.take(tag::ENUMERATED)?)?);
            code.end()?;
            at_reason = false;
        } else if oid == oid::INVALIDITY_DATE && revoked.invalidity_date.is_none() {
            let time = der::asn1::GeneralizedTime::from_der(value).ok()?;
            revoked.invalidity_date = Some(time.to_unix_duration().as_secs());
            at_reason = false;
        } else {
            return None;
        }
    }
    // An empty list of extensions must be absent.
    (revoked.reason.is_some() || revoked.invalidity_date.is_some()).then_some(revoked)
}
