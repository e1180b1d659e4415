//! A signed request: a JWS in flattened JSON (RFC 7515 §7.2.2) as RFC 8555 §6.2 narrows
//! it. Read in one step, believed in another: nothing of it counts before
//! [`Jws::verify`].

use aws_lc_rs::hmac;
use keywright_pki::{Algorithm, KeyKind, ecdsa_to_der};
use serde::Deserialize;
use serde_json::Value;

use super::{AccountKey, Problem, ProblemKind, decode64};

/// What requests may be signed with; the `algorithms` of a refusal.
pub(super) const ALGORITHMS: [&str; 4] = ["ES256", "ES384", "EdDSA", "RS256"];

/// Whose key is said to have signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signer {
    /// A key that came along.
    Key(AccountKey),
    /// An account's URL; in an external account binding the id of the MAC key.
    Account(String),
}

/// A request as it came, its parts decoded.
#[derive(Clone)]
pub struct Jws {
    alg: String,
    nonce: Option<String>,
    url: String,
    signer: Signer,
    payload: Vec<u8>,
    signed: String,
    signature: Vec<u8>,
}

impl std::fmt::Debug for Jws {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Jws({} for {})", self.alg, self.url)
    }
}

/// The unprotected `header` and the general form's `signatures` are unknown fields here.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Flattened {
    protected: String,
    payload: String,
    signature: String,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    nonce: Option<String>,
    url: Option<String>,
    jwk: Option<Value>,
    kid: Option<String>,
    crit: Option<Value>,
}

impl Jws {
    /// Reads the body of a request.
    ///
    /// # Errors
    /// [`ProblemKind::Malformed`], or what is wrong with the key in it.
    pub fn parse(body: &[u8]) -> Result<Self, Problem> {
        let flat: Flattened = serde_json::from_slice(body)
            .map_err(|e| Problem::malformed(format!("the body is no flattened JWS: {e}")))?;
        Self::read(flat)
    }

    /// The same of a JWS within another one.
    ///
    /// # Errors
    /// As for [`Jws::parse`].
    pub fn from_value(value: Value) -> Result<Self, Problem> {
        let flat = Flattened::deserialize(value)
            .map_err(|e| Problem::malformed(format!("the inner JWS cannot be read: {e}")))?;
        Self::read(flat)
    }

    fn read(flat: Flattened) -> Result<Self, Problem> {
        let field = |text: &str, name: &str| {
            decode64(text).ok_or_else(|| Problem::malformed(format!("{name} is not base64url")))
        };
        let header: Header = serde_json::from_slice(&field(&flat.protected, "protected")?)
            .map_err(|e| Problem::malformed(format!("the protected header cannot be read: {e}")))?;
        if header.crit.is_some() {
            return Err(Problem::malformed(
                "crit names an extension that is not understood",
            ));
        }
        let signer = match (header.jwk, header.kid) {
            (Some(jwk), None) => Signer::Key(AccountKey::from_jwk(&jwk)?),
            (None, Some(kid)) => Signer::Account(kid),
            _ => {
                return Err(Problem::malformed(
                    "the protected header must have exactly one of jwk and kid",
                ));
            }
        };
        Ok(Self {
            url: header
                .url
                .ok_or_else(|| Problem::malformed("the protected header has no url"))?,
            alg: header.alg,
            nonce: header.nonce,
            signer,
            payload: field(&flat.payload, "payload")?,
            signature: field(&flat.signature, "signature")?,
            signed: format!("{}.{}", flat.protected, flat.payload),
        })
    }

    /// Whose key is said to have signed.
    #[must_use]
    pub fn signer(&self) -> &Signer {
        &self.signer
    }

    /// Where the request was meant to go.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Against replays; none in inner signatures.
    #[must_use]
    pub fn nonce(&self) -> Option<&str> {
        self.nonce.as_deref()
    }

    /// What was signed, when the key says so.
    ///
    /// # Errors
    /// [`ProblemKind::BadSignatureAlgorithm`] when key and `alg` do not fit,
    /// [`ProblemKind::Unauthorized`] when the signature is not of this key.
    pub fn verify(&self, key: &AccountKey) -> Result<&[u8], Problem> {
        let (algorithm, raw) = match (self.alg.as_str(), key.kind()) {
            ("ES256", KeyKind::EcP256) => (Algorithm::EcdsaP256Sha256, Some(64)),
            ("ES384", KeyKind::EcP384) => (Algorithm::EcdsaP384Sha384, Some(96)),
            ("EdDSA", KeyKind::Ed25519) => (Algorithm::Ed25519, None),
            ("RS256", kind) if kind.is_rsa() => (Algorithm::RsaPkcs1Sha256, None),
            (alg, kind) => {
                return Err(Problem::new(
                    ProblemKind::BadSignatureAlgorithm,
                    format!("alg {alg:?} is not offered for a key of kind {kind}"),
                ));
            }
        };
        let wrong = || Problem::new(ProblemKind::Unauthorized, "the signature does not verify");
        let signature = match raw {
            // JWS writes r and s side by side (RFC 7518 §3.4).
            Some(len) if self.signature.len() == len => {
                ecdsa_to_der(&self.signature).ok_or_else(wrong)?
            }
            Some(_) => return Err(wrong()),
            None => self.signature.clone(),
        };
        algorithm
            .verify(key.spki(), self.signed.as_bytes(), &signature)
            .map_err(|_| wrong())?;
        Ok(&self.payload)
    }

