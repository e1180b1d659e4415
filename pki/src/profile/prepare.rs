//! From a request and a profile to a [`Plan`], or to everything that stands against it.

use std::fmt;

use super::{CommonName, LeafRules, NameRules, Profile, ProfileKind};
use crate::{
    csr::Csr,
    identity::{Identity, NoValue},
    key_kind::KeyKind,
    name::{DnsName, San},
    plan::{KeyUsage, Kind, Plan, Urls},
    serial::Serial,
    subject::{Attribute, Subject, SubjectError},
};

/// What is asked for, and by whom.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Gives the key; the names only when `names` is empty and the profile allows it.
    pub csr: &'a Csr,
    /// Names asked for beside the CSR; when there are any, those of the CSR do not count.
    pub names: &'a [San],
    /// The authenticated caller.
    pub identity: &'a Identity,
    /// Lifetime in seconds; `None` is the profile's default.
    pub ttl_seconds: Option<u64>,
    /// Unix seconds.
    pub now: u64,
    /// Reserved for this certificate.
    pub serial: Serial,
    /// Who will sign.
    pub issuer: &'a IssuerFacts,
}

/// What the decision needs to know of the issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerFacts {
    /// Its name, as profiles write it.
    pub name: String,
    /// Does it sign itself? A root issues no leaf.
    pub is_root: bool,
    /// SHA-256 of its SubjectPublicKeyInfo.
    pub spki_sha256: [u8; 32],
    /// Unix seconds.
    pub not_before: u64,
    /// Unix seconds; the last second.
    pub not_after: u64,
    /// What the issuer's configuration says; the profile takes of it what it wants.
    pub urls: Urls,
}

/// Everything that stands against a request; never empty.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Refusal(pub Vec<Violation>);

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<String> = self.0.iter().map(Violation::to_string).collect();
        f.write_str(&texts.join("; "))
    }
}

