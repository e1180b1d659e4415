//! From TOML to rules that can be relied on.

use aws_lc_rs::digest::{SHA256, digest};
use der::asn1::ObjectIdentifier;

use super::{
    Authz, CaRules, Cidr, DnsRule, LeafRules, NameRules, Profile, ProfileError, ProfileKind, Rate,
    SpiffeRule, Usages, duration,
    raw::{self, Raw, RawKind},
};
use crate::{
    csr::Csr,
    key_kind::KeyKind,
    name::{DnsName, check_label},
    plan::{Eku, NameConstraints, Subtree},
    subject::{Attribute, Subject},
};

const MAX_BACKDATE_SECONDS: u64 = 3600;
/// RFC 9608 leaves "short" open; this is what the field takes for it.
const MAX_SHORT_LIVED_SECONDS: u64 = 7 * 86_400;

fn value<T>(key: &'static str, problem: impl Into<String>) -> Result<T, ProfileError> {
    let problem = problem.into();
    Err(ProfileError::Value { key, problem })
}

impl Profile {
    /// Reads a profile.
    ///
    /// # Errors
    /// The first thing that is wrong, with its line or key.
    pub fn parse(text: &str) -> Result<Self, ProfileError> {
        if text.len() > Self::MAX_LEN {
            return Err(ProfileError::TooLarge(text.len()));
        }
        let text = canonical(text);
        let raw: Raw = toml::from_str(&text).map_err(|e| syntax(&text, &e))?;
        if check_label(&raw.name).is_err() {
            return value("name", "must be lower-case letters, digits and hyphens");
        }
        if raw.version == 0 {
            return value("version", "must be at least 1");
        }
        if raw.issuers.is_empty() {
            return value("issuers", "must name at least one issuer");
        }
        let times = times(&raw)?;
        let mut sha256 = [0; 32];
        sha256
            .iter_mut()
            .zip(digest(&SHA256, text.as_bytes()).as_ref())
            .for_each(|(to, from)| *to = *from);
        Ok(Self {
            sha256,
            default_ttl_seconds: times.0,
            max_ttl_seconds: times.1,
            backdate_seconds: times.2,
            keys: keys(&raw.key.allow)?,
            fixed_subject: fixed(&raw.subject.fixed)?,
            policies: policies(&raw.extensions)?,
            kind: match raw.kind {
                RawKind::Leaf => ProfileKind::Leaf(leaf(&raw, times.1)?),
                RawKind::Ca => ProfileKind::Ca(ca(&raw)?),
            },
            authz: authz(&raw.authz)?,
            acme_networks: acme_networks(&raw)?,
            name: raw.name,
            version: raw.version,
            issuers: raw.issuers,
            key_reuse: raw.key.reuse,
            lint_set: raw.lint.set,
            lint_ignore: raw.lint.ignore,
            ski: raw.extensions.ski,
            crl_dp: raw.extensions.crl_dp,
            ocsp: raw.extensions.ocsp,
            text,
        })
    }
}

fn canonical(text: &str) -> String {
    let lines: Vec<&str> = text.trim_end().lines().map(str::trim_end).collect();
    lines.join("\n") + "\n"
}

fn syntax(text: &str, error: &toml::de::Error) -> ProfileError {
    let at = error.span().map_or(0, |span| span.start);
    let before = text.get(..at).unwrap_or_default();
    ProfileError::Syntax {
        line: 1 + before.matches('\n').count(),
        problem: error.message().to_owned(),
    }
}

/// Default, longest and backdate, in seconds.
fn times(raw: &Raw) -> Result<(u64, u64, u64), ProfileError> {
    let read = |key, text: &str| {
        duration::seconds(text).map_or_else(
            || {
                value(
                    key,
                    format!("{text:?} is no time such as 90s, 5m, 24h or 7d"),
                )
            },
            Ok,
        )
    };
    let default = read("validity.default", &raw.validity.default)?;
    let max = read("validity.max", &raw.validity.max)?;
    let backdate = read("validity.backdate", &raw.validity.backdate)?;
    if backdate > MAX_BACKDATE_SECONDS {
        return value("validity.backdate", "must be at most 1h");
    }
    if default > max {
        return value("validity.default", "must not be longer than validity.max");
    }
    if default <= backdate {
        return value(
            "validity.default",
            "must be longer than validity.backdate, which counts into it",
        );
    }
    if raw.validity.round_up_to_issuer {
        return value(
            "validity.round_up_to_issuer",
            "must be false: what would outlive its issuer is an error",
        );
    }
    Ok((default, max, backdate))
}

fn keys(names: &[String]) -> Result<Vec<KeyKind>, ProfileError> {
    let kind = |name: &String| {
        KeyKind::parse(name).map_or_else(
            || {
                let known = KeyKind::ALL.map(KeyKind::name).join(", ");
                value("key.allow", format!("{name:?} is none of {known}"))
            },
            Ok,
        )
    };
    if names.is_empty() {
        return value("key.allow", "must name at least one kind of key");
    }
    names.iter().map(kind).collect()
}

