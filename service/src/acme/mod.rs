//! The nouns of ACME (RFC 8555): signed requests, nonces, accounts, orders, challenges,
//! problems. Pure: bytes in, decisions out; no network, no store, no clock.

mod account;
mod ari;
mod challenge;
mod eab;
mod jwk;
mod jws;
mod nonce;
mod order;
mod problem;

pub use account::{Account, AccountStatus, Contact};
pub use ari::{RenewalId, Window};
pub use challenge::{
    Authorization, AuthorizationStatus, Challenge, ChallengeKind, ChallengeStatus,
};
pub(crate) use challenge::{key_authorization_sha256, txt_value};
pub use eab::AcmeKey;
pub use jwk::AccountKey;
pub use jws::{Jws, Signer};
pub use nonce::Nonces;
pub use order::{Certified, MAX_IDENTIFIERS, Order, OrderStatus, Outcome, identifiers};
pub use problem::{Problem, ProblemKind, Subproblem};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};

/// base64url without padding, the only base64 of ACME (RFC 8555 §6.1).
#[must_use]
pub fn encode64(bytes: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

/// The inverse of [`encode64`]; strict: no padding, no line ends, no stray bits.
#[must_use]
pub fn decode64(text: &str) -> Option<Vec<u8>> {
    BASE64_URL_SAFE_NO_PAD.decode(text).ok()
}

/// 16 random bytes in base64url: the names of accounts, orders and authorizations, and
/// the tokens of challenges (RFC 8555 §8 asks for 128 bits).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AcmeId(String);

impl AcmeId {
    /// From fresh random bytes.
    #[must_use]
    pub fn from_random(bytes: [u8; 16]) -> Self {
        Self(encode64(&bytes))
    }

    /// Reads one; `None` when we would never have written it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let fits = decode64(text).is_some_and(|b| b.len() == 16);
        fits.then(|| Self(text.to_owned()))
    }

    /// As in URLs.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for AcmeId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
