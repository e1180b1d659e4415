//! The operations of the PKI. What is signed was linted, and stands in the store before
//! the HSM sees it: grant, plan, lint, intent, signature, self-check, record, reply.

mod ceremony;
mod certificates;
mod crl;
mod dry_run;
mod import;
mod issue;
mod issuers;
mod lists;
mod ocsp;
mod profiles;
mod renew;
mod responder;
mod revoke;
mod signer;
mod standing;

pub use ceremony::{
    ApproveCeremony, Committed, Planned, approve_ceremony, commit_ceremony, plan_ceremony,
    to_be_signed,
};
pub use certificates::{Certificates, Find, Found, get_certificate, search};
pub use crl::{Crl, get_crl, publish, publish_crls, published};
pub use dry_run::{Dry, dry_run};
pub use import::{ImportIssuer, import_issuer};
pub use issue::{Issued, SignCsr, sign_csr, sign_csr_batch};
pub(super) use issue::{chain, sign_csr_as};
pub use issuers::{SetUsage, bundle, list_issuers, set_issuer_usage};
pub use lists::Lists;
pub use ocsp::{Answered, Ocsp, Question, Validity};
pub use profiles::{get_profile, list_profiles, put_profile, retire_profile};
pub use renew::{Renew, Renewed, renew};
pub use revoke::{Revoke, Revoked, Target, block_key, revoke};
pub(super) use revoke::{carry_out, target};
pub use standing::{Standing, standing};

use crate::{
    authority::CertificateRef,
    error::{Error, Reason},
};

/// Issuer id and serial of the first certificate of a line.
fn lineage(name: &CertificateRef) -> Vec<u8> {
    [&name.issuer.0, name.serial.as_bytes()].concat()
}

/// Whole seconds since the epoch; nothing is signed before 1970.
fn seconds(ms: i64) -> u64 {
    u64::try_from(ms / 1000).unwrap_or(0)
}

/// The last millisecond of a second that still counts.
fn last_ms(seconds: u64) -> i64 {
    i64::try_from(seconds)
        .ok()
        .and_then(|s| s.checked_mul(1000))
        .map_or(i64::MAX, |ms| ms.saturating_add(999))
}

fn no_such_issuer(name: &str) -> Error {
    Error::new(
        Reason::IssuerNotFound,
        format!("there is no issuer {name:?} here"),
    )
}
