//! Requests made by hand, so that each can be wrong in one place.

use aws_lc_rs::{
    encoding::AsDer,
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use proptest::prelude::*;

use super::*;
use crate::wire::{Writer, tag};

fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.put(tag, &parts.concat());
    writer.finish()
}

fn oid_der(oid: ObjectIdentifier) -> Vec<u8> {
    tlv(tag::OID, &[oid.as_bytes()])
}

/// An extension with this value; `critical` is left out.
fn extension(oid: ObjectIdentifier, value: &[u8]) -> Vec<u8> {
    tlv(tag::SEQUENCE, &[&oid_der(oid), &tlv(0x04, &[value])])
}

fn attribute(oid: ObjectIdentifier, values: &[&[u8]]) -> Vec<u8> {
    tlv(tag::SEQUENCE, &[&oid_der(oid), &tlv(tag::SET, values)])
}

fn extension_request(extensions: &[Vec<u8>]) -> Vec<u8> {
    let all = tlv(tag::SEQUENCE, &[&extensions.concat()]);
    attribute(EXTENSION_REQUEST, &[&all])
}

fn san(names: &[(u8, &[u8])]) -> Vec<u8> {
    let names: Vec<u8> = names.iter().flat_map(|(tag, v)| tlv(*tag, &[v])).collect();
    extension(SUBJECT_ALT_NAME, &tlv(tag::SEQUENCE, &[&names]))
}

fn common_name_rdn(text: &str) -> Vec<u8> {
    let value = tlv(tag::UTF8_STRING, &[text.as_bytes()]);
    let pair = tlv(tag::SEQUENCE, &[&oid_der(COMMON_NAME), &value]);
    tlv(tag::SET, &[&pair])
}

struct Maker {
    key: EcdsaKeyPair,
    subject: Vec<u8>,
    attributes: Vec<Vec<u8>>,
    algorithm: Vec<u8>,
}

impl Maker {
    fn new(attributes: Vec<Vec<u8>>) -> Self {
        Self {
            key: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap(),
            subject: Vec::new(),
            attributes,
            algorithm: Algorithm::EcdsaP256Sha256.der().to_vec(),
        }
    }

    fn info(&self, attributes: &[Vec<u8>]) -> Vec<u8> {
        let spki = AsDer::as_der(self.key.public_key()).unwrap();
        let subject = tlv(tag::SEQUENCE, &[&self.subject]);
        let attributes = tlv(0xa0, &[&attributes.concat()]);
        tlv(
            tag::SEQUENCE,
            &[VERSION, &subject, spki.as_ref(), &attributes],
        )
    }

    /// `sent` with a signature over `signed`.
    fn join(&self, sent: &[u8], signed: &[u8]) -> Vec<u8> {
        let signature = self.key.sign(&SystemRandom::new(), signed).unwrap();
        let bits = tlv(0x03, &[&[0], signature.as_ref()]);
        tlv(tag::SEQUENCE, &[sent, &self.algorithm, &bits])
    }

    fn der(&self) -> Vec<u8> {
        let info = self.info(&self.attributes);
        self.join(&info, &info)
    }

    fn read(&self) -> Result<Csr, CsrError> {
        Csr::from_der(&self.der())
    }
}

fn asks_for(extensions: &[Vec<u8>]) -> Result<Csr, CsrError> {
    Maker::new(vec![extension_request(extensions)]).read()
}

#[test]
fn key_names_and_common_name_are_taken() {
    let names = san(&[
        (0x82, b"Host.Example"),
        (0x82, b"host.example"),
        (0x87, &[192, 0, 2, 1]),
        (0x86, b"spiffe://td/ns/a/sa/b"),
    ]);
    let mut maker = Maker::new(vec![extension_request(&[names])]);
    maker.subject = common_name_rdn("Host.Example");
    let csr = maker.read().unwrap();
    let texts: Vec<String> = csr.names().iter().map(San::to_string).collect();
    assert_eq!(
        texts,
        [
            "dns:host.example",
            "ip:192.0.2.1",
            "uri:spiffe://td/ns/a/sa/b"
        ]
    );
    assert_eq!(csr.common_name(), Some("Host.Example"));
    assert_eq!(
        csr.key().spki(),
        AsDer::as_der(maker.key.public_key()).unwrap().as_ref()
    );
}

#[test]
fn usages_and_passwords_are_ignored() {
    let password = attribute(CHALLENGE_PASSWORD, &[&tlv(tag::UTF8_STRING, &[b"secret"])]);
    let extensions = [
        extension(KEY_USAGE, b"\x03\x02\x02\x04"),
        extension(EXT_KEY_USAGE, b"\x30\x00"),
        extension(BASIC_CONSTRAINTS, b"\x30\x00"),
        san(&[(0x82, b"a.example")]),
    ];
    let csr = Maker::new(vec![password, extension_request(&extensions)])
        .read()
        .unwrap();
    assert_eq!(csr.names().len(), 1);
    assert!(!format!("{csr:?}").contains("secret"));
    assert!(Maker::new(vec![]).read().unwrap().names().is_empty());
}

