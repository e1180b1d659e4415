//! Keys that everybody knows, put into the fake to hold it against published vectors.
//! What a real token is asked in their place stands in `pkcs11::vectors`.

use std::sync::Arc;

use aws_lc_rs::{
    encoding::{AsDer, PublicKeyX509Der},
    rsa::PrivateDecryptingKey,
};

use super::{
    FakeDevice, Stored,
    material::{Material, broken, mac},
};
use crate::{
    KeyProof, KeyRef, KeySpec, ObjectId, PublicKey, Result,
    error::{Error, Kind},
};

impl FakeDevice {
    /// A key of which the bytes are given: a secret of any length for HMAC, PKCS#8
    /// (RFC 5208) for RSA decryption.
    ///
    /// # Errors
    /// [`Kind::Unsupported`] for other keys, [`Kind::Refused`] for bytes that are none.
    pub fn plant(&self, spec: KeySpec, bytes: &[u8]) -> Result<KeyRef> {
        let (material, proof) = match spec {
            KeySpec::Hmac(_) => {
                let tag = mac(spec, bytes, KeyProof::PLAINTEXT)?;
                (Material::Secret(bytes.to_vec()), KeyProof::Tag(tag.into()))
            }
            KeySpec::RsaDecrypt(_) => {
                let key = PrivateDecryptingKey::from_pkcs8(bytes)
                    .map_err(|_| Error::new(Kind::Refused, "not an RSA key in PKCS#8"))?;
                let spki: PublicKeyX509Der<'_> = key.public_key().as_der().map_err(|_| broken())?;
                let public = PublicKey::from_spki(spec, spki.as_ref())?;
                (Material::RsaDecrypt(key), KeyProof::Public(public))
            }
            _ => {
                return Err(Error::new(
                    Kind::Unsupported,
                    format!("no key of {spec:?} is planted"),
                ));
            }
        };
        let object = ObjectId::random()?;
        let stored = Stored {
            spec,
            material: Arc::new(material),
            label: "planted".into(),
        };
        self.inner.lock().keys.insert(object, stored);
        Ok(KeyRef {
            object,
            spec,
            proof,
        })
    }
}
