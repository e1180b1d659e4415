//! `roles.toml`: which identities have which role, and which roles must not meet.

use std::collections::BTreeMap;

use keywright_pki::SpiffeId;
use serde::Deserialize;

/// Members of each role.
#[derive(Debug, Clone, Default)]
pub struct Roles(BTreeMap<String, Vec<Member>>);

/// A SPIFFE id, or every id below one.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Member {
    id: String,
    and_below: bool,
}

/// Why roles are refused.
#[derive(Debug, thiserror::Error)]
pub enum RolesError {
    /// Not TOML, or not of this shape.
    #[error("{0}")]
    Syntax(String),
    /// Not a role name.
    #[error("role {0:?}: 1 to 63 of a-z 0-9 -")]
    Name(String),
    /// Not a SPIFFE id.
    #[error("role {role:?}, member {member:?}: {why}")]
    Member {
        /// Of which role.
        role: String,
        /// Which member.
        member: String,
        /// What is wrong.
        why: String,
    },
    /// One identity would have two roles that must not meet.
    #[error(
        "{id:?} would have the roles {one:?} and {other:?}, which must not meet in one identity"
    )]
    Conflict {
        /// Who.
        id: String,
        /// One role.
        one: String,
        /// The other.
        other: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    roles: BTreeMap<String, Vec<String>>,
}

pub(super) const KEY_ADMIN: &str = "key-admin";
const KEY_USER: &str = "key-user";
const AUDITOR: &str = "auditor";

impl Roles {
    /// Reads and checks `roles.toml`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, RolesError> {
        let file: File = toml::from_str(text).map_err(|e| RolesError::Syntax(e.to_string()))?;
        let mut roles = BTreeMap::new();
        for (role, members) in file.roles {
            let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
            if role.is_empty() || role.len() > 63 || !role.bytes().all(legal) {
                return Err(RolesError::Name(role));
            }
            let members = members
                .into_iter()
                .map(|m| {
                    Member::parse(&m).map_err(|why| RolesError::Member {
                        role: role.clone(),
                        member: m,
                        why,
                    })
                })
                .collect::<Result<Vec<_>, _>>()?;
            roles.insert(role, members);
        }
        let roles = Self(roles);
        roles.check_duties()?;
        Ok(roles)
    }

    /// The roles of an identity.
    pub fn of<'a>(&'a self, id: &'a SpiffeId) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(|(_, members)| members.iter().any(|m| m.includes(id)))
            .map(|(role, _)| role.as_str())
    }

    /// The names, in order.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// A member that none of these trust domains can bring.
    pub(super) fn stranger(&self, trust_domains: &[&str]) -> Option<&str> {
        let foreign = |member: &&Member| {
            let rest = member.id.strip_prefix("spiffe://").unwrap_or(&member.id);
            let domain = rest.split('/').next().unwrap_or(rest);
            !trust_domains.contains(&domain)
        };
        self.0
            .values()
            .flatten()
            .find(foreign)
            .map(|m| m.id.as_str())
    }

    fn check_duties(&self) -> Result<(), RolesError> {
        for (one, members) in &self.0 {
            for (other, others) in self.0.iter().filter(|(other, _)| must_not_meet(one, other)) {
                let both = members
                    .iter()
                    .find(|m| others.iter().any(|o| m.overlaps(o)));
                if let Some(member) = both {
                    return Err(RolesError::Conflict {
                        id: member.id.clone(),
                        one: one.clone(),
                        other: other.clone(),
                    });
                }
            }
        }
        Ok(())
    }
}

/// Who manages keys must not use them; who audits must do nothing else.
fn must_not_meet(one: &str, other: &str) -> bool {
    (one == KEY_ADMIN && other == KEY_USER) || (one == AUDITOR && other != AUDITOR)
}

impl Member {
    /// `spiffe://…/path`, or `spiffe://…/path/*` for everything below.
    fn parse(text: &str) -> Result<Self, String> {
        let (id, and_below) = match text.strip_suffix("/*") {
            Some(id) => (id, true),
            None => (text, false),
        };
        // Below a whole trust domain: check with any path.
        let probe = if and_below {
            format!("{id}/x")
        } else {
            id.to_owned()
        };
        SpiffeId::parse(&probe).map_err(|e| format!("the SPIFFE id {e}"))?;
        Ok(Self {
            id: id.to_owned(),
            and_below,
        })
    }

    fn includes(&self, id: &SpiffeId) -> bool {
        if self.and_below {
            id.as_str() != self.id && id.is_under(&self.id)
        } else {
            id.as_str() == self.id
        }
    }

    /// Could an identity be a member of both?
    fn overlaps(&self, other: &Self) -> bool {
        let below = |wide: &Self, narrow: &Self| {
            wide.and_below
                && narrow.id.strip_prefix(&wide.id).is_some_and(|rest| {
                    rest.starts_with('/') || (rest.is_empty() && narrow.and_below)
                })
        };
        (self.id == other.id && self.and_below == other.and_below)
            || below(self, other)
            || below(other, self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roles(text: &str) -> Result<Roles, RolesError> {
        Roles::parse(&format!("[roles]\n{text}"))
    }

    fn of(roles: &Roles, id: &str) -> Vec<String> {
        roles
            .of(&SpiffeId::parse(id).unwrap())
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn exact_ids_and_whole_branches() {
        let r = roles(
            "key-user = [\"spiffe://a/pay\", \"spiffe://a/ns/*\"]\nrewrapper = [\"spiffe://b/*\"]",
        )
        .unwrap();
        assert_eq!(of(&r, "spiffe://a/pay"), ["key-user"]);
        assert_eq!(of(&r, "spiffe://a/ns/x/y"), ["key-user"]);
        assert_eq!(of(&r, "spiffe://b/anything"), ["rewrapper"]);
        for other in [
            "spiffe://a/pay2",
            "spiffe://a/pay/x",
            "spiffe://a/ns",
            "spiffe://a/nsx/y",
            "spiffe://bb/x",
        ] {
            assert!(of(&r, other).is_empty(), "{other}");
        }
    }

    #[test]
    fn duties_that_must_not_meet_are_refused() {
        for text in [
            "key-admin = [\"spiffe://a/x\"]\nkey-user = [\"spiffe://a/x\"]",
            "key-admin = [\"spiffe://a/x\"]\nkey-user = [\"spiffe://a/*\"]",
            "key-admin = [\"spiffe://a/n/*\"]\nkey-user = [\"spiffe://a/*\"]",
            "key-admin = [\"spiffe://a/*\"]\nkey-user = [\"spiffe://a/*\"]",
            "auditor = [\"spiffe://a/x\"]\nrewrapper = [\"spiffe://a/x\"]",
        ] {
            assert!(
                matches!(roles(text), Err(RolesError::Conflict { .. })),
                "{text}"
            );
        }
        roles("key-admin = [\"spiffe://a/x\"]\nkey-user = [\"spiffe://a/x/*\"]").unwrap();
        roles("key-admin = [\"spiffe://a/x\"]\nrewrapper = [\"spiffe://a/x\"]").unwrap();
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "Key = []",
            "a = [\"user\"]",
            "a = [\"spiffe://a\"]",
            "a = [\"spiffe://a/*/b\"]",
            "a = \"spiffe://a/b\"",
            "a = [1]",
        ] {
            assert!(roles(text).is_err(), "{text}");
        }
        assert!(Roles::parse("[role]\na = []").is_err());
    }
}
