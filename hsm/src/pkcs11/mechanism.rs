//! The only place with CKM names: numbers to names, and the parameters a mechanism
//! needs to be tried at all.

use cryptoki::mechanism::MechanismType;
use cryptoki_sys as ck;
use cryptoki_sys::CK_MECHANISM_TYPE;

use super::params::Params;
use crate::{
    Hash, KeySpec, Oaep, Signing,
    error::{Error, Kind},
};

/// What a signing key is used with, and the input it takes: PKCS#11 wants the whole
/// DigestInfo for `CKM_RSA_PKCS`. `None`: scheme and key do not fit.
pub(crate) fn signing(
    spec: KeySpec,
    how: Signing,
    input: &[u8],
) -> Option<(CK_MECHANISM_TYPE, Params, Vec<u8>)> {
    if !how.takes(spec, input) {
        return None;
    }
    let input = input.to_vec();
    match (spec, how) {
        (KeySpec::Ec(_), Signing::Ecdsa) => Some((ck::CKM_ECDSA, Params::None, input)),
        (KeySpec::Ed25519, Signing::Ed25519) => Some((ck::CKM_EDDSA, Params::None, input)),
        (KeySpec::RsaSign(_), Signing::RsaPkcs1(hash)) => {
            let info = [digest_info(hash), &input].concat();
            Some((ck::CKM_RSA_PKCS, Params::None, info))
        }
        (KeySpec::RsaSign(bits), Signing::RsaPss(hash, salt)) => {
            let (number, mgf) = match hash {
                Hash::Sha256 => (ck::CKM_SHA256, ck::CKG_MGF1_SHA256),
                Hash::Sha384 => (ck::CKM_SHA384, ck::CKG_MGF1_SHA384),
                Hash::Sha512 => (ck::CKM_SHA512, ck::CKG_MGF1_SHA512),
            };
            let params = Params::Pss {
                hash: number,
                mgf,
                salt_len: salt.bytes(hash, bits.bytes()),
            };
            Some((ck::CKM_RSA_PKCS_PSS, params, input))
        }
        _ => None,
    }
}

/// The DER in front of a digest (RFC 8017 §9.2, note 1).
fn digest_info(hash: Hash) -> &'static [u8] {
    match hash {
        Hash::Sha256 => {
            b"\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20"
        }
        Hash::Sha384 => {
            b"\x30\x41\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x02\x05\x00\x04\x30"
        }
        Hash::Sha512 => {
            b"\x30\x51\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x03\x05\x00\x04\x40"
        }
    }
}

pub(crate) fn hmac(hash: Hash) -> CK_MECHANISM_TYPE {
    match hash {
        Hash::Sha256 => ck::CKM_SHA256_HMAC,
        Hash::Sha384 => ck::CKM_SHA384_HMAC,
        Hash::Sha512 => ck::CKM_SHA512_HMAC,
    }
}

pub(crate) fn oaep(how: Oaep) -> Params {
    let (hash, mgf) = match how {
        Oaep::Sha1 => (ck::CKM_SHA_1, ck::CKG_MGF1_SHA1),
        Oaep::Sha256 => (ck::CKM_SHA256, ck::CKG_MGF1_SHA256),
        Oaep::Sha384 => (ck::CKM_SHA384, ck::CKG_MGF1_SHA384),
        Oaep::Sha512 => (ck::CKM_SHA512, ck::CKG_MGF1_SHA512),
    };
    Params::Oaep { hash, mgf }
}

/// What makes a key of this spec.
pub(crate) fn generation(spec: KeySpec) -> CK_MECHANISM_TYPE {
    match spec {
        KeySpec::Aes256 => ck::CKM_AES_KEY_GEN,
        KeySpec::Hmac(_) => ck::CKM_GENERIC_SECRET_KEY_GEN,
        KeySpec::Ec(_) => ck::CKM_EC_KEY_PAIR_GEN,
        KeySpec::Ed25519 => ck::CKM_EC_EDWARDS_KEY_PAIR_GEN,
        KeySpec::RsaSign(_) | KeySpec::RsaDecrypt(_) => ck::CKM_RSA_PKCS_KEY_PAIR_GEN,
    }
}

