//! Project Wycheproof against the path a caller's signature takes: encoding, scheme,
//! public key. Every case is run or skipped for a reason that is printed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::too_many_lines,
    clippy::useless_vec,
    reason = "this is a test"
)]

use std::collections::BTreeMap;

use keywright_hsm::{Curve, Hash, KeySpec, PssSalt, PublicKey, RsaBits};
use keywright_service::signature::{Algorithm, Asked, Scheme};
use wycheproof::{TestResult, ecdsa, eddsa, rsa_pkcs1_verify, rsa_pss_verify};

#[derive(Default)]
struct Tally {
    run: usize,
    skipped: BTreeMap<String, usize>,
}

impl Tally {
    /// One signature of a set, checked as the service checks it.
    fn case(
        &mut self,
        name: &str,
        key: &PublicKey,
        asked: Asked,
        (msg, sig): (&[u8], &[u8]),
        result: TestResult,
    ) {
        let algorithm = Algorithm::of(key.spec(), asked).unwrap();
        let input = algorithm.input(msg).unwrap();
        let valid = algorithm
            .decode(sig)
            .is_some_and(|sig| key.verify(algorithm.how, &input, &sig).is_ok());
        match result {
            TestResult::Valid => assert!(valid, "{name}: a valid signature was refused"),
            TestResult::Invalid => assert!(!valid, "{name}: a forged signature was accepted"),
            // Old encodings that some accept: a matter of taste, ours is to refuse BER.
            TestResult::Acceptable => {}
        }
        self.run += 1;
    }

    fn skip(&mut self, reason: impl Into<String>, cases: usize) {
        *self.skipped.entry(reason.into()).or_default() += cases;
    }

    fn finish(self, what: &str, at_least: usize) {
        println!("wycheproof {what}: {} cases run", self.run);
        for (reason, cases) in &self.skipped {
            println!("  {cases} skipped: {reason}");
        }
        assert!(self.run >= at_least, "{what}: only {} cases", self.run);
    }
}

fn asked(scheme: Scheme, raw: bool, salt: PssSalt) -> Asked {
    Asked {
        scheme: Some(scheme),
        raw,
        salt,
        digests: false,
    }
}

#[test]
fn ecdsa_der_and_raw() {
    use ecdsa::TestName as Name;
    let mut tally = Tally::default();
    let sets = [
        (Name::EcdsaSecp256r1Sha256, Curve::P256, false),
        (Name::EcdsaSecp256r1Sha256P1363, Curve::P256, true),
        (Name::EcdsaSecp384r1Sha384, Curve::P384, false),
        (Name::EcdsaSecp384r1Sha384P1363, Curve::P384, true),
    ];
    for (set, curve, raw) in sets {
        let asked = asked(Scheme::Ecdsa(curve.hash()), raw, PssSalt::Hash);
        for group in ecdsa::TestSet::load(set).unwrap().test_groups {
            let key = PublicKey::from_spki(KeySpec::Ec(curve), &group.der).unwrap();
            for test in &group.tests {
                let name = format!("{set:?} {}", test.tc_id);
                tally.case(&name, &key, asked, (&test.msg, &test.sig), test.result);
            }
        }
    }
    tally.finish("ECDSA P-256, P-384, DER and raw", 1500);
}

#[test]
fn ed25519() {
    let mut tally = Tally::default();
    let asked = asked(Scheme::Ed25519, false, PssSalt::Hash);
    for group in eddsa::TestSet::load(eddsa::TestName::Ed25519)
        .unwrap()
        .test_groups
    {
        let key = PublicKey::from_spki(KeySpec::Ed25519, &group.der).unwrap();
        for test in &group.tests {
            let name = format!("ed25519 {}", test.tc_id);
            tally.case(&name, &key, asked, (&test.msg, &test.sig), test.result);
        }
    }
    tally.finish("Ed25519", 140);
}

fn rsa_key(bits: usize, der: &[u8]) -> Option<PublicKey> {
    let bits = match bits {
        2048 => RsaBits::B2048,
        3072 => RsaBits::B3072,
        4096 => RsaBits::B4096,
        _ => return None,
    };
    PublicKey::from_spki(KeySpec::RsaSign(bits), der).ok()
}

