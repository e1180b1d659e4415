//! The only crate that knows PKCS#11.
//!
//! A **token** is the HSM partition that holds our keys. A **worker** is one
//! operating-system thread that owns one session of it. [`Hsm`] is the handle the
//! rest of Keywright holds: cloneable, async, with a bounded queue in front of the
//! workers and a deadline on every call.
//!
//! ```text
//!   Hsm ─► Group ─► Member ──queue──► worker ─► Token (trait) ──► pkcs11::Session ──► any module
//!            │                        worker ─►     │
//!            │                        admin  ─►     └───────────► fake (tests only)
//!            └────► Member … (another token that holds the same keys)
//! ```
//!
//! What never happens here: key bytes never come out of a token. The secrets of this
//! crate are the [`Dek`], which wraps nothing but data and lives for one request, and
//! what an RSA key decrypts.
#![cfg_attr(not(test), warn(missing_docs))]

mod data;
mod dek;
mod error;
mod evidence;
mod group;
mod handle;
mod job;
mod key;
mod member;
mod observe;
mod pin;
pub mod pkcs11;
mod public;
mod token;
mod unverified;
mod watched;
mod workers;

#[cfg(feature = "fake")]
pub mod conformance;
#[cfg(feature = "fake")]
pub mod fake;

pub use data::DataObject;
pub use dek::{Dek, WrappedDek};
pub use error::{Error, Kind, Result};
pub use evidence::{AttackResult, KeyEvidence, ModuleEvidence};
pub use group::TokenStatus;
pub use handle::{Hsm, Options};
pub use job::{Decrypt, Mac, Rewrap, Sign, Unwrap};
pub use key::{
    Curve, Hash, KeyProof, KeyRef, KeySpec, KeyUse, NewKey, ObjectId, PssSalt, RsaBits, Signing,
    TokenObject,
};
pub use observe::{Observer, Op, Silent, Times};
pub use pin::{Pin, PinSource};
pub use public::{Oaep, PublicKey};
pub use token::{Connector, Lane, Opened, Place, State, Token};
pub use unverified::Unverified;
