//! The life of objects on the token: made and accepted, read back, listed, destroyed.

use cryptoki::{
    mechanism::Mechanism,
    object::{Attribute, AttributeType, ObjectHandle},
};

use super::{
    attack, classify, mechanism,
    session::{At, not_for},
    template,
};
use crate::{
    KeyEvidence, KeyProof, KeyRef, KeySpec, NewKey, ObjectId, Result, TokenObject,
    error::{Error, Kind},
};

impl At<'_> {
    pub(super) fn generate(&self, id: ObjectId, spec: KeySpec, label: &str) -> Result<NewKey> {
        mechanism::listed(spec, &self.device.listed(self.connection))?;
        if self.find(id, spec)?.is_some() {
            return Err(Error::new(
                Kind::Fault,
                format!("an object with CKA_ID {id} exists already; nothing was generated"),
            ));
        }
        let refused = |e| self.unsettled(&classify::from_cryptoki(&e));
        let fit = self.device.fit();
        if !spec.is_pair() {
            let how = match spec {
                KeySpec::Hmac(_) => Mechanism::GenericSecretKeyGen,
                _ => Mechanism::AesKeyGen,
            };
            let template = template::secret(spec, id, label, fit);
            let handle = self
                .session
                .generate_key(&how, &template)
                .map_err(refused)?;
            return self.accept_or_destroy(handle, None, id, spec);
        }
        let how = match spec {
            KeySpec::Ed25519 => Mechanism::EccEdwardsKeyPairGen,
            KeySpec::Ec(_) => Mechanism::EccKeyPairGen,
            _ => Mechanism::RsaPkcsKeyPairGen,
        };
        let (public, private) = template::pair(spec, id, label, fit);
        let (public, private) = self
            .session
            .generate_key_pair(&how, &public, &private)
            .map_err(refused)?;
        self.accept_or_destroy(private, Some(public), id, spec)
    }

    fn accept_or_destroy(
        &self,
        handle: ObjectHandle,
        public: Option<ObjectHandle>,
        id: ObjectId,
        spec: KeySpec,
    ) -> Result<NewKey> {
        self.accept(handle, public, id, spec).inspect_err(|_| {
            // It was never given a name; leaving it would leave a weak key behind.
            let _ = self.destroy(handle, id, spec);
        })
    }

    /// A key counts only after it was read back, attacked and proved.
    fn accept(
        &self,
        handle: ObjectHandle,
        public: Option<ObjectHandle>,
        id: ObjectId,
        spec: KeySpec,
    ) -> Result<NewKey> {
        let evidence = self.evidence(handle, id, spec);
        let mut findings: Vec<String> =
            evidence.findings().into_iter().map(str::to_owned).collect();
        findings.extend(
            attack::in_place(self.device.raw(), self.session, handle, spec)
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
        let key = KeyRef {
            object: id,
            spec,
            proof: self.new_proof(handle, public, spec)?,
        };
        self.prove(handle, &key)?;
        self.device.seat().handles.write().insert(id, handle);
        Ok(NewKey { key, evidence })
    }

    fn new_proof(
        &self,
        handle: ObjectHandle,
        public: Option<ObjectHandle>,
        spec: KeySpec,
    ) -> Result<KeyProof> {
        let failed = |function: &str, rv| match classify::from_number(rv) {
            Some(rv) => classify::explain(function, rv),
            None => Error::new(Kind::Fault, format!("{function} failed without a reason")),
        };
        match (spec, public) {
            (KeySpec::Aes256, _) => self
                .seal(handle, KeyProof::AAD, KeyProof::PLAINTEXT)
                .map(KeyProof::Wrapped)
                .map_err(|rv| failed("C_Encrypt", rv)),
            (KeySpec::Hmac(hash), _) => self
                .mac(handle, hash, KeyProof::PLAINTEXT)
                .map(|tag| KeyProof::Tag(tag.into()))
                .map_err(|rv| failed("C_Sign", rv)),
            (_, Some(public)) => {
                template::public_key(self.session, public, spec).map(KeyProof::Public)
            }
            (_, None) => Err(not_for(spec, "a public half")),
        }
    }

    /// The private half first: without it the public one is harmless.
    pub(super) fn destroy(&self, handle: ObjectHandle, id: ObjectId, spec: KeySpec) -> Result<()> {
        self.session
            .destroy_object(handle)
            .map_err(|e| classify::from_cryptoki(&e))?;
        if spec.is_pair() {
            let publics = self
                .session
                .find_objects(&template::public_by_id(id))
                .map_err(|e| classify::from_cryptoki(&e))?;
            for public in publics {
                self.session
                    .destroy_object(public)
                    .map_err(|e| classify::from_cryptoki(&e))?;
            }
        }
        Ok(())
    }

    pub(super) fn evidence(
        &self,
        handle: ObjectHandle,
        id: ObjectId,
        spec: KeySpec,
    ) -> KeyEvidence {
        template::evidence(
            self.device.raw(),
            self.session,
            handle,
            id,
            spec,
            self.device.fit(),
        )
    }

    pub(super) fn objects(&self) -> Result<Vec<TokenObject>> {
        self.alive()?;
        let mut found = Vec::new();
        for class in template::inner_keys() {
            let handles = self
                .session
                .find_objects(&class)
                .map_err(|e| self.unsettled(&classify::from_cryptoki(&e)))?;
            found.extend(handles.into_iter().map(|h| self.token_object(h)));
        }
        Ok(found)
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