/// All a key of this spec may ever be used with.
pub(crate) fn uses(spec: KeySpec) -> &'static [CK_MECHANISM_TYPE] {
    match spec {
        KeySpec::Aes256 => &[ck::CKM_AES_GCM],
        KeySpec::Hmac(Hash::Sha256) => &[ck::CKM_SHA256_HMAC],
        KeySpec::Hmac(Hash::Sha384) => &[ck::CKM_SHA384_HMAC],
        KeySpec::Hmac(Hash::Sha512) => &[ck::CKM_SHA512_HMAC],
        KeySpec::Ec(_) => &[ck::CKM_ECDSA],
        KeySpec::Ed25519 => &[ck::CKM_EDDSA],
        KeySpec::RsaSign(_) => &[ck::CKM_RSA_PKCS, ck::CKM_RSA_PKCS_PSS],
        KeySpec::RsaDecrypt(_) => &[ck::CKM_RSA_PKCS_OAEP],
    }
}

/// Names the mechanism a token would need and does not list. What it lists is still
/// tried before a key counts.
pub(crate) fn listed(spec: KeySpec, listed: &[super::raw::Listed]) -> Result<(), Error> {
    let mut needed = uses(spec)
        .iter()
        .chain([&generation(spec)])
        .copied()
        .collect::<Vec<_>>();
    needed.retain(|m| !listed.iter().any(|l| l.mechanism == *m));
    match needed.first() {
        None => Ok(()),
        Some(missing) => Err(Error::new(
            Kind::Unsupported,
            format!(
                "this token cannot do {}: it has no {}",
                spec.name(),
                name(*missing)
            ),
        )),
    }
}

/// `CKM_AES_GCM`, or the number where there is no name.
pub(crate) fn name(mechanism: CK_MECHANISM_TYPE) -> String {
    MechanismType::try_from(mechanism)
        .map_or_else(|_| format!("CKM {mechanism:#x}"), |m| m.to_string())
}

/// Hashes nobody can run backwards on 256 random bits.
pub(crate) fn preimage_resistant(mechanism: CK_MECHANISM_TYPE) -> bool {
    matches!(
        mechanism,
        ck::CKM_SHA_1
            | ck::CKM_SHA224
            | ck::CKM_SHA256
            | ck::CKM_SHA384
            | ck::CKM_SHA512
            | ck::CKM_SHA3_224
            | ck::CKM_SHA3_256
            | ck::CKM_SHA3_384
            | ck::CKM_SHA3_512
    )
}

/// Parameters that let `mechanism` get past its argument checks, as far as we know
/// them; for others none, which is what most wrapping mechanisms take.
pub(crate) fn plausible_params(mechanism: CK_MECHANISM_TYPE) -> Params {
    match mechanism {
        ck::CKM_AES_CBC | ck::CKM_AES_CBC_PAD | ck::CKM_AES_CTS => Params::Bytes(vec![1; 16]),
        ck::CKM_DES3_CBC | ck::CKM_DES3_CBC_PAD | ck::CKM_DES_CBC | ck::CKM_DES_CBC_PAD => {
            Params::Bytes(vec![1; 8])
        }
        ck::CKM_AES_GCM => Params::Gcm {
            iv: [1; 12],
            aad: Vec::new(),
        },
        ck::CKM_RSA_PKCS_OAEP => Params::Oaep {
            hash: ck::CKM_SHA_1,
            mgf: ck::CKG_MGF1_SHA1,
        },
        ck::CKM_AES_ECB_ENCRYPT_DATA
        | ck::CKM_CONCATENATE_BASE_AND_DATA
        | ck::CKM_CONCATENATE_DATA_AND_BASE
        | ck::CKM_XOR_BASE_AND_DATA => Params::KeyString(vec![0; 16]),
        ck::CKM_AES_CBC_ENCRYPT_DATA => Params::CbcString([1; 16], vec![0; 16]),
        ck::CKM_EXTRACT_KEY_FROM_KEY => Params::Offset(0),
        _ => Params::None,
    }
}
