//! The Rust client of Keywright, and what its command line is made of.
//!
//! ```no_run
//! # async fn example() -> Result<(), keywright_client::Failure> {
//! use keywright_client::{Client, Settings, proto};
//!
//! let client = Client::connect(&Settings::from_env()?).await?;
//! let sealed = client
//!     .crypto()
//!     .encrypt(proto::EncryptRequest {
//!         key: "payments/cards".into(),
//!         plaintexts: vec!["4111 1111 1111 1111".into()],
//!         ..Default::default()
//!     })
//!     .await?
//!     .into_inner();
//! assert_eq!(sealed.header.len(), 136);
//! # Ok(())
//! # }
//! ```
//!
//! It depends on the wire contract only: no code of the daemon is in here, so what it
//! reads and checks is read and checked a second time, independently.
#![forbid(unsafe_code)]

pub mod audit;
mod connect;
mod failure;
pub mod file;
pub mod lines;
mod tls;
pub mod token;

pub use connect::{Client, Settings};
pub use failure::{Failure, FailureKind};
/// The messages of `keywright.v1`.
pub use keywright_proto::v1 as proto;

/// Length of an envelope header (`docs/envelope.md`).
pub const HEADER_LEN: usize = 136;
/// Bytes an item has over its plaintext.
pub const ITEM_OVERHEAD: usize = 20;
