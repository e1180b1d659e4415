//! One worker's side of a token: [`Pkcs11Token`]. How objects are made and destroyed
//! stands in `objects`.
//!
//! A handle is looked up once per epoch, must be the only object with its CKA_ID,
//! and must open the key's proof before it is used. When the token answers
//! something that could mean anything, the same proof decides between "your bytes
//! are forged" and "the HSM is ill".

use std::sync::Arc;

use cryptoki::{error::RvError, object::ObjectHandle, session::Session};
use cryptoki_sys::CK_RV;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

use super::{
    classify::{self, Class},
    device::{Connection, Device, logged_in},
    mechanism,
    module::SessionSlot,
    params::Params,
    raw::HOT_BUFFER,
    template,
};
use crate::{
    DataObject, Dek, Hash, KeyEvidence, KeyProof, KeyRef, KeySpec, Lane, NewKey, Oaep, ObjectId,
    PublicKey, Result, RsaBits, Signing, State, Token, TokenObject, WrappedDek,
    error::{Error, Kind, Remedy},
    key::os_random,
};

pub(crate) struct Pkcs11Token {
    device: Arc<Device>,
    lane: Lane,
    slot: SessionSlot,
    /// The epoch of the last call; recovery names it, so that of many workers that
    /// lost the same login only one climbs the ladder.
    epoch: u64,
}

impl Pkcs11Token {
    pub(crate) fn new(device: Arc<Device>, lane: Lane, slot: SessionSlot) -> Self {
        let epoch = device.epoch();
        Self {
            device,
            lane,
            slot,
            epoch,
        }
    }

    fn with<T>(&mut self, call: impl FnOnce(&At<'_>) -> Result<T>) -> Result<T> {
        self.epoch = self.device.epoch();
        let device = &self.device;
        device.with_session(self.lane, &self.slot, |connection, session| {
            call(&At {
                device,
                connection,
                session,
            })
        })
    }
}

impl Token for Pkcs11Token {
    fn wrap(&mut self, key: &KeyRef, aad: &[u8], dek: &Dek) -> Result<WrappedDek> {
        self.with(|at| {
            let handle = at.resolve(key)?;
            at.seal(handle, aad, dek.expose())
                .map_err(|rv| at.settle("C_Encrypt", rv, key, handle))
        })
    }

    fn unwrap(&mut self, key: &KeyRef, aad: &[u8], wrapped: &WrappedDek) -> Result<Dek> {
        self.with(|at| {
            let handle = at.resolve(key)?;
            at.open(handle, aad, wrapped)
                .map_err(|rv| at.settle("C_Decrypt", rv, key, handle))
        })
    }

    fn sign(&mut self, key: &KeyRef, how: Signing, input: &[u8]) -> Result<Vec<u8>> {
        self.with(|at| {
            let handle = at.resolve(key)?;
            at.sign(handle, key.spec, how, input)?.map_err(|rv| {
                if parameters_refused(rv) {
                    cannot(&format!("{how:?}"))
                } else {
                    at.settle("C_Sign", rv, key, handle)
                }
            })
        })
    }

    fn mac(&mut self, key: &KeyRef, message: &[u8]) -> Result<Vec<u8>> {
        let KeySpec::Hmac(hash) = key.spec else {
            return Err(not_for(key.spec, "HMAC"));
        };
        self.with(|at| {
            let handle = at.resolve(key)?;
            at.mac(handle, hash, message)
                .map_err(|rv| at.settle("C_Sign", rv, key, handle))
        })
    }

