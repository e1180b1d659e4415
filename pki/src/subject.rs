//! A distinguished name as it stands in a certificate: DER, never written again
//! (RFC 5280 §4.1.2.6, rule C3).

use der::{Decode, Encode};
use x509_cert::name::Name;

use crate::wire::{Writer, tag};

/// A `Name` in DER; may be empty.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Subject(Vec<u8>);

/// The attributes that a profile or a ceremony may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Attribute {
    /// `CN`, at most 64 characters.
    CommonName,
    /// `C`, two capital letters.
    Country,
    /// `ST`, at most 128 characters.
    State,
    /// `L`, at most 128 characters.
    Locality,
    /// `O`, at most 64 characters.
    Organization,
    /// `OU`, at most 64 characters.
    OrganizationalUnit,
}

/// Why there is no such name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubjectError {
    /// Empty, too long (RFC 5280 appendix A.1), or with a control character.
    #[error("the subject's {0:?} is empty, longer than {max} characters or has a control character", max = .0.max_len())]
    Value(Attribute),
    /// Not two capital letters.
    #[error("the subject's country is not two capital letters")]
    Country,
    /// Not a `Name` in DER.
    #[error("the subject is not a distinguished name in DER")]
    NotDer,
}

impl Attribute {
    const fn max_len(self) -> usize {
        match self {
            Self::Country => 2,
            Self::State | Self::Locality => 128,
            Self::CommonName | Self::Organization | Self::OrganizationalUnit => 64,
        }
    }

    /// The last arc below 2.5.4 (X.520).
    const fn arc(self) -> u8 {
        match self {
            Self::CommonName => 3,
            Self::Country => 6,
            Self::Locality => 7,
            Self::State => 8,
            Self::Organization => 10,
            Self::OrganizationalUnit => 11,
        }
    }
}

impl Subject {
    /// The empty name: `30 00`.
    #[must_use]
    pub fn empty() -> Self {
        Self(vec![tag::SEQUENCE, 0])
    }

    /// One attribute for each relative name, in this order; UTF8String, and
    /// PrintableString for the country (RFC 5280 §4.1.2.4).
    ///
    /// # Errors
    /// A value that RFC 5280 does not allow.
    pub fn new(attributes: &[(Attribute, &str)]) -> Result<Self, SubjectError> {
        for &(attribute, value) in attributes {
            let len = value.chars().count();
            if len == 0 || len > attribute.max_len() || value.chars().any(char::is_control) {
                return Err(SubjectError::Value(attribute));
            }
            let letters = value.len() == 2 && value.bytes().all(|b| b.is_ascii_uppercase());
            if attribute == Attribute::Country && !letters {
                return Err(SubjectError::Country);
            }
        }
        let mut writer = Writer::default();
        writer.nest(tag::SEQUENCE, |name| {
            for &(attribute, value) in attributes {
                let string = match attribute {
                    Attribute::Country => tag::PRINTABLE_STRING,
                    _ => tag::UTF8_STRING,
                };
                name.nest(tag::SET, |set| {
                    set.nest(tag::SEQUENCE, |pair| {
                        pair.put(tag::OID, &[0x55, 0x04, attribute.arc()]);
                        pair.put(string, value.as_bytes());
                    });
                });
            }
        });
        Ok(Self(writer.finish()))
    }

    /// A name that another wrote; the bytes are kept.
    ///
    /// # Errors
    /// [`SubjectError::NotDer`].
    pub fn from_der(der: &[u8]) -> Result<Self, SubjectError> {
        let name = Name::from_der(der).map_err(|_| SubjectError::NotDer)?;
        if name.to_der().map_err(|_| SubjectError::NotDer)? != der {
            return Err(SubjectError::NotDer);
        }
        Ok(Self(der.to_vec()))
    }

    /// The DER.
    #[must_use]
    pub fn as_der(&self) -> &[u8] {
        &self.0
    }

    /// Has it no attribute?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.as_slice() == [tag::SEQUENCE, 0]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_keep_their_order() {
        let name = Subject::new(&[(Attribute::Country, "CH"), (Attribute::CommonName, "é")]);
        let der = name.unwrap().as_der().to_vec();
        assert_eq!(
            der,
            b"\x30\x1a\x31\x0b\x30\x09\x06\x03\x55\x04\x06\x13\x02CH\x31\x0b\x30\x09\x06\x03\x55\x04\x03\x0c\x02\xc3\xa9"
        );
        assert_eq!(Subject::from_der(&der).unwrap().as_der(), der);
        assert!(
            Subject::from_der(Subject::empty().as_der())
                .unwrap()
                .is_empty()
        );
    }

    #[test]
    fn values_outside_the_limits_are_refused() {
        for (attribute, value) in [
            (Attribute::CommonName, ""),
            (Attribute::CommonName, "a\0b"),
            (Attribute::Country, "ch"),
            (Attribute::Country, "CHE"),
            (Attribute::Organization, &"o".repeat(65)),
        ] {
            assert!(Subject::new(&[(attribute, value)]).is_err(), "{value}");
        }
        assert_eq!(
            Subject::from_der(b"\x30\x81\x00"),
            Err(SubjectError::NotDer)
        );
    }
}