#[test]
fn a_ca_is_never_asked_for() {
    let ca = extension(BASIC_CONSTRAINTS, b"\x30\x03\x01\x01\xff");
    assert_eq!(asks_for(&[ca]), Err(CsrError::AsksForCa));
    // TRUE in BER.
    let ber = extension(BASIC_CONSTRAINTS, b"\x30\x03\x01\x01\x01");
    assert!(matches!(asks_for(&[ber]), Err(CsrError::Malformed(_))));
}

#[test]
fn everything_else_is_named_and_refused() {
    let policies = oid("2.5.29.32");
    let got = asks_for(&[extension(policies, b"\x30\x00")]);
    assert_eq!(got, Err(CsrError::Extension(policies)));
    assert!(got.unwrap_err().to_string().contains("2.5.29.32"));

    let vendor = oid("1.3.6.1.4.1.311.13.2.3");
    let got = Maker::new(vec![attribute(vendor, &[])]).read();
    assert_eq!(got, Err(CsrError::Attribute(vendor)));

    let name = san(&[(0x82, b"a.example")]);
    let got = asks_for(&[name.clone(), name.clone()]);
    assert_eq!(got, Err(CsrError::Duplicate(SUBJECT_ALT_NAME)));
    let request = extension_request(&[name]);
    let got = Maker::new(vec![request.clone(), request]).read();
    assert_eq!(got, Err(CsrError::Duplicate(EXTENSION_REQUEST)));

    let mut maker = Maker::new(vec![]);
    maker.subject = [common_name_rdn("a"), common_name_rdn("b")].concat();
    assert_eq!(maker.read(), Err(CsrError::Duplicate(COMMON_NAME)));
}

#[test]
fn every_bad_name_is_told() {
    let hostile: [(u8, &[u8]); 9] = [
        (0x82, b"good.example"),
        (0x82, b"a\0.example"),
        (0x82, b"192.0.2.1"),
        (0x82, b"a.*.example"),
        (0x82, "bücher.example".as_bytes()),
        (0x82, b"a.example."),
        (0x87, &[1, 2, 3]),
        (0x81, b"me@a.example"),
        (
            0x87,
            &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 1],
        ),
    ];
    let Err(CsrError::Names(bad)) = asks_for(&[san(&hostile)]) else {
        panic!("accepted");
    };
    let why: Vec<NameError> = bad.into_iter().map(|(_, why)| why).collect();
    assert_eq!(
        why,
        [
            NameError::Character('\0'),
            NameError::IpText,
            NameError::Wildcard,
            NameError::NotAscii,
            NameError::TrailingDot,
            NameError::IpLength(3),
            NameError::Kind("email"),
            NameError::IpMapped,
        ]
    );
}

#[test]
fn one_hundred_names_and_sixteen_kibibytes() {
    let many = |count: usize| {
        let texts: Vec<String> = (0..count).map(|i| format!("n{i}.example")).collect();
        let names: Vec<(u8, &[u8])> = texts.iter().map(|t| (0x82, t.as_bytes())).collect();
        asks_for(&[san(&names)])
    };
    assert_eq!(many(100).unwrap().names().len(), 100);
    assert_eq!(many(101), Err(CsrError::TooManyNames(101)));
    let got = Csr::from_der(&vec![0x30; Csr::MAX_LEN + 1]);
    assert_eq!(got, Err(CsrError::TooLarge(Csr::MAX_LEN + 1)));
}

#[test]
fn bytes_after_it_or_changed_in_it_are_refused() {
    let maker = Maker::new(vec![extension_request(&[san(&[(0x82, b"a.example")])])]);
    let der = maker.der();
    assert!(Csr::from_der(&der).is_ok());
    assert!(Csr::from_der(&[der.as_slice(), &[0]].concat()).is_err());
    assert!(Csr::from_der(&der[..der.len() - 1]).is_err());
    for at in 0..der.len() {
        let mut altered = der.clone();
        altered[at] ^= 1;
        assert!(Csr::from_der(&altered).is_err(), "byte {at}");
    }
}

