//! What `fuzz/` drives in this room: requests from the wire to the limits. Compiled for
//! fuzzing only.

use keywright_proto::v1 as proto;

use super::convert;
use crate::config::Limits;

/// Converts one request of each kind; the result does not matter, a panic does.
pub fn convert_all(
    encrypt: proto::EncryptRequest,
    decrypt: proto::DecryptRequest,
    rewrap: proto::RewrapRequest,
    reencrypt: proto::ReencryptRequest,
) {
    let limits = Limits::default();
    if let Ok(encrypt) = convert::encrypt(encrypt, &limits) {
        touch(&encrypt.plaintexts);
    }
    if let Ok(decrypt) = convert::decrypt(decrypt, &limits) {
        touch(&decrypt.items);
    }
    if let Ok(rewrap) = convert::rewrap(rewrap, &limits) {
        touch(&rewrap.envelopes);
    }
    if let Ok(reencrypt) = convert::reencrypt(reencrypt, &limits) {
        touch(&reencrypt.from.items);
    }
}

/// Every string must lie within the batch.
fn touch(strings: &crate::ops::Strings) {
    let total: usize = strings.iter().map(<[u8]>::len).sum();
    assert_eq!(total, strings.total_bytes());
}