fn fixed(raw: &raw::Fixed) -> Result<Vec<(Attribute, String)>, ProfileError> {
    let given = [
        (Attribute::Country, &raw.c),
        (Attribute::State, &raw.st),
        (Attribute::Locality, &raw.l),
        (Attribute::Organization, &raw.o),
        (Attribute::OrganizationalUnit, &raw.ou),
    ];
    let given = given
        .into_iter()
        .filter_map(|(kind, text)| Some((kind, text.clone()?)));
    let given: Vec<(Attribute, String)> = given.collect();
    let pairs: Vec<_> = given
        .iter()
        .map(|(kind, text)| (*kind, text.as_str()))
        .collect();
    match Subject::new(&pairs) {
        Ok(_) => Ok(given),
        Err(e) => value("subject.fixed", e.to_string()),
    }
}

fn policies(raw: &raw::Extensions) -> Result<Vec<ObjectIdentifier>, ProfileError> {
    if !raw.allow_oids.is_empty() {
        return value(
            "extensions.allow_oids",
            "must be empty: no extension is issued on request",
        );
    }
    let oid = |text: &String| {
        ObjectIdentifier::new(text).map_or_else(
            |_| value("extensions.policies", format!("{text:?} is no OID")),
            Ok,
        )
    };
    let mut found = Vec::new();
    for policy in raw.policies.iter().map(oid) {
        let policy = policy?;
        if found.contains(&policy) {
            return value("extensions.policies", format!("{policy} is there twice"));
        }
        found.push(policy);
    }
    Ok(found)
}

fn leaf(raw: &Raw, max_seconds: u64) -> Result<LeafRules, ProfileError> {
    if raw.path_len.is_some() || raw.permitted.is_some() || raw.excluded.is_some() {
        return value(
            "kind",
            "must be \"ca\" for path_len, permitted and excluded",
        );
    }
    let (Some(san), Some(usage)) = (&raw.san, &raw.usage) else {
        return value("kind", "a leaf profile needs [san] and [usage]");
    };
    let extensions = &raw.extensions;
    if extensions.no_rev_avail {
        if max_seconds > MAX_SHORT_LIVED_SECONDS {
            return value(
                "extensions.no_rev_avail",
                "needs validity.max of at most 7d",
            );
        }
        if extensions.crl_dp || extensions.ocsp {
            return value(
                "extensions.no_rev_avail",
                "needs crl_dp = false and ocsp = false (RFC 9608)",
            );
        }
    }
    Ok(LeafRules {
        common_name: raw.subject.common_name,
        names: names(san)?,
        usages: usages(&usage.ku)?,
        eku: ekus(&usage.eku)?,
        no_rev_avail: extensions.no_rev_avail,
    })
}

