//! A strict in-memory token for fast tests. It forbids more than real tokens do, so
//! that a wrong assumption fails here first, and it can be told to fail.
//!
//! Not a product: feature `fake` only, and no configuration value reaches it.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use aes_gcm::{
    Aes256Gcm, KeyInit,
    aead::{Aead, Payload},
};
use parking_lot::Mutex;

use crate::{
    Connector, Dek, KeyEvidence, KeyProof, KeyRef, KeySpec, Lane, ModuleEvidence, NewKey, ObjectId,
    Result, State, Token, TokenObject, WrappedDek,
    error::{Error, Kind, Remedy},
    key::os_random,
};

/// What the fake does instead of the next operation.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// The session is gone; opening another helps.
    SessionLost,
    /// Somebody logged out; logging in helps.
    LoggedOut,
    /// The token is unplugged until [`FakeDevice::plug_in`].
    Unplugged,
    /// The call takes this long.
    Slow(Duration),
    /// The next wrap comes out with one bit flipped.
    FlipBit,
    /// The next job panics inside the token.
    Panic,
}

/// The token; clones are the same token.
#[derive(Clone, Default)]
pub struct FakeDevice {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    keys: BTreeMap<ObjectId, Stored>,
    used_ivs: HashSet<[u8; 12]>,
    unplugged: bool,
    logged_out: bool,
    epoch: u64,
    faults: VecDeque<Fault>,
    capacity: Option<usize>,
    logins: usize,
    operations: usize,
}

struct Stored {
    material: [u8; 32],
    label: String,
}

impl FakeDevice {
    /// An empty, healthy token.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What happens to the operations to come, in order.
    pub fn inject(&self, faults: impl IntoIterator<Item = Fault>) {
        self.inner.lock().faults.extend(faults);
    }

    /// The token is there again.
    pub fn plug_in(&self) {
        self.inner.lock().unplugged = false;
    }

    /// How many keys fit.
    pub fn limit_keys(&self, keys: usize) {
        self.inner.lock().capacity = Some(keys);
    }

    /// How often the ladder logged in.
    #[must_use]
    pub fn logins(&self) -> usize {
        self.inner.lock().logins
    }

    /// How many operations reached the token.
    #[must_use]
    pub fn operations(&self) -> usize {
        self.inner.lock().operations
    }

    /// Takes an object away behind everybody's back.
    pub fn lose_key(&self, id: ObjectId) {
        self.inner.lock().keys.remove(&id);
    }

    /// Puts other material under the id, as an attacker with the PIN could.
    pub fn substitute_key(&self, id: ObjectId) {
        if let Some(stored) = self.inner.lock().keys.get_mut(&id) {
            stored.material = [0x5a; 32];
        }
    }
}

impl std::fmt::Debug for FakeDevice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FakeDevice")
    }
}

impl Connector for FakeDevice {
    fn connect(&self, lane: Lane) -> Result<Box<dyn Token>> {
        Ok(Box::new(FakeToken {
            device: self.clone(),
            lane,
            session: true,
            flip: false,
        }))
    }

    fn state(&self) -> State {
        if self.inner.lock().unplugged {
            State::Down
        } else {
            State::Ready
        }
    }

    fn evidence(&self) -> ModuleEvidence {
        ModuleEvidence {
            module_path: "(in memory)".into(),
            token_label: "fake".into(),
            token_serial: "0".into(),
            ..ModuleEvidence::default()
        }
    }

    fn new_pin(&self) -> Result<()> {
        Ok(())
    }

    fn close(&self) {
        self.inner.lock().unplugged = true;
    }
}

struct FakeToken {
    device: FakeDevice,
    lane: Lane,
    session: bool,
    flip: bool,
}

fn stale(what: &str, remedy: Remedy) -> Error {
    Error::new(Kind::Stale, what).with_remedy(remedy)
}

