//! The ciphertext format, version 1: `docs/envelope.md` word for word. Pure CPU, no
//! I/O, no clock; the one room that touches a DEK's bytes after the HSM.
//!
//! ```text
//!   Dek + Binding ─► Schedule ─► Sealer ─► items        (and Header::assemble)
//!   Dek + Header  ─► Schedule ─► commitment ─► Opener ─► plaintexts
//! ```
//!
//! What never happens here: a nonce, an algorithm or a key id chosen by a caller; a
//! reason for a cryptographic failure.

mod context;
mod header;
mod kept;
mod schedule;

pub use context::{Context, ContextError};
pub use header::{Header, Kind, Malformed};
pub use kept::{DataKeyId, Kept};
pub use schedule::{Binding, Opener, Refused, Salt, Schedule, Sealer, wrap_aad};

/// Bytes an item has over its plaintext: index and tag.
pub const ITEM_OVERHEAD: usize = INDEX_LEN + TAG_LEN;
/// Length of the index in front of an item.
pub const INDEX_LEN: usize = 4;
/// Length of the authentication tag.
pub const TAG_LEN: usize = 16;
/// Most items of one envelope, whatever the configuration says.
pub const MAX_ITEMS: usize = 1 << 16;
/// Largest plaintext of an item, whatever the configuration says.
pub const MAX_ITEM_BYTES: usize = 16 << 20;
/// Most plaintext bytes under one derived key.
pub const MAX_ENVELOPE_BYTES: usize = 64 << 20;
/// Largest AAD of an item, whatever the configuration says.
pub const MAX_AAD_BYTES: usize = 64 << 10;
