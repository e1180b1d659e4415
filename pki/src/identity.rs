//! Who asks for a certificate, as far as profiles look at it: the SPIFFE ID and the
//! tenant, both authenticated before.

use std::fmt;

use crate::{
    name::{NameError, check_label},
    spiffe::SpiffeId,
};

/// The authenticated caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    trust_domain: String,
    path: Vec<String>,
    tenant: String,
}

/// A value of the caller that a profile may name, as `{principal.name}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Placeholder {
    /// `{principal.name}`: the last segment of the path.
    Name,
    /// `{principal.ns}`: X of a path that is `/ns/X/sa/Y` and no longer.
    Ns,
    /// `{principal.sa}`: Y of such a path.
    Sa,
    /// `{principal.service}`: the segment behind the last `service`, or the last one.
    Service,
    /// `{principal.tenant}`: the tenant of the caller.
    Tenant,
}

/// Why a placeholder has no value for a caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoValue {
    /// The path has another form.
    #[error("the caller's identity has no {0}")]
    Absent(Placeholder),
    /// It has dots, capitals, a `*` or anything else that is no host name's label.
    #[error("{0} of the caller is {1:?}, which is not one label: {2}")]
    NotALabel(Placeholder, String, NameError),
}

impl Placeholder {
    const ALL: [Self; 5] = [Self::Name, Self::Ns, Self::Sa, Self::Service, Self::Tenant];

    const fn text(self) -> &'static str {
        match self {
            Self::Name => "{principal.name}",
            Self::Ns => "{principal.ns}",
            Self::Sa => "{principal.sa}",
            Self::Service => "{principal.service}",
            Self::Tenant => "{principal.tenant}",
        }
    }

    /// The placeholder written like this, braces included.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|p| p.text() == text)
    }
}

impl fmt::Display for Placeholder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl Identity {
    /// The caller with this id, who belongs to this tenant.
    #[must_use]
    pub fn new(id: &SpiffeId, tenant: &str) -> Self {
        let path = id.path().split('/').skip(1).map(str::to_owned);
        Self {
            trust_domain: id.trust_domain().to_owned(),
            path: path.collect(),
            tenant: tenant.to_owned(),
        }
    }

    /// The trust domain of the caller's id.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// The one label that a placeholder stands for. Never a pattern: a value that is
    /// no label is an error.
    pub(crate) fn label(&self, of: Placeholder) -> Result<&str, NoValue> {
        let value = self.value(of).ok_or(NoValue::Absent(of))?;
        check_label(value).map_err(|e| NoValue::NotALabel(of, value.to_owned(), e))?;
        Ok(value)
    }

    fn value(&self, of: Placeholder) -> Option<&str> {
        let path: Vec<&str> = self.path.iter().map(String::as_str).collect();
        match (of, path.as_slice()) {
            (Placeholder::Tenant, _) => Some(&self.tenant),
            (Placeholder::Ns, ["ns", value, "sa", _])
            | (Placeholder::Sa, ["ns", _, "sa", value]) => Some(value),
            (Placeholder::Name, [.., last]) => Some(last),
            (Placeholder::Service, [.., last]) => {
                let behind = path.windows(2).rev().find_map(|pair| match pair {
                    ["service", value] => Some(*value),
                    _ => None,
                });
                Some(behind.unwrap_or(last))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(id: &str, of: Placeholder) -> Result<String, NoValue> {
        let id = SpiffeId::parse(&format!("spiffe://td{id}")).unwrap();
        Identity::new(&id, "acme").label(of).map(str::to_owned)
    }

    #[test]
    fn values_come_from_the_path() {
        let path = "/ns/shop/sa/cart";
        assert_eq!(label(path, Placeholder::Ns).unwrap(), "shop");
        assert_eq!(label(path, Placeholder::Sa).unwrap(), "cart");
        assert_eq!(label(path, Placeholder::Name).unwrap(), "cart");
        assert_eq!(label(path, Placeholder::Tenant).unwrap(), "acme");
        assert_eq!(label("/service/a/x", Placeholder::Service).unwrap(), "a");
        assert_eq!(label("/x/pay", Placeholder::Service).unwrap(), "pay");
        for other in ["/ns/shop/sa/cart/x", "/x/ns/shop/sa/cart", "/ns/shop"] {
            assert_eq!(
                label(other, Placeholder::Ns),
                Err(NoValue::Absent(Placeholder::Ns)),
                "{other}"
            );
        }
    }

    #[test]
    fn a_value_that_is_no_label_is_an_error() {
        for name in ["a.b", "Pay", "a_b", "-a", "..x", &"a".repeat(64)] {
            let got = label(&format!("/{name}"), Placeholder::Name);
            assert!(matches!(got, Err(NoValue::NotALabel(..))), "{name}");
        }
    }
}
