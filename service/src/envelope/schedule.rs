//! The key schedule, and items sealed and opened under it.
//!
//! The in-process AEAD is behind [`Sealer::seal`] and [`Opener::open`] alone, so that
//! another can be measured in its place; the tests open everything with a second
//! implementation as well.

use std::fmt;

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    hkdf,
};
use keywright_hsm::Dek;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

use super::{Context, Header, INDEX_LEN, ITEM_OVERHEAD, Kind, TAG_LEN};
use crate::key::{KeyId, TenantId, VersionNumber};

/// One cryptographic failure, whatever the cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused;

/// Salt of an envelope, which is also its id.
pub type Salt = [u8; 16];

/// Everything the derivation binds besides the DEK.
#[derive(Debug, Clone, Copy)]
pub struct Binding<'a> {
    /// What the envelope holds.
    pub kind: Kind,
    /// Whose key.
    pub key_id: KeyId,
    /// Whose tenant.
    pub tenant: TenantId,
    /// Fresh for every envelope.
    pub salt: Salt,
    /// The caller's pairs.
    pub context: &'a Context,
}

/// What comes out of the derivation: item key, base nonce and commitment.
pub struct Schedule {
    item_key: Zeroizing<[u8; 32]>,
    base_nonce: [u8; 12],
    commitment: [u8; 32],
}

/// Seals items. It cannot seal an index twice by mistake: the index is counted here.
pub struct Sealer {
    items: Items,
    next: u32,
}

/// Opens items, after the commitment was found right.
pub struct Opener {
    items: Items,
}

struct Items {
    key: LessSafeKey,
    base_nonce: [u8; 12],
}

const DERIVE_LABEL: &[u8; 16] = b"KW1 derive\0\0\0\0\0\0";
const WRAP_LABEL: &[u8; 16] = b"KW1 kekwrap\0\0\0\0\0";
const EXPORT_LABEL: &[u8; 16] = b"KW1 export\0\0\0\0\0\0";

/// AAD of the wrap in the HSM, 56 bytes.
#[must_use]
pub fn wrap_aad(kind: Kind, key_id: KeyId, tenant: TenantId, version: VersionNumber) -> [u8; 56] {
    let [version_byte, suite, kind, _] = Header::first_four(kind);
    let mut aad = [0; 56];
    fill(
        &mut aad,
        &[
            WRAP_LABEL,
            &[version_byte, suite, kind, Header::wrap_algorithm()],
            &key_id.0,
            &tenant.0,
            &version.get().to_be_bytes(),
        ],
    );
    aad
}

impl Schedule {
    /// HKDF-Expand-SHA-256(DEK, info, 76).
    ///
    /// # Errors
    /// [`Refused`] when the derivation fails, which a 32-byte DEK never makes it do.
    pub fn derive(dek: &Dek, binding: &Binding<'_>) -> Result<Self, Refused> {
        let mut info = [0; 100];
        fill(
            &mut info,
            &[
                DERIVE_LABEL,
                &Header::first_four(binding.kind),
                &binding.key_id.0,
                &binding.tenant.0,
                &binding.salt,
                binding.context.digest(),
            ],
        );
        let mut out = Zeroizing::new([0; 76]);
        expand(dek.expose(), &info, out.as_mut_slice())?;
        let (item_key, rest) = out.split_first_chunk::<32>().ok_or(Refused)?;
        let (base_nonce, rest) = rest.split_first_chunk::<12>().ok_or(Refused)?;
        let commitment = rest.first_chunk::<32>().ok_or(Refused)?;
        Ok(Self {
            item_key: Zeroizing::new(*item_key),
            base_nonce: *base_nonce,
            commitment: *commitment,
        })
    }

    /// The same from a header that was read, its commitment compared in constant time.
    ///
    /// # Errors
    /// [`Refused`] when another DEK, tenant, context or header made it.
    pub fn verify(
        dek: &Dek,
        header: &Header,
        tenant: TenantId,
        context: &Context,
    ) -> Result<Self, Refused> {
        let binding = Binding {
            kind: header.kind(),
            key_id: header.key_id(),
            tenant,
            salt: header.salt(),
            context,
        };
        let schedule = Self::derive(dek, &binding)?;
        if bool::from(schedule.commitment.ct_eq(&header.commitment())) {
            Ok(schedule)
        } else {
            Err(Refused)
        }
    }

    /// Goes into header bytes 36 to 67.
    #[must_use]
    pub fn commitment(&self) -> [u8; 32] {
        self.commitment
    }