    /// What was MACed, when the key says so: an external account binding (RFC 8555
    /// §7.3.4).
    ///
    /// # Errors
    /// As for [`Jws::verify`].
    pub fn verify_mac(&self, key: &[u8]) -> Result<&[u8], Problem> {
        if self.alg != "HS256" {
            return Err(Problem::new(
                ProblemKind::BadSignatureAlgorithm,
                format!(
                    "alg {:?} of the external account binding is not HS256",
                    self.alg
                ),
            ));
        }
        hmac::verify(
            &hmac::Key::new(hmac::HMAC_SHA256, key),
            self.signed.as_bytes(),
            &self.signature,
        )
        .map_err(|_| Problem::new(ProblemKind::Unauthorized, "the MAC does not verify"))?;
        Ok(&self.payload)
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::{
        rand::SystemRandom,
        signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
    };
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::acme::encode64;

    struct Key(EcdsaKeyPair);

    impl Key {
        fn new() -> Self {
            Self(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
        }

        fn jwk(&self) -> Value {
            let point = self.0.public_key().as_ref();
            json!({"kty": "EC", "crv": "P-256", "x": encode64(&point[1..33]), "y": encode64(&point[33..])})
        }

        fn sign(&self, header: &Value, payload: &[u8]) -> Value {
            let protected = encode64(header.to_string().as_bytes());
            let payload = encode64(payload);
            let signed = format!("{protected}.{payload}");
            let signature = self
                .0
                .sign(&SystemRandom::new(), signed.as_bytes())
                .unwrap();
            json!({"protected": protected, "payload": payload, "signature": encode64(signature.as_ref())})
        }
    }

    fn parse(value: &Value) -> Result<Jws, Problem> {
        Jws::parse(value.to_string().as_bytes())
    }

    fn key_of(jws: &Jws) -> AccountKey {
        match jws.signer() {
            Signer::Key(key) => key.clone(),
            Signer::Account(_) => panic!("kid"),
        }
    }

    #[test]
    fn a_good_request_says_what_was_signed() {
        let key = Key::new();
        let header = json!({"alg": "ES256", "jwk": key.jwk(), "nonce": "n", "url": "https://a/b"});
        let jws = parse(&key.sign(&header, b"{}")).unwrap();
        assert_eq!(jws.verify(&key_of(&jws)).unwrap(), b"{}");
        assert_eq!((jws.nonce(), jws.url()), (Some("n"), "https://a/b"));
    }

    #[test]
    fn hostile_requests_are_refused() {
        let key = Key::new();
        let jwk = key.jwk();
        let good = json!({"alg": "ES256", "jwk": jwk, "nonce": "n", "url": "u"});
        let with = |name: &str, value: Value| {
            let mut header = good.clone();
            header[name] = value;
            header
        };
        for header in [
            with("kid", json!("u")),
            with("crit", json!(["b64"])),
            with("crit", json!([])),
            with("jwk", Value::Null),
            with("url", Value::Null),
            json!({"jwk": jwk, "url": "u"}),
        ] {
            assert!(parse(&key.sign(&header, b"")).is_err(), "{header}");
        }
        for alg in ["none", "HS256", "ES384", "RS256", "es256", ""] {
            let jws = parse(&key.sign(&with("alg", json!(alg)), b"")).unwrap();
            let e = jws.verify(&key_of(&jws)).unwrap_err();
            assert_eq!(e.kind(), ProblemKind::BadSignatureAlgorithm, "{alg}");
        }
        let mut body = key.sign(&good, b"x");
        for (field, value) in [("header", json!({})), ("signatures", json!([]))] {
            let mut more = body.clone();
            more[field] = value;
            assert!(parse(&more).is_err(), "{field}");
        }
        let twice = format!(r#"{{"alg":"ES256","alg":"none","jwk":{jwk},"url":"u"}}"#);
        let mut doubled = body.clone();
        doubled["protected"] = json!(encode64(twice.as_bytes()));
        assert!(parse(&doubled).is_err());
        body["payload"] = json!(encode64(b"y"));
        let jws = parse(&body).unwrap();
        assert_eq!(
            jws.verify(&key_of(&jws)).unwrap_err().kind(),
            ProblemKind::Unauthorized
        );
        // Somebody else's key, and a signature of zeros.
        let other = AccountKey::from_jwk(&Key::new().jwk()).unwrap();
        let mut body = key.sign(&good, b"x");
        assert!(parse(&body).unwrap().verify(&other).is_err());
        body["signature"] = json!(encode64(&[0; 64]));
        let jws = parse(&body).unwrap();
        assert!(jws.verify(&key_of(&jws)).is_err());
    }

    #[test]
    fn a_mac_is_checked_whole() {
        let signed = |alg: &str, key: &[u8], cut: usize| {
            let protected = encode64(
                json!({"alg": alg, "kid": "k", "url": "u"})
                    .to_string()
                    .as_bytes(),
            );
            let payload = encode64(b"p");
            let key = hmac::Key::new(hmac::HMAC_SHA256, key);
            let tag = hmac::sign(&key, format!("{protected}.{payload}").as_bytes());
            let tag = encode64(&tag.as_ref()[..32 - cut]);
            parse(&json!({"protected": protected, "payload": payload, "signature": tag})).unwrap()
        };
        assert_eq!(signed("HS256", b"key", 0).verify_mac(b"key").unwrap(), b"p");
        assert!(signed("HS256", b"key", 0).verify_mac(b"other").is_err());
        assert!(signed("HS256", b"key", 1).verify_mac(b"key").is_err());
        assert!(signed("HS512", b"key", 0).verify_mac(b"key").is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(body: Vec<u8>, header: Vec<u8>, payload: String) {
            let _ = Jws::parse(&body);
            let flat = json!({"protected": encode64(&header), "payload": payload, "signature": payload});
            let _ = Jws::parse(flat.to_string().as_bytes());
        }
    }
}
