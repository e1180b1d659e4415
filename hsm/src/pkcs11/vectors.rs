//! A door for published test vectors: keys that everybody knows go in as session objects,
//! and what the token makes of them comes out. For tests only.
//!
//! Why it exists: Project Wycheproof's vectors come with their keys, and Keywright never
//! imports a key, so there is no other way to hold the token, and our own way of asking
//! it, against them. Everything here goes through the functions that real keys go
//! through: the same C calls, the same mechanisms and parameters. The one call that the
//! product does not make is C_Verify: Keywright verifies in process (`public`).
//!
//! Why the daemon cannot have it: it stands behind the feature `vectors`, which only
//! `softhsm-tests` asks for; `service/tests/architecture.rs` asks cargo what `cargo build`
//! and the daemon alone are built with. A release build with the feature does not compile.
//! (`cargo test --workspace` makes one crate for all its members, so the debug daemon it
//! leaves behind contains this code and, like `fake`, nothing that calls it.) And nothing
//! stays: session objects die with their session (PKCS#11 v3.0 §4.4, CKA_TOKEN).

#[cfg(not(debug_assertions))]
compile_error!("the feature `vectors` imports keys: it is for tests, never for a release");

use std::sync::Arc;

use cryptoki::object::{Attribute, KeyType, ObjectClass, ObjectHandle};
use cryptoki_sys::CK_RV;
use parking_lot::Mutex;

use super::{
    classify,
    device::Device,
    mechanism,
    module::SessionSlot,
    params::Params,
    raw::SLACK,
    session::{At, of_its_length},
    template,
};
use crate::{Dek, KeySpec, Lane, Oaep, Result, Signing, WrappedDek, error::Error};

/// One session of an open token, for keys that everybody knows.
pub struct Vectors {
    device: Arc<Device>,
    slot: SessionSlot,
}

