//! Reads a `TBSCertificate` again, with another parser than the one that could have
//! written it, and holds it against the plan, the issuer and the rules. One finding is
//! enough to refuse.

mod canonical;
mod extensions;
mod frame;
#[cfg(test)]
mod mutation;
mod names;
mod reading;
mod usage;

use std::fmt;

use x509_parser::extensions::GeneralName;

use crate::{IssuerCert, Plan};

use self::reading::Reading;

/// One breach of one rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// `C1` to `C23` for certificates, `R1` to `R12` for CRLs and OCSP, `DER` for the
    /// encoding itself.
    pub rule: &'static str,
    /// What is wrong, for whoever wrote the plan.
    pub message: String,
}

/// Everything that a lint found; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Findings(Vec<Finding>);

impl Findings {
    /// In the order of the rules.
    pub fn iter(&self) -> std::slice::Iter<'_, Finding> {
        self.0.iter()
    }

    /// An error when there is something in the list.
    pub(crate) fn none(list: Vec<Finding>) -> Result<(), Self> {
        if list.is_empty() {
            Ok(())
        } else {
            Err(Self(list))
        }
    }

    pub(crate) fn one(rule: &'static str, message: impl Into<String>) -> Self {
        Self(vec![Finding {
            rule,
            message: message.into(),
        }])
    }
}

impl<'a> IntoIterator for &'a Findings {
    type Item = &'a Finding;
    type IntoIter = std::slice::Iter<'a, Finding>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nothing was signed, since what was to be signed breaks rules:")?;
        self.0
            .iter()
            .try_for_each(|found| write!(f, " {} {};", found.rule, found.message))
    }
}

impl std::error::Error for Findings {}

/// Exactly this URL.
pub(crate) fn is_url(names: &[GeneralName<'_>], url: &str) -> bool {
    matches!(names, [GeneralName::URI(read)] if *read == url)
}

/// A rule says what is wrong, the first thing it sees.
pub(crate) type Verdict = Result<(), String>;

/// `Err(message)` unless it holds.
pub(crate) fn ensure(holds: bool, message: &str) -> Verdict {
    if holds {
        Ok(())
    } else {
        Err(message.to_owned())
    }
}

type Rule = fn(&Reading<'_>) -> Verdict;

/// Every rule on certificates. C22 is kept by `Unsigned::attach`.
const RULES: &[(&str, Rule)] = &[
    ("C1", frame::version_and_serial),
    ("C2", frame::algorithm),
    ("C3", frame::issuer_name),
    ("C4", frame::time_types),
    ("C5", frame::validity_is_planned),
    ("C6", frame::validity_fits),
    ("C7", names::subject),
    ("C8", names::common_name),
    ("C9", names::planned),
    ("C10", names::addresses),
    ("C11", extensions::authority_key_id),
    ("C12", extensions::subject_key_id),
    ("C13", usage::key_usage),
    ("C14", extensions::basic_constraints),
    ("C15", extensions::name_constraints),
    ("C16", names::issuer_permits),
    ("C17", usage::ext_key_usage),
    ("C18", extensions::urls),
    ("C19", extensions::set_and_order),
    ("C20", frame::public_key),
    ("C21", frame::hash_follows_key),
    ("C23", names::svid),
    ("R9", usage::ocsp_responder),
];

/// Lints a certificate that `issuer` is to sign at `now` (Unix seconds).
pub(crate) fn certificate(
    tbs: &[u8],
    plan: &Plan,
    issuer: &IssuerCert,
    self_signed: bool,
    now: u64,
) -> Result<(), Findings> {
    let read = reading::parse(tbs).map_err(|message| Findings::one("DER", message))?;
    let reading = Reading::new(&read, plan, issuer, self_signed, now)
        .map_err(|message| Findings::one("C19", message))?;
    let mut found: Vec<Finding> = RULES
        .iter()
        .filter_map(|(rule, check)| {
            check(&reading)
                .err()
                .map(|message| Finding { rule, message })
        })
        .collect();
    if let Err(message) = canonical::certificate(tbs) {
        found.push(Finding {
            rule: "DER",
            message,
        });
    }
    Findings::none(found)
}
