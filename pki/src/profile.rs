//! A profile: the named, versioned rules for what may be issued to whom. Written in
//! TOML, read once, never changed; what it does not allow is refused.

mod builtin;
mod duration;
mod load;
mod prepare;
mod raw;
mod rules;

use serde::Deserialize;

pub use builtin::{dev_service, spiffe_svid};
pub use prepare::{IssuerFacts, Refusal, Request, Violation};
pub use rules::{Cidr, Match};
use rules::{DnsRule, SpiffeRule};

use crate::{
    key_kind::KeyKind,
    plan::{Eku, NameConstraints},
    subject::Attribute,
};
use der::asn1::ObjectIdentifier;

/// The rules, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    name: String,
    version: u32,
    text: String,
    sha256: [u8; 32],
    issuers: Vec<String>,
    default_ttl_seconds: u64,
    max_ttl_seconds: u64,
    backdate_seconds: u64,
    keys: Vec<KeyKind>,
    key_reuse: KeyReuse,
    fixed_subject: Vec<(Attribute, String)>,
    lint_set: String,
    lint_ignore: Vec<LintIgnore>,
    authz: Authz,
    ski: bool,
    crl_dp: bool,
    ocsp: bool,
    policies: Vec<ObjectIdentifier>,
    acme_networks: Vec<Cidr>,
    kind: ProfileKind,
}

/// What the profile is for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum ProfileKind {
    Leaf(LeafRules),
    Ca(CaRules),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct LeafRules {
    common_name: CommonName,
    names: NameRules,
    usages: Usages,
    eku: Vec<Eku>,
    no_rev_avail: bool,
}

/// `[san]`: default deny.
#[derive(Debug, Clone, PartialEq, Eq)]
struct NameRules {
    dns: Vec<DnsRule>,
    cidrs: Vec<Cidr>,
    max_ips: usize,
    spiffe: Option<SpiffeRule>,
    require_any: bool,
    max_total: usize,
    from_csr: bool,
}

/// Usages beside digitalSignature, each for the kind of key that can have it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Usages {
    key_encipherment: bool,
    key_agreement: bool,
}

/// What a profile with `kind = "ca"` says; for ceremonies, never for requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaRules {
    /// How many CAs may follow.
    pub path_len: u8,
    /// What the CA may name.
    pub constraints: NameConstraints,
}

/// May a key be certified again?
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyReuse {
    /// Not after a certificate for it was revoked.
    #[default]
    ForbidAfterRevocation,
    /// Never: each certificate has its own key.
    Forbid,
}

/// Where the common name comes from (rule C8: it is always one of the host names).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CommonName {
    /// There is none.
    #[default]
    Omit,
    /// The first host name.
    FirstDns,
    /// The one of the CSR, when it is one of the host names.
    FromSan,
}

/// A lint finding that the profile accepts, and why.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LintIgnore {
    /// The code of the finding.
    pub code: String,
    /// For whoever asks later.
    pub reason: String,
}

/// How a caller must have shown who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuthMethod {
    /// A client certificate.
    Mtls,
    /// A bearer token.
    Token,
}

/// Who must agree to each certificate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Approval {
    /// Nobody beside the policy.
    #[default]
    None,
    /// Two people.
    TwoPerson,
}

/// `[authz]`: kept by the service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authz {
    /// Any one of these.
    pub require: Vec<AuthMethod>,
    /// How often one caller may ask.
    pub rate: Option<Rate>,
    /// Who must agree.
    pub approve: Approval,
}

/// `count` certificates in `per_seconds`, and `burst` at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// At least 1.
    pub count: u32,
    /// Seconds.
    pub per_seconds: u32,
    /// At least 1.
    pub burst: u32,
}

/// Why a text is not a profile. Whoever wrote it must change it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProfileError {
    /// More than [`Profile::MAX_LEN`] bytes.
    #[error("the profile has {0} bytes, at most {max} are read", max = Profile::MAX_LEN)]
    TooLarge(usize),
    /// Not TOML, an unknown key, or a value of the wrong type.
    #[error("line {line} of the profile: {problem}")]
    Syntax {
        /// Counted from 1.
        line: usize,
        /// What is wrong there.
        problem: String,
    },
    /// A value that breaks a rule.
    #[error("{key} of the profile: {problem}")]
    Value {
        /// Which key.
        key: &'static str,
        /// What is wrong with it.
        problem: String,
    },
}

impl Profile {
    /// Bytes of text.
    pub const MAX_LEN: usize = 64 * 1024;

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its version, from 1.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The canonical text: line ends are LF, no blanks before them, one at the end.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// SHA-256 of [`text`](Self::text).
    #[must_use]
    pub fn sha256(&self) -> [u8; 32] {
        self.sha256
    }

    /// Names of the issuers that may be used, in order of preference.
    #[must_use]
    pub fn issuers(&self) -> &[String] {
        &self.issuers
    }

    /// Lifetime when none is asked for, in seconds.
    #[must_use]
    pub fn default_ttl_seconds(&self) -> u64 {
        self.default_ttl_seconds
    }

    /// Longest lifetime, in seconds.
    #[must_use]
    pub fn max_ttl_seconds(&self) -> u64 {
        self.max_ttl_seconds
    }

    /// Kinds of key that may be certified.
    #[must_use]
    pub fn keys(&self) -> &[KeyKind] {
        &self.keys
    }

    /// May a key be certified again? Kept by the service, which knows the past.
    #[must_use]
    pub fn key_reuse(&self) -> KeyReuse {
        self.key_reuse
    }

    /// Networks that an ACME challenge may be looked for in although they are not public.
    /// Kept by the service, which looks.
    #[must_use]
    pub fn acme_networks(&self) -> &[Cidr] {
        &self.acme_networks
    }

    /// Attributes that every subject has, in the order they are written.
    #[must_use]
    pub fn fixed_subject(&self) -> &[(Attribute, String)] {
        &self.fixed_subject
    }

    /// The set of lints and the findings that are accepted.
    #[must_use]
    pub fn lint(&self) -> (&str, &[LintIgnore]) {
        (&self.lint_set, &self.lint_ignore)
    }

    /// Who may ask, how often, and who must agree.
    #[must_use]
    pub fn authz(&self) -> &Authz {
        &self.authz
    }

    /// The rules of a profile for CAs; `None` for one for services.
    #[must_use]
    pub fn ca(&self) -> Option<&CaRules> {
        match &self.kind {
            ProfileKind::Ca(rules) => Some(rules),
            ProfileKind::Leaf(_) => None,
        }
    }
}

#[cfg(test)]
mod tests;
