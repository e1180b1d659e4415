//! Project Wycheproof's sets, cut to what Keywright offers: which cases there are, what
//! must come out, and why the others are skipped. Two tests read it: the software path
//! here, and a real token (`softhsm-tests`), so that both run the same cases.
//!
//! `valid` must be accepted and `invalid` refused. `acceptable` must be refused: in these
//! sets it is a DigestInfo without the NULL that RFC 8017 §9.2 asks for.

use std::{collections::BTreeMap, fmt::Debug};

use keywright_hsm::{Curve, Hash, KeySpec, Oaep, PssSalt, RsaBits, Signing};
use wycheproof::{
    EllipticCurve, HashFunction, Mgf, TestResult, aead, ecdsa, eddsa, mac, rsa_oaep,
    rsa_pkcs1_verify, rsa_pss_verify,
};

/// One file of vectors.
pub struct Set<G> {
    pub name: String,
    /// What is left to run: one for each key.
    pub groups: Vec<G>,
    pub skipped: BTreeMap<&'static str, usize>,
}

/// One vector, without its bytes.
pub struct Case {
    pub id: usize,
    pub flags: String,
    pub valid: bool,
}

pub struct SignatureGroup {
    pub spec: KeySpec,
    pub how: Signing,
    /// ECDSA in DER, not r‖s.
    pub der: bool,
    pub key: PublicHalf,
    pub spki: Vec<u8>,
    /// Message and signature.
    pub cases: Vec<(Case, Vec<u8>, Vec<u8>)>,
}

pub enum PublicHalf {
    /// Uncompressed, or the 32 bytes of Ed25519.
    Point(Vec<u8>),
    /// Modulus and exponent.
    Rsa([Vec<u8>; 2]),
}

pub struct GcmCase {
    pub case: Case,
    pub key: [u8; 32],
    pub iv: [u8; 12],
    pub aad: Vec<u8>,
    pub plaintext: Vec<u8>,
    /// Ciphertext and tag.
    pub sealed: Vec<u8>,
}

pub struct MacCase {
    pub case: Case,
    pub hash: Hash,
    pub key: Vec<u8>,
    pub message: Vec<u8>,
    /// The whole tag, or its first half: a truncated HMAC (SP 800-107 §5.3.3) is the same
    /// computation. Keywright itself gives and takes whole ones only.
    pub tag: Vec<u8>,
}

pub struct OaepGroup {
    pub bits: RsaBits,
    pub how: Oaep,
    pub pkcs8: Vec<u8>,
    /// n, e, d, p, q, d mod p-1, d mod q-1, 1/q mod p.
    pub numbers: [Vec<u8>; 8],
    /// Plaintext and ciphertext.
    pub cases: Vec<(Case, Vec<u8>, Vec<u8>)>,
}

type Skip = &'static str;

const OTHER_HASH: Skip = "a hash that Keywright does not offer here";
const OTHER_CURVE: Skip = "a curve that Keywright does not offer";
const OTHER_SIZE: Skip = "an RSA size that Keywright does not offer";
const OTHER_MGF: Skip = "MGF1 with another hash than the scheme's, which Keywright does not offer";
const OTHER_SALT: Skip = "a salt that is neither empty, nor as long as the hash, nor the longest";
const PSS_KEY: Skip = "a public key bound to PSS parameters (RFC 4055 §1.2); no key of ours is";
const OTHER_AES: Skip = "AES-128 or AES-192; every key of ours is AES-256";
const OTHER_IV: Skip = "an IV that is not 96 bits; none is ever made or read (SP 800-38D §8.2)";
const OTHER_TAG: Skip = "a tag that is not 128 bits; none is ever made or read";

impl<G> Set<G> {
    /// A file whose groups are taken or skipped whole.
    fn of<T>(
        name: impl Debug,
        groups: Vec<T>,
        take: impl Fn(T) -> Result<G, (Skip, usize)>,
    ) -> Self {
        let mut set = Self {
            name: format!("{name:?}"),
            groups: Vec::new(),
            skipped: BTreeMap::new(),
        };
        for group in groups {
            match take(group) {
                Ok(group) => set.groups.push(group),
                Err((why, cases)) => *set.skipped.entry(why).or_default() += cases,
            }
        }
        set
    }
}

fn case(id: usize, flags: &impl Debug, result: TestResult) -> Case {
    Case {
        id,
        flags: format!("{flags:?}"),
        valid: result == TestResult::Valid,
    }
}

fn hash(of: HashFunction) -> Result<Hash, Skip> {
    match of {
        HashFunction::Sha2_256 => Ok(Hash::Sha256),
        HashFunction::Sha2_384 => Ok(Hash::Sha384),
        HashFunction::Sha2_512 => Ok(Hash::Sha512),
        _ => Err(OTHER_HASH),
    }
}

