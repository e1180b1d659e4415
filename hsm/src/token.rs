//! What a worker can ask of a token. Small and synchronous: one implementation
//! speaks PKCS#11, one is the strict fake, and one suite (`conformance`) judges both.

use std::sync::Arc;

use zeroize::Zeroizing;

use crate::{
    DataObject, Dek, KeyEvidence, KeyRef, KeySpec, ModuleEvidence, NewKey, Oaep, ObjectId, Result,
    Signing, TokenObject, WrappedDek, error::Error,
};

/// One worker's logged-in connection to a token.
pub trait Token: Send {
    /// AES-256-GCM of the DEK under the key, with a fresh random IV.
    ///
    /// # Errors
    /// [`Kind::NoSuchKey`](crate::Kind::NoSuchKey) when the token does not show the
    /// key, [`Kind::Stale`](crate::Kind::Stale) or [`Kind::Gone`](crate::Kind::Gone)
    /// when the way to it is lost.
    fn wrap(&mut self, key: &KeyRef, aad: &[u8], dek: &Dek) -> Result<WrappedDek>;

    /// Opens what [`Token::wrap`] made.
    ///
    /// # Errors
    /// [`Kind::Refused`](crate::Kind::Refused) for other key, other AAD or changed
    /// bytes, and only when the token is known to be well; else as for `wrap`.
    fn unwrap(&mut self, key: &KeyRef, aad: &[u8], wrapped: &WrappedDek) -> Result<Dek>;

    /// Signs a digest, or a message for Ed25519. ECDSA gives r‖s.
    ///
    /// # Errors
    /// [`Kind::Unsupported`](crate::Kind::Unsupported) when key and scheme do not fit or
    /// the token cannot do it, [`Kind::Fault`](crate::Kind::Fault) for an input of the
    /// wrong length; else as for `wrap`.
    fn sign(&mut self, key: &KeyRef, how: Signing, input: &[u8]) -> Result<Vec<u8>>;

    /// HMAC of a message, full length.
    ///
    /// # Errors
    /// As for `sign`.
    fn mac(&mut self, key: &KeyRef, message: &[u8]) -> Result<Vec<u8>>;

    /// Opens an RSA-OAEP ciphertext.
    ///
    /// # Errors
    /// [`Kind::Refused`](crate::Kind::Refused) for bytes that were not encrypted to this
    /// key this way; else as for `sign`.
    fn decrypt(&mut self, key: &KeyRef, how: Oaep, ciphertext: &[u8])
    -> Result<Zeroizing<Vec<u8>>>;

    /// Fills `out` from the token's generator.
    ///
    /// # Errors
    /// As for `wrap`.
    fn random(&mut self, out: &mut [u8]) -> Result<()>;

    /// Generates a key that cannot leave, reads its attributes back, checks them and
    /// makes its proof. `label` is for people.
    ///
    /// # Errors
    /// [`Kind::Unsafe`](crate::Kind::Unsafe) when the key came out weaker than asked
    /// (it is destroyed again), [`Kind::Fault`](crate::Kind::Fault) when the id is
    /// taken or the token is full.
    fn generate(&mut self, id: ObjectId, spec: KeySpec, label: &str) -> Result<NewKey>;

    /// Attributes of a key as the token reports them now.
    ///
    /// # Errors
    /// As for `wrap`.
    fn describe(&mut self, key: &KeyRef) -> Result<KeyEvidence>;

    /// Every secret and private key on the token, ours or not.
    ///
    /// # Errors
    /// As for `wrap`.
    fn objects(&mut self) -> Result<Vec<TokenObject>>;

    /// Destroys a key, both halves of a pair. When this may be done is for the caller
    /// to know.
    ///
    /// # Errors
    /// As for `wrap`.
    fn destroy(&mut self, id: ObjectId, spec: KeySpec) -> Result<()>;

    /// Our data objects, in no order. Two of one label are what a crash in
    /// [`Token::put_data`] left. What is half-written or longer than
    /// [`DataObject::MAX_BYTES`] is not among them.
    ///
    /// # Errors
    /// As for `wrap`, and [`Kind::Unsupported`](crate::Kind::Unsupported) when the token
    /// keeps no data objects.
    fn data(&mut self) -> Result<Vec<DataObject>>;

    /// Puts a value under a label, within the bounds of [`DataObject`]: the new object is
    /// there before the older ones of the label are destroyed. A value that is there
    /// already is not written again. One label has one writer.
    ///
    /// # Errors
    /// As for `data`, and [`Kind::Fault`](crate::Kind::Fault) for a label or value out of
    /// bounds. After any other error the new object may be there, beside the older ones.
    fn put_data(&mut self, label: &str, value: &[u8]) -> Result<()>;

    /// Is the token there? With a key: can it still be used?
    ///
    /// # Errors
    /// As for `wrap`.
    fn check(&mut self, canary: Option<&KeyRef>) -> Result<()>;

    /// Climbs the recovery ladder after `lost`. On success the operation may be tried
    /// once more.
    ///
    /// # Errors
    /// The reason why the token stays lost.
    fn recover(&mut self, lost: &Error) -> Result<()>;
}

/// Which kind of session a worker needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Read-only session: wrap, unwrap, sign, mac, random.
    Work,
    /// Read-write session, one at a time: generate, destroy, list, data, probe.
    Admin,
}

/// How the token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// In use.
    Ready,
    /// Lost; recovery is tried by itself.
    Down,
    /// The PIN was refused; an operator must act.
    Blocked,
    /// It answers and does not hold the key that is watched; an operator must act.
    Diverged,
}

impl State {
    /// Every one.
    pub const ALL: [Self; 4] = [Self::Ready, Self::Down, Self::Blocked, Self::Diverged];

    /// A constant word for metrics and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Down => "down",
            Self::Blocked => "blocked",
            Self::Diverged => "diverged",
        }
    }
}

/// Where a token of a group is to be found.
pub struct Place {
    /// For people and metrics: the label or the serial it is selected by.
    pub name: String,
    /// Comes to it. Called again, with pauses, for as long as the token is not there.
    pub open: Box<dyn Fn() -> Result<Opened> + Send + Sync>,
}

/// A token that was found.
pub struct Opened {
    /// Where its sessions come from.
    pub connector: Arc<dyn Connector>,
    /// Threads that suit it, with one session each.
    pub workers: usize,
}

/// Where sessions come from.
pub trait Connector: Send + Sync {
    /// A session for one worker. May connect lazily.
    ///
    /// # Errors
    /// As for [`Token::check`].
    fn connect(&self, lane: Lane) -> Result<Box<dyn Token>>;
    /// How the token is, without asking it: ready, down or blocked.
    fn state(&self) -> State;
    /// Module, token and attack results of this process.
    fn evidence(&self) -> ModuleEvidence;
    /// The PIN source may hold another PIN now: unblocks and logs in again.
    ///
    /// # Errors
    /// As for [`Token::recover`].
    fn new_pin(&self) -> Result<()>;
    /// Closes every session; no call follows.
    fn close(&self);
}
