//! What a worker can ask of a token. Small and synchronous: one implementation
//! speaks PKCS#11, one is the strict fake, and one suite (`conformance`) judges both.

use crate::{
    Dek, KeyEvidence, KeyRef, KeySpec, ModuleEvidence, NewKey, ObjectId, Result, TokenObject,
    WrappedDek, error::Error,
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

    /// Every secret key on the token, ours or not.
    ///
    /// # Errors
    /// As for `wrap`.
    fn objects(&mut self) -> Result<Vec<TokenObject>>;

    /// Destroys a key. For throw-away keys of tests and probes; key destruction is an
    /// operation of its own with its own rules.
    ///
    /// # Errors
    /// As for `wrap`.
    fn destroy(&mut self, id: ObjectId) -> Result<()>;

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
    /// Read-only session: wrap, unwrap, random.
    Work,
    /// Read-write session, one at a time: generate, destroy, list, probe.
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
}

/// Where sessions come from.
pub trait Connector: Send + Sync {
    /// A session for one worker. May connect lazily.
    ///
    /// # Errors
    /// As for [`Token::check`].
    fn connect(&self, lane: Lane) -> Result<Box<dyn Token>>;
    /// How the token is, without asking it.
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
