//! `keywright.v1.Pki` and `PkiAdmin` over TLS on the fake token: ceremonies, issuing,
//! revocation, renewal, and everything that must be refused.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::too_many_lines,
    clippy::useless_vec,
    reason = "this is a test"
)]

mod ceremonies;
#[path = "../common/mod.rs"]
mod common;
mod failures;
mod issuing;
mod openssl;
mod records;
mod refusals;
mod renewal;
mod repeats;
mod revocation;
mod tenants;
