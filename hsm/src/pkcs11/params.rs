//! Parameters of mechanisms, as data; `raw` makes C structures of them.

use cryptoki_sys::{CK_MECHANISM_TYPE, CK_ULONG};

/// Parameters of a mechanism, kept alive for the length of one call.
pub(crate) enum Params {
    None,
    Bytes(Vec<u8>),
    /// Caller-chosen IV and AAD, 128-bit tag.
    Gcm {
        iv: [u8; 12],
        aad: Vec<u8>,
    },
    Oaep {
        hash: CK_MECHANISM_TYPE,
        mgf: CK_ULONG,
    },
    Pss {
        hash: CK_MECHANISM_TYPE,
        mgf: CK_ULONG,
        salt_len: usize,
    },
    /// Data for the simple derivation mechanisms.
    KeyString(Vec<u8>),
    /// IV and data for CKM_AES_CBC_ENCRYPT_DATA.
    CbcString([u8; 16], Vec<u8>),
    /// Bit offset for CKM_EXTRACT_KEY_FROM_KEY.
    Offset(CK_ULONG),
}
