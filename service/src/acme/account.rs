//! An account: a key that signs requests, bound to the operator's key that let it in.

use serde_json::{Value, json};

use super::{AccountKey, AcmeId, Problem, ProblemKind};
use crate::key::TenantId;

/// Where an account stands (RFC 8555 §7.1.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccountStatus {
    /// In use.
    Valid,
    /// Given up by its owner; for good.
    Deactivated,
}

impl AccountStatus {
    /// As on the wire and in the store.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::Deactivated => "deactivated",
        }
    }

    /// The inverse of [`AccountStatus::name`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Valid, Self::Deactivated]
            .into_iter()
            .find(|s| s.name() == text)
    }
}

/// A `mailto:` address; kept for the operator, nothing is sent to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contact(String);

/// Contacts of one account.
const MAX_CONTACTS: usize = 10;
const MAX_CONTACT_LEN: usize = 320;

impl Contact {
    /// Reads the list of a request.
    ///
    /// # Errors
    /// [`ProblemKind::UnsupportedContact`], [`ProblemKind::InvalidContact`].
    pub fn list(texts: &[String]) -> Result<Vec<Self>, Problem> {
        if texts.len() > MAX_CONTACTS {
            return Err(invalid(format!("at most {MAX_CONTACTS} contacts are kept")));
        }
        texts.iter().map(|text| Self::parse(text)).collect()
    }

    fn parse(text: &str) -> Result<Self, Problem> {
        let Some(address) = text.strip_prefix("mailto:") else {
            return Err(Problem::new(
                ProblemKind::UnsupportedContact,
                "contacts are mailto: addresses",
            ));
        };
        let legal = |b: u8| b.is_ascii_graphic() && !b"\"<>()[],;:\\?&%".contains(&b);
        let one = |(local, domain): (&str, &str)| {
            !local.is_empty() && !domain.is_empty() && !domain.contains('@')
        };
        let fine = address.split_once('@').is_some_and(one) && address.bytes().all(legal);
        if !fine || text.len() > MAX_CONTACT_LEN {
            return Err(invalid("a contact is no plain mail address".into()));
        }
        Ok(Self(text.to_owned()))
    }

    /// With its `mailto:`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn invalid(text: String) -> Problem {
    Problem::new(ProblemKind::InvalidContact, text)
}

/// An account on record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Its name in URLs.
    pub id: AcmeId,
    /// Whose.
    pub tenant: TenantId,
    /// Signs its requests.
    pub key: AccountKey,
    /// Where it stands.
    pub status: AccountStatus,
    /// Whom to ask.
    pub contacts: Vec<Contact>,
    /// The operator's key that let it in.
    pub kid: AcmeId,
    /// Milliseconds since the epoch.
    pub created_ms: i64,
}

impl Account {
    /// The object of RFC 8555 §7.1.2.
    #[must_use]
    pub fn document(&self, orders_url: &str) -> Value {
        let contacts: Vec<&str> = self.contacts.iter().map(Contact::as_str).collect();
        json!({
            "status": self.status.name(),
            "contact": contacts,
            "termsOfServiceAgreed": true,
            "orders": orders_url,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contacts_are_plain_mail_addresses() {
        let parse = |t: &str| Contact::list(&[t.to_owned()]);
        assert_eq!(
            parse("mailto:a@b.example").unwrap()[0].as_str(),
            "mailto:a@b.example"
        );
        for bad in [
            "mailto:",
            "mailto:a",
            "mailto:@b",
            "mailto:a@b,c@d",
            "mailto:a@b?cc=x",
            "mailto:a@b\r\nx",
            "mailto:a@b@c",
        ] {
            assert_eq!(
                parse(bad).unwrap_err().kind(),
                ProblemKind::InvalidContact,
                "{bad}"
            );
        }
        assert_eq!(
            parse("tel:1").unwrap_err().kind(),
            ProblemKind::UnsupportedContact
        );
    }
}
