//! Project Wycheproof through PKCS#11, on SoftHSM2: the vectors' keys go in as session
//! objects (`keywright_hsm::pkcs11::vectors`), and the token is asked the way it is asked
//! for real keys. The same cases go through the software path in
//! `service/tests/wycheproof`.
//!
//! A refusal counts only when it is the one for forged bytes: a token that cannot do a
//! thing at all refuses everything, and proves nothing.
//!
//! SoftHSM2 2.6.1 gets every case right that it can be asked. Should another version or
//! token not: its cases are listed here by set and number with what they are, and asserted
//! exactly. Signatures are verified in process (`keywright_hsm::PublicKey`), so a token
//! that accepts a forged one would not make Keywright do so.
#![forbid(unsafe_code)]
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

#[allow(dead_code, reason = "the software path reads the rest")]
#[path = "../../../service/tests/wycheproof/sets.rs"]
mod sets;
#[path = "../../../service/tests/wycheproof/tally.rs"]
mod tally;

use std::process::ExitCode;

use keywright_hsm::{
    Curve, Hash, KeySpec, Oaep,
    pkcs11::{
        self,
        vectors::{Answer, Imported, Known, Refusal, Vectors},
    },
};
use keywright_pki::ecdsa_from_der;
use keywright_softhsm_tests::{Case, run, token};
use sets::{OaepGroup, PublicHalf, Set, SignatureGroup};
use sha2::{Digest, Sha256, Sha384, Sha512};
use tally::{Tally, Wrong};

const CASES: &[Case] = &[("wycheproof_through_pkcs11", all_sets)];

fn main() -> ExitCode {
    run(CASES)
}

/// How many cases must reach a C function of the token.
const AT_LEAST: usize = 5000;

fn all_sets() {
    let device = pkcs11::open(token()).unwrap();
    let token = Vectors::on(&device);
    let tallies = [
        aes_gcm(&token),
        hmac(&token),
        signatures(&token, "ECDSA", sets::ecdsa()),
        signatures(&token, "Ed25519", sets::ed25519()),
        signatures(&token, "RSASSA-PKCS1-v1_5", sets::rsa_pkcs1()),
        signatures(&token, "RSASSA-PSS", sets::rsa_pss()),
        rsa_oaep(&token),
    ];
    let sum = |of: fn(&Tally) -> usize| tallies.iter().map(of).sum::<usize>();
    let (run, before) = (sum(|t| t.run), sum(|t| t.before));
    let asked = run - before;
    println!(
        "wycheproof, PKCS#11: {run} cases run, {asked} through C functions of the token, {before} refused in front of it"
    );
    let wrong: Vec<Wrong> = tallies.into_iter().flat_map(|t| t.wrong).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(asked >= AT_LEAST, "only {asked} cases reached the token");
}

/// The answer as the tally wants it. `forged`: what the token says of forged bytes.
fn settle(tally: &mut Tally, case: &sets::Case, answer: Answer<bool>, forged: &[&str]) {
    let outcome = match answer {
        Ok(true) => Ok(()),
        // Of a case that must be refused, any value is too much.
        Ok(false) if !case.valid => Ok(()),
        Ok(false) => Err("another value came out".to_owned()),
        Err(Refusal::Ours(why)) => {
            tally.before += 1;
            Err(why)
        }
        Err(Refusal::Token(why)) => {
            if !case.valid && !forged.contains(&why.as_str()) {
                tally.fault(case, format!("refused for another reason: {why}"));
            }
            Err(why)
        }
    };
    tally.case(case, outcome);
}

/// What a token cannot do is not taken for granted: one that learns it loses the skip.
fn refuses<T: std::fmt::Debug + PartialEq>(answer: Answer<T>, why: &str) {
    assert_eq!(answer, Err(Refusal::Token(why.to_owned())));
}

/// SP 800-38D §7.1 and §7.2, each case in both directions.
fn aes_gcm(token: &Vectors) -> Tally {
    let mut tally = Tally::new("PKCS#11", "AES-GCM");
    for set in sets::aes_gcm() {
        tally.open(&set);
        for v in &set.groups {
            let key = token
                .import(KeySpec::Aes256, Known::Secret(&v.key))
                .unwrap();
            let opened = token
                .gcm_open(key, &v.iv, &v.aad, &v.sealed)
                .map(|plain| plain == v.plaintext);
            settle(&mut tally, &v.case, opened, &FORGED);
            // What is forged by a changed tag is sealed to the right one.
            let sealed = token.gcm_seal(key, &v.iv, &v.aad, &v.plaintext).unwrap();
            if (sealed == v.sealed) != v.case.valid {
                tally.fault(&v.case, "sealed to another value".to_owned());
            }
            token.forget(key).unwrap();
        }
        tally.close();
    }
    tally.finish();
    tally
}

