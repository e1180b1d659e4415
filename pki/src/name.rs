//! Names in a certificate: host names, IP addresses and URIs, each checked and written
//! in one form, so that equal names are equal values.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use der::{
    Tag, Tagged,
    asn1::{AnyRef, Ia5String},
};
use x509_cert::ext::pkix::name::GeneralName;

/// A host name: lower case A-labels, letters, digits and hyphens only (RFC 5280
/// §4.2.1.6, RFC 1123 §2.1), no trailing dot; `*` only as the whole first label.
///
/// One label alone, as `redis`, is a name: whether it may be issued is the profile's word.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DnsName(String);

/// A URI in ASCII, unchanged. Which URIs may be issued is the profile's word.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Uri(String);

/// A subject alternative name of a kind we issue.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum San {
    /// dNSName.
    Dns(DnsName),
    /// iPAddress.
    Ip(IpAddr),
    /// uniformResourceIdentifier.
    Uri(Uri),
}

/// Why a name is refused. Whoever asked for it must ask for another.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing there.
    #[error("the name is empty")]
    Empty,
    /// More than 253 bytes.
    #[error("a host name has at most {MAX_NAME_LEN} bytes")]
    TooLong,
    /// A label with more than 63 bytes.
    #[error("a label of a host name has at most {MAX_LABEL_LEN} bytes")]
    LabelTooLong,
    /// Two dots together, or one in front.
    #[error("a host name has no empty label")]
    EmptyLabel,
    /// `host.example.`
    #[error("write the host name without the dot at its end")]
    TrailingDot,
    /// A character beyond ASCII.
    #[error("the name is not ASCII; write an international name in A-labels (xn--…)")]
    NotAscii,
    /// A character that host names do not have; NUL and `_` are such.
    #[error("a host name has only letters, digits and hyphens, no {0:?}")]
    Character(char),
    /// A label that begins or ends with a hyphen.
    #[error("a label of a host name neither begins nor ends with a hyphen")]
    Hyphen,
    /// Hyphens in places 3 and 4 without `xn` (RFC 5890 §2.3.1: reserved).
    #[error("a label with hyphens as third and fourth character must be an A-label (xn--…)")]
    ReservedLabel,
    /// `*` anywhere but as the whole first label.
    #[error("a wildcard is `*` as the whole first label with a name behind it")]
    Wildcard,
    /// `192.0.2.1`, or a name that ends in a number and may be read as an address.
    #[error("an IP address, or a name that ends in a number, is no host name; ask for an IP name")]
    IpText,
    /// An IP name that is not 4 or 16 octets.
    #[error("an IP name has 4 or 16 octets, not {0}")]
    IpLength(usize),
    /// `::ffff:192.0.2.1`.
    #[error("write an IPv4 address in 4 octets, not mapped into IPv6")]
    IpMapped,
    /// Not an address in text.
    #[error("it is no IP address")]
    IpSyntax,
    /// Without a scheme, too long, or with a character that URIs do not have.
    #[error("a URI name is `scheme:rest` in visible ASCII, at most {MAX_URI_LEN} bytes")]
    Uri,
    /// A GeneralName of a kind that is never issued, such as email or otherName.
    #[error("names of kind {0} are not issued, only host names, IP addresses and URIs")]
    Kind(&'static str),
    /// Not a GeneralName.
    #[error("it is no GeneralName in DER")]
    Malformed,
}

/// RFC 1035 §2.3.4: 255 octets on the wire are 253 in text.
const MAX_NAME_LEN: usize = 253;
const MAX_LABEL_LEN: usize = 63;
const MAX_URI_LEN: usize = 2048;

impl DnsName {
    /// Checks a host name and writes it in lower case.
    ///
    /// # Errors
    /// The first rule it breaks.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if !text.is_ascii() {
            return Err(NameError::NotAscii);
        }
        if text.len() > MAX_NAME_LEN {
            return Err(NameError::TooLong);
        }
        if text.ends_with('.') {
            return Err(NameError::TrailingDot);
        }
        let text = text.to_ascii_lowercase();
        let host = text.strip_prefix("*.").unwrap_or(&text);
        host.split('.').try_for_each(check_label)?;
        let last = host.rsplit('.').next().unwrap_or(host);
        if is_number(last) {
            return Err(NameError::IpText);
        }
        Ok(Self(text))
    }

    /// The name in its one form.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Is its first label `*`?
    #[must_use]
    pub fn is_wildcard(&self) -> bool {
        self.0.starts_with("*.")
    }

    /// The name without a leading `*.`.
    #[must_use]
    pub fn host(&self) -> &str {
        self.0.strip_prefix("*.").unwrap_or(&self.0)
    }
}

