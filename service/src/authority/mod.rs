//! The nouns of the PKI: issuers and the ceremonies they come from, profiles as they are
//! on record, and the certificates that were made. Pure: no I/O, no async.

mod ceremony;
mod issuer;
mod name;
mod profile;
mod record;
mod responder;

pub use ceremony::{Ceremony, CeremonyError, Parent};
pub use issuer::{Issuer, IssuerId, Stage, Usage};
pub use name::AuthorityName;
pub use profile::Profile;
pub use record::{
    CertificateRecord, CertificateRef, CertificateState, CrlRecord, Intended, ProfileRecord,
    Reason, Revocation, Spki,
};
pub use responder::Responder;
