//! The Rust client of Keywright, and what its command line is made of.
//!
//! ```no_run
//! # async fn example() -> Result<(), keywright_client::Failure> {
//! use keywright_client::{Client, Context, Settings};
//!
//! let client = Client::connect(&Settings::from_env()?).await?;
//! let cards = vec!["4111 1111 1111 1111".into()];
//! let sealed = client.encrypt("payments/cards", &Context::new(), cards).await?;
//! assert_eq!(sealed.header.len(), 136);
//! # Ok(())
//! # }
//! ```
//!
//! `examples/tour.rs` shows every common call; the end-to-end tests run it.
//!
//! It depends on the wire contract only: no code of the daemon is in here, so what it
//! reads and checks is read and checked a second time, independently.
#![forbid(unsafe_code)]

pub mod audit;
mod calls;
mod connect;
mod failure;
pub mod file;
pub mod lines;
mod local;
pub mod recovery;
mod reencrypt;
mod retry;
pub mod rewrap;
mod stream;
mod tls;
pub mod token;

pub use calls::{Bundle, Context, DataKey, KeptDataKey, Opened, Sealed, SignedReport};
pub use connect::{Client, Settings};
pub use failure::{Failure, FailureKind};
/// The messages of `keywright.v1`.
pub use keywright_proto::v1 as proto;
pub use local::{LocalSealer, Plain};
pub use reencrypt::Move;
pub use retry::{Attempts, repeat};
pub use stream::{BatchStream, Piece, WAITING};

/// Length of an envelope header (`docs/envelope.md`).
pub const HEADER_LEN: usize = 136;
/// Bytes an item has over its plaintext.
pub const ITEM_OVERHEAD: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(_: impl Send) {}

    /// Compiles, and that is all: programs do these in tasks.
    #[expect(dead_code, reason = "nothing of it is to run")]
    async fn every_call_can_be_done_in_a_task(client: &Client, sealer: &LocalSealer) {
        let context = Context::new();
        sent(client.encrypt("k", &context, Vec::new()));
        sent(client.rewrap(Vec::new()));
        sent(client.sign("k", Vec::new()));
        sent(client.key("k"));
        sent(client.job("j"));
        sent(client.encrypt_stream::<()>());
        sent(sealer.seal(&context, &[]));
        let (read, write) = (std::io::empty, std::io::sink);
        sent(file::encrypt(
            client,
            "k",
            &context,
            read(),
            write(),
            &|_| {},
        ));
        sent(file::encrypt_here(
            sealer,
            &context,
            read(),
            write(),
            &|_| {},
        ));
        sent(file::decrypt(
            client,
            None,
            &context,
            read(),
            write(),
            &|_| {},
        ));
        sent(lines::encrypt(
            client,
            "k",
            &context,
            read(),
            write(),
            &|_| {},
        ));
        sent(lines::encrypt_here(
            sealer,
            &context,
            read(),
            write(),
            &|_| {},
        ));
    }
}