impl FakeToken {
    fn begin(&mut self) -> Result<()> {
        let fault = {
            let mut inner = self.device.inner.lock();
            inner.operations += 1;
            inner.faults.pop_front()
        };
        match fault {
            None => {}
            Some(Fault::SessionLost) => self.session = false,
            Some(Fault::LoggedOut) => self.device.inner.lock().logged_out = true,
            Some(Fault::Unplugged) => self.device.inner.lock().unplugged = true,
            Some(Fault::FlipBit) => self.flip = true,
            #[expect(clippy::disallowed_methods, reason = "a slow HSM, played")]
            Some(Fault::Slow(pause)) => std::thread::sleep(pause),
            #[expect(clippy::panic, reason = "a panic was asked for")]
            Some(Fault::Panic) => panic!("injected"),
        }
        self.alive()
    }

    fn alive(&self) -> Result<()> {
        let inner = self.device.inner.lock();
        if inner.unplugged {
            return Err(
                Error::new(Kind::Gone, "the token is unplugged").with_remedy(Remedy::Module)
            );
        }
        if inner.logged_out {
            return Err(stale("logged out", Remedy::Login));
        }
        if !self.session {
            return Err(stale("the session is gone", Remedy::Session));
        }
        Ok(())
    }

    fn material(&self, id: ObjectId) -> Result<[u8; 32]> {
        self.device
            .inner
            .lock()
            .keys
            .get(&id)
            .map(|s| s.material)
            .ok_or_else(|| Error::new(Kind::NoSuchKey, format!("no key with CKA_ID {id}")))
    }

    /// The key, once it has shown who it is.
    fn cipher(&self, key: &KeyRef) -> Result<Aes256Gcm> {
        let cipher = cipher(&self.material(key.object)?)?;
        match open(&cipher, KeyProof::AAD, &key.proof.0) {
            Ok(plain) if plain.expose() == KeyProof::PLAINTEXT => Ok(cipher),
            _ => Err(Error::new(Kind::Fault, "the key does not open its proof")),
        }
    }

    fn fresh_iv(&self) -> Result<[u8; 12]> {
        let mut iv = [0; 12];
        os_random(&mut iv)?;
        if self.device.inner.lock().used_ivs.insert(iv) {
            Ok(iv)
        } else {
            Err(Error::new(Kind::Fault, "an IV was used twice"))
        }
    }
}

impl Token for FakeToken {
    fn wrap(&mut self, key: &KeyRef, aad: &[u8], dek: &Dek) -> Result<WrappedDek> {
        self.begin()?;
        strict_aad(aad)?;
        let mut wrapped = seal(&self.cipher(key)?, &self.fresh_iv()?, aad, dek.expose())?;
        if std::mem::take(&mut self.flip) {
            wrapped.0[20] ^= 1;
        }
        Ok(wrapped)
    }

    fn unwrap(&mut self, key: &KeyRef, aad: &[u8], wrapped: &WrappedDek) -> Result<Dek> {
        self.begin()?;
        strict_aad(aad)?;
        open(&self.cipher(key)?, aad, wrapped)
    }

    fn random(&mut self, out: &mut [u8]) -> Result<()> {
        self.begin()?;
        os_random(out)
    }

    fn generate(&mut self, id: ObjectId, spec: KeySpec, label: &str) -> Result<NewKey> {
        let KeySpec::Aes256 = spec;
        self.begin()?;
        let fault = |text: &str| Err(Error::new(Kind::Fault, text));
        if self.lane != Lane::Admin {
            return fault("C_GenerateKey answered CKR_SESSION_READ_ONLY");
        }
        if label.is_empty() {
            return fault("a key without a label");
        }
        let mut material = [0; 32];
        os_random(&mut material)?;
        {
            let mut inner = self.device.inner.lock();
            if inner.keys.contains_key(&id) {
                return fault("an object with this CKA_ID exists already");
            }
            if inner.capacity.is_some_and(|c| inner.keys.len() >= c) {
                return fault("C_GenerateKey answered CKR_DEVICE_MEMORY");
            }
            let label = label.to_owned();
            inner.keys.insert(id, Stored { material, label });
        }
        let sealed = seal(
            &cipher(&material)?,
            &self.fresh_iv()?,
            KeyProof::AAD,
            KeyProof::PLAINTEXT,
        )?;
        let key = KeyRef {
            object: id,
            proof: KeyProof(sealed),
        };
        Ok(NewKey {
            key,
            evidence: evidence(id),
        })
    }