#[test]
fn rsa_pkcs1() {
    use rsa_pkcs1_verify::TestName as Name;
    let mut tally = Tally::default();
    let sets = [
        (Name::Rsa2048Sha256, Hash::Sha256),
        (Name::Rsa2048Sha384, Hash::Sha384),
        (Name::Rsa2048Sha512, Hash::Sha512),
        (Name::Rsa3072Sha256, Hash::Sha256),
        (Name::Rsa3072Sha384, Hash::Sha384),
        (Name::Rsa3072Sha512, Hash::Sha512),
        (Name::Rsa4096Sha256, Hash::Sha256),
        (Name::Rsa4096Sha384, Hash::Sha384),
        (Name::Rsa4096Sha512, Hash::Sha512),
    ];
    for (set, hash) in sets {
        let asked = asked(Scheme::RsaPkcs1(hash), false, PssSalt::Hash);
        for group in rsa_pkcs1_verify::TestSet::load(set).unwrap().test_groups {
            let Some(key) = rsa_key(group.key_size, &group.der) else {
                tally.skip(
                    "a public key that no token of ours makes",
                    group.tests.len(),
                );
                continue;
            };
            for test in &group.tests {
                let name = format!("{set:?} {}", test.tc_id);
                tally.case(&name, &key, asked, (&test.msg, &test.sig), test.result);
            }
        }
    }
    tally.finish("RSASSA-PKCS1-v1_5", 2000);
}

#[test]
fn rsa_pss() {
    use rsa_pss_verify::TestName as Name;
    let mut tally = Tally::default();
    let sets = [
        (
            Name::RsaPss2048Sha256Mgf1SaltLen0,
            Hash::Sha256,
            PssSalt::Empty,
        ),
        (
            Name::RsaPss2048Sha256Mgf1SaltLen32,
            Hash::Sha256,
            PssSalt::Hash,
        ),
        (
            Name::RsaPss2048Sha384Mgf1SaltLen48,
            Hash::Sha384,
            PssSalt::Hash,
        ),
        (
            Name::RsaPss3072Sha256Mgf1SaltLen32,
            Hash::Sha256,
            PssSalt::Hash,
        ),
        (
            Name::RsaPss4096Sha256Mgf1SaltLen32,
            Hash::Sha256,
            PssSalt::Hash,
        ),
        (
            Name::RsaPss4096Sha384Mgf1SaltLen48,
            Hash::Sha384,
            PssSalt::Hash,
        ),
        (
            Name::RsaPss4096Sha512Mgf1SaltLen64,
            Hash::Sha512,
            PssSalt::Hash,
        ),
    ];
    for (set, hash, salt) in sets {
        let asked = asked(Scheme::RsaPss(hash), false, salt);
        for group in rsa_pss_verify::TestSet::load(set).unwrap().test_groups {
            let Some(key) = rsa_key(group.key_size, &group.der) else {
                tally.skip(
                    "a public key that no token of ours makes",
                    group.tests.len(),
                );
                continue;
            };
            for test in &group.tests {
                let name = format!("{set:?} {}", test.tc_id);
                tally.case(&name, &key, asked, (&test.msg, &test.sig), test.result);
            }
        }
    }
    for (set, reason) in [
        (
            Name::RsaPss4096Sha512Mgf1SaltLen32,
            "a salt that is neither empty, nor as long as the hash, nor the longest",
        ),
        (
            Name::RsaPss2048Sha256Mgf1Sha1_20,
            "MGF1 with another hash than the message",
        ),
        (Name::RsaPss2048Sha1Mgf1SaltLen20, "SHA-1"),
        (
            Name::RsaPssmisc,
            "mixed parameters, most of them SHA-1 or foreign salts",
        ),
    ] {
        let cases = rsa_pss_verify::TestSet::load(set).unwrap();
        let cases = cases.test_groups.iter().map(|g| g.tests.len()).sum();
        tally.skip(reason, cases);
    }
    tally.finish("RSASSA-PSS", 600);
}
