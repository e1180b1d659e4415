//! Project Wycheproof against the software path: a caller's signature as the service
//! checks it, items as the envelope seals and opens them, and HMAC and RSA-OAEP as the
//! strict fake token does them, which is what every other test stands on.
//!
//! The same cases go through a real token in `softhsm-tests/tests/wycheproof`. Every case
//! is run or skipped for a reason that is printed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::too_many_lines,
    clippy::useless_vec,
    unreachable_pub,
    reason = "this is a test"
)]

#[allow(dead_code, reason = "the token's path reads the rest")]
mod sets;
#[allow(dead_code, reason = "the token's path counts more")]
mod tally;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use keywright_hsm::{
    Connector, KeySpec, Kind, Lane, PssSalt, PublicKey, Signing, Token, fake::FakeDevice,
};
use keywright_service::signature::{Algorithm, Asked, Scheme};
use sets::{GcmCase, Set, SignatureGroup};
use tally::Tally;

fn finish(mut tally: Tally, at_least: usize) {
    tally.finish();
    assert!(tally.wrong.is_empty(), "{:#?}", tally.wrong);
    assert!(tally.run >= at_least, "only {} cases", tally.run);
}

fn asked(group: &SignatureGroup) -> Asked {
    let (scheme, salt) = match group.how {
        Signing::Ecdsa => {
            let hash = group.how.hash(group.spec).unwrap();
            (Scheme::Ecdsa(hash), PssSalt::Hash)
        }
        Signing::Ed25519 => (Scheme::Ed25519, PssSalt::Hash),
        Signing::RsaPkcs1(hash) => (Scheme::RsaPkcs1(hash), PssSalt::Hash),
        Signing::RsaPss(hash, salt) => (Scheme::RsaPss(hash), salt),
    };
    Asked {
        scheme: Some(scheme),
        raw: matches!(scheme, Scheme::Ecdsa(_)).then_some(!group.der),
        salt: matches!(scheme, Scheme::RsaPss(_)).then_some(salt),
        digests: false,
    }
}

/// Each signature, checked as the service checks it.
fn signatures(family: &'static str, sets: Vec<Set<SignatureGroup>>, at_least: usize) {
    let mut tally = Tally::new("software", family);
    for set in sets {
        tally.open(&set);
        for group in &set.groups {
            let Ok(key) = PublicKey::from_spki(group.spec, &group.spki) else {
                tally.skip(
                    "a public key that no token of ours makes",
                    group.cases.len(),
                );
                continue;
            };
            let algorithm = Algorithm::of(group.spec, asked(group)).unwrap();
            for (case, message, signature) in &group.cases {
                let input = algorithm.input(message).unwrap();
                let outcome = match algorithm.decode(signature) {
                    None => Err("not even written like one".to_owned()),
                    Some(signature) => key
                        .verify(algorithm.how, &input, &signature)
                        .map_err(|e| e.to_string()),
                };
                tally.case(case, outcome);
            }
        }
        tally.close();
    }
    finish(tally, at_least);
}

#[test]
fn ecdsa_der_and_raw() {
    signatures("ECDSA", sets::ecdsa(), 1530);
}

#[test]
fn ed25519() {
    signatures("Ed25519", sets::ed25519(), 151);
}

#[test]
fn rsa_pkcs1() {
    signatures("RSASSA-PKCS1-v1_5", sets::rsa_pkcs1(), 2330);
}

#[test]
fn rsa_pss() {
    signatures("RSASSA-PSS", sets::rsa_pss(), 894);
}

/// The two calls of `envelope::schedule`, with the vector's key and IV: the envelope
/// itself takes neither, both come out of its derivation (`docs/envelope.md`).
fn gcm(case: &GcmCase) -> Result<(), String> {
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &case.key).unwrap());
    let nonce = || Nonce::assume_unique_for_key(case.iv);
    let (ciphertext, tag) = case.sealed.split_at(case.plaintext.len());
    let mut opened = vec![0; ciphertext.len()];
    key.open_separate_gather(nonce(), Aad::from(&case.aad), ciphertext, tag, &mut opened)
        .map_err(|_| "the tag does not fit".to_owned())?;
    let mut sealed = vec![0; case.sealed.len()];
    let (out, out_tag) = sealed.split_at_mut(case.plaintext.len());
    key.seal_out_of_place_scatter(
        nonce(),
        Aad::from(&case.aad),
        &case.plaintext,
        out,
        &[],
        out_tag,
    )
    .unwrap();
    if opened == case.plaintext && sealed == case.sealed {
        Ok(())
    } else {
        Err("another value came out".to_owned())
    }
}

#[test]
fn aes_gcm() {
    let mut tally = Tally::new("software", "AES-GCM");
    for set in sets::aes_gcm() {
        tally.open(&set);
        for vector in &set.groups {
            tally.case(&vector.case, gcm(vector));
        }
        tally.close();
    }
    finish(tally, 66);
}

fn fake() -> (FakeDevice, Box<dyn Token>) {
    let device = FakeDevice::new();
    let token = device.connect(Lane::Work).unwrap();
    (device, token)
}

#[test]
fn hmac() {
    let mut tally = Tally::new("software", "HMAC");
    let (device, mut token) = fake();
    for set in sets::hmac() {
        tally.open(&set);
        for vector in &set.groups {
            let key = device
                .plant(KeySpec::Hmac(vector.hash), &vector.key)
                .unwrap();
            let made = token.mac(&key, &vector.message).unwrap();
            let same = made.starts_with(&vector.tag);
            tally.case(
                &vector.case,
                same.then_some(()).ok_or("another tag".to_owned()),
            );
        }
        tally.close();
    }
    finish(tally, 522);
}

#[test]
fn rsa_oaep() {
    let mut tally = Tally::new("software", "RSA-OAEP");
    let (device, mut token) = fake();
    for set in sets::rsa_oaep() {
        tally.open(&set);
        for group in &set.groups {
            let key = device
                .plant(KeySpec::RsaDecrypt(group.bits), &group.pkcs8)
                .unwrap();
            for (case, plaintext, ciphertext) in &group.cases {
                let outcome = match token.decrypt(&key, group.how, ciphertext) {
                    Ok(plain) if !case.valid || plain.as_slice() == plaintext => Ok(()),
                    Ok(_) => Err("another plaintext".to_owned()),
                    Err(e) => {
                        assert_eq!(e.kind(), Kind::Refused, "{e}");
                        Err(e.to_string())
                    }
                };
                tally.case(case, outcome);
            }
        }
        tally.close();
    }
    finish(tally, 319);
}
