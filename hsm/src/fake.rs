//! A strict in-memory token for fast tests. It forbids more than real tokens do, so
//! that a wrong assumption fails here first, and it can be told to fail.
//!
//! Not a product: feature `fake` only, and no configuration value reaches it.

mod material;
mod plant;

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use aes_gcm::{
    Aes256Gcm, KeyInit,
    aead::{Aead, Payload},
};
use aws_lc_rs::{
    encoding::{AsDer, PublicKeyX509Der},
    rsa,
    signature::KeyPair,
};
use parking_lot::Mutex;
use zeroize::Zeroizing;

use material::{Material, broken, mac};

use crate::{
    Connector, DataObject, Dek, KeyEvidence, KeyProof, KeyRef, KeySpec, Lane, ModuleEvidence,
    NewKey, Oaep, ObjectId, PublicKey, Result, Signing, State, Token, TokenObject, WrappedDek,
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
    data: Vec<DataObject>,
    no_data: bool,
    used_ivs: HashSet<[u8; 12]>,
    unplugged: bool,
    logged_out: bool,
    epoch: u64,
    faults: VecDeque<Fault>,
    capacity: Option<usize>,
    logins: usize,
    operations: usize,
    serial: u64,
}

/// Copies are told apart by their serial.
static NEXT_SERIAL: AtomicU64 = AtomicU64::new(1);

#[derive(Clone)]
struct Stored {
    spec: KeySpec,
    material: Arc<Material>,
    label: String,
}

impl FakeDevice {
    /// An empty, healthy token.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Another token that holds the same keys, as the vendor's cloning makes it.
    #[must_use]
    pub fn copy(&self) -> Self {
        let keys = self.inner.lock().keys.clone();
        let inner = Inner {
            keys,
            serial: NEXT_SERIAL.fetch_add(1, Ordering::Relaxed),
            ..Inner::default()
        };
        Self {
            inner: Arc::new(Mutex::new(inner)),
        }
    }

    /// Takes over a key of another token, under the same id.
    pub fn clone_key(&self, from: &Self, id: ObjectId) {
        let key = from.inner.lock().keys.get(&id).cloned();
        if let Some(key) = key {
            self.inner.lock().keys.insert(id, key);
        }
    }

    /// Does it hold an object with this id?
    #[must_use]
    pub fn holds(&self, id: ObjectId) -> bool {
        self.inner.lock().keys.contains_key(&id)
    }

    /// What happens to the operations to come, in order.
    pub fn inject(&self, faults: impl IntoIterator<Item = Fault>) {
        self.inner.lock().faults.extend(faults);
    }

