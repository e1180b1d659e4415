//! Who answers for an issuer over OCSP: a key in the HSM, and a certificate of at most 14
//! days that only this issuer gives it (RFC 6960 §4.2.2.2).

use keywright_hsm::KeyRef;

use super::IssuerId;

/// A signer of OCSP answers, as it is on record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Responder {
    /// For whom it answers.
    pub issuer: IssuerId,
    /// Its key on the token.
    pub key: KeyRef,
    /// Which token.
    pub token_serial: String,
    /// DER; empty until it has one.
    pub certificate: Vec<u8>,
    /// When its key was made, in milliseconds since the epoch.
    pub created_ms: i64,
}