/// The signature is over what was sent. A SET in another order than DER's is one that
/// re-encoding would sort: then the wrong bytes would be verified.
#[test]
fn the_signature_is_over_the_received_bytes() {
    let password = attribute(CHALLENGE_PASSWORD, &[&tlv(tag::UTF8_STRING, &[b"p"])]);
    let request = extension_request(&[san(&[(0x82, b"a.example")])]);
    let maker = Maker::new(vec![]);
    let unsorted = maker.info(&[request.clone(), password.clone()]);
    let sorted = maker.info(&[password, request]);
    assert_ne!(unsorted, sorted);
    assert!(Csr::from_der(&maker.join(&unsorted, &unsorted)).is_ok());
    let got = Csr::from_der(&maker.join(&unsorted, &sorted));
    assert_eq!(got, Err(CsrError::NotPossessed));
}

#[test]
fn weak_and_foreign_algorithms_are_refused() {
    // ecdsa-with-SHA1; sha1WithRSAEncryption; ecdsa-with-SHA256 and NULL.
    for (algorithm, name) in [
        (
            &b"\x30\x09\x06\x07\x2a\x86\x48\xce\x3d\x04\x01"[..],
            "1.2.840.10045.4.1",
        ),
        (
            b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x05\x05\x00",
            "1.2.840.113549.1.1.5",
        ),
        (
            b"\x30\x0c\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02\x05\x00",
            "1.2.840.10045.4.3.2",
        ),
    ] {
        let mut maker = Maker::new(vec![]);
        maker.algorithm = algorithm.to_vec();
        assert_eq!(maker.read(), Err(CsrError::Algorithm(name.to_owned())));
    }
    // Right identifiers, but of another key or another hash.
    for algorithm in Algorithm::ALL {
        let mut maker = Maker::new(vec![]);
        maker.algorithm = algorithm.der().to_vec();
        let fine = algorithm == Algorithm::EcdsaP256Sha256;
        assert_eq!(maker.read().is_ok(), fine, "{algorithm:?}");
    }
}

#[test]
fn requests_of_another_maker_are_read() {
    use rcgen::{CertificateParams, KeyPair};
    for algorithm in [
        &rcgen::PKCS_ECDSA_P256_SHA256,
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_ED25519,
        &rcgen::PKCS_RSA_SHA256,
    ] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let params = CertificateParams::new(["a.example".to_owned()]).unwrap();
        let request = params.serialize_request(&key).unwrap();
        let csr = Csr::from_der(request.der()).unwrap();
        assert_eq!(csr.names(), [San::dns("a.example").unwrap()]);
        assert_eq!(Csr::from_pem(&request.pem().unwrap()).unwrap(), csr);
    }
    assert_eq!(Csr::from_pem("junk"), Err(CsrError::NotPem));
}

/// OpenSSL signs SHA-256 with every curve unless told otherwise; this key is P-384.
#[test]
fn the_request_openssl_makes_by_default_is_read() {
    let csr = Csr::from_pem(P384_BY_OPENSSL).unwrap();
    assert_eq!(csr.key().kind(), crate::KeyKind::EcP384);
    assert_eq!(csr.common_name(), Some("a.example"));
    assert_eq!(csr.names(), [San::dns("a.example").unwrap()]);
}

const P384_BY_OPENSSL: &str = "\
-----BEGIN CERTIFICATE REQUEST-----
MIIBMzCBugIBADAUMRIwEAYDVQQDDAlhLmV4YW1wbGUwdjAQBgcqhkjOPQIBBgUr
gQQAIgNiAASHeAk4XotPGtUWTPuQxsEnFpkMiDcN0g4R437J5Zsyo7JjJDpPog63
p4VLR9NlDXEWdmCtbBPoN9NB/YtxebxzyVSRe66QsTdvUxYYfYtK/TNfC1VpWoGB
4WtCnQB5WpOgJzAlBgkqhkiG9w0BCQ4xGDAWMBQGA1UdEQQNMAuCCWEuZXhhbXBs
ZTAKBggqhkjOPQQDAgNoADBlAjEAqQFExS/begLSMiozBsQMfQvqtbsQCdZkntlC
9U1qqiNpEE2XUr/p+2BeTisdrWz7AjB/BipkDyxGG2k6Rdh7NlMkxuIFFYB3svaA
I4L/fKmx82Shn5xJhEi2TYh1kAvouZw=
-----END CERTIFICATE REQUEST-----";

proptest! {
    #[test]
    fn any_bytes_are_refused_without_a_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        prop_assert!(Csr::from_der(&bytes).is_err());
        prop_assert!(Csr::from_pem(&String::from_utf8_lossy(&bytes)).is_err());
    }

    /// Attributes are read behind a good signature, so the bytes get that far.
    #[test]
    fn any_signed_attribute_is_read_without_a_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..60),
        place in 0..4,
    ) {
        let attribute = match place {
            0 => bytes,
            1 => attribute(EXTENSION_REQUEST, &[&bytes]),
            2 => extension_request(&[bytes]),
            _ => extension_request(&[extension(SUBJECT_ALT_NAME, &bytes)]),
        };
        let _ = Maker::new(vec![attribute]).read();
    }
}
