//! Rules on identifiers, constraints, URLs, and on the set of extensions itself.

use x509_parser::extensions::{DistributionPointName, GeneralName, GeneralSubtree};

use super::{Verdict, ensure, is_url, reading::Reading};
use crate::{Kind, NameConstraints, Subtree, constraints, oid};

/// C11: the issuer's SKI as it stands in the issuer's certificate, and nothing beside.
pub(super) fn authority_key_id(r: &Reading<'_>) -> Verdict {
    let aki = r.aki.as_ref().ok_or("it has no authority key identifier")?;
    ensure(!aki.critical, "the authority key identifier is critical")?;
    let same = aki
        .parsed
        .key_identifier
        .as_ref()
        .is_some_and(|id| id.0 == r.issuer.ski());
    ensure(
        same,
        "the authority key identifier is not the issuer's subject key identifier",
    )?;
    let alone =
        aki.parsed.authority_cert_issuer.is_none() && aki.parsed.authority_cert_serial.is_none();
    ensure(
        alone,
        "the authority key identifier has more than the key identifier",
    )
}

/// C12: in every CA; where planned, made of the key.
pub(super) fn subject_key_id(r: &Reading<'_>) -> Verdict {
    ensure(
        r.plan.ski || !r.plan.kind.is_ca(),
        "a CA must have a subject key identifier",
    )?;
    ensure(
        r.ski.is_some() == r.plan.ski,
        "the subject key identifier is not as planned",
    )?;
    let Some(ski) = &r.ski else { return Ok(()) };
    ensure(!ski.critical, "the subject key identifier is critical")?;
    ensure(
        *ski.parsed == r.plan.key.key_id(),
        "the subject key identifier is not that of the key",
    )
}

/// C14: critical in every certificate; a CA's path is bounded, and by its issuer's.
pub(super) fn basic_constraints(r: &Reading<'_>) -> Verdict {
    let basic = r.basic.as_ref().ok_or("it has no basic constraints")?;
    ensure(basic.critical, "the basic constraints are not critical")?;
    let Kind::Ca { path_len, .. } = r.plan.kind else {
        let leaf = !basic.parsed.ca && basic.parsed.path_len_constraint.is_none();
        return ensure(
            leaf && !r.self_signed,
            "an end entity is marked as a CA, or signs itself",
        );
    };
    ensure(basic.parsed.ca, "a CA is not marked as one")?;
    let same = basic.parsed.path_len_constraint == path_len.map(u32::from);
    ensure(same, "the path length is not the planned one")?;
    if r.self_signed {
        return Ok(());
    }
    let own = path_len.ok_or("an intermediate needs a path length")?;
    let fits = r.issuer.path_len().is_none_or(|above| own < above);
    ensure(fits, "the issuer's path length leaves no room for this CA")
}

/// C15: only in a CA, critical, the planned ones, each well formed.
pub(super) fn name_constraints(r: &Reading<'_>) -> Verdict {
    let none = NameConstraints::default();
    let planned = match &r.plan.kind {
        Kind::Ca { constraints, .. } => constraints,
        _ => &none,
    };
    let planned_any = !planned.is_empty();
    ensure(
        r.names.is_some() == planned_any,
        "the name constraints are not the planned ones",
    )?;
    let Some(names) = &r.names else { return Ok(()) };
    ensure(names.critical, "the name constraints are not critical")?;
    let same = |read: &Option<Vec<GeneralSubtree<'_>>>, planned: &[Subtree]| {
        let read = read.as_deref().unwrap_or_default();
        read.len() == planned.len()
            && read
                .iter()
                .zip(planned)
                .all(|(read, planned)| constraints::subtree(&read.base).as_ref() == Some(planned))
    };
    let same = same(&names.parsed.permitted_subtrees, &planned.permitted)
        && same(&names.parsed.excluded_subtrees, &planned.excluded);
    ensure(same, "the name constraints are not the planned ones")?;
    planned
        .permitted
        .iter()
        .chain(&planned.excluded)
        .try_for_each(well_formed)
}

/// A base that verifiers read alike.
fn well_formed(base: &Subtree) -> Verdict {
    let host = |host: &str| {
        let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-".contains(&b);
        host.bytes().all(legal) && host.split('.').all(|label| !label.is_empty())
    };
    match base {
        Subtree::Dns(name) => ensure(
            name.is_empty() || host(name),
            "a DNS constraint is a host name in lower case without a dot in front",
        ),
        Subtree::UriHost(name) => ensure(
            host(name.strip_prefix('.').unwrap_or(name)),
            "a URI constraint is a host in lower case, or a dot and a host; never a path",
        ),
        Subtree::Ip { address, prefix } => {
            let (bits, number) = match address {
                std::net::IpAddr::V4(v4) => (32, u128::from(v4.to_bits())),
                std::net::IpAddr::V6(v6) => (128, v6.to_bits()),
            };
            let host_bits = u32::from(bits) - u32::from((*prefix).min(bits));
            let zeros = number == 0 || number.trailing_zeros() >= host_bits;
            ensure(
                *prefix <= bits && zeros,
                "an IP constraint has bits behind its prefix",
            )
        }
    }
}

