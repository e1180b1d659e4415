//! The key of an ACME account: a JSON Web Key (RFC 7517) that passed the same key policy
//! as every certified key, and its thumbprint (RFC 7638).

use keywright_pki::{KeyKind, SubjectKey};
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{Problem, ProblemKind, decode64, encode64};

/// A public key that signs requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountKey {
    canonical: String,
    key: SubjectKey,
}

/// Members that matter; what else is in a JWK is not looked at, a private part is refused.
#[derive(Deserialize)]
struct Raw {
    kty: String,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
    n: Option<String>,
    e: Option<String>,
    d: Option<serde::de::IgnoredAny>,
}

/// SubjectPublicKeyInfo up to the point's octets (RFC 5480 §2, RFC 8410 §4).
const P256: &[u8] = b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00\x04";
const P384: &[u8] = b"\x30\x76\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x22\x03\x62\x00\x04";
const ED25519: &[u8] = b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";
/// `AlgorithmIdentifier` of rsaEncryption with its NULL (RFC 3279 §2.3.1).
const RSA: &[u8] = b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00";
/// Octets of a 4096-bit modulus and a zero in front.
const MAX_INTEGER: usize = 513;

fn bad(text: impl Into<String>) -> Problem {
    Problem::new(ProblemKind::BadPublicKey, text)
}

impl AccountKey {
    /// Reads a JWK.
    ///
    /// # Errors
    /// [`ProblemKind::BadPublicKey`].
    pub fn from_jwk(jwk: &Value) -> Result<Self, Problem> {
        let raw = Raw::deserialize(jwk).map_err(|e| bad(format!("the JWK cannot be read: {e}")))?;
        if raw.d.is_some() {
            return Err(bad(
                "the JWK holds a private key; that key is lost, make another",
            ));
        }
        let field = |value: &Option<String>, name: &str| {
            let bytes = value.as_deref().and_then(decode64);
            bytes.ok_or_else(|| bad(format!("the JWK's {name} is missing or not base64url")))
        };
        let (spki, canonical) = match (raw.kty.as_str(), raw.crv.as_deref()) {
            ("EC", Some(crv @ ("P-256" | "P-384"))) => {
                let (prefix, len) = if crv == "P-256" {
                    (P256, 32)
                } else {
                    (P384, 48)
                };
                let (x, y) = (field(&raw.x, "x")?, field(&raw.y, "y")?);
                if x.len() != len || y.len() != len {
                    return Err(bad(format!("x and y of {crv} have {len} octets")));
                }
                let (cx, cy) = (encode64(&x), encode64(&y));
                let canonical = format!(r#"{{"crv":"{crv}","kty":"EC","x":"{cx}","y":"{cy}"}}"#);
                ([prefix, &x, &y].concat(), canonical)
            }
            ("OKP", Some("Ed25519")) => {
                let x = field(&raw.x, "x")?;
                if x.len() != 32 {
                    return Err(bad("x of Ed25519 has 32 octets"));
                }
                let canonical =
                    format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, encode64(&x));
                ([ED25519, &x].concat(), canonical)
            }
            ("RSA", _) => {
                let (n, e) = (field(&raw.n, "n")?, field(&raw.e, "e")?);
                let canonical = format!(
                    r#"{{"e":"{}","kty":"RSA","n":"{}"}}"#,
                    encode64(&e),
                    encode64(&n)
                );
                (rsa_spki(&n, &e)?, canonical)
            }
            (kty, _) => {
                return Err(bad(format!(
                    "keys of type {kty:?} (or on that curve) are not read; use P-256, P-384, Ed25519 or RSA"
                )));
            }
        };
        let key = SubjectKey::from_spki(&spki).map_err(|e| bad(e.to_string()))?;
        Ok(Self { canonical, key })
    }

    /// Reads what [`canonical`](Self::canonical) wrote.
    #[must_use]
    pub fn parse(canonical: &str) -> Option<Self> {
        let key = Self::from_jwk(&serde_json::from_str(canonical).ok()?).ok()?;
        (key.canonical == canonical).then_some(key)
    }

