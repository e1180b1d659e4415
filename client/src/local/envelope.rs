//! Envelopes written here: the key schedule and the items of `docs/envelope.md`, a second
//! time and independently of the server.

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    error::Unspecified,
    hkdf,
};
use bytes::Bytes;
use zeroize::Zeroizing;

use crate::{Failure, FailureKind, HEADER_LEN, ITEM_OVERHEAD, proto};

/// Format version 1, suite 1, kind 1 (sealed items), 0.
const FIRST_FOUR: [u8; 4] = [1, 1, 1, 0];
const DERIVE_LABEL: &[u8; 16] = b"KW1 derive\0\0\0\0\0\0";
const INDEX_LEN: usize = 4;
const TAG_LEN: usize = 16;

/// A data key and what stands in every header under it. Cleared from memory at its end.
pub(super) struct DataKey {
    dek: Zeroizing<[u8; 32]>,
    /// Header bytes 68 to 135.
    wrapped: [u8; 68],
    key_id: [u8; 16],
    tenant_id: [u8; 16],
}

/// An envelope that is being written.
pub(super) struct Envelope {
    header: [u8; HEADER_LEN],
    key: LessSafeKey,
    base_nonce: [u8; 12],
    next: u32,
}

impl DataKey {
    /// None when a field has another length.
    pub(super) fn new(lease: &proto::DataKeyLease) -> Option<Self> {
        let mut dek = Zeroizing::new([0; 32]);
        if lease.plaintext.len() != dek.len() {
            return None;
        }
        dek.copy_from_slice(&lease.plaintext);
        Some(Self {
            dek,
            wrapped: (*lease.wrapped).try_into().ok()?,
            key_id: (*lease.key_id).try_into().ok()?,
            tenant_id: (*lease.tenant_id).try_into().ok()?,
        })
    }

    /// A new envelope, with a salt of its own.
    pub(super) fn envelope(&self, context: &[u8; 32]) -> Result<Envelope, Failure> {
        let mut salt = [0; 16];
        getrandom::fill(&mut salt)
            .map_err(|e| Failure::new(FailureKind::Other, format!("no random bytes: {e}")))?;
        self.salted(&salt, context).map_err(never)
    }

    /// HKDF-Expand-SHA-256(DEK, info, 76) = item key, base nonce, commitment.
    fn salted(&self, salt: &[u8; 16], context: &[u8; 32]) -> Result<Envelope, Unspecified> {
        let info: [&[u8]; 6] = [
            DERIVE_LABEL,
            &FIRST_FOUR,
            &self.key_id,
            &self.tenant_id,
            salt,
            context,
        ];
        let mut out = Zeroizing::new([0; 76]);
        hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, self.dek.as_slice())
            .expand(&info, Length(out.len()))?
            .fill(out.as_mut_slice())?;
        let (item_key, rest) = out.split_at(32);
        let (base_nonce, commitment) = rest.split_at(12);
        let header = [
            &FIRST_FOUR,
            self.key_id.as_slice(),
            salt,
            commitment,
            &self.wrapped,
        ];
        Ok(Envelope {
            header: header.concat().try_into().map_err(|_| Unspecified)?,
            key: LessSafeKey::new(UnboundKey::new(&AES_256_GCM, item_key)?),
            base_nonce: base_nonce.try_into().map_err(|_| Unspecified)?,
            next: 0,
        })
    }
}

impl Envelope {
    pub(super) fn header(&self) -> &[u8; HEADER_LEN] {
        &self.header
    }

    /// `index | ciphertext | tag` of the next item. No index is used twice: it is counted
    /// here.
    pub(super) fn seal(&mut self, aad: &[u8], plaintext: &[u8]) -> Result<Bytes, Failure> {
        let index = self.next;
        self.next = index.checked_add(1).ok_or_else(|| never(Unspecified))?;
        let mut item = vec![0; plaintext.len() + ITEM_OVERHEAD];
        let (head, sealed) = item.split_at_mut(INDEX_LEN);
        head.copy_from_slice(&index.to_be_bytes());
        let (ciphertext, tag) = sealed.split_at_mut(sealed.len() - TAG_LEN);
        let (nonce, aad) = (self.nonce(index), Aad::from(aad));
        self.key
            .seal_out_of_place_scatter(nonce, aad, plaintext, ciphertext, &[], tag)
            .map_err(never)?;
        Ok(item.into())
    }

