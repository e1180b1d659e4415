//! Software keys and plans for tests. Nothing here is built into the library.

use std::sync::LazyLock;

use aws_lc_rs::{
    encoding::{AsDer, PublicKeyX509Der},
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING,
        ECDSA_P521_SHA512_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256,
        RSA_PSS_SHA256, RsaKeyPair,
    },
};

use crate::{
    Algorithm, Attribute, Certificate, Document, Draft, Eku, IssuerCert, KeyKind, KeyUsage, Kind,
    NameConstraints, Plan, San, Serial, Subject, SubjectKey, Unsigned, Urls,
};

/// 2026-01-01, the present of these tests; nothing looks at a clock.
pub(crate) const NOW: u64 = 1_767_225_600;
pub(crate) const DAY: u64 = 86_400;

pub(crate) enum TestKey {
    Ec(EcdsaKeyPair),
    Rsa(RsaKeyPair),
    Ed(Ed25519KeyPair),
}

/// RSA keys are slow to make: one for the whole run.
static RSA: LazyLock<TestKey> =
    LazyLock::new(|| TestKey::Rsa(RsaKeyPair::generate(KeySize::Rsa3072).unwrap()));

impl TestKey {
    pub(crate) fn new(kind: KeyKind) -> Self {
        match kind {
            KeyKind::EcP256 => Self::ec(&ECDSA_P256_SHA256_ASN1_SIGNING),
            KeyKind::EcP384 => Self::ec(&ECDSA_P384_SHA384_ASN1_SIGNING),
            KeyKind::EcP521 => Self::ec(&ECDSA_P521_SHA512_ASN1_SIGNING),
            KeyKind::Ed25519 => Self::Ed(Ed25519KeyPair::generate().unwrap()),
            _ => panic!("use TestKey::rsa"),
        }
    }

    pub(crate) fn rsa() -> &'static Self {
        &RSA
    }

    fn ec(algorithm: &'static aws_lc_rs::signature::EcdsaSigningAlgorithm) -> Self {
        Self::Ec(EcdsaKeyPair::generate(algorithm).unwrap())
    }

    pub(crate) fn public(&self) -> SubjectKey {
        let der = |key: &dyn AsDer<PublicKeyX509Der<'static>>| {
            SubjectKey::from_spki(key.as_der().unwrap().as_ref()).unwrap()
        };
        match self {
            Self::Ec(key) => der(key.public_key()),
            Self::Rsa(key) => der(key.public_key()),
            Self::Ed(key) => der(key.public_key()),
        }
    }

    pub(crate) fn signature<T: Document>(&self, unsigned: &Unsigned<T>) -> Vec<u8> {
        let (random, tbs) = (SystemRandom::new(), unsigned.tbs());
        match self {
            Self::Ec(key) => key.sign(&random, tbs).unwrap().as_ref().to_vec(),
            Self::Ed(key) => key.sign(tbs).as_ref().to_vec(),
            Self::Rsa(key) => {
                let padding: &dyn aws_lc_rs::signature::RsaEncoding = match unsigned.algorithm() {
                    Algorithm::RsaPssSha256 => &RSA_PSS_SHA256,
                    _ => &RSA_PKCS1_SHA256,
                };
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(padding, &random, tbs, &mut signature).unwrap();
                signature
            }
        }
    }

    pub(crate) fn sign<T: Document>(&self, unsigned: Unsigned<T>) -> T {
        let signature = self.signature(&unsigned);
        unsigned.attach(&signature).unwrap()
    }
}

pub(crate) fn serial(n: u8) -> Serial {
    Serial::from_random([n; 17])
}

pub(crate) fn subject(name: &str) -> Subject {
    Subject::new(&[
        (Attribute::Organization, "Example"),
        (Attribute::CommonName, name),
    ])
    .unwrap()
}

pub(crate) fn ca_plan(key: SubjectKey, path_len: Option<u8>) -> Plan {
    let name = format!("CA {}", path_len.map_or("root".into(), |n| n.to_string()));
    Plan {
        serial: serial(1),
        subject: subject(&name),
        key,
        sans: vec![],
        not_before: NOW - 300,
        not_after: NOW + 3650 * DAY - 301,
        kind: Kind::Ca {
            path_len,
            constraints: NameConstraints::default(),
        },
        urls: Urls::default(),
        ski: true,
    }
}

pub(crate) fn leaf_plan(key: SubjectKey) -> Plan {
    Plan {
        serial: serial(2),
        subject: Subject::empty(),
        key,
        sans: vec![
            San::dns("a.example.com").unwrap(),
            San::dns("*.b.example.com").unwrap(),
            San::ip(&[192, 0, 2, 1]).unwrap(),
            San::uri("spiffe://example.com/ns/a").unwrap(),
        ],
        not_before: NOW - 300,
        not_after: NOW + DAY - 301,
        kind: Kind::Leaf {
            key_usage: KeyUsage::default(),
            ext_key_usage: vec![Eku::ServerAuth, Eku::ClientAuth],
            no_rev_avail: false,
            policies: vec!["2.23.140.1.2.1".parse().unwrap()],
        },
        urls: Urls {
            crl_dp: Some("http://crl.example.com/1.crl".into()),
            ca_issuers: Some("http://crl.example.com/1.cer".into()),
            ocsp: Some("http://ocsp.example.com/".into()),
        },
        ski: true,
    }
}

/// A root and its certificate.
pub(crate) fn root(key: &TestKey) -> (Certificate, IssuerCert) {
    let public = key.public();
    let algorithm = Algorithm::for_key(public.kind());
    let draft = Draft::self_signed(ca_plan(public, None), algorithm).unwrap();
    let certificate = key.sign(draft.lint(NOW).unwrap());
    let issuer = IssuerCert::from_der(certificate.der()).unwrap();
    (certificate, issuer)
}