/// One label of letters, digits and hyphens in lower case (LDH, RFC 5890 §2.3.1).
pub(crate) fn check_label(label: &str) -> Result<(), NameError> {
    if label.is_empty() {
        return Err(NameError::EmptyLabel);
    }
    if label.len() > MAX_LABEL_LEN {
        return Err(NameError::LabelTooLong);
    }
    let legal = |c: &char| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '-';
    match label.chars().find(|c| !legal(c)) {
        Some('*') => return Err(NameError::Wildcard),
        // An IPv6 address in text.
        Some(':') if label.parse::<Ipv6Addr>().is_ok() => return Err(NameError::IpText),
        Some(other) => return Err(NameError::Character(other)),
        None => {}
    }
    if label.starts_with('-') || label.ends_with('-') {
        return Err(NameError::Hyphen);
    }
    if label.get(2..4) == Some("--") && !label.starts_with("xn--") {
        return Err(NameError::ReservedLabel);
    }
    Ok(())
}

/// Would a reader of URLs take a name that ends in this label for an IPv4 address?
/// (WHATWG URL, "ends in a number checker": decimal, octal, or hexadecimal after 0x.)
fn is_number(label: &str) -> bool {
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    let hex = |s: &str| s.bytes().all(|b| b.is_ascii_hexdigit());
    digits(label) || label.strip_prefix("0x").is_some_and(hex)
}

impl fmt::Display for DnsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Uri {
    /// Checks that it is a scheme, a colon and visible ASCII (RFC 3986 §3). Nothing is
    /// normalised.
    ///
    /// # Errors
    /// [`NameError::Uri`], [`NameError::NotAscii`].
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if !text.is_ascii() {
            return Err(NameError::NotAscii);
        }
        let (scheme, rest) = text.split_once(':').ok_or(NameError::Uri)?;
        let first = scheme
            .bytes()
            .next()
            .is_some_and(|b| b.is_ascii_alphabetic());
        let legal = |b: u8| b.is_ascii_alphanumeric() || b"+-.".contains(&b);
        // The characters of RFC 3986 §2, nothing that must be escaped.
        let visible = |b: u8| b.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&b);
        let fine =
            first && scheme.bytes().all(legal) && !rest.is_empty() && rest.bytes().all(visible);
        if !fine || text.len() > MAX_URI_LEN {
            return Err(NameError::Uri);
        }
        Ok(Self(text.to_owned()))
    }

    /// The URI as it came.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl San {
    /// A host name from text.
    ///
    /// # Errors
    /// As [`DnsName::parse`].
    pub fn dns(text: &str) -> Result<Self, NameError> {
        DnsName::parse(text).map(Self::Dns)
    }

    /// The name without its kind, as people write it.
    #[must_use]
    pub fn value(&self) -> String {
        match self {
            Self::Dns(name) => name.to_string(),
            Self::Ip(address) => address.to_string(),
            Self::Uri(uri) => uri.to_string(),
        }
    }

    /// An IP address from its 4 or 16 octets.
    ///
    /// # Errors
    /// Another length, or an IPv4 address written as IPv6: one host must not have two
    /// forms, of which a rule knows one.
    pub fn ip(octets: &[u8]) -> Result<Self, NameError> {
        if let Ok(four) = <[u8; 4]>::try_from(octets) {
            return Ok(Self::Ip(Ipv4Addr::from(four).into()));
        }
        let sixteen =
            <[u8; 16]>::try_from(octets).map_err(|_| NameError::IpLength(octets.len()))?;
        let address = Ipv6Addr::from(sixteen);
        match address.to_ipv4_mapped() {
            Some(_) => Err(NameError::IpMapped),
            None => Ok(Self::Ip(address.into())),
        }
    }

    /// A URI from text.
    ///
    /// # Errors
    /// As [`Uri::parse`].
    pub fn uri(text: &str) -> Result<Self, NameError> {
        Uri::parse(text).map(Self::Uri)
    }

    /// A name from one `GeneralName` as received. Read by tag, so that bytes beyond
    /// ASCII get their own message.
    ///
    /// # Errors
    /// Another kind of name, or a name that breaks a rule.
    pub fn from_general_name(name: &AnyRef<'_>) -> Result<Self, NameError> {
        let Tag::ContextSpecific {
            constructed,
            number,
        } = name.tag()
        else {
            return Err(NameError::Malformed);
        };
        let text = || {
            let bytes = name.value();
            std::str::from_utf8(bytes).map_err(|_| NameError::NotAscii)
        };
        match (number.value(), constructed) {
            (2, false) => Self::dns(text()?),
            (6, false) => Self::uri(text()?),
            (7, false) => Self::ip(name.value()),
            (0, true) => Err(NameError::Kind("otherName")),
            (1, false) => Err(NameError::Kind("email")),
            (3, true) => Err(NameError::Kind("x400Address")),
            (4, true) => Err(NameError::Kind("directoryName")),
            (5, true) => Err(NameError::Kind("ediPartyName")),
            (8, false) => Err(NameError::Kind("registeredID")),
            _ => Err(NameError::Malformed),
        }
    }

    /// The `GeneralName` that stands in the certificate.
    ///
    /// # Errors
    /// None for a checked name; the type of the library says it may.
    pub fn to_general_name(&self) -> Result<GeneralName, der::Error> {
        Ok(match self {
            Self::Dns(name) => GeneralName::DnsName(Ia5String::new(name.as_str())?),
            Self::Ip(address) => GeneralName::from(*address),
            Self::Uri(uri) => GeneralName::UniformResourceIdentifier(Ia5String::new(uri.as_str())?),
        })
    }

    /// Is it a host name whose first label is `*`?
    #[must_use]
    pub fn is_wildcard(&self) -> bool {
        matches!(self, Self::Dns(name) if name.is_wildcard())
    }
}