/// One thing that stands against a request. The caller must ask for less, or the owner
/// of the profile must allow more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// The profile is for ceremonies.
    #[error("this profile is for CAs and serves no request")]
    CaProfile,
    /// The issuer is not in the profile's list.
    #[error("the profile does not use issuer {0}")]
    Issuer(String),
    /// The issuer is a root.
    #[error("issuer {0} is a root, which issues no certificates to services")]
    Root(String),
    /// The CSR has the issuer's own key.
    #[error("the CSR's key is the issuer's own; make another key")]
    IssuerKey,
    /// Another kind of key.
    #[error("keys of kind {kind} are not certified; use one of {allowed}")]
    Key {
        /// What the CSR has.
        kind: KeyKind,
        /// What the profile lists.
        allowed: String,
    },
    /// A name that no rule lets this caller have.
    #[error("{name} is not allowed to this caller{}", because(.why))]
    Name {
        /// The name.
        name: San,
        /// Rules that could not be applied to this caller.
        why: Vec<NoValue>,
    },
    /// Names are only taken from the request itself.
    #[error("the profile takes no names from the CSR; list them in the request")]
    NamesFromCsr,
    /// Not one name.
    #[error("at least one name must be asked for")]
    NoNames,
    /// Too many names.
    #[error("{asked} {what} are asked for, at most {max} are allowed")]
    TooMany {
        /// Names, IP names or URI names.
        what: &'static str,
        /// How many.
        asked: usize,
        /// How many there may be.
        max: usize,
    },
    /// Longer than the profile allows.
    #[error("a lifetime of {asked} s is asked for, at most {max} s are allowed")]
    TooLong {
        /// Seconds.
        asked: u64,
        /// Seconds.
        max: u64,
    },
    /// It would be over when it begins.
    #[error("a lifetime of {asked} s is asked for; it begins {backdate} s back, so ask for more")]
    TooShort {
        /// Seconds.
        asked: u64,
        /// Seconds.
        backdate: u64,
    },
    /// The issuer is not valid now.
    #[error("the issuer's certificate is not valid now; an operator must see to it")]
    IssuerNotValid,
    /// It would outlive its issuer.
    #[error(
        "the lifetime ends {by} s after the issuer's; ask for less, or an operator must renew the issuer"
    )]
    OutlivesIssuer {
        /// Seconds.
        by: u64,
    },
    /// The profile wants a URL that the issuer has not.
    #[error("the profile wants {0}, but the issuer has no URL for it; an operator must set one")]
    NoUrl(&'static str),
    /// The CSR's common name is not one of the host names.
    #[error("the CSR's common name {0:?} is not one of the host names")]
    CommonName(String),
    /// The subject would break a rule.
    #[error(transparent)]
    Subject(#[from] SubjectError),
}

fn because(why: &[NoValue]) -> String {
    why.iter().map(|reason| format!(" ({reason})")).collect()
}

impl Profile {
    /// Decides. The plan has every field fixed; nothing asked for is shortened or
    /// dropped silently.
    ///
    /// # Errors
    /// Everything that stands against the request.
    pub fn prepare(&self, request: &Request<'_>) -> Result<Plan, Refusal> {
        let ProfileKind::Leaf(rules) = &self.kind else {
            return Err(Refusal(vec![Violation::CaProfile]));
        };
        let mut against = Vec::new();
        self.check_issuer(request, &mut against);
        self.check_key(request, &mut against);
        let sans = rules.names.take(request, &mut against);
        let (not_before, not_after) = self.validity(request, &mut against);
        let subject = self.subject(rules, request.csr, &sans, &mut against);
        let urls = self.urls(&request.issuer.urls, &mut against);
        if !against.is_empty() {
            return Err(Refusal(against));
        }
        let kind = request.csr.key().kind();
        Ok(Plan {
            serial: request.serial,
            subject,
            key: request.csr.key().clone(),
            sans,
            not_before,
            not_after,
            kind: Kind::Leaf {
                key_usage: KeyUsage {
                    key_encipherment: rules.usages.key_encipherment && kind.is_rsa(),
                    key_agreement: rules.usages.key_agreement && kind.is_ec(),
                },
                ext_key_usage: rules.eku.clone(),
                no_rev_avail: rules.no_rev_avail,
                policies: self.policies.clone(),
            },
            urls,
            ski: self.ski,
        })
    }

    fn check_issuer(&self, request: &Request<'_>, against: &mut Vec<Violation>) {
        let issuer = request.issuer;
        if !self.issuers.contains(&issuer.name) {
            against.push(Violation::Issuer(issuer.name.clone()));
        }
        if issuer.is_root {
            against.push(Violation::Root(issuer.name.clone()));
        }
        if request.csr.key().spki_sha256() == issuer.spki_sha256 {
            against.push(Violation::IssuerKey);
        }
    }

    fn check_key(&self, request: &Request<'_>, against: &mut Vec<Violation>) {
        let kind = request.csr.key().kind();
        if !self.keys.contains(&kind) {
            let allowed: Vec<&str> = self.keys.iter().map(|kind| kind.name()).collect();
            let allowed = allowed.join(", ");
            against.push(Violation::Key { kind, allowed });
        }
    }

    /// First and last second (rules C5 and C6). A certificate does not begin before
    /// its issuer.
    fn validity(&self, request: &Request<'_>, against: &mut Vec<Violation>) -> (u64, u64) {
        let (now, issuer) = (request.now, request.issuer);
        let asked = request.ttl_seconds.unwrap_or(self.default_ttl_seconds);
        if now < issuer.not_before || now > issuer.not_after {
            against.push(Violation::IssuerNotValid);
        }
        if asked > self.max_ttl_seconds {
            let max = self.max_ttl_seconds;
            against.push(Violation::TooLong { asked, max });
        }
        if asked <= self.backdate_seconds {
            let backdate = self.backdate_seconds;
            against.push(Violation::TooShort { asked, backdate });
        }
        let not_before = now
            .saturating_sub(self.backdate_seconds)
            .max(issuer.not_before);
        // Both ends belong to the lifetime (RFC 5280 §4.1.2.5).
        let not_after = not_before.saturating_add(asked).saturating_sub(1);
        if let Some(by @ 1..) = not_after.checked_sub(issuer.not_after) {
            against.push(Violation::OutlivesIssuer { by });
        }
        (not_before, not_after)
    }

    /// The fixed attributes, then the common name (rule C8).
    fn subject(
        &self,
        rules: &LeafRules,
        csr: &Csr,
        sans: &[San],
        against: &mut Vec<Violation>,
    ) -> Subject {
        let mut hosts = sans.iter().filter_map(|san| match san {
            San::Dns(name) => Some(name.as_str()),
            San::Ip(_) | San::Uri(_) => None,
        });
        let common_name = match (rules.common_name, csr.common_name()) {
            (CommonName::Omit, _) | (CommonName::FromSan, None) => None,
            (CommonName::FirstDns, _) => hosts.next().map(str::to_owned),
            (CommonName::FromSan, Some(text)) => {
                let name = DnsName::parse(text).ok().map(|name| name.to_string());
                let found = name.filter(|name| hosts.any(|host| host == name));
                if found.is_none() {
                    against.push(Violation::CommonName(text.to_owned()));
                }
                found
            }
        };
        let fixed = self
            .fixed_subject
            .iter()
            .map(|(kind, text)| (*kind, text.as_str()));
        let common_name = common_name
            .iter()
            .map(|text| (Attribute::CommonName, text.as_str()));
        let attributes: Vec<_> = fixed.chain(common_name).collect();
        Subject::new(&attributes).unwrap_or_else(|e| {
            against.push(Violation::Subject(e));
            Subject::empty()
        })
    }

    fn urls(&self, of_issuer: &Urls, against: &mut Vec<Violation>) -> Urls {
        let mut take = |wanted: bool, what: &'static str, url: &Option<String>| {
            if wanted && url.is_none() {
                against.push(Violation::NoUrl(what));
            }
            url.clone().filter(|_| wanted)
        };
        Urls {
            crl_dp: take(self.crl_dp, "crl_dp", &of_issuer.crl_dp),
            ocsp: take(self.ocsp, "ocsp", &of_issuer.ocsp),
            ca_issuers: of_issuer.ca_issuers.clone(),
        }
    }
}