    fn decrypt(
        &mut self,
        key: &KeyRef,
        how: Oaep,
        ciphertext: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>> {
        let KeySpec::RsaDecrypt(bits) = key.spec else {
            return Err(not_for(key.spec, "RSA-OAEP"));
        };
        of_its_length(bits, ciphertext)?;
        self.with(|at| {
            let handle = at.resolve(key)?;
            at.decrypt(handle, how, ciphertext).map_err(|rv| {
                if parameters_refused(rv) {
                    cannot(&format!("CKM_RSA_PKCS_OAEP with {}", how.name()))
                } else {
                    at.settle("C_Decrypt", rv, key, handle)
                }
            })
        })
    }

    fn random(&mut self, out: &mut [u8]) -> Result<()> {
        self.with(|at| {
            at.session
                .generate_random_slice(out)
                .map_err(|e| classify::from_cryptoki(&e))
        })
    }

    fn generate(&mut self, id: ObjectId, spec: KeySpec, label: &str) -> Result<NewKey> {
        self.with(|at| at.generate(id, spec, label))
    }

    fn describe(&mut self, key: &KeyRef) -> Result<KeyEvidence> {
        self.with(|at| {
            let handle = at.resolve(key)?;
            Ok(at.evidence(handle, key.object, key.spec))
        })
    }

    fn objects(&mut self) -> Result<Vec<TokenObject>> {
        self.with(|at| at.objects())
    }

    fn destroy(&mut self, id: ObjectId, spec: KeySpec) -> Result<()> {
        self.with(|at| {
            let handle = at.find(id, spec)?.ok_or_else(|| missing(id))?;
            at.device.seat().handles.write().remove(&id);
            at.destroy(handle, id, spec)
        })
    }

    fn data(&mut self) -> Result<Vec<DataObject>> {
        self.with(|at| at.data())
    }

    fn put_data(&mut self, label: &str, value: &[u8]) -> Result<()> {
        self.with(|at| at.put_data(label, value))
    }

    fn check(&mut self, canary: Option<&KeyRef>) -> Result<()> {
        // Requests fail fast while the token is down; the health check is what
        // brings it back, at the pace of the back-off.
        if self.device.seat().state() == State::Down {
            self.epoch = self.device.epoch();
            return Err(Error::new(Kind::Gone, "the HSM is down").with_remedy(Remedy::Module));
        }
        self.with(|at| {
            at.alive()?;
            match canary {
                None => Ok(()),
                Some(key) => {
                    let handle = at.resolve(key)?;
                    at.prove(handle, key)
                }
            }
        })
    }

    fn recover(&mut self, lost: &Error) -> Result<()> {
        let seen = self.epoch;
        let mut rung = lost.remedy();
        loop {
            let climbed = match rung {
                Remedy::None => return Err(lost.clone()),
                Remedy::Session => {
                    self.device.drop_session(&self.slot);
                    Ok(())
                }
                Remedy::Login => self.device.log_in_again(seen),
                Remedy::Module => self.device.restart_module(seen),
            };
            let alive = climbed.and_then(|()| self.with(|at| at.alive()));
            match (alive, rung) {
                (Ok(()), _) => return Ok(()),
                (Err(e), _) if e.kind() == Kind::Blocked => return Err(e),
                (Err(_), Remedy::Session) => rung = Remedy::Login,
                (Err(_), Remedy::Login) => rung = Remedy::Module,
                (Err(e), _) => return Err(e),
            }
        }
    }
}

impl Drop for Pkcs11Token {
    /// Closing a session is a call into the module, too.
    fn drop(&mut self) {
        self.device.drop_session(&self.slot);
    }
}

/// One call: the device, the epoch's connection and this worker's session.
pub(super) struct At<'a> {
    pub(super) device: &'a Device,
    pub(super) connection: &'a Connection,
    pub(super) session: &'a Session,
}

impl At<'_> {
    /// The proved handle of a key in this epoch.
    fn resolve(&self, key: &KeyRef) -> Result<ObjectHandle> {
        if let Some(handle) = self.device.seat().handles.read().get(&key.object) {
            return Ok(*handle);
        }
        self.resolve_anew(key, Remedy::None)
    }

    /// `if_absent`: what may help when the object is not shown.
    fn resolve_anew(&self, key: &KeyRef, if_absent: Remedy) -> Result<ObjectHandle> {
        let Some(handle) = self.find(key.object, key.spec)? else {
            // A token that is gone shows no objects and no error.
            self.alive()?;
            return Err(missing(key.object).with_remedy(if_absent));
        };
        self.prove(handle, key)?;
        self.stays_inside(handle, key)?;
        let mut handles = self.device.seat().handles.write();
        handles.insert(key.object, handle);
        Ok(handle)
    }

    /// What was seen of the original is not true of every copy.
    fn stays_inside(&self, handle: ObjectHandle, key: &KeyRef) -> Result<()> {
        let evidence = self.evidence(handle, key.object, key.spec);
        if (evidence.sensitive, evidence.extractable) == (Some(true), Some(false)) {
            return Ok(());
        }
        // A token that is gone says nothing about its keys.
        self.alive()?;
        Err(not_itself(key, "it could leave this token"))
    }

    pub(super) fn find(&self, id: ObjectId, spec: KeySpec) -> Result<Option<ObjectHandle>> {
        let found = self
            .session
            .find_objects(&template::by_id(spec, id))
            .map_err(|e| self.unsettled(&classify::from_cryptoki(&e)))?;
        match found.as_slice() {
            [] => Ok(None),
            [one] => Ok(Some(*one)),
            _ => Err(Error::new(
                Kind::OtherKey,
                format!("several objects on the token have CKA_ID {id}; none of them is used"),
            )
            .of_key(id)),
        }
    }

