//! OCSP (RFC 6960, RFC 9654): requests read, answers written. Own types, since no crate
//! for it stands on der 0.8.

mod answer;
mod request;
mod responder;

pub use answer::{Answer, CertStatus, OcspDraft, OcspPlan, OcspResponse};
pub use request::{CertId, Malformed, Nonce, OcspRequest};
pub use responder::{OcspResponder, ResponderError};

/// An answer without a signature (RFC 6960 §4.2.1): why there is no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum OcspError {
    /// The request cannot be read.
    MalformedRequest = 1,
    /// The responder has a fault.
    InternalError = 2,
    /// Ask again later.
    TryLater = 3,
    /// The certificate is of an issuer that this responder does not speak for.
    Unauthorized = 6,
}

impl OcspError {
    /// `OCSPResponse` with this status alone.
    #[must_use]
    pub const fn der(self) -> [u8; 5] {
        [0x30, 3, 0x0a, 1, self as u8]
    }
}
