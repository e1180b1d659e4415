//! The account of every request: one record each, denied and failed ones too, chained
//! by hash and durable before the reply. No record, no answer.
//!
//! ```text
//!   Entry ─► writer thread: seq, time, prev ─► line ─► segment ─► fdatasync ─► reply
//! ```
//!
//! The log is JSON Lines, so that it can be read and checked with common tools: every
//! line holds the SHA-256 of the line before it. Many waiting records share one sync.
//!
//! What never happens here: plaintext, ciphertext, context values, AAD or PINs in a
//! record. A record is built from typed ids, sizes and counts; requests are never
//! serialised into it.

mod log;
mod record;
mod writer;

pub use log::{Log, LogError, Opened};
pub use record::{Decision, Entry, Event, GENESIS_HASH, KeyNote, line_hash};
pub use writer::Audit;