    /// Asks the key for its proof: this handle is that key, and the token works.
    pub(super) fn prove(&self, handle: ObjectHandle, key: &KeyRef) -> Result<()> {
        let by_number = |rv: CK_RV| {
            let refused = || not_itself(key, &rv_name(rv));
            self.no_proof(rv).unwrap_or_else(refused)
        };
        let is_it = match &key.proof {
            KeyProof::Wrapped(wrapped) => {
                let dek = self
                    .open(handle, KeyProof::AAD, wrapped)
                    .map_err(by_number)?;
                dek.expose() == KeyProof::PLAINTEXT
            }
            KeyProof::Tag(tag) => {
                let KeySpec::Hmac(hash) = key.spec else {
                    return Err(not_for(key.spec, "HMAC"));
                };
                let made = self
                    .mac(handle, hash, KeyProof::PLAINTEXT)
                    .map_err(by_number)?;
                made.ct_eq(tag).into()
            }
            KeyProof::Public(public) => self.answers_for(handle, public).map_err(by_number)?,
        };
        if is_it {
            Ok(())
        } else {
            Err(not_itself(key, "another value came out"))
        }
    }

    /// Why a proof could not be asked for; `None`: it was, and this was the answer.
    fn no_proof(&self, rv: CK_RV) -> Option<Error> {
        let rv = classify::from_number(rv)?;
        match classify::classify(rv) {
            // Also what a token answers that is gone.
            Class::Caller | Class::Policy | Class::Ambiguous => self.alive().err(),
            _ => Some(classify::explain("the proof of a key", rv)),
        }
    }

    /// Is the private key behind `handle` the other half of `public`?
    fn answers_for(&self, handle: ObjectHandle, public: &PublicKey) -> Result<bool, CK_RV> {
        let spec = public.spec();
        if let KeySpec::RsaDecrypt(_) = spec {
            // What the token can: SHA-1 is the one hash all of them know.
            let sealed = public
                .encrypt(Oaep::Sha1, KeyProof::PLAINTEXT)
                .map_err(|_| cryptoki_sys::CKR_FUNCTION_FAILED)?;
            let opened = self.decrypt(handle, Oaep::Sha1, &sealed)?;
            return Ok(opened.as_slice() == KeyProof::PLAINTEXT);
        }
        let how = match spec {
            KeySpec::Ed25519 => Signing::Ed25519,
            KeySpec::Ec(_) => Signing::Ecdsa,
            _ => Signing::RsaPkcs1(Hash::Sha256),
        };
        // As long as the digest that goes with it; nobody has a preimage of it.
        let len = match spec {
            KeySpec::Ec(curve) => curve.hash().bytes(),
            _ => KeyProof::PLAINTEXT.len(),
        };
        let input: Vec<u8> = KeyProof::PLAINTEXT
            .iter()
            .copied()
            .cycle()
            .take(len)
            .collect();
        let signature = self
            .sign(handle, spec, how, &input)
            .map_err(|_| cryptoki_sys::CKR_FUNCTION_FAILED)??;
        Ok(public.verify(how, &input, &signature).is_ok())
    }

    fn sign(
        &self,
        handle: ObjectHandle,
        spec: KeySpec,
        how: Signing,
        input: &[u8],
    ) -> Result<Result<Vec<u8>, CK_RV>> {
        let Some((mechanism, params, input)) = mechanism::signing(spec, how, input) else {
            return Err(not_for(spec, "this scheme and input"));
        };
        Ok(self
            .device
            .raw()
            .sign(self.session, mechanism, &params, handle, &input))
    }

    pub(super) fn mac(
        &self,
        handle: ObjectHandle,
        hash: Hash,
        message: &[u8],
    ) -> Result<Vec<u8>, CK_RV> {
        let tag = self.device.raw().sign(
            self.session,
            mechanism::hmac(hash),
            &Params::None,
            handle,
            message,
        )?;
        if tag.len() == hash.bytes() {
            Ok(tag)
        } else {
            Err(cryptoki_sys::CKR_SIGNATURE_LEN_RANGE)
        }
    }