/// FIPS 198-1.
fn hmac(token: &Vectors) -> Tally {
    let mut tally = Tally::new("PKCS#11", "HMAC");
    for set in sets::hmac() {
        tally.open(&set);
        for v in &set.groups {
            let spec = KeySpec::Hmac(v.hash);
            let key = token.import(spec, Known::Secret(&v.key)).unwrap();
            // All of ours are as long as the hash (SP 800-107 §5.3.4).
            if v.key.len() < v.hash.bytes() {
                refuses(token.mac(key, &v.message), "CKR_KEY_SIZE_RANGE");
                tally.skip(
                    "a key shorter than the hash, which SoftHSM2 refuses (CKR_KEY_SIZE_RANGE)",
                    1,
                );
                continue;
            }
            let made = token.mac(key, &v.message).unwrap();
            let outcome = if made.starts_with(&v.tag) {
                Ok(())
            } else {
                Err("another tag".to_owned())
            };
            tally.case(&v.case, outcome);
            token.forget(key).unwrap();
        }
        tally.close();
    }
    tally.finish();
    tally
}

fn signatures(token: &Vectors, family: &'static str, sets: Vec<Set<SignatureGroup>>) -> Tally {
    let mut tally = Tally::new("PKCS#11", family);
    for set in sets {
        tally.open(&set);
        for group in &set.groups {
            let known = match &group.key {
                PublicHalf::Point(point) => Known::Point(point),
                PublicHalf::Rsa([n, e]) => Known::RsaPublic([n, e]),
            };
            let key = token.import(group.spec, known).unwrap();
            for (case, message, signature) in &group.cases {
                let answer = verify(token, key, group, message, signature);
                let forged = ["CKR_SIGNATURE_INVALID", "CKR_SIGNATURE_LEN_RANGE"];
                settle(&mut tally, case, answer.map(|()| true), &forged);
            }
            token.forget(key).unwrap();
        }
        tally.close();
    }
    tally.finish();
    tally
}

/// As the service does: the digest in process, DER only if it is DER, the token r‖s.
fn verify(
    token: &Vectors,
    key: Imported,
    group: &SignatureGroup,
    message: &[u8],
    signature: &[u8],
) -> Answer<()> {
    let input = match group.how.hash(group.spec) {
        None => message.to_vec(),
        Some(Hash::Sha256) => Sha256::digest(message).to_vec(),
        Some(Hash::Sha384) => Sha384::digest(message).to_vec(),
        Some(Hash::Sha512) => Sha512::digest(message).to_vec(),
    };
    let KeySpec::Ec(curve) = group.spec else {
        return token.verify(key, group.how, &input, signature);
    };
    let raw = if group.der {
        from_der(curve, signature)?
    } else {
        signature.to_vec()
    };
    token.verify(key, group.how, &input, &raw)
}

fn from_der(curve: Curve, signature: &[u8]) -> Answer<Vec<u8>> {
    ecdsa_from_der(signature, curve.field_len())
        .ok_or_else(|| Refusal::Ours("not DER of two numbers that fit".into()))
}

/// RFC 8017 §7.1.2.
fn rsa_oaep(token: &Vectors) -> Tally {
    let mut tally = Tally::new("PKCS#11", "RSA-OAEP");
    for set in sets::rsa_oaep() {
        tally.open(&set);
        for group in &set.groups {
            let numbers = group.numbers.each_ref().map(Vec::as_slice);
            let spec = KeySpec::RsaDecrypt(group.bits);
            let key = token.import(spec, Known::RsaPrivate(numbers)).unwrap();
            if group.how == Oaep::Sha1 {
                decrypt(token, &mut tally, key, group);
            } else {
                let answer = token.decrypt(key, group.how, &group.cases[0].2);
                refuses(answer, "CKR_ARGUMENTS_BAD");
                tally.skip(
                    "SoftHSM2 knows RSA-OAEP with SHA-1 only (CKR_ARGUMENTS_BAD)",
                    group.cases.len(),
                );
            }
            token.forget(key).unwrap();
        }
        tally.close();
    }
    tally.finish();
    tally
}

fn decrypt(token: &Vectors, tally: &mut Tally, key: Imported, group: &OaepGroup) {
    let open = |(_, plaintext, ciphertext): &(sets::Case, Vec<u8>, Vec<u8>)| {
        let answer = token.decrypt(key, group.how, ciphertext);
        answer.map(|plain| plain == *plaintext)
    };
    let good = group.cases.iter().find(|(case, ..)| case.valid).unwrap();
    for vector in &group.cases {
        settle(tally, &vector.0, open(vector), &FORGED);
        // That word could mean anything; as in the product, a proof tells (`classify`).
        assert_eq!(
            open(good),
            Ok(true),
            "the key is lost after {}",
            vector.0.id
        );
    }
}

/// What tokens say of a forged ciphertext; the first is SoftHSM2's.
const FORGED: [&str; 2] = ["CKR_GENERAL_ERROR", "CKR_ENCRYPTED_DATA_INVALID"];