    fn describe(&mut self, key: &KeyRef) -> Result<KeyEvidence> {
        self.begin()?;
        self.cipher(key)?;
        Ok(evidence(key.object))
    }

    fn objects(&mut self) -> Result<Vec<TokenObject>> {
        self.begin()?;
        let inner = self.device.inner.lock();
        let object = |(id, stored): (&ObjectId, &Stored)| TokenObject {
            id: Some(*id),
            label: stored.label.clone(),
        };
        Ok(inner.keys.iter().map(object).collect())
    }

    fn destroy(&mut self, id: ObjectId) -> Result<()> {
        self.begin()?;
        self.material(id)?;
        self.device.inner.lock().keys.remove(&id);
        Ok(())
    }

    fn check(&mut self, canary: Option<&KeyRef>) -> Result<()> {
        self.alive()?;
        canary.map_or(Ok(()), |key| self.cipher(key).map(drop))
    }

    fn recover(&mut self, lost: &Error) -> Result<()> {
        let mut inner = self.device.inner.lock();
        if inner.unplugged {
            return Err(Error::new(Kind::Gone, "the token is unplugged"));
        }
        if lost.remedy() >= Remedy::Login {
            inner.logged_out = false;
            inner.epoch += 1;
            inner.logins += 1;
        }
        drop(inner);
        self.session = true;
        self.alive()
    }
}

/// Ours are 56 bytes for a wrap and 16 for a proof; anything else is a mistake.
fn strict_aad(aad: &[u8]) -> Result<()> {
    match aad.len() {
        56 => Ok(()),
        n => Err(Error::new(Kind::Fault, format!("a wrap AAD of {n} bytes"))),
    }
}

fn cipher(material: &[u8; 32]) -> Result<Aes256Gcm> {
    Aes256Gcm::new_from_slice(material).map_err(|_| Error::new(Kind::Fault, "key length"))
}

fn seal(cipher: &Aes256Gcm, iv: &[u8; 12], aad: &[u8], dek: &[u8; 32]) -> Result<WrappedDek> {
    let sealed = cipher.encrypt(iv.into(), Payload { msg: dek, aad }).ok();
    sealed
        .as_deref()
        .and_then(|s| s.try_into().ok())
        .map(|sealed: &[u8; 48]| WrappedDek::join(iv, sealed))
        .ok_or_else(|| Error::new(Kind::Fault, "the fake cannot encrypt"))
}

fn open(cipher: &Aes256Gcm, aad: &[u8], wrapped: &WrappedDek) -> Result<Dek> {
    let (iv, sealed) = wrapped.parts();
    let plain = cipher.decrypt(iv.into(), Payload { msg: sealed, aad }).ok();
    plain
        .and_then(|p| <[u8; 32]>::try_from(p).ok())
        .map(|mut p| Dek::take(&mut p))
        .ok_or_else(|| Error::new(Kind::Refused, "this key did not wrap these bytes"))
}

fn evidence(object: ObjectId) -> KeyEvidence {
    KeyEvidence {
        object,
        local: Some(true),
        private: Some(true),
        sensitive: Some(true),
        always_sensitive: Some(true),
        extractable: Some(false),
        never_extractable: Some(true),
        modifiable: Some(false),
        copyable: Some(false),
        encrypt: Some(true),
        decrypt: Some(true),
        sign: Some(false),
        verify: Some(false),
        wrap: Some(false),
        unwrap: Some(false),
        derive: Some(false),
        allowed_mechanisms: vec!["CKM_AES_GCM".into()],
        generated_by: "CKM_AES_KEY_GEN".into(),
        not_supported: Vec::new(),
    }
}