/// `dns:host.example`, `ip:192.0.2.1`, `uri:spiffe://…`: one form per name.
impl fmt::Display for San {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) => write!(f, "dns:{name}"),
            Self::Ip(address) => write!(f, "ip:{address}"),
            Self::Uri(uri) => write!(f, "uri:{uri}"),
        }
    }
}

/// Reads what [`Display`](fmt::Display) writes.
impl FromStr for San {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        match text.split_once(':') {
            Some(("dns", name)) => Self::dns(name),
            Some(("uri", uri)) => Self::uri(uri),
            Some(("ip", address)) => match address.parse().map_err(|_| NameError::IpSyntax)? {
                IpAddr::V4(four) => Self::ip(&four.octets()),
                IpAddr::V6(six) => Self::ip(&six.octets()),
            },
            _ => Err(NameError::Kind("without dns:, ip: or uri:")),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn host_names_have_one_form() {
        for (text, form) in [
            ("Host.Example", "host.example"),
            ("redis", "redis"),
            ("*.a.example", "*.a.example"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("1.a2.example", "1.a2.example"),
        ] {
            assert_eq!(DnsName::parse(text).unwrap().as_str(), form);
        }
        assert!(San::dns("*.a.example").unwrap().is_wildcard());
    }

    #[test]
    fn hostile_host_names_are_refused() {
        let label = "a".repeat(64);
        let long = ["abcdefghi"; 26].join(".");
        for (text, error) in [
            ("", NameError::Empty),
            ("a.example.", NameError::TrailingDot),
            (".a", NameError::EmptyLabel),
            ("a..b", NameError::EmptyLabel),
            ("a\0.example", NameError::Character('\0')),
            ("a_b.example", NameError::Character('_')),
            ("a b", NameError::Character(' ')),
            ("a:80", NameError::Character(':')),
            ("bücher.example", NameError::NotAscii),
            ("-a.example", NameError::Hyphen),
            ("a-.example", NameError::Hyphen),
            ("ab--c.example", NameError::ReservedLabel),
            ("*", NameError::Wildcard),
            ("*.", NameError::TrailingDot),
            ("a.*.example", NameError::Wildcard),
            ("*.*.example", NameError::Wildcard),
            ("a*.example", NameError::Wildcard),
            ("**.example", NameError::Wildcard),
            ("192.0.2.1", NameError::IpText),
            ("3221225985", NameError::IpText),
            ("0x7f.1", NameError::IpText),
            ("a.0x7f", NameError::IpText),
            ("*.2.1", NameError::IpText),
            ("::1", NameError::IpText),
            (&label, NameError::LabelTooLong),
            (&long, NameError::TooLong),
        ] {
            assert_eq!(DnsName::parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn addresses_have_one_form() {
        assert_eq!(San::ip(&[10, 0, 0, 1]).unwrap().to_string(), "ip:10.0.0.1");
        assert_eq!(San::ip(&[1; 5]), Err(NameError::IpLength(5)));
        assert_eq!(
            "ip:::ffff:10.0.0.1".parse::<San>(),
            Err(NameError::IpMapped)
        );
    }

    proptest! {
        #[test]
        fn what_is_accepted_is_canonical_and_stays_itself(text in "[*a-zA-Z0-9.:_-]{0,20}") {
            if let Ok(name) = DnsName::parse(&text) {
                let san = San::Dns(name.clone());
                prop_assert_eq!(name.as_str(), text.to_ascii_lowercase());
                prop_assert!(name.as_str().parse::<IpAddr>().is_err());
                prop_assert_eq!(san.to_string().parse::<San>(), Ok(san.clone()));
                let der = der::Encode::to_der(&san.to_general_name().unwrap()).unwrap();
                let any = <AnyRef<'_> as der::Decode<'_>>::from_der(&der).unwrap();
                prop_assert_eq!(San::from_general_name(&any), Ok(san));
            }
        }

        #[test]
        fn any_text_is_read_without_a_panic(text in ".{0,40}") {
            let _ = (DnsName::parse(&text), Uri::parse(&text), text.parse::<San>());
        }
    }
}