    /// base nonce XOR (8 zero bytes | index).
    fn nonce(&self, index: u32) -> Nonce {
        let mut nonce = self.base_nonce;
        for (n, i) in nonce.iter_mut().skip(8).zip(index.to_be_bytes()) {
            *n ^= i;
        }
        Nonce::assume_unique_for_key(nonce)
    }
}

struct Length(usize);

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

/// Sealing cannot fail for a caller's reason.
fn never(_: Unspecified) -> Failure {
    Failure::new(FailureKind::Other, "sealing failed")
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::{Context, local::context};

    #[derive(Deserialize)]
    struct File {
        vectors: Vec<Vector>,
    }

    #[derive(Deserialize)]
    struct Vector {
        name: String,
        kind: u8,
        dek: String,
        key_id: String,
        tenant_id: String,
        salt: String,
        context: Context,
        header: String,
        #[serde(default)]
        items: Vec<Item>,
    }

    #[derive(Deserialize)]
    struct Item {
        aad: String,
        plaintext: String,
        item: String,
    }

    /// Made by an independent implementation; the server is held to the same.
    const VECTORS: &str = include_str!("../../../service/testdata/envelope/design.json");

    fn bytes<const N: usize>(hex: &str) -> [u8; N] {
        hex::decode(hex).unwrap().try_into().unwrap()
    }

    #[test]
    fn envelopes_are_those_of_the_vectors() {
        let file: File = serde_json::from_str(VECTORS).unwrap();
        let mut seen = 0;
        for vector in file.vectors.iter().filter(|v| v.kind == 1) {
            let header: [u8; HEADER_LEN] = bytes(&vector.header);
            let key = DataKey {
                dek: Zeroizing::new(bytes(&vector.dek)),
                wrapped: header[68..].try_into().unwrap(),
                key_id: bytes(&vector.key_id),
                tenant_id: bytes(&vector.tenant_id),
            };
            let digest = context::digest(&vector.context).unwrap();
            let mut envelope = key.salted(&bytes(&vector.salt), &digest).unwrap();
            assert_eq!(envelope.header(), &header, "{}", vector.name);
            for item in &vector.items {
                let sealed = hex::decode(&item.item).unwrap();
                let index = u32::from_be_bytes(sealed[..4].try_into().unwrap());
                envelope.next = index;
                let aad = hex::decode(&item.aad).unwrap();
                let plaintext = hex::decode(&item.plaintext).unwrap();
                let ours = envelope.seal(&aad, &plaintext).unwrap();
                assert_eq!(ours, sealed, "{}", vector.name);
                seen += 1;
            }
        }
        assert!(seen > 20, "{seen} items");
    }

    #[test]
    fn every_envelope_has_a_salt_and_every_item_an_index_of_its_own() {
        let lease = proto::DataKeyLease {
            plaintext: vec![7; 32].into(),
            wrapped: vec![1; 68].into(),
            key_id: vec![2; 16].into(),
            tenant_id: vec![3; 16].into(),
            ..Default::default()
        };
        let key = DataKey::new(&lease).unwrap();
        let mut one = key.envelope(&[0; 32]).unwrap();
        let mut other = key.envelope(&[0; 32]).unwrap();
        assert_ne!(one.header()[20..68], other.header()[20..68]);
        assert_eq!(one.header()[68..], [1; 68]);
        let first = one.seal(b"", b"x").unwrap();
        assert_ne!(first[4..], one.seal(b"", b"x").unwrap()[4..]);
        assert_ne!(first[4..], other.seal(b"", b"x").unwrap()[4..]);
        let short = proto::DataKeyLease {
            plaintext: vec![7; 31].into(),
            ..lease
        };
        assert!(DataKey::new(&short).is_none());
    }
}
