//! Rules on the subject and its alternative names.

use x509_parser::extensions::GeneralName;

use super::{Verdict, ensure, reading::Reading};
use crate::{Kind, San, SpiffeId, TrustDomain, constraints, info};

const SPIFFE: &str = "spiffe://";

/// C7: the planned subject; a CA has one; an empty one makes the names critical.
pub(super) fn subject(r: &Reading<'_>) -> Verdict {
    let subject = r.tbs.subject();
    ensure(
        subject.as_raw() == r.plan.subject.as_der(),
        "the subject is not the planned one",
    )?;
    let empty = subject.iter().next().is_none();
    ensure(!(empty && r.plan.kind.is_ca()), "a CA must have a subject")?;
    match &r.san {
        Some(san) => ensure(
            san.critical == empty,
            "the alternative names must be critical exactly when the subject is empty",
        ),
        None => ensure(!empty, "it has neither a subject nor alternative names"),
    }
}

/// C8: a leaf's common name is one of its alternative names.
pub(super) fn common_name(r: &Reading<'_>) -> Verdict {
    if !matches!(r.plan.kind, Kind::Leaf { .. }) {
        return Ok(());
    }
    for name in r.tbs.subject().iter_common_name() {
        let text = name
            .as_str()
            .map_err(|_| "the common name cannot be read")?;
        let named = r.plan.sans.iter().any(|san| match san {
            San::Dns(dns) => dns.as_str() == text,
            San::Ip(_) | San::Uri(_) => false,
        });
        ensure(
            named,
            "the common name is not one of the host names; leave it out or add it",
        )?;
    }
    Ok(())
}

/// C9: the planned names in their order, each once, in the form that is issued.
pub(super) fn planned(r: &Reading<'_>) -> Verdict {
    let names = r
        .san
        .as_ref()
        .map(|san| san.parsed.general_names.as_slice());
    let names = names.unwrap_or_default();
    let mut read = Vec::with_capacity(names.len());
    for name in names {
        read.push(info::san(name).ok_or_else(|| format!("{name} is not a name we issue"))?);
    }
    ensure(
        read == r.plan.sans,
        "the alternative names are not the planned ones",
    )?;
    let mut sorted: Vec<&San> = read.iter().collect();
    sorted.sort_unstable();
    sorted.dedup();
    ensure(
        sorted.len() == read.len(),
        "an alternative name is there twice",
    )?;
    ensure(
        r.san.is_none() || !read.is_empty(),
        "the list of alternative names is empty",
    )
}

/// C10: addresses have 4 or 16 octets.
pub(super) fn addresses(r: &Reading<'_>) -> Verdict {
    let names = r.san.iter().flat_map(|san| &san.parsed.general_names);
    for name in names {
        if let GeneralName::IPAddress(octets) = name {
            ensure(
                matches!(octets.len(), 4 | 16),
                "an IP address has not 4 or 16 octets",
            )?;
        }
    }
    Ok(())
}

/// C16: neither the issuer nor a CA above it forbids a name.
pub(super) fn issuer_permits(r: &Reading<'_>) -> Verdict {
    for constraints in r.issuer.constraints() {
        for san in &r.plan.sans {
            if let Some(refusal) = constraints::refuses(constraints, san) {
                return Err(refusal);
            }
        }
    }
    Ok(())
}

/// C23: an X.509-SVID has one URI; a leaf's id has a path, a CA's has none
/// (X509-SVID §2, §3, §4).
pub(super) fn svid(r: &Reading<'_>) -> Verdict {
    let uris = || {
        r.plan.sans.iter().filter_map(|san| match san {
            San::Uri(uri) => Some(uri.as_str()),
            San::Dns(_) | San::Ip(_) => None,
        })
    };
    // A scheme is the same in either case (RFC 3986 §3.1).
    let is_spiffe = |uri: &str| {
        uri.get(..7)
            .is_some_and(|s| s.eq_ignore_ascii_case("spiffe:"))
    };
    let Some(id) = uris().find(|uri| is_spiffe(uri)) else {
        return Ok(());
    };
    ensure(
        uris().count() == 1,
        "a certificate with a SPIFFE ID has exactly one URI",
    )?;
    match &r.plan.kind {
        Kind::Ca { .. } => {
            let domain = id.strip_prefix(SPIFFE).map(TrustDomain::parse);
            ensure(
                matches!(domain, Some(Ok(_))),
                "the SPIFFE ID of a CA has a path",
            )
        }
        Kind::OcspResponder => Err("an OCSP responder has no SPIFFE ID".to_owned()),
        Kind::Leaf { .. } => {
            SpiffeId::parse(id).map_err(|e| format!("the URI {id} {e}"))?;
            let eku = r.eku.as_ref().map(|eku| eku.parsed);
            let both = eku.is_none_or(|eku| eku.server_auth && eku.client_auth);
            ensure(
                both,
                "an SVID is for serverAuth and clientAuth, both or none",
            )
        }
    }
}