    /// The token is gone until [`FakeDevice::plug_in`].
    pub fn unplug(&self) {
        self.inner.lock().unplugged = true;
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

    /// From now on the token keeps no data objects.
    pub fn refuse_data(&self) {
        self.inner.lock().no_data = true;
    }

    /// Puts a data object beside those of its label, as a crash between creating and
    /// destroying leaves it.
    pub fn leave_data(&self, object: DataObject) {
        self.inner.lock().data.push(object);
    }

    /// Puts other material under the id, as an attacker with the PIN could.
    pub fn substitute_key(&self, id: ObjectId) {
        if let Some(stored) = self.inner.lock().keys.get_mut(&id)
            && let Ok((other, _)) = Material::generate(stored.spec)
        {
            stored.material = Arc::new(other);
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
            token_serial: self.inner.lock().serial.to_string(),
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

    fn keeps_data(&self) -> Result<()> {
        if self.device.inner.lock().no_data {
            return Err(Error::new(
                Kind::Unsupported,
                "this token keeps no data objects",
            ));
        }
        Ok(())
    }

    fn stored(&self, id: ObjectId, spec: KeySpec) -> Result<Stored> {
        let found = self.device.inner.lock().keys.get(&id).cloned();
        found.filter(|s| s.spec == spec).ok_or_else(|| {
            Error::new(Kind::NoSuchKey, format!("no key with CKA_ID {id}")).of_key(id)
        })
    }

    /// The key, once it has shown who it is.
    fn material(&self, key: &KeyRef) -> Result<Arc<Material>> {
        let material = self.stored(key.object, key.spec)?.material;
        let is_it = match (&*material, &key.proof) {
            (Material::Secret(secret), KeyProof::Wrapped(proof)) => {
                open(&cipher(secret)?, KeyProof::AAD, proof)
                    .is_ok_and(|p| p.expose() == KeyProof::PLAINTEXT)
            }
            (Material::Secret(secret), KeyProof::Tag(tag)) => {
                mac(key.spec, secret, KeyProof::PLAINTEXT)? == **tag
            }
            (Material::RsaDecrypt(private), KeyProof::Public(public)) => {
                let spki: PublicKeyX509Der<'_> =
                    private.public_key().as_der().map_err(|_| broken())?;
                spki.as_ref() == public.spki()
            }
            (Material::Ec(pair), KeyProof::Public(public)) => {
                PublicKey::from_point(key.spec, pair.public_key().as_ref())? == *public
            }
            (Material::Ed25519(pair), KeyProof::Public(public)) => {
                PublicKey::from_point(key.spec, pair.public_key().as_ref())? == *public
            }
            (Material::RsaSign(pair), KeyProof::Public(public)) => {
                let spki: PublicKeyX509Der<'_> =
                    pair.public_key().as_der().map_err(|_| broken())?;
                spki.as_ref() == public.spki()
            }
            _ => false,
        };
        if is_it {
            Ok(material)
        } else {
            let text = "the key is not the one it should be";
            Err(Error::new(Kind::OtherKey, text).of_key(key.object))
        }
    }

    fn cipher(&self, key: &KeyRef) -> Result<Aes256Gcm> {
        match (&*self.material(key)?, key.spec) {
            (Material::Secret(secret), KeySpec::Aes256) => cipher(secret),
            _ => Err(Error::new(Kind::Unsupported, "this key wraps nothing")),
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

    fn sign(&mut self, key: &KeyRef, how: Signing, input: &[u8]) -> Result<Vec<u8>> {
        self.begin()?;
        if !how.takes(key.spec, input) {
            return Err(Error::new(
                Kind::Unsupported,
                "scheme, key and input do not fit",
            ));
        }
        let mut signature = self.material(key)?.sign(how, input)?;
        if std::mem::take(&mut self.flip)
            && let Some(last) = signature.last_mut()
        {
            *last ^= 1;
        }
        Ok(signature)
    }

    fn mac(&mut self, key: &KeyRef, message: &[u8]) -> Result<Vec<u8>> {
        self.begin()?;
        match (&*self.material(key)?, key.spec) {
            (Material::Secret(secret), KeySpec::Hmac(_)) => mac(key.spec, secret, message),
            _ => Err(Error::new(Kind::Unsupported, "this key makes no MAC")),
        }
    }

    fn decrypt(
        &mut self,
        key: &KeyRef,
        how: Oaep,
        ciphertext: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>> {
        self.begin()?;
        let material = self.material(key)?;
        let Material::RsaDecrypt(private) = &*material else {
            return Err(Error::new(Kind::Unsupported, "this key decrypts nothing"));
        };
        let refused = || Error::new(Kind::Refused, "not encrypted to this key");
        let key = rsa::OaepPrivateDecryptingKey::new(private.clone()).map_err(|_| broken())?;
        let mut out = Zeroizing::new(vec![0; key.min_output_size()]);
        let n = key
            .decrypt(how.algorithm(), ciphertext, &mut out, None)
            .map_err(|_| refused())?
            .len();
        out.truncate(n);
        Ok(out)
    }

    fn random(&mut self, out: &mut [u8]) -> Result<()> {
        self.begin()?;
        os_random(out)
    }

    fn generate(&mut self, id: ObjectId, spec: KeySpec, label: &str) -> Result<NewKey> {
        self.begin()?;
        let fault = |text: &str| Err(Error::new(Kind::Fault, text));
        if self.lane != Lane::Admin {
            return fault("C_GenerateKey answered CKR_SESSION_READ_ONLY");
        }
        if label.is_empty() {
            return fault("a key without a label");
        }
        let (material, public) = Material::generate(spec)?;
        let proof = match (&material, public) {
            (_, Some(public)) => KeyProof::Public(public),
            (Material::Secret(secret), None) if spec == KeySpec::Aes256 => KeyProof::Wrapped(seal(
                &cipher(secret)?,
                &self.fresh_iv()?,
                KeyProof::AAD,
                KeyProof::PLAINTEXT,
            )?),
            (Material::Secret(secret), None) => {
                KeyProof::Tag(mac(spec, secret, KeyProof::PLAINTEXT)?.into())
            }
            _ => return Err(broken()),
        };
        let mut inner = self.device.inner.lock();
        if inner.keys.contains_key(&id) {
            return fault("an object with this CKA_ID exists already");
        }
        if inner.capacity.is_some_and(|c| inner.keys.len() >= c) {
            return fault("C_GenerateKey answered CKR_DEVICE_MEMORY");
        }
        let stored = Stored {
            spec,
            material: Arc::new(material),
            label: label.to_owned(),
        };
        inner.keys.insert(id, stored);
        Ok(NewKey {
            key: KeyRef {
                object: id,
                spec,
                proof,
            },
            evidence: evidence(id, spec),
        })
    }

    fn describe(&mut self, key: &KeyRef) -> Result<KeyEvidence> {
        self.begin()?;
        self.material(key)?;
        Ok(evidence(key.object, key.spec))
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

    fn destroy(&mut self, id: ObjectId, spec: KeySpec) -> Result<()> {
        self.begin()?;
        self.stored(id, spec)?;
        self.device.inner.lock().keys.remove(&id);
        Ok(())
    }

    fn data(&mut self) -> Result<Vec<DataObject>> {
        self.begin()?;
        self.keeps_data()?;
        Ok(self.device.inner.lock().data.clone())
    }

    fn put_data(&mut self, label: &str, value: &[u8]) -> Result<()> {
        self.begin()?;
        self.keeps_data()?;
        if self.lane != Lane::Admin {
            return Err(Error::new(
                Kind::Fault,
                "C_CreateObject answered CKR_SESSION_READ_ONLY",
            ));
        }
        let new = DataObject::new(label.to_owned(), value.to_vec())?;
        let mut inner = self.device.inner.lock();
        inner.data.retain(|o| o.label != label);
        inner.data.push(new);
        Ok(())
    }

    fn check(&mut self, canary: Option<&KeyRef>) -> Result<()> {
        self.alive()?;
        canary.map_or(Ok(()), |key| self.material(key).map(drop))
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

fn cipher(material: &[u8]) -> Result<Aes256Gcm> {
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

fn evidence(object: ObjectId, spec: KeySpec) -> KeyEvidence {
    let wraps = spec == KeySpec::Aes256;
    let decrypts = wraps || matches!(spec, KeySpec::RsaDecrypt(_));
    let secret = |value| (!spec.is_pair()).then_some(value);
    let generated_by = match spec {
        KeySpec::Aes256 => "CKM_AES_KEY_GEN",
        KeySpec::Hmac(_) => "CKM_GENERIC_SECRET_KEY_GEN",
        KeySpec::Ec(_) => "CKM_EC_KEY_PAIR_GEN",
        KeySpec::Ed25519 => "CKM_EC_EDWARDS_KEY_PAIR_GEN",
        KeySpec::RsaSign(_) | KeySpec::RsaDecrypt(_) => "CKM_RSA_PKCS_KEY_PAIR_GEN",
    };
    KeyEvidence {
        object,
        spec,
        local: Some(true),
        private: Some(true),
        sensitive: Some(true),
        always_sensitive: Some(true),
        extractable: Some(false),
        never_extractable: Some(true),
        modifiable: Some(false),
        copyable: Some(false),
        encrypt: secret(wraps),
        decrypt: Some(decrypts),
        sign: Some(!decrypts),
        verify: secret(false),
        wrap: secret(false),
        unwrap: Some(false),
        derive: Some(false),
        allowed_mechanisms: match spec {
            KeySpec::Aes256 => vec!["CKM_AES_GCM".into()],
            _ => Vec::new(),
        },
        generated_by: generated_by.into(),
        not_supported: Vec::new(),
    }
}