impl NameRules {
    /// The names of the request, each once and in its order; every one is judged.
    fn take(&self, request: &Request<'_>, against: &mut Vec<Violation>) -> Vec<San> {
        let asked = match (request.names, request.csr.names()) {
            ([], []) => &[],
            ([], _) if !self.from_csr => {
                against.push(Violation::NamesFromCsr);
                return Vec::new();
            }
            ([], of_csr) => of_csr,
            (of_request, _) => of_request,
        };
        let mut names: Vec<San> = Vec::new();
        if asked.len() > Csr::MAX_NAMES {
            let (what, asked, max) = ("names", asked.len(), Csr::MAX_NAMES);
            against.push(Violation::TooMany { what, asked, max });
            return names;
        }
        for name in asked {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        self.count(&names, against);
        for name in &names {
            let mut why = Vec::new();
            if !self.allow(name, request.identity, &mut why) {
                let name = name.clone();
                against.push(Violation::Name { name, why });
            }
        }
        names
    }

    fn count(&self, names: &[San], against: &mut Vec<Violation>) {
        if names.is_empty() && self.require_any {
            against.push(Violation::NoNames);
        }
        let ips = names.iter().filter(|n| matches!(n, San::Ip(_))).count();
        let uris = names.iter().filter(|n| matches!(n, San::Uri(_))).count();
        for (what, asked, max) in [
            ("names", names.len(), self.max_total),
            ("IP names", ips, self.max_ips),
            ("URI names", uris, usize::from(self.spiffe.is_some())),
        ] {
            if asked > max {
                against.push(Violation::TooMany { what, asked, max });
            }
        }
    }

    /// Does any rule let `identity` have `name`? Rules that need what this caller has
    /// not, or not as one label, allow nothing and say so in `why`.
    fn allow(&self, name: &San, identity: &Identity, why: &mut Vec<NoValue>) -> bool {
        let mut yes = |answer: Result<bool, NoValue>| {
            answer.unwrap_or_else(|reason| {
                if !why.contains(&reason) {
                    why.push(reason);
                }
                false
            })
        };
        match name {
            San::Dns(name) => self.dns.iter().any(|rule| yes(rule.allows(name, identity))),
            San::Ip(address) => self.cidrs.iter().any(|cidr| cidr.contains(*address)),
            San::Uri(uri) => {
                let mut rules = self.spiffe.iter();
                rules.any(|rule| yes(rule.allows(uri, identity)))
            }
        }
    }
}
