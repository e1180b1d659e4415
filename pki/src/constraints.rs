//! Which names a CA's constraints forbid (RFC 5280 §4.2.1.10, §6.1.4 (g), rule C16). A
//! wildcard stands for every name it covers.

use std::net::IpAddr;

use x509_parser::extensions::GeneralName;

use crate::{NameConstraints, San, Subtree};

/// Why these constraints forbid the name; `None` when they do not.
pub(crate) fn refuses(constraints: &NameConstraints, san: &San) -> Option<String> {
    if constraints.excluded.iter().any(|base| touches(base, san)) {
        return Some(format!(
            "{san} is excluded by the issuer's name constraints"
        ));
    }
    let mut same_kind = constraints
        .permitted
        .iter()
        .filter(|base| kind(base, san))
        .peekable();
    if same_kind.peek().is_some() && !same_kind.any(|base| covers(base, san)) {
        return Some(format!(
            "{san} is not under a name that the issuer may name"
        ));
    }
    None
}

fn kind(base: &Subtree, san: &San) -> bool {
    matches!(
        (base, san),
        (Subtree::Dns(_), San::Dns(_))
            | (Subtree::Ip { .. }, San::Ip(_))
            | (Subtree::UriHost(_), San::Uri(_))
    )
}

/// Is every name that `san` stands for in the subtree?
fn covers(base: &Subtree, san: &San) -> bool {
    match (base, san) {
        // All of `*.x` are below `base` only if x is `base` or below it.
        (Subtree::Dns(base), San::Dns(name)) => dns_under(name.host(), base),
        (Subtree::Ip { address, prefix }, San::Ip(ip)) => in_network(*ip, *address, *prefix),
        (Subtree::UriHost(base), San::Uri(uri)) => {
            uri_host(uri.as_str()).is_some_and(|host| host_matches(&host, base))
        }
        _ => false,
    }
}

/// May one name that `san` stands for be in the subtree?
fn touches(base: &Subtree, san: &San) -> bool {
    match (base, san) {
        (Subtree::Dns(base), San::Dns(name)) if name.is_wildcard() => {
            // `*.x` is also `base` when that is one label under x.
            let one_label = base.to_ascii_lowercase();
            let one_label = one_label
                .split_once('.')
                .is_some_and(|(_, x)| x == name.host());
            one_label || dns_under(name.host(), base)
        }
        // A URI without a host name cannot be shown to be outside.
        (Subtree::UriHost(base), San::Uri(uri)) => {
            uri_host(uri.as_str()).is_none_or(|host| host_matches(&host, base))
        }
        _ => covers(base, san),
    }
}

/// Is `name` the `base` or below it? Whole labels only; everything is under `""`.
fn dns_under(name: &str, base: &str) -> bool {
    let base = base.to_ascii_lowercase();
    // Some CAs write a leading dot against RFC 5280; verifiers read it as "below".
    let below = |name: &str, base: &str| {
        name.strip_suffix(base)
            .is_some_and(|front| front.ends_with('.'))
    };
    match base.strip_prefix('.') {
        Some(base) => below(name, base),
        None => base.is_empty() || name == base || below(name, &base),
    }
}

fn in_network(ip: IpAddr, network: IpAddr, prefix: u8) -> bool {
    let same = |a: u128, b: u128, width: u32| {
        let shift = width.saturating_sub(u32::from(prefix));
        a.checked_shr(shift).unwrap_or(0) == b.checked_shr(shift).unwrap_or(0)
    };
    match (ip, network) {
        (IpAddr::V4(ip), IpAddr::V4(net)) => same(ip.to_bits().into(), net.to_bits().into(), 32),
        (IpAddr::V6(ip), IpAddr::V6(net)) => same(ip.to_bits(), net.to_bits(), 128),
        _ => false,
    }
}

/// One host, or with a leading dot every host below, not itself.
fn host_matches(host: &str, base: &str) -> bool {
    let base = base.to_ascii_lowercase();
    if base.starts_with('.') {
        host.ends_with(&base)
    } else {
        host == base
    }
}

/// The host of `scheme://user@host:port/…` in lower case, when it is a name: addresses
/// and URIs without an authority are refused where constraints apply (RFC 5280 §4.2.1.10).
pub(crate) fn uri_host(uri: &str) -> Option<String> {
    let (_, rest) = uri.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host);
    let host = host.split_once(':').map_or(host, |(host, _)| host);
    let name = !host.is_empty() && !host.starts_with('[') && host.parse::<IpAddr>().is_err();
    name.then(|| host.to_ascii_lowercase())
}