    pub(super) fn decrypt(
        &self,
        handle: ObjectHandle,
        how: Oaep,
        ciphertext: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, CK_RV> {
        self.device.raw().decrypt(
            self.session,
            cryptoki_sys::CKM_RSA_PKCS_OAEP,
            &mechanism::oaep(how),
            handle,
            ciphertext,
        )
    }

    /// Token there, session logged in.
    pub(super) fn alive(&self) -> Result<()> {
        self.device.facts(self.connection)?;
        if logged_in(self.session) {
            Ok(())
        } else {
            Err(Error::new(Kind::Stale, "the session is not logged in").with_remedy(Remedy::Login))
        }
    }

    pub(super) fn seal(
        &self,
        handle: ObjectHandle,
        aad: &[u8],
        dek: &[u8; Dek::LEN],
    ) -> Result<WrappedDek, CK_RV> {
        let mut iv = [0; WrappedDek::IV_LEN];
        os_random(&mut iv).map_err(|_| cryptoki_sys::CKR_FUNCTION_FAILED)?;
        let mut out = [0; HOT_BUFFER];
        let n = self
            .device
            .raw()
            .gcm_encrypt(self.session, handle, &iv, aad, dek, &mut out)?;
        let sealed = out
            .get(..n)
            .and_then(|s| s.first_chunk())
            .filter(|_| n == WrappedDek::LEN - WrappedDek::IV_LEN);
        sealed
            .map(|sealed| WrappedDek::join(&iv, sealed))
            .ok_or(cryptoki_sys::CKR_BUFFER_TOO_SMALL)
    }

    pub(super) fn open(
        &self,
        handle: ObjectHandle,
        aad: &[u8],
        wrapped: &WrappedDek,
    ) -> Result<Dek, CK_RV> {
        let (iv, sealed) = wrapped.parts();
        let mut out = [0; HOT_BUFFER];
        let n = self
            .device
            .raw()
            .gcm_decrypt(self.session, handle, iv, aad, sealed, &mut out);
        let dek = match n {
            Ok(Dek::LEN) => out.first_chunk_mut().map(Dek::take),
            _ => None,
        };
        out.zeroize();
        n?;
        dek.ok_or(cryptoki_sys::CKR_BUFFER_TOO_SMALL)
    }

    /// What a refusal of the hot path means, after a second look.
    fn settle(&self, function: &str, rv: CK_RV, key: &KeyRef, handle: ObjectHandle) -> Error {
        let Some(rv) = classify::from_number(rv) else {
            return Error::new(Kind::Fault, format!("{function} failed without a reason"));
        };
        match classify::classify(rv) {
            Class::Ambiguous => match self.prove(handle, key) {
                Ok(()) if function == "C_Decrypt" => {
                    Error::new(Kind::Refused, "this key did not wrap these bytes")
                }
                Ok(()) => classify::explain(function, rv),
                Err(_) => classify::explain(function, rv).with_remedy(Remedy::Session),
            },
            Class::Handle => self.lost_handle(function, rv, key),
            _ => self.unsettled(&classify::explain(function, rv)),
        }
    }

    /// The handle died: with the login, with the token, or alone.
    fn lost_handle(&self, function: &str, rv: RvError, key: &KeyRef) -> Error {
        self.device.seat().handles.write().remove(&key.object);
        if let Err(e) = self.alive() {
            return e;
        }
        // It was there in this epoch; if it is not there now, the module may have
        // lost sight of its token.
        match self.resolve_anew(key, Remedy::Module) {
            Ok(_) => classify::explain(function, rv),
            Err(e) => e,
        }
    }

    /// An ambiguous answer where no key is at hand to prove anything.
    pub(super) fn unsettled(&self, e: &Error) -> Error {
        if e.remedy() != Remedy::None || e.kind() != Kind::Fault {
            return e.clone();
        }
        self.alive().err().unwrap_or_else(|| e.clone())
    }
}

/// Tokens answer other lengths with anything (SoftHSM: CKR_BUFFER_TOO_SMALL, and the
/// operation stays open).
pub(super) fn of_its_length(bits: RsaBits, ciphertext: &[u8]) -> Result<()> {
    if ciphertext.len() == bits.bytes() {
        Ok(())
    } else {
        Err(Error::new(Kind::Refused, "not encrypted to this key"))
    }
}

/// The mechanism is there (it was probed when the key was made), these parameters are
/// not.
fn parameters_refused(rv: CK_RV) -> bool {
    use cryptoki_sys as ck;
    rv == ck::CKR_MECHANISM_PARAM_INVALID || rv == ck::CKR_ARGUMENTS_BAD
}

fn not_itself(key: &KeyRef, why: &str) -> Error {
    let id = key.object;
    let text = format!("the object with CKA_ID {id} is not the key it should be: {why}");
    // A broken session could say so, too.
    Error::new(Kind::OtherKey, text)
        .of_key(id)
        .with_remedy(Remedy::Session)
}

fn rv_name(rv: CK_RV) -> String {
    classify::from_number(rv).map_or_else(String::new, classify::name)
}

fn cannot(what: &str) -> Error {
    Error::new(Kind::Unsupported, format!("this token cannot do {what}"))
}

pub(super) fn not_for(spec: KeySpec, what: &str) -> Error {
    Error::new(
        Kind::Unsupported,
        format!("a key of {spec:?} is not for {what}"),
    )
}

fn missing(id: ObjectId) -> Error {
    Error::new(
        Kind::NoSuchKey,
        format!("the token shows no key with CKA_ID {id}; Keywright deleted nothing"),
    )
    .of_key(id)
}
