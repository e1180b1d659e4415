//! Pure X.509: bytes in, bytes out, no clock, no network, and no private key: this
//! crate never signs.
//!
//! For now it holds the one noun the data path needs, the [`SpiffeId`] that a client
//! certificate carries. CSR, profile, draft, lint and CRL move in with the
//! certificate authority.
#![forbid(unsafe_code)]

mod spiffe;

pub use spiffe::{Error, SpiffeId, SpiffeIdError, TrustDomain, client_id};
