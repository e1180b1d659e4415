//! The public HTTP door, asked over real connections and checked with the command
//! `openssl`, which must be there: an authority made by ceremony on the fake token, its
//! lists, its certificates, and OCSP.
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

mod authority;
#[path = "../common/mod.rs"]
mod common;
mod lists;
mod ocsp;
mod raw;
