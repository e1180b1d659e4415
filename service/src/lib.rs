//! The Keywright daemon as a library: `main` only reads arguments.
//!
//! ```text
//!   main ─► api/*  (doors: wire words)          app  (puts it together)
//!              └──────────────┬───────────────────┘
//!                             ▼
//!                            ops/                       (verbs: domain words)
//!              ┌──────────────┼──────────────┬───────────┐
//!      keyring authorities ledger   store/   audit/   hsm, pki        (holders)
//!              └──────────────┼──────────────┘
//!            key/  job/  authority/  envelope  signature  policy  error  (nouns: pure)
//! ```
//!
//! Arrows only go down; `tests/architecture.rs` keeps it so. How a request walks:
//! `ARCHITECTURE.md`.
#![forbid(unsafe_code)]

pub mod acme;
pub mod api;
pub mod app;
pub mod audit;
pub mod authorities;
pub mod authority;
pub mod clock;
pub mod config;
pub mod dev;
pub mod envelope;
pub mod error;
pub mod harden;
pub mod init;
pub mod job;
pub mod key;
pub mod keyring;
pub mod ledger;
pub mod membership;
pub mod metrics;
pub mod migrate;
pub mod ops;
pub mod policy;
pub mod recover;
pub mod recovery;
pub mod signature;
pub mod store;
mod trace;
pub mod validator;