fn bits(of: usize) -> Result<RsaBits, Skip> {
    match of {
        2048 => Ok(RsaBits::B2048),
        3072 => Ok(RsaBits::B3072),
        4096 => Ok(RsaBits::B4096),
        _ => Err(OTHER_SIZE),
    }
}

/// ECDSA, every file: DER and r‖s.
pub fn ecdsa() -> Vec<Set<SignatureGroup>> {
    let curve = |group: &ecdsa::TestGroup| {
        let curve = match group.key.curve {
            EllipticCurve::Secp256r1 => Curve::P256,
            EllipticCurve::Secp384r1 => Curve::P384,
            _ => return Err(OTHER_CURVE),
        };
        // FIPS 186-5 and ES256, ES384: one hash for each curve.
        match hash(group.hash) {
            Ok(hash) if hash == curve.hash() => Ok(curve),
            _ => Err(OTHER_HASH),
        }
    };
    let file = |name: ecdsa::TestName| {
        let der = !format!("{name:?}").ends_with("P1363");
        let groups = ecdsa::TestSet::load(name).unwrap().test_groups;
        Set::of(name, groups, |group| {
            let curve = curve(&group).map_err(|why| (why, group.tests.len()))?;
            Ok(SignatureGroup {
                spec: KeySpec::Ec(curve),
                how: Signing::Ecdsa,
                der,
                key: PublicHalf::Point(group.key.key.to_vec()),
                spki: group.der.to_vec(),
                cases: (group.tests.iter())
                    .map(|t| {
                        (
                            case(t.tc_id, &t.flags, t.result),
                            t.msg.to_vec(),
                            t.sig.to_vec(),
                        )
                    })
                    .collect(),
            })
        })
    };
    ecdsa::TestName::all().into_iter().map(file).collect()
}

/// Ed25519.
pub fn ed25519() -> Vec<Set<SignatureGroup>> {
    let name = eddsa::TestName::Ed25519;
    let groups = eddsa::TestSet::load(name).unwrap().test_groups;
    vec![Set::of(name, groups, |group| {
        Ok(SignatureGroup {
            spec: KeySpec::Ed25519,
            how: Signing::Ed25519,
            der: false,
            key: PublicHalf::Point(group.key.pk.to_vec()),
            spki: group.der.to_vec(),
            cases: (group.tests.iter())
                .map(|t| {
                    (
                        case(t.tc_id, &t.flags, t.result),
                        t.msg.to_vec(),
                        t.sig.to_vec(),
                    )
                })
                .collect(),
        })
    })]
}

/// RSASSA-PKCS1-v1_5, every file.
pub fn rsa_pkcs1() -> Vec<Set<SignatureGroup>> {
    use rsa_pkcs1_verify::{TestGroup, TestName, TestSet};
    let scheme = |group: &TestGroup| Ok((bits(group.key_size)?, hash(group.hash)?));
    let file = |name: TestName| {
        let groups = TestSet::load(name).unwrap().test_groups;
        Set::of(name, groups, |group| {
            let (bits, hash) = scheme(&group).map_err(|why| (why, group.tests.len()))?;
            Ok(SignatureGroup {
                spec: KeySpec::RsaSign(bits),
                how: Signing::RsaPkcs1(hash),
                der: false,
                key: PublicHalf::Rsa([group.key.n.to_vec(), group.key.e.to_vec()]),
                spki: group.der.to_vec(),
                cases: (group.tests.iter())
                    .map(|t| {
                        (
                            case(t.tc_id, &t.flags, t.result),
                            t.msg.to_vec(),
                            t.sig.to_vec(),
                        )
                    })
                    .collect(),
            })
        })
    };
    TestName::all().into_iter().map(file).collect()
}

/// RSASSA-PSS, every file.
pub fn rsa_pss() -> Vec<Set<SignatureGroup>> {
    use rsa_pss_verify::{TestGroup, TestName, TestSet};
    let scheme = |name: TestName, group: &TestGroup| {
        if format!("{name:?}").ends_with("WithParams") {
            return Err(PSS_KEY);
        }
        let (bits, scheme) = (bits(group.key_size)?, hash(group.hash)?);
        if group.mgf != Mgf::Mgf1 || group.mgf_hash.map(hash) != Some(Ok(scheme)) {
            return Err(OTHER_MGF);
        }
        let salt = [PssSalt::Hash, PssSalt::Empty, PssSalt::Max]
            .into_iter()
            .find(|salt| salt.bytes(scheme, bits.bytes()) == group.salt_size)
            .ok_or(OTHER_SALT)?;
        Ok((bits, Signing::RsaPss(scheme, salt)))
    };
    let file = |name: TestName| {
        let groups = TestSet::load(name).unwrap().test_groups;
        Set::of(name, groups, |group| {
            let (bits, how) = scheme(name, &group).map_err(|why| (why, group.tests.len()))?;
            Ok(SignatureGroup {
                spec: KeySpec::RsaSign(bits),
                how,
                der: false,
                key: PublicHalf::Rsa([group.key.n.to_vec(), group.key.e.to_vec()]),
                spki: group.der.to_vec(),
                cases: (group.tests.iter())
                    .map(|t| {
                        (
                            case(t.tc_id, &t.flags, t.result),
                            t.msg.to_vec(),
                            t.sig.to_vec(),
                        )
                    })
                    .collect(),
            })
        })
    };
    TestName::all().into_iter().map(file).collect()
}

