//! An order: names that one certificate is to have, and how far it came (RFC 8555 §7.1.3
//! and §7.1.6). What can be seen from its authorizations is not stored twice.

use std::{collections::BTreeSet, net::IpAddr};

use keywright_pki::{DnsName, San};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{AcmeId, AuthorizationStatus, Problem, ProblemKind, Subproblem};
use crate::authority::{AuthorityName, CertificateRef};

/// Names of one order.
pub const MAX_IDENTIFIERS: usize = 100;

/// What came of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing yet.
    Open,
    /// A certificate.
    Issued(CertificateRef),
    /// The issuing was refused for good, and why.
    Failed(String),
}

/// Where an order stands, as clients read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OrderStatus {
    /// Names are still to be proved.
    Pending,
    /// All are; a CSR is awaited.
    Ready,
    /// There is a certificate.
    Valid,
    /// Nothing comes of it.
    Invalid,
}

impl OrderStatus {
    /// As on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Ready => "ready",
            Self::Valid => "valid",
            Self::Invalid => "invalid",
        }
    }
}

/// The certificate that an order replaces, as `replaces` of RFC 9773 §5 names it.
pub type Certified = CertificateRef;

/// An order on record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Its name in URLs.
    pub id: AcmeId,
    /// Whose.
    pub account: AcmeId,
    /// Under which profile.
    pub profile: AuthorityName,
    /// Names, lower case, sorted, each once.
    pub names: Vec<San>,
    /// One for each name, in their order.
    pub authorizations: Vec<AcmeId>,
    /// What came of it.
    pub outcome: Outcome,
    /// The certificate it replaces.
    pub replaces: Option<Certified>,
    /// Milliseconds since the epoch.
    pub expires_ms: i64,
    /// Milliseconds since the epoch.
    pub created_ms: i64,
}

impl Order {
    /// Where it stands, given its authorizations.
    #[must_use]
    pub fn status(&self, authorizations: &[AuthorizationStatus], now_ms: i64) -> OrderStatus {
        match self.outcome {
            Outcome::Issued(_) => return OrderStatus::Valid,
            Outcome::Failed(_) => return OrderStatus::Invalid,
            Outcome::Open => {}
        }
        let all = |status| authorizations.iter().all(|s| *s == status);
        let open = |s: &AuthorizationStatus| {
            matches!(s, AuthorizationStatus::Valid | AuthorizationStatus::Pending)
        };
        if now_ms > self.expires_ms || !authorizations.iter().all(open) {
            OrderStatus::Invalid
        } else if !authorizations.is_empty() && all(AuthorizationStatus::Valid) {
            OrderStatus::Ready
        } else {
            OrderStatus::Pending
        }
    }

    /// Does a CSR ask for exactly these names? The common name counts as one of them.
    #[must_use]
    pub fn matches(&self, names: &[San], common_name: Option<&str>) -> bool {
        let mut asked: BTreeSet<San> = names.iter().cloned().collect();
        if let Some(name) = common_name {
            let address = name.parse().map(San::Ip).ok();
            match address.or_else(|| DnsName::parse(name).map(San::Dns).ok()) {
                Some(name) => asked.insert(name),
                None => return false,
            };
        }
        asked.iter().eq(self.names.iter())
    }
}

#[derive(Deserialize)]
struct Raw {
    #[serde(rename = "type")]
    kind: String,
    value: String,
}

/// The identifiers of a newOrder: at least one, each once, in one order and form.
///
/// # Errors
/// One subproblem for each that is not issued.
pub fn identifiers(list: &[Value]) -> Result<Vec<San>, Problem> {
    if list.is_empty() || list.len() > MAX_IDENTIFIERS {
        return Err(Problem::malformed(format!(
            "an order has 1 to {MAX_IDENTIFIERS} identifiers"
        )));
    }
    let (mut names, mut refused) = (BTreeSet::new(), Vec::new());
    for value in list {
        let raw = Raw::deserialize(value)
            .map_err(|e| Problem::malformed(format!("an identifier cannot be read: {e}")))?;
        let name = match raw.kind.as_str() {
            "dns" => DnsName::parse(&raw.value)
                .map(San::Dns)
                .map_err(|e| e.to_string()),
            "ip" => ip(&raw.value).map(San::Ip),
            other => {
                return Err(Problem::new(
                    ProblemKind::UnsupportedIdentifier,
                    format!("identifiers of type {other:?} are not issued, only dns and ip"),
                ));
            }
        };
        match name {
            Ok(name) => drop(names.insert(name)),
            Err(why) => refused.push(format!("{:?}: {why}", raw.value)),
        }
    }
    if refused.is_empty() {
        Ok(names.into_iter().collect())
    } else {
        Err(Problem::new(
            ProblemKind::RejectedIdentifier,
            refused.join("; "),
        ))
    }
}