/// C18: the planned URLs, http only; none about revocation with noRevAvail (RFC 9608 §3).
pub(super) fn urls(r: &Reading<'_>) -> Verdict {
    let urls = &r.plan.urls;
    let http = |url: &Option<String>| {
        url.as_ref().is_none_or(|url| {
            let host = url
                .strip_prefix("http://")
                .and_then(|rest| rest.bytes().next());
            host.is_some_and(|b| b != b'/') && url.bytes().all(|b| b.is_ascii_graphic())
        })
    };
    let all_http = http(&urls.crl_dp) && http(&urls.ca_issuers) && http(&urls.ocsp);
    ensure(
        all_http,
        "a URL is not http; a verifier could need a certificate to check a certificate",
    )?;
    let none = r.plan.kind.no_rev_avail();
    ensure(
        r.no_rev_avail.is_some() == none,
        "noRevAvail is not as planned",
    )?;
    ensure(
        r.no_rev_avail.as_ref().is_none_or(|e| !e.critical),
        "noRevAvail is critical",
    )?;
    let silent = urls.crl_dp.is_none() && urls.ocsp.is_none();
    ensure(
        !none || silent,
        "noRevAvail goes with neither a CRL nor an OCSP URL",
    )?;
    crl_distribution_point(r)?;
    authority_info_access(r)
}

fn crl_distribution_point(r: &Reading<'_>) -> Verdict {
    let (planned, read) = (&r.plan.urls.crl_dp, &r.crl_dp);
    ensure(
        planned.is_some() == read.is_some(),
        "the CRL distribution point is not as planned",
    )?;
    let (Some(url), Some(read)) = (planned, read) else {
        return Ok(());
    };
    ensure(!read.critical, "the CRL distribution point is critical")?;
    let same = match read.parsed.points.as_slice() {
        [point] => {
            point.reasons.is_none()
                && point.crl_issuer.is_none()
                && match &point.distribution_point {
                    Some(DistributionPointName::FullName(names)) => is_url(names, url),
                    _ => false,
                }
        }
        _ => false,
    };
    ensure(
        same,
        "the CRL distribution point is not the planned URL alone",
    )
}

fn authority_info_access(r: &Reading<'_>) -> Verdict {
    let planned = [
        (&oid::AD_OCSP, &r.plan.urls.ocsp),
        (&oid::AD_CA_ISSUERS, &r.plan.urls.ca_issuers),
    ];
    let planned = planned
        .into_iter()
        .filter_map(|(oid, url)| Some((oid, url.as_deref()?)));
    let planned: Vec<_> = planned.collect();
    let any = !planned.is_empty();
    ensure(
        any == r.aia.is_some(),
        "the authority information access is not as planned",
    )?;
    let Some(aia) = &r.aia else { return Ok(()) };
    ensure(
        !aia.critical,
        "the authority information access is critical",
    )?;
    let read = &aia.parsed.accessdescs;
    let same = read.len() == planned.len()
        && read.iter().zip(planned).all(|(read, (method, url))| {
            read.access_method.as_bytes() == method.as_slice()
                && matches!(read.access_location, GeneralName::URI(read) if read == url)
        });
    ensure(
        same,
        "the authority information access is not the planned URLs",
    )
}

/// C19: every extension that is planned and no other, in the one order; the policies.
pub(super) fn set_and_order(r: &Reading<'_>) -> Verdict {
    let order: [&[u8]; 12] = [
        &oid::AUTHORITY_KEY_ID,
        &oid::SUBJECT_KEY_ID,
        &oid::KEY_USAGE,
        &oid::CERTIFICATE_POLICIES,
        &oid::SUBJECT_ALT_NAME,
        &oid::BASIC_CONSTRAINTS,
        &oid::NAME_CONSTRAINTS,
        &oid::EXT_KEY_USAGE,
        &oid::CRL_DISTRIBUTION_POINTS,
        &oid::AUTHORITY_INFO_ACCESS,
        &oid::NO_REV_AVAIL,
        &oid::OCSP_NO_CHECK,
    ];
    let mut known = order.iter();
    let ordered = r.order.iter().all(|oid| known.any(|next| next == oid));
    ensure(ordered, "the extensions are not in the one order")?;
    let planned = match &r.plan.kind {
        Kind::Leaf { policies, .. } => policies.as_slice(),
        _ => &[],
    };
    let read = r
        .policies
        .as_ref()
        .map(|p| p.parsed.as_slice())
        .unwrap_or_default();
    let same = read.len() == planned.len()
        && read.iter().zip(planned).all(|(read, planned)| {
            read.policy_id.as_bytes() == planned.as_bytes() && read.policy_qualifiers.is_none()
        });
    let same = same && r.policies.is_some() != planned.is_empty();
    ensure(same, "the certificate policies are not the planned ones")?;
    let repeated = planned
        .iter()
        .enumerate()
        .any(|(n, p)| planned.iter().skip(n + 1).any(|q| p == q));
    ensure(!repeated, "a certificate policy is there twice")?;
    let critical = r.policies.as_ref().is_some_and(|p| p.critical);
    ensure(!critical, "the certificate policies are critical")
}
