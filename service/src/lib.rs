//! wip
#![forbid(unsafe_code)]
pub mod envelope;
pub mod key;