    /// The members that count, sorted, without spaces (RFC 7638 §3).
    #[must_use]
    pub fn canonical(&self) -> &str {
        &self.canonical
    }

    /// SHA-256 of it in base64url: half of every key authorisation (RFC 8555 §8.1).
    #[must_use]
    pub fn thumbprint(&self) -> String {
        encode64(&Sha256::digest(self.canonical.as_bytes()))
    }

    /// The key in DER.
    #[must_use]
    pub fn spki(&self) -> &[u8] {
        self.key.spki()
    }

    /// SHA-256 of the DER.
    #[must_use]
    pub fn spki_sha256(&self) -> [u8; 32] {
        self.key.spki_sha256()
    }

    /// Kind and size.
    #[must_use]
    pub fn kind(&self) -> KeyKind {
        self.key.kind()
    }
}

fn rsa_spki(n: &[u8], e: &[u8]) -> Result<Vec<u8>, Problem> {
    if n.len() > MAX_INTEGER || e.len() > 8 {
        return Err(bad(
            "RSA keys have 2048, 3072 or 4096 bits and exponent 65537",
        ));
    }
    // Minimal octets (RFC 7518 §6.3.1): else one key would have two thumbprints.
    if n.first().is_none_or(|b| *b == 0) || e.first().is_none_or(|b| *b == 0) {
        return Err(bad("n and e of a JWK have no zero octets in front"));
    }
    let key = tlv(0x30, &[integer(n), integer(e)].concat());
    Ok(tlv(
        0x30,
        &[RSA.to_vec(), tlv(0x03, &[&[0], key.as_slice()].concat())].concat(),
    ))
}

fn integer(value: &[u8]) -> Vec<u8> {
    match value.first() {
        Some(first) if *first >= 0x80 => tlv(0x02, &[&[0], value].concat()),
        _ => tlv(0x02, value),
    }
}

/// DER with a length below 65536, which everything here has.
fn tlv(tag: u8, value: &[u8]) -> Vec<u8> {
    let [.., high, low] = value.len().to_be_bytes();
    let mut out = vec![tag];
    match (high, low) {
        (0, low @ 0..0x80) => out.push(low),
        (0, low) => out.extend([0x81, low]),
        (high, low) => out.extend([0x82, high, low]),
    }
    out.extend(value);
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// The example of RFC 7638 §3.1; its thumbprint is printed there.
    #[test]
    fn the_thumbprint_is_that_of_the_standard() {
        let n = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw";
        let jwk = json!({"kty": "RSA", "n": n, "e": "AQAB", "alg": "RS256", "kid": "2011-04-29"});
        let key = AccountKey::from_jwk(&jwk).unwrap();
        assert_eq!(
            key.thumbprint(),
            "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"
        );
        assert_eq!(AccountKey::parse(key.canonical()), Some(key));
    }

    #[test]
    fn hostile_keys_are_refused() {
        let x = encode64(&[1; 32]);
        for jwk in [
            json!({"kty": "EC", "crv": "P-256", "x": x, "y": x}),
            json!({"kty": "EC", "crv": "P-521", "x": x, "y": x}),
            json!({"kty": "EC", "crv": "P-256", "x": encode64(&[1; 31]), "y": x}),
            json!({"kty": "oct", "k": x}),
            json!({"kty": "RSA", "n": encode64(&[0xff; 64]), "e": "AQAB"}),
            json!({"kty": "RSA", "n": encode64(&[0xff; 256]), "e": "Aw"}),
            json!({"kty": "RSA", "n": "AQ=="}),
            json!({"kty": "OKP", "crv": "Ed25519", "x": x, "d": x}),
            json!({"kty": "OKP", "crv": "Ed25519", "x": encode64(&[1; 33])}),
            json!([]),
            json!(null),
        ] {
            let e = AccountKey::from_jwk(&jwk).unwrap_err();
            assert_eq!(e.kind(), ProblemKind::BadPublicKey, "{jwk}");
        }
    }

    proptest! {
        #[test]
        fn no_numbers_panic(n: Vec<u8>, e: Vec<u8>) {
            let _ = AccountKey::from_jwk(&json!({"kty": "RSA", "n": encode64(&n), "e": encode64(&e)}));
        }
    }
}
