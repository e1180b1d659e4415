//! The only place with CKM names: numbers to names, and the parameters a mechanism
//! needs to be tried at all.

use cryptoki::mechanism::MechanismType;
use cryptoki_sys as ck;
use cryptoki_sys::CK_MECHANISM_TYPE;

use super::raw::Params;

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
