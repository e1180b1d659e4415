//! One worker's side of a token: [`Pkcs11Token`].
//!
//! A handle is looked up once per epoch, must be the only object with its CKA_ID,
//! and must open the key's proof before it is used. When the token answers
//! something that could mean anything, the same proof decides between "your bytes
//! are forged" and "the HSM is ill".

use std::sync::Arc;

use cryptoki::{
    error::RvError,
    mechanism::Mechanism,
    object::{Attribute, AttributeType, ObjectHandle},
    session::Session,
};
use cryptoki_sys::CK_RV;
use zeroize::Zeroize;

use super::{
    attack,
    classify::{self, Class},
    device::{Connection, Device, SessionSlot, logged_in},
    raw::HOT_BUFFER,
    template,
};
use crate::{
    Dek, KeyEvidence, KeyProof, KeyRef, KeySpec, Lane, NewKey, ObjectId, Result, State, Token,
    TokenObject, WrappedDek,
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

    fn random(&mut self, out: &mut [u8]) -> Result<()> {
        self.with(|at| {
            at.session
                .generate_random_slice(out)
                .map_err(|e| classify::from_cryptoki(&e))
        })
    }

    fn generate(&mut self, id: ObjectId, spec: KeySpec, label: &str) -> Result<NewKey> {
        let KeySpec::Aes256 = spec;
        self.with(|at| at.generate(id, label))
    }

    fn describe(&mut self, key: &KeyRef) -> Result<KeyEvidence> {
        self.with(|at| {
            let handle = at.resolve(key)?;
            Ok(at.evidence(handle, key.object))
        })
    }

    fn objects(&mut self) -> Result<Vec<TokenObject>> {
        self.with(|at| at.objects())
    }

    fn destroy(&mut self, id: ObjectId) -> Result<()> {
        self.with(|at| {
            let handle = at.find(id)?.ok_or_else(|| missing(id))?;
            at.device.handles.write().remove(&id);
            at.session
                .destroy_object(handle)
                .map_err(|e| classify::from_cryptoki(&e))
        })
    }

    fn check(&mut self, canary: Option<&KeyRef>) -> Result<()> {
        // Requests fail fast while the token is down; the health check is what
        // brings it back, at the pace of the back-off.
        if self.device.state() == State::Down {
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
                    self.slot.lock().take();
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

/// One call: the device, the epoch's connection and this worker's session.
struct At<'a> {
    device: &'a Device,
    connection: &'a Connection,
    session: &'a Session,
}

impl At<'_> {
    /// The proved handle of a key in this epoch.
    fn resolve(&self, key: &KeyRef) -> Result<ObjectHandle> {
        if let Some(handle) = self.device.handles.read().get(&key.object) {
            return Ok(*handle);
        }
        self.resolve_anew(key, Remedy::None)
    }

    /// `if_absent`: what may help when the object is not shown.
    fn resolve_anew(&self, key: &KeyRef, if_absent: Remedy) -> Result<ObjectHandle> {
        let Some(handle) = self.find(key.object)? else {
            // A token that is gone shows no objects and no error.
            self.alive()?;
            return Err(missing(key.object).with_remedy(if_absent));
        };
        self.prove(handle, key)?;
        self.device.handles.write().insert(key.object, handle);
        Ok(handle)
    }

    fn find(&self, id: ObjectId) -> Result<Option<ObjectHandle>> {
        let found = self
            .session
            .find_objects(&template::by_id(id))
            .map_err(|e| self.unsettled(&classify::from_cryptoki(&e)))?;
        match found.as_slice() {
            [] => Ok(None),
            [one] => Ok(Some(*one)),
            _ => Err(Error::new(
                Kind::Fault,
                format!("several objects on the token have CKA_ID {id}; none of them is used"),
            )),
        }
    }

    /// Opens the key's proof: this handle is that key, and the token works.
    fn prove(&self, handle: ObjectHandle, key: &KeyRef) -> Result<()> {
        let wrong = |why: String| {
            Error::new(
                Kind::Fault,
                format!(
                    "the object with CKA_ID {} does not open its proof: {why}",
                    key.object
                ),
            )
            .with_remedy(Remedy::Session)
        };
        let dek = self
            .open(handle, KeyProof::AAD, &key.proof.0)
            .map_err(|rv| {
                wrong(classify::from_number(rv).map_or_else(String::new, classify::name))
            })?;
        if dek.expose() == KeyProof::PLAINTEXT {
            Ok(())
        } else {
            Err(wrong("another value came out".into()))
        }
    }

    /// Token there, session logged in.
    fn alive(&self) -> Result<()> {
        self.device.facts(self.connection)?;
        if logged_in(self.session) {
            Ok(())
        } else {
            Err(Error::new(Kind::Stale, "the session is not logged in").with_remedy(Remedy::Login))
        }
    }

    fn seal(
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
            .raw
            .gcm_encrypt(self.session, handle, &iv, aad, dek, &mut out)?;
        let sealed = out
            .get(..n)
            .and_then(|s| s.first_chunk())
            .filter(|_| n == WrappedDek::LEN - WrappedDek::IV_LEN);
        sealed
            .map(|sealed| WrappedDek::join(&iv, sealed))
            .ok_or(cryptoki_sys::CKR_BUFFER_TOO_SMALL)
    }

    fn open(&self, handle: ObjectHandle, aad: &[u8], wrapped: &WrappedDek) -> Result<Dek, CK_RV> {
        let (iv, sealed) = wrapped.parts();
        let mut out = [0; HOT_BUFFER];
        let n = self
            .device
            .raw
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
        self.device.handles.write().remove(&key.object);
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
    fn unsettled(&self, e: &Error) -> Error {
        if e.remedy() != Remedy::None || e.kind() != Kind::Fault {
            return e.clone();
        }
        self.alive().err().unwrap_or_else(|| e.clone())
    }

    fn generate(&self, id: ObjectId, label: &str) -> Result<NewKey> {
        if self.find(id)?.is_some() {
            return Err(Error::new(
                Kind::Fault,
                format!("an object with CKA_ID {id} exists already; nothing was generated"),
            ));
        }
        let template = template::kek(id, label, self.device.fit());
        let handle = self
            .session
            .generate_key(&Mechanism::AesKeyGen, &template)
            .map_err(|e| self.unsettled(&classify::from_cryptoki(&e)))?;
        self.accept(handle, id).inspect_err(|_| {
            // It was never given a name; leaving it would leave a weak key behind.
            let _ = self.session.destroy_object(handle);
        })
    }

    /// A key counts only after it was read back, attacked and proved.
    fn accept(&self, handle: ObjectHandle, id: ObjectId) -> Result<NewKey> {
        let evidence = self.evidence(handle, id);
        let mut findings: Vec<String> =
            evidence.findings().into_iter().map(str::to_owned).collect();
        findings.extend(
            attack::in_place(&self.device.raw, self.session, handle)
                .into_iter()
                .filter(|a| !a.resisted)
                .map(|a| format!("{} {}: {}", a.id, a.attempt, a.outcome)),
        );
        if !findings.is_empty() {
            return Err(Error::new(
                Kind::Unsafe,
                format!("the new key could leave the token: {}", findings.join("; ")),
            ));
        }
        let sealed = self
            .seal(handle, KeyProof::AAD, KeyProof::PLAINTEXT)
            .map_err(|rv| match classify::from_number(rv) {
                Some(rv) => classify::explain("C_Encrypt", rv),
                None => Error::new(Kind::Fault, "C_Encrypt failed without a reason"),
            })?;
        let key = KeyRef {
            object: id,
            proof: KeyProof(sealed),
        };
        self.prove(handle, &key)?;
        self.device.handles.write().insert(id, handle);
        Ok(NewKey { key, evidence })
    }

    fn evidence(&self, handle: ObjectHandle, id: ObjectId) -> KeyEvidence {
        template::evidence(
            &self.device.raw,
            self.session,
            handle,
            id,
            self.device.fit(),
        )
    }

    fn objects(&self) -> Result<Vec<TokenObject>> {
        self.alive()?;
        let handles = self
            .session
            .find_objects(&template::secret_keys())
            .map_err(|e| self.unsettled(&classify::from_cryptoki(&e)))?;
        Ok(handles.into_iter().map(|h| self.token_object(h)).collect())
    }

    fn token_object(&self, handle: ObjectHandle) -> TokenObject {
        let mut object = TokenObject {
            id: None,
            label: String::new(),
        };
        // A half-written object (SoftHSM after a kill) has neither; it is listed all
        // the same.
        let read = self
            .session
            .get_attributes(handle, &[AttributeType::Id, AttributeType::Label])
            .unwrap_or_default();
        for attribute in read {
            match attribute {
                Attribute::Id(id) => object.id = id.try_into().ok().map(ObjectId),
                Attribute::Label(l) => object.label = String::from_utf8_lossy(&l).into_owned(),
                _ => {}
            }
        }
        object
    }
}

fn missing(id: ObjectId) -> Error {
    Error::new(
        Kind::NoSuchKey,
        format!("the token shows no key with CKA_ID {id}; Keywright deleted nothing"),
    )
}
