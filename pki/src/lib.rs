//! Pure X.509: bytes in, bytes out, no clock, no network, and no private key: this
//! crate never signs.
//!
//! For now it holds what the data path needs: the [`SpiffeId`] that a client certificate
//! carries, public keys and ECDSA signatures as others read them. CSR, profile, draft, lint and CRL move in with the
//! certificate authority.
#![forbid(unsafe_code)]

mod ecdsa;
mod public_key;
mod spiffe;

pub use ecdsa::{ecdsa_from_der, ecdsa_to_der};
pub use public_key::{spki_to_jwk, spki_to_pem};
pub use spiffe::{Error, SpiffeId, SpiffeIdError, TrustDomain, client_id};
