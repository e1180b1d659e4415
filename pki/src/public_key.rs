//! A SubjectPublicKeyInfo as others want to read it: PEM (RFC 7468 §13) and JSON Web
//! Key (RFC 7517, 7518 §6, 8037).

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use der::{Decode, Sequence, asn1::UintRef};
use serde_json::{Map, Value, json};
use x509_cert::spki::{ObjectIdentifier, SubjectPublicKeyInfoRef};

/// `-----BEGIN PUBLIC KEY-----`, lines of 64.
#[must_use]
pub fn spki_to_pem(spki: &[u8]) -> String {
    crate::pem::encode("PUBLIC KEY", spki)
}

const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");

#[derive(Sequence)]
struct RsaPublicKey<'a> {
    modulus: UintRef<'a>,
    exponent: UintRef<'a>,
}

/// A JSON Web Key with the given `kid`, `use` (`sig`, `enc`) and `alg`; an empty `alg`
/// is left out. `None` for a key of another kind than ours.
#[must_use]
pub fn spki_to_jwk(spki: &[u8], kid: &str, key_use: &str, alg: &str) -> Option<String> {
    let info = SubjectPublicKeyInfoRef::try_from(spki).ok()?;
    let key = info.subject_public_key.as_bytes()?;
    let b64 = |bytes: &[u8]| Value::from(BASE64_URL_SAFE_NO_PAD.encode(bytes));
    let mut jwk = Map::new();
    if info.algorithm.oid == EC_PUBLIC_KEY {
        let (crv, field) = match info.algorithm.parameters_oid().ok()? {
            P256 => ("P-256", 32),
            P384 => ("P-384", 48),
            _ => return None,
        };
        let (x, y) = key.strip_prefix(&[4])?.split_at_checked(field)?;
        jwk.extend([
            ("kty".to_owned(), json!("EC")),
            ("crv".to_owned(), json!(crv)),
            ("x".to_owned(), b64(x)),
            ("y".to_owned(), b64(y)),
        ]);
    } else if info.algorithm.oid == ED25519 {
        jwk.extend([
            ("kty".to_owned(), json!("OKP")),
            ("crv".to_owned(), json!("Ed25519")),
            ("x".to_owned(), b64(key)),
        ]);
    } else if info.algorithm.oid == RSA {
        let RsaPublicKey { modulus, exponent } = RsaPublicKey::from_der(key).ok()?;
        jwk.extend([
            ("kty".to_owned(), json!("RSA")),
            ("n".to_owned(), b64(modulus.as_bytes())),
            ("e".to_owned(), b64(exponent.as_bytes())),
        ]);
    } else {
        return None;
    }
    jwk.insert("kid".to_owned(), json!(kid));
    jwk.insert("use".to_owned(), json!(key_use));
    if !alg.is_empty() {
        jwk.insert("alg".to_owned(), json!(alg));
    }
    Some(Value::from(jwk).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8032 §7.1 test 1, as RFC 8410 writes it.
    const ED: &[u8] = b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00\xd7\x5a\x98\x01\x82\xb1\x0a\xb7\xd5\x4b\xfe\xd3\xc9\x64\x07\x3a\x0e\xe1\x72\xf3\xda\xa6\x23\x25\xaf\x02\x1a\x68\xf7\x07\x51\x1a";

    #[test]
    fn the_key_of_rfc_8037_is_written_as_there() {
        let jwk = spki_to_jwk(ED, "k", "sig", "EdDSA").unwrap();
        let x = "\"x\":\"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo\"";
        assert!(jwk.contains(x), "{jwk}");
        assert!(jwk.contains("\"kty\":\"OKP\"") && jwk.contains("\"alg\":\"EdDSA\""));
        assert!(spki_to_pem(ED).lines().all(|l| l.len() <= 64));
    }

    #[test]
    fn what_is_no_key_of_ours_gives_nothing() {
        assert_eq!(spki_to_jwk(b"", "k", "sig", ""), None);
        assert_eq!(spki_to_jwk(&ED[..20], "k", "sig", ""), None);
    }
}