/// RFC 8738 §3: the text forms of RFC 1123 and RFC 5952, and no other.
fn ip(text: &str) -> Result<IpAddr, String> {
    let address: IpAddr = text.parse().map_err(|_| "it is no IP address".to_owned())?;
    let mapped = matches!(address, IpAddr::V6(a) if a.to_ipv4_mapped().is_some());
    if mapped || address.to_string() != text {
        return Err(format!("write the address as {}", address.to_canonical()));
    }
    Ok(address)
}

/// `{"type": "dns", "value": "…"}`.
pub(super) fn identifier_json(name: &San) -> Value {
    match name {
        San::Dns(name) => json!({"type": "dns", "value": name.as_str()}),
        San::Ip(address) => json!({"type": "ip", "value": address.to_string()}),
        San::Uri(uri) => json!({"type": "uri", "value": uri.as_str()}),
    }
}

impl Order {
    /// Its identifiers, as on the wire.
    #[must_use]
    pub fn identifiers_json(&self) -> Vec<Value> {
        self.names.iter().map(identifier_json).collect()
    }

    /// One refusal for each name, when all are refused alike.
    #[must_use]
    pub fn each(&self, kind: ProblemKind, detail: &str) -> Vec<Subproblem> {
        let one = |name: &San| Subproblem {
            kind,
            detail: detail.to_owned(),
            identifier: name.clone(),
        };
        self.names.iter().map(one).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(n: u8) -> AcmeId {
        AcmeId::from_random([n; 16])
    }

    fn order(names: &[&str]) -> Order {
        let list: Vec<Value> = names
            .iter()
            .map(|n| json!({"type": "dns", "value": n}))
            .collect();
        Order {
            id: id(1),
            account: id(2),
            profile: AuthorityName::parse("p").unwrap(),
            names: identifiers(&list).unwrap(),
            authorizations: vec![],
            outcome: Outcome::Open,
            replaces: None,
            expires_ms: 10,
            created_ms: 0,
        }
    }

    #[test]
    fn an_order_is_ready_when_every_name_is_proved_and_no_sooner() {
        use AuthorizationStatus::{Deactivated, Expired, Invalid, Pending, Valid};
        let order = order(&["a.example", "b.example"]);
        assert_eq!(order.status(&[Valid, Valid], 5), OrderStatus::Ready);
        assert_eq!(order.status(&[Valid, Pending], 5), OrderStatus::Pending);
        for bad in [Invalid, Expired, Deactivated] {
            assert_eq!(order.status(&[Valid, bad], 5), OrderStatus::Invalid);
        }
        assert_eq!(order.status(&[Valid, Valid], 11), OrderStatus::Invalid);
        assert_ne!(order.status(&[], 5), OrderStatus::Ready);
    }

    #[test]
    fn names_are_lower_case_and_once() {
        let order = order(&["B.example", "a.example", "b.EXAMPLE"]);
        assert_eq!(
            order.names,
            [
                San::dns("a.example").unwrap(),
                San::dns("b.example").unwrap()
            ]
        );
    }

    #[test]
    fn a_csr_asks_for_exactly_the_names() {
        let order = order(&["a.example", "b.example"]);
        let names = |n: &[&str]| n.iter().map(|n| San::dns(n).unwrap()).collect::<Vec<_>>();
        assert!(order.matches(&names(&["b.example", "a.example"]), None));
        assert!(order.matches(&names(&["a.example"]), Some("B.example")));
        assert!(!order.matches(&names(&["a.example"]), None));
        assert!(!order.matches(&names(&["a.example", "b.example", "c.example"]), None));
        assert!(!order.matches(&names(&["a.example", "b.example"]), Some("c.example")));
        assert!(!order.matches(&names(&["a.example", "b.example"]), Some("not a name")));
    }

    #[test]
    fn other_identifiers_are_refused() {
        for (kind, value) in [
            ("dns", ""),
            ("dns", "192.0.2.1"),
            ("dns", "a..b"),
            ("dns", "a.*.b"),
            ("dns", "ä.example"),
            ("ip", "192.0.2.01"),
            ("ip", "::ffff:192.0.2.1"),
            ("ip", "2001:DB8::1"),
            ("ip", "a.example"),
            ("email", "a@b"),
            ("uri", "spiffe://a/b"),
        ] {
            assert!(
                identifiers(&[json!({"type": kind, "value": value})]).is_err(),
                "{value}"
            );
        }
        assert!(identifiers(&[]).is_err());
        let many = vec![json!({"type": "dns", "value": "a.example"}); 101];
        assert!(identifiers(&many).is_err());
        assert!(identifiers(&[json!({"type": "ip", "value": "2001:db8::1"})]).is_ok());
    }

    proptest! {
        #[test]
        fn no_text_panics(kind in "dns|ip|.{0,5}", value: String) {
            let _ = identifiers(&[json!({"type": kind, "value": value})]);
        }
    }
}