/// AES-GCM: one group for each case, since each has its own key.
pub fn aes_gcm() -> Vec<Set<GcmCase>> {
    let name = aead::TestName::AesGcm;
    let mut set = Set::of(name, Vec::new(), |never: GcmCase| Ok(never));
    for group in aead::TestSet::load(name).unwrap().test_groups {
        let why = match (group.key_size, group.nonce_size, group.tag_size) {
            (256, 96, 128) => None,
            (256, 96, _) => Some(OTHER_TAG),
            (256, ..) => Some(OTHER_IV),
            _ => Some(OTHER_AES),
        };
        if let Some(why) = why {
            *set.skipped.entry(why).or_default() += group.tests.len();
            continue;
        }
        set.groups.extend(group.tests.iter().map(|t| GcmCase {
            case: case(t.tc_id, &t.flags, t.result),
            key: t.key.as_slice().try_into().unwrap(),
            iv: t.nonce.as_slice().try_into().unwrap(),
            aad: t.aad.to_vec(),
            plaintext: t.pt.to_vec(),
            sealed: [t.ct.as_slice(), t.tag.as_slice()].concat(),
        }));
    }
    vec![set]
}

/// HMAC, every file.
pub fn hmac() -> Vec<Set<MacCase>> {
    use mac::{TestName, TestSet};
    let file = |name: TestName| {
        let hash = match name {
            TestName::HmacSha256 => Some(Hash::Sha256),
            TestName::HmacSha384 => Some(Hash::Sha384),
            TestName::HmacSha512 => Some(Hash::Sha512),
            _ => None,
        };
        let mut set = Set::of(name, Vec::new(), |never: MacCase| Ok(never));
        for group in TestSet::load(name).unwrap().test_groups {
            let Some(hash) = hash else {
                *set.skipped.entry(OTHER_HASH).or_default() += group.tests.len();
                continue;
            };
            set.groups.extend(group.tests.iter().map(|t| MacCase {
                case: case(t.tc_id, &t.flags, t.result),
                hash,
                key: t.key.to_vec(),
                message: t.msg.to_vec(),
                tag: t.tag.to_vec(),
            }));
        }
        set
    };
    let all = TestName::all().into_iter();
    all.filter(|name| format!("{name:?}").starts_with("Hmac"))
        .map(file)
        .collect()
}

/// RSA-OAEP, every file. A ciphertext with a label must be refused: ours is empty.
pub fn rsa_oaep() -> Vec<Set<OaepGroup>> {
    use rsa_oaep::{TestGroup, TestName, TestSet};
    let scheme = |group: &TestGroup| {
        let how = match group.hash {
            HashFunction::Sha1 => Oaep::Sha1,
            HashFunction::Sha2_256 => Oaep::Sha256,
            HashFunction::Sha2_384 => Oaep::Sha384,
            HashFunction::Sha2_512 => Oaep::Sha512,
            _ => return Err(OTHER_HASH),
        };
        if group.mgf != Mgf::Mgf1 || group.mgf_hash != group.hash {
            return Err(OTHER_MGF);
        }
        Ok((bits(group.key_size)?, how))
    };
    let file = |name: TestName| {
        let groups = TestSet::load(name).unwrap().test_groups;
        Set::of(name, groups, |group| {
            let (bits, how) = scheme(&group).map_err(|why| (why, group.tests.len()))?;
            let k = &group.key;
            let numbers = [&k.n, &k.e, &k.d, &k.p, &k.q, &k.d1, &k.d2, &k.c];
            Ok(OaepGroup {
                bits,
                how,
                pkcs8: group.pkcs8.to_vec(),
                numbers: numbers.map(|n| n.to_vec()),
                cases: (group.tests.iter())
                    .map(|t| {
                        let mut case = case(t.tc_id, &t.flags, t.result);
                        case.valid &= t.label.is_empty();
                        (case, t.pt.to_vec(), t.ct.to_vec())
                    })
                    .collect(),
            })
        })
    };
    TestName::all().into_iter().map(file).collect()
}