/// A key of a vector, numbers big-endian.
#[derive(Clone, Copy)]
pub enum Known<'a> {
    /// AES or HMAC.
    Secret(&'a [u8]),
    /// An uncompressed point, or the 32 bytes of an Ed25519 key: verification.
    Point(&'a [u8]),
    /// Modulus and exponent: verification.
    RsaPublic([&'a [u8]; 2]),
    /// n, e, d, p, q, d mod p-1, d mod q-1, 1/q mod p (RFC 8017 §3.2): decryption.
    RsaPrivate([&'a [u8]; 8]),
}

/// A known key in the token, for as long as the session lives.
#[derive(Debug, Clone, Copy)]
pub struct Imported {
    spec: KeySpec,
    handle: ObjectHandle,
}

/// What came out, or why nothing did.
pub type Answer<T> = std::result::Result<T, Refusal>;

/// Why nothing came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The token said this; a CKR name.
    Token(String),
    /// The token was not asked: our own check in front of it said no.
    Ours(String),
}

impl Vectors {
    /// A session of its own on `device`.
    #[must_use]
    pub fn on(device: &Arc<Device>) -> Self {
        Self {
            device: Arc::clone(device),
            slot: Arc::new(Mutex::new(None)),
        }
    }

    /// C_CreateObject of a session object that has the one right its use needs.
    ///
    /// # Errors
    /// What the token says.
    pub fn import(&self, spec: KeySpec, key: Known<'_>) -> Result<Imported> {
        let template = known_key(spec, key);
        self.device
            .with_session(Lane::Work, &self.slot, |_, session| {
                session
                    .create_object(&template)
                    .map(|handle| Imported { spec, handle })
                    .map_err(|e| classify::from_cryptoki(&e))
            })
    }

    /// C_DestroyObject.
    ///
    /// # Errors
    /// What the token says.
    pub fn forget(&self, key: Imported) -> Result<()> {
        self.device
            .with_session(Lane::Work, &self.slot, |_, session| {
                session
                    .destroy_object(key.handle)
                    .map_err(|e| classify::from_cryptoki(&e))
            })
    }

    /// AES-GCM as DEKs are wrapped, but with the vector's IV: ciphertext and tag.
    ///
    /// # Errors
    /// The token's refusal.
    pub fn gcm_seal(
        &self,
        key: Imported,
        iv: &[u8; WrappedDek::IV_LEN],
        aad: &[u8],
        plaintext: &[u8],
    ) -> Answer<Vec<u8>> {
        self.ask(|at| {
            let mut out = vec![0; plaintext.len() + WrappedDek::TAG_LEN + SLACK];
            let n = at
                .device
                .raw()
                .gcm_encrypt(at.session, key.handle, iv, aad, plaintext, &mut out)?;
            out.truncate(n);
            Ok(out)
        })
    }

    /// AES-GCM as DEKs are unwrapped; what is as long as a wrapped DEK is opened as one.
    ///
    /// # Errors
    /// The token's refusal.
    pub fn gcm_open(
        &self,
        key: Imported,
        iv: &[u8; WrappedDek::IV_LEN],
        aad: &[u8],
        sealed: &[u8],
    ) -> Answer<Vec<u8>> {
        self.ask(|at| {
            if let Ok(dek) = <&[u8; Dek::LEN + WrappedDek::TAG_LEN]>::try_from(sealed) {
                let wrapped = WrappedDek::join(iv, dek);
                let dek = at.open(key.handle, aad, &wrapped)?;
                return Ok(dek.expose().to_vec());
            }
            let mut out = vec![0; sealed.len() + SLACK];
            let n = at
                .device
                .raw()
                .gcm_decrypt(at.session, key.handle, iv, aad, sealed, &mut out)?;
            out.truncate(n);
            Ok(out)
        })
    }

    /// HMAC of the message, full length.
    ///
    /// # Errors
    /// The token's refusal; ours for another key.
    pub fn mac(&self, key: Imported, message: &[u8]) -> Answer<Vec<u8>> {
        let KeySpec::Hmac(hash) = key.spec else {
            return Err(Refusal::Ours("not an HMAC key".into()));
        };
        self.ask(|at| at.mac(key.handle, hash, message))
    }

    /// RSA-OAEP.
    ///
    /// # Errors
    /// The token's refusal; ours for a ciphertext that is not as long as the modulus.
    pub fn decrypt(&self, key: Imported, how: Oaep, ciphertext: &[u8]) -> Answer<Vec<u8>> {
        let KeySpec::RsaDecrypt(bits) = key.spec else {
            return Err(Refusal::Ours("not a key for RSA-OAEP".into()));
        };
        of_its_length(bits, ciphertext).map_err(ours)?;
        self.ask(|at| {
            at.decrypt(key.handle, how, ciphertext)
                .map(|plain| plain.to_vec())
        })
    }

    /// C_VerifyInit + C_Verify, with the mechanism, the parameters and the form of the
    /// input that C_Sign would get.
    ///
    /// # Errors
    /// The token's refusal; ours when key, scheme and input do not fit.
    pub fn verify(
        &self,
        key: Imported,
        how: Signing,
        input: &[u8],
        signature: &[u8],
    ) -> Answer<()> {
        let (mechanism, params, input): (_, Params, _) =
            mechanism::signing(key.spec, how, input)
                .ok_or_else(|| Refusal::Ours("key, scheme and input do not fit".into()))?;
        self.ask(|at| {
            at.device.raw().verify(
                at.session, mechanism, &params, key.handle, &input, signature,
            )
        })
    }

    fn ask<T>(&self, call: impl FnOnce(&At<'_>) -> Result<T, CK_RV>) -> Answer<T> {
        let answer = self
            .device
            .with_session(Lane::Work, &self.slot, |connection, session| {
                Ok(call(&At {
                    device: &self.device,
                    connection,
                    session,
                }))
            });
        answer.map_err(ours)?.map_err(|rv| {
            let name = classify::from_number(rv).map(classify::name);
            Refusal::Token(name.unwrap_or_else(|| format!("{rv:#x}")))
        })
    }
}

fn ours(e: Error) -> Refusal {
    Refusal::Ours(e.to_string())
}

impl std::fmt::Debug for Vectors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Vectors")
    }
}

/// What C_CreateObject is given (PKCS#11 v3.0 §4.7 to §4.10, mechanisms §2.1 and §2.3).
fn known_key(spec: KeySpec, key: Known<'_>) -> Vec<Attribute> {
    let mut template = vec![
        Attribute::Token(false),
        Attribute::KeyType(template::key_type(spec)),
    ];
    match key {
        Known::Secret(value) => {
            let wraps = spec == KeySpec::Aes256;
            template.extend([
                Attribute::Class(ObjectClass::SECRET_KEY),
                Attribute::Private(true),
                Attribute::Encrypt(wraps),
                Attribute::Decrypt(wraps),
                Attribute::Sign(!wraps),
                Attribute::Value(value.to_vec()),
            ]);
        }
        Known::Point(point) => {
            template.extend([
                Attribute::Class(ObjectClass::PUBLIC_KEY),
                Attribute::Verify(true),
                Attribute::EcPoint(octet_string(point)),
            ]);
            template.extend(template::curve(spec));
        }
        Known::RsaPublic(numbers) => {
            let [n, e] = numbers.map(bare);
            template.extend([
                Attribute::Class(ObjectClass::PUBLIC_KEY),
                Attribute::Verify(true),
                Attribute::Modulus(n),
                Attribute::PublicExponent(e),
            ]);
        }
        Known::RsaPrivate(numbers) => {
            let [n, e, d, p, q, d1, d2, c] = numbers.map(bare);
            template.extend([
                Attribute::Class(ObjectClass::PRIVATE_KEY),
                Attribute::Private(true),
                Attribute::Decrypt(true),
                Attribute::Modulus(n),
                Attribute::PublicExponent(e),
                Attribute::PrivateExponent(d),
                Attribute::Prime1(p),
                Attribute::Prime2(q),
                Attribute::Exponent1(d1),
                Attribute::Exponent2(d2),
                Attribute::Coefficient(c),
            ]);
        }
    }
    debug_assert!(
        key_fits(spec, key),
        "a vector's key of another kind than asked"
    );
    template
}

fn key_fits(spec: KeySpec, key: Known<'_>) -> bool {
    let kind = template::key_type(spec);
    match key {
        Known::Secret(_) => kind == KeyType::AES || kind == KeyType::GENERIC_SECRET,
        Known::Point(_) => kind == KeyType::EC || kind == KeyType::EC_EDWARDS,
        Known::RsaPublic(_) | Known::RsaPrivate(_) => kind == KeyType::RSA,
    }
}

/// DER of an OCTET STRING of up to 127 bytes; 97 are the longest we have.
fn octet_string(point: &[u8]) -> Vec<u8> {
    let len = u8::try_from(point.len()).unwrap_or(u8::MAX);
    [&[4, len], point].concat()
}

/// A number without leading zeros, as PKCS#11 calls a big integer.
fn bare(number: &[u8]) -> Vec<u8> {
    number.iter().copied().skip_while(|b| *b == 0).collect()
}