    /// An exported data key of `out.len()` bytes: 16, 32 or 64.
    ///
    /// # Errors
    /// [`Refused`] for any other length.
    pub fn export(&self, out: &mut [u8]) -> Result<(), Refused> {
        let n: u16 = match out.len() {
            16 => 16,
            32 => 32,
            64 => 64,
            _ => return Err(Refused),
        };
        let mut info = [0; 18];
        fill(&mut info, &[EXPORT_LABEL, &n.to_be_bytes()]);
        expand(&self.item_key, &info, out)
    }

    /// For sealing the items of a new envelope.
    ///
    /// # Errors
    /// [`Refused`] when the cipher takes no 32-byte key, which it always does.
    pub fn sealer(self) -> Result<Sealer, Refused> {
        Ok(Sealer {
            items: self.items()?,
            next: 0,
        })
    }

    /// For opening the items of an envelope.
    ///
    /// # Errors
    /// As for [`Schedule::sealer`].
    pub fn opener(self) -> Result<Opener, Refused> {
        Ok(Opener {
            items: self.items()?,
        })
    }

    fn items(self) -> Result<Items, Refused> {
        let key = UnboundKey::new(&AES_256_GCM, self.item_key.as_slice()).map_err(|_| Refused)?;
        Ok(Items {
            key: LessSafeKey::new(key),
            base_nonce: self.base_nonce,
        })
    }
}

impl Sealer {
    /// Seals the next item into `out`, which has [`ITEM_OVERHEAD`] bytes more than the
    /// plaintext.
    ///
    /// # Errors
    /// [`Refused`] when `out` has another size or 2^32 items were sealed.
    pub fn seal(&mut self, aad: &[u8], plaintext: &[u8], out: &mut [u8]) -> Result<(), Refused> {
        let index = self.next;
        self.next = index.checked_add(1).ok_or(Refused)?;
        if out.len() != plaintext.len() + ITEM_OVERHEAD {
            return Err(Refused);
        }
        let (head, sealed) = out.split_at_mut(INDEX_LEN);
        head.copy_from_slice(&index.to_be_bytes());
        let (ciphertext, tag) = sealed.split_at_mut(plaintext.len());
        self.items
            .key
            .seal_out_of_place_scatter(
                self.items.nonce(index),
                Aad::from(aad),
                plaintext,
                ciphertext,
                &[],
                tag,
            )
            .map_err(|_| Refused)
    }
}

impl Sealer {
    /// Leaves an index out, for an item that cannot be sealed.
    pub fn skip(&mut self) {
        self.next = self.next.saturating_add(1);
    }
}

impl Opener {
    /// Opens an item into `out`, which has [`ITEM_OVERHEAD`] bytes less than the item.
    /// On failure `out` is all zero.
    ///
    /// # Errors
    /// [`Refused`] for a changed item, another AAD or another envelope's item.
    pub fn open(&self, aad: &[u8], item: &[u8], out: &mut [u8]) -> Result<(), Refused> {
        let result = self.try_open(aad, item, out);
        if result.is_err() {
            out.zeroize();
        }
        result
    }

    fn try_open(&self, aad: &[u8], item: &[u8], out: &mut [u8]) -> Result<(), Refused> {
        let (index, sealed) = item.split_first_chunk::<INDEX_LEN>().ok_or(Refused)?;
        let (ciphertext, tag) = sealed.split_last_chunk::<TAG_LEN>().ok_or(Refused)?;
        if out.len() != ciphertext.len() {
            return Err(Refused);
        }
        self.items
            .key
            .open_separate_gather(
                self.items.nonce(u32::from_be_bytes(*index)),
                Aad::from(aad),
                ciphertext,
                tag,
                out,
            )
            .map_err(|_| Refused)
    }
}

impl Items {
    /// base nonce XOR (8 zero bytes | index).
    fn nonce(&self, index: u32) -> Nonce {
        let mut nonce = self.base_nonce;
        for (n, i) in nonce.iter_mut().skip(8).zip(index.to_be_bytes()) {
            *n ^= i;
        }
        Nonce::assume_unique_for_key(nonce)
    }
}

struct OutLen(usize);

impl hkdf::KeyType for OutLen {
    fn len(&self) -> usize {
        self.0
    }
}

/// RFC 5869 §2.3 without extract: the DEK is uniform (SP 800-108, SP 800-56C).
fn expand(key: &[u8; 32], info: &[u8], out: &mut [u8]) -> Result<(), Refused> {
    hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, key)
        .expand(&[info], OutLen(out.len()))
        .and_then(|okm| okm.fill(out))
        .map_err(|_| Refused)
}

fn fill(out: &mut [u8], parts: &[&[u8]]) {
    debug_assert_eq!(out.len(), parts.iter().map(|p| p.len()).sum::<usize>());
    for (to, from) in out.iter_mut().zip(parts.iter().copied().flatten()) {
        *to = *from;
    }
}

impl fmt::Debug for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Schedule(..)")
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealer(next {})", self.next)
    }
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Opener(..)")
    }
}
