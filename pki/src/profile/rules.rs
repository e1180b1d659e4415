//! Which names a profile lets which caller have. Nothing matches unless a rule says so.

use std::net::IpAddr;

use crate::{
    identity::{Identity, NoValue, Placeholder},
    name::{DnsName, NameError, Uri, check_label},
    spiffe::TrustDomain,
};

/// How a host name stands to the value of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Match {
    /// The value itself.
    Exact,
    /// One label in front of the value.
    OneLabelUnder,
    /// One or more labels in front of the value.
    AnyDepthUnder,
}

/// Labels or path segments, each given or a placeholder for exactly one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Given(String),
    Of(Placeholder),
}

impl Template {
    /// Cuts `text` at each `separator`; `given` judges the parts without placeholder.
    fn parse(
        text: &str,
        separator: char,
        given: impl Fn(&str) -> Result<(), String>,
    ) -> Result<Self, String> {
        let part = |text: &str| {
            if text.contains(['{', '}']) {
                return Placeholder::parse(text).map(Part::Of).ok_or_else(|| {
                    format!("{text:?} is no placeholder; use {{principal.name}}, .ns, .sa, .service or .tenant, alone between separators")
                });
            }
            given(text).map(|()| Part::Given(text.to_owned()))
        };
        // The dot inside braces separates nothing.
        let mut inside = false;
        let separates = |c: char| {
            inside = (inside || c == '{') && c != '}';
            c == separator && !inside
        };
        text.split(separates)
            .map(part)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    fn expand(&self, separator: &str, identity: &Identity) -> Result<String, NoValue> {
        let value = |part: &Part| match part {
            Part::Given(text) => Ok(text.clone()),
            Part::Of(placeholder) => identity.label(*placeholder).map(str::to_owned),
        };
        let parts: Result<Vec<String>, NoValue> = self.0.iter().map(value).collect();
        Ok(parts?.join(separator))
    }
}

/// One `[[san.dns]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DnsRule {
    how: Match,
    value: Template,
    wildcard: bool,
}

impl DnsRule {
    pub(super) fn new(how: Match, value: &str, wildcard: bool) -> Result<Self, String> {
        if how == Match::Exact && wildcard {
            return Err("an exact name covers no wildcard; use one-label-under".to_owned());
        }
        let label = |text: &str| check_label(text).map_err(|e: NameError| e.to_string());
        let value = Template::parse(value, '.', label)?;
        if !matches!(value.0.last(), Some(Part::Given(_))) {
            return Err("its last label must be given, not a placeholder".to_owned());
        }
        Ok(Self {
            how,
            value,
            wildcard,
        })
    }

    pub(super) fn allows(&self, name: &DnsName, identity: &Identity) -> Result<bool, NoValue> {
        let base = self.value.expand(".", identity)?;
        if name.is_wildcard() && !self.wildcard {
            return Ok(false);
        }
        // Of a wildcard, `*` is one label: what it covers is one label under its host.
        let name = name.as_str();
        let in_front = name
            .strip_suffix(&base)
            .and_then(|rest| rest.strip_suffix('.'));
        Ok(match self.how {
            Match::Exact => name == base,
            Match::OneLabelUnder => in_front.is_some_and(|rest| !rest.contains('.')),
            Match::AnyDepthUnder => in_front.is_some(),
        })
    }
}

/// Addresses with a common beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    address: IpAddr,
    prefix: u8,
}

impl Cidr {
    /// `10.20.0.0/16`; bits behind the prefix must be zero.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is no network such as 10.20.0.0/16");
        let (address, prefix) = text.split_once('/').ok_or_else(bad)?;
        let cidr = Self {
            address: address.parse().map_err(|_| bad())?,
            prefix: prefix.parse().map_err(|_| bad())?,
        };
        let mapped = matches!(cidr.address, IpAddr::V6(a) if a.to_ipv4_mapped().is_some());
        if mapped || cidr.prefix > cidr.width() {
            return Err(bad());
        }
        let (_, bits) = number(cidr.address);
        if bits & !cidr.mask() != 0 {
            return Err(format!(
                "{text:?} has bits behind its prefix; write the network"
            ));
        }
        Ok(cidr)
    }

    /// Is the address in it? One of the other family never is.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let ((width, bits), (own_width, own)) = (number(address), number(self.address));
        width == own_width && bits & self.mask() == own
    }

    pub(super) fn parts(self) -> (IpAddr, u8) {
        (self.address, self.prefix)
    }

    fn width(&self) -> u8 {
        number(self.address).0
    }

    /// Ones where the prefix is, within the address's width.
    fn mask(&self) -> u128 {
        let all = u128::MAX >> (128 - u32::from(self.width()));
        let behind = u32::from(self.width().saturating_sub(self.prefix));
        all & u128::MAX.checked_shl(behind).unwrap_or(0)
    }
}

/// Width in bits and value.
fn number(address: IpAddr) -> (u8, u128) {
    match address {
        IpAddr::V4(four) => (32, u128::from(u32::from(four))),
        IpAddr::V6(six) => (128, u128::from(six)),
    }
}

/// `[san.uri] spiffe`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SpiffeRule {
    trust_domain: TrustDomain,
    path: Template,
}

impl SpiffeRule {
    pub(super) fn new(trust_domain: &str, path: &str) -> Result<Self, String> {
        let trust_domain = TrustDomain::parse(trust_domain)
            .map_err(|e| format!("the trust domain {trust_domain:?} {e}"))?;
        let rest = path.strip_prefix('/').ok_or("the path must begin with /")?;
        let legal = |b: u8| b.is_ascii_alphanumeric() || b".-_".contains(&b);
        let segment = |text: &str| match text {
            "" | "." | ".." => Err("the path has an empty, . or .. segment".to_owned()),
            _ if text.bytes().all(legal) => Ok(()),
            _ => Err(format!("{text:?} is no segment of a SPIFFE ID")),
        };
        Ok(Self {
            trust_domain,
            path: Template::parse(rest, '/', segment)?,
        })
    }

    /// A caller of a foreign trust domain gets no name in this one: its path is
    /// given out by others.
    pub(super) fn allows(&self, uri: &Uri, identity: &Identity) -> Result<bool, NoValue> {
        let path = self.path.expand("/", identity)?;
        let allowed = format!("spiffe://{}/{path}", self.trust_domain);
        Ok(identity.trust_domain() == self.trust_domain.as_str() && uri.as_str() == allowed)
    }
}