/// The base of a subtree as another wrote it; `None` for a kind that cannot be checked
/// here, and for a network mask with holes.
pub(crate) fn subtree(base: &GeneralName<'_>) -> Option<Subtree> {
    match base {
        GeneralName::DNSName(name) => Some(Subtree::Dns((*name).to_owned())),
        GeneralName::URI(host) => Some(Subtree::UriHost((*host).to_owned())),
        GeneralName::IPAddress(octets) => {
            let (address, mask) = octets.split_at_checked(octets.len() / 2)?;
            let number =
                |bytes: &[u8]| bytes.iter().fold(0u128, |sum, b| sum << 8 | u128::from(*b));
            let (bits, address) = match address.len() {
                4 => (32, IpAddr::V4(u32::try_from(number(address)).ok()?.into())),
                16 => (128, IpAddr::V6(number(address).into())),
                _ => return None,
            };
            let prefix: u32 = mask.iter().map(|b| b.count_ones()).sum();
            let holes = number(mask).trailing_zeros().min(bits) != bits - prefix;
            if holes || mask.len() * 8 != bits as usize {
                return None;
            }
            Some(Subtree::Ip {
                address,
                prefix: u8::try_from(prefix).ok()?,
            })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dns(name: &str) -> San {
        San::dns(name).unwrap()
    }

    fn uri(text: &str) -> San {
        San::uri(text).unwrap()
    }

    fn permitted(base: Subtree, san: &San) -> bool {
        let constraints = NameConstraints {
            permitted: vec![base],
            excluded: vec![],
        };
        refuses(&constraints, san).is_none()
    }

    fn excluded(base: Subtree, san: &San) -> bool {
        let constraints = NameConstraints {
            permitted: vec![],
            excluded: vec![base],
        };
        refuses(&constraints, san).is_some()
    }

    #[test]
    fn dns_names_by_whole_labels() {
        let base = || Subtree::Dns("b.example".into());
        for (name, under) in [
            ("b.example", true),
            ("a.b.example", true),
            ("*.b.example", true),
            ("*.a.b.example", true),
            ("ab.example", false),
            ("example", false),
            ("*.example", false),
        ] {
            assert_eq!(permitted(base(), &dns(name)), under, "{name}");
            let touched = under || name == "*.example";
            assert_eq!(excluded(base(), &dns(name)), touched, "{name}");
        }
        // `*` is one label: a.b.example is not one of *.example, but nothing is lost.
        assert!(!excluded(
            Subtree::Dns("a.b.example".into()),
            &dns("*.example")
        ));
        assert!(excluded(Subtree::Dns(String::new()), &dns("any")));
        // A constraint of another kind says nothing.
        assert!(permitted(Subtree::UriHost("x".into()), &dns("b.example")));
    }

    #[test]
    fn addresses_by_prefix() {
        let net = || Subtree::Ip {
            address: [10, 0, 0, 0].into(),
            prefix: 8,
        };
        assert!(permitted(net(), &San::Ip([10, 255, 0, 1].into())));
        assert!(!permitted(net(), &San::Ip([11, 0, 0, 1].into())));
        assert!(!permitted(net(), &San::Ip("::1".parse().unwrap())));
        let all = Subtree::Ip {
            address: "::".parse().unwrap(),
            prefix: 0,
        };
        assert!(excluded(all, &San::Ip("2001:db8::1".parse().unwrap())));
    }

    #[test]
    fn uris_by_host() {
        let host = || Subtree::UriHost("td.example".into());
        assert!(permitted(host(), &uri("spiffe://td.example/a")));
        assert!(permitted(host(), &uri("https://u@TD.example:1/a")));
        assert!(!permitted(host(), &uri("spiffe://a.td.example/a")));
        assert!(!permitted(host(), &uri("urn:a")));
        assert!(excluded(host(), &uri("urn:a")));
        assert!(!permitted(host(), &uri("https://[::1]/")));
        let below = Subtree::UriHost(".example".into());
        assert!(permitted(below, &uri("spiffe://td.example/a")));
    }

    #[test]
    fn masks_with_holes_are_not_read() {
        let read = |octets: &[u8]| subtree(&GeneralName::IPAddress(octets));
        let network = Subtree::Ip {
            address: [10, 0, 0, 0].into(),
            prefix: 8,
        };
        assert_eq!(read(&[10, 0, 0, 0, 255, 0, 0, 0]), Some(network));
        assert_eq!(read(&[10, 0, 0, 0, 255, 0, 255, 0]), None);
        assert_eq!(read(&[10, 0, 0, 255, 255, 0]), None);
        assert!(read(&[0; 32]).is_some());
    }
}