fn names(raw: &raw::San) -> Result<NameRules, ProfileError> {
    if raw.max_total == 0 || raw.max_total > Csr::MAX_NAMES {
        return value(
            "san.max_total",
            format!("must be from 1 to {}", Csr::MAX_NAMES),
        );
    }
    let dns = |rule: &raw::Dns| {
        DnsRule::new(rule.r#match, &rule.value, rule.wildcard)
            .or_else(|e| value("san.dns", format!("{:?}: {e}", rule.value)))
    };
    let ip = |raw: &raw::Ip| -> Result<Vec<Cidr>, ProfileError> {
        let cidr = |text: &String| Cidr::parse(text).or_else(|e| value("san.ip.cidrs", e));
        raw.cidrs.iter().map(cidr).collect()
    };
    let spiffe = |raw: &raw::Uri| {
        if raw.spiffe.count != 1 {
            return value("san.uri.spiffe.count", "must be 1 (X509-SVID §2)");
        }
        SpiffeRule::new(&raw.spiffe.trust_domain, &raw.spiffe.path)
            .or_else(|e| value("san.uri.spiffe", e))
    };
    Ok(NameRules {
        dns: raw.dns.iter().map(dns).collect::<Result<_, _>>()?,
        cidrs: raw.ip.as_ref().map(ip).transpose()?.unwrap_or_default(),
        max_ips: raw.ip.as_ref().map_or(0, |ip| ip.max),
        spiffe: raw.uri.as_ref().map(spiffe).transpose()?,
        require_any: raw.require_any,
        max_total: raw.max_total,
        from_csr: raw.from_csr,
    })
}

/// `auto` is digitalSignature alone (rule C13).
fn usages(raw: &raw::Ku) -> Result<Usages, ProfileError> {
    let list = match raw {
        raw::Ku::Word(word) if word == "auto" => return Ok(Usages::default()),
        raw::Ku::Word(_) => return value("usage.ku", "must be \"auto\" or a list"),
        raw::Ku::List(list) => list,
    };
    let mut usages = Usages::default();
    for usage in list {
        match usage.as_str() {
            "digitalSignature" => {}
            "keyEncipherment" => usages.key_encipherment = true,
            "keyAgreement" => usages.key_agreement = true,
            "keyCertSign" | "cRLSign" => {
                return value("usage.ku", format!("{usage} is for kind = \"ca\" only"));
            }
            _ => return value("usage.ku", format!("{usage:?} is not issued")),
        }
    }
    if !list.iter().any(|usage| usage == "digitalSignature") {
        return value("usage.ku", "must have digitalSignature");
    }
    Ok(usages)
}

fn ekus(names: &[String]) -> Result<Vec<Eku>, ProfileError> {
    let mut found = Vec::new();
    for name in names {
        let eku = match name.as_str() {
            "serverAuth" => Eku::ServerAuth,
            "clientAuth" => Eku::ClientAuth,
            "codeSigning" => Eku::CodeSigning,
            "emailProtection" => Eku::EmailProtection,
            "OCSPSigning" => return value("usage.eku", "OCSPSigning is the CA's own to give"),
            _ => return value("usage.eku", format!("{name:?} is not issued")),
        };
        if found.contains(&eku) {
            return value("usage.eku", format!("{name} is there twice"));
        }
        found.push(eku);
    }
    if found.is_empty() {
        return value("usage.eku", "must name at least one usage");
    }
    Ok(found)
}

fn ca(raw: &Raw) -> Result<CaRules, ProfileError> {
    let (Some(path_len), Some(permitted), Some(excluded)) =
        (raw.path_len, &raw.permitted, &raw.excluded)
    else {
        return value("kind", "\"ca\" needs path_len, permitted and excluded");
    };
    if raw.san.is_some() || raw.usage.is_some() {
        return value("kind", "\"ca\" has no [san] and no [usage]");
    }
    if raw.extensions.no_rev_avail || !raw.extensions.ski {
        return value("extensions", "a CA has ski = true and no_rev_avail = false");
    }
    let trees = |key, texts: &[String]| -> Result<Vec<Subtree>, ProfileError> {
        let tree = |text: &String| subtree(text).or_else(|e| value(key, e));
        texts.iter().map(tree).collect()
    };
    Ok(CaRules {
        path_len,
        constraints: NameConstraints {
            permitted: trees("permitted", permitted)?,
            excluded: trees("excluded", excluded)?,
        },
    })
}

/// `dns:example.internal`, `ip:10.0.0.0/8`, `uri:.example.internal` (rule C15).
fn subtree(text: &str) -> Result<Subtree, String> {
    let host = |name: &str| match DnsName::parse(name) {
        Ok(name) if !name.is_wildcard() => Ok(name.to_string()),
        Ok(_) => Err("a constraint has no wildcard".to_owned()),
        Err(e) => Err(format!("{name:?}: {e}")),
    };
    match text.split_once(':') {
        Some(("dns", "")) => Ok(Subtree::Dns(String::new())),
        Some(("dns", name)) => host(name).map(Subtree::Dns),
        Some(("ip", cidr)) => {
            let (address, prefix) = Cidr::parse(cidr)?.parts();
            Ok(Subtree::Ip { address, prefix })
        }
        Some(("uri", name)) => match name.strip_prefix('.') {
            Some(below) => host(below).map(|name| Subtree::UriHost(format!(".{name}"))),
            None => host(name).map(Subtree::UriHost),
        },
        _ => Err(format!("{text:?} must begin with dns:, ip: or uri:")),
    }
}

fn acme_networks(raw: &Raw) -> Result<Vec<Cidr>, ProfileError> {
    if raw.kind == RawKind::Ca && !raw.acme.networks.is_empty() {
        return value(
            "acme.networks",
            "must be empty: ACME gives no CA certificates",
        );
    }
    let cidr = |text: &String| Cidr::parse(text).or_else(|e| value("acme.networks", e));
    raw.acme.networks.iter().map(cidr).collect()
}

fn authz(raw: &raw::Authz) -> Result<Authz, ProfileError> {
    if raw.require.is_empty() {
        return value("authz.require", "must name mtls, token or both");
    }
    let rate = |raw: &raw::Rate| match duration::rate(&raw.per_principal) {
        Some((count, per_seconds)) if raw.burst > 0 => Ok(Rate {
            count,
            per_seconds,
            burst: raw.burst,
        }),
        _ => value(
            "authz.rate",
            "must be like { per_principal = \"20/min\", burst = 40 }",
        ),
    };
    Ok(Authz {
        require: raw.require.clone(),
        rate: raw.rate.as_ref().map(rate).transpose()?,
        approve: raw.approve,
    })
}
