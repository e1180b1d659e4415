//! The 136-byte header. Parsing looks at lengths and constant bytes only and
//! allocates nothing.

use keywright_hsm::WrappedDek;

use crate::key::{KeyId, VersionNumber};

/// What the envelope holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Sealed items.
    Items = 1,
    /// An exported data key.
    DataKey = 2,
}

/// A header whose constant bytes are right. It says nothing about authenticity.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Header([u8; Header::LEN]);

/// Why bytes are not a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Not 136 bytes.
    #[error("an envelope header has 136 bytes, not {0}")]
    Length(usize),
    /// A constant byte is wrong.
    #[error("these bytes are not a Keywright envelope of version 1")]
    Constant,
}

const VERSION: u8 = 1;
const SUITE: u8 = 1;
const WRAP_AES_GCM: u8 = 1;

/// Offsets of the fields (`docs/envelope.md`).
mod at {
    pub(super) const KIND: usize = 2;
    pub(super) const KEY_ID: usize = 4;
    pub(super) const SALT: usize = 20;
    pub(super) const COMMITMENT: usize = 36;
    pub(super) const WRAP_ALGORITHM: usize = 68;
    pub(super) const KEY_VERSION: usize = 72;
    pub(super) const WRAPPED: usize = 76;
}

impl Header {
    /// Length in bytes.
    pub const LEN: usize = 136;
    /// Bytes that rewrap never changes.
    pub const FIXED_LEN: usize = at::WRAP_ALGORITHM;
    /// Bytes that rewrap exchanges, at the end.
    pub const WRAP_LEN: usize = Self::LEN - Self::FIXED_LEN;

    /// Checks length and constant bytes.
    ///
    /// # Errors
    /// What is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let header: &[u8; Self::LEN] = bytes
            .try_into()
            .map_err(|_| Malformed::Length(bytes.len()))?;
        let header = Self(*header);
        let [version, suite, kind, zero] = header.field::<0, 4>();
        let [wrap, z1, z2, z3] = header.field::<{ at::WRAP_ALGORITHM }, 4>();
        let constants = version == VERSION
            && suite == SUITE
            && (kind == Kind::Items as u8 || kind == Kind::DataKey as u8)
            && zero == 0
            && wrap == WRAP_AES_GCM
            && [z1, z2, z3] == [0; 3]
            && header.key_version() != 0;
        if constants {
            Ok(header)
        } else {
            Err(Malformed::Constant)
        }
    }

    /// Puts a header together.
    #[must_use]
    pub fn assemble(
        kind: Kind,
        key_id: KeyId,
        salt: [u8; 16],
        commitment: [u8; 32],
        version: VersionNumber,
        wrapped: &WrappedDek,
    ) -> Self {
        let mut header = Self([0; Self::LEN]);
        header.put::<0, 4>(&[VERSION, SUITE, kind as u8, 0]);
        header.put::<{ at::KEY_ID }, 16>(&key_id.0);
        header.put::<{ at::SALT }, 16>(&salt);
        header.put::<{ at::COMMITMENT }, 32>(&commitment);
        header.with_wrap(version, wrapped)
    }

    /// The same envelope under another key version: bytes 68 to 135 and nothing else.
    #[must_use]
    pub fn with_wrap(mut self, version: VersionNumber, wrapped: &WrappedDek) -> Self {
        self.put::<{ at::WRAP_ALGORITHM }, 4>(&[WRAP_AES_GCM, 0, 0, 0]);
        self.put::<{ at::KEY_VERSION }, 4>(&version.get().to_be_bytes());
        self.put::<{ at::WRAPPED }, { WrappedDek::LEN }>(&wrapped.0);
        self
    }

    /// What a DEK under a key version looks like in every header: bytes 68 to 135.
    #[must_use]
    pub fn wrap_part(version: VersionNumber, wrapped: &WrappedDek) -> [u8; Self::WRAP_LEN] {
        let header = Self([0; Self::LEN]).with_wrap(version, wrapped);
        header.field::<{ at::WRAP_ALGORITHM }, { Self::WRAP_LEN }>()
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }

    /// What the envelope holds.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self.field::<{ at::KIND }, 1>() {
            [2] => Kind::DataKey,
            _ => Kind::Items,
        }
    }

    /// Whose key.
    #[must_use]
    pub fn key_id(&self) -> KeyId {
        KeyId(self.field::<{ at::KEY_ID }, 16>())
    }

    /// Salt, which is also the envelope's id.
    #[must_use]
    pub fn salt(&self) -> [u8; 16] {
        self.field::<{ at::SALT }, 16>()
    }

    /// Commitment to the one key and binding that open this envelope.
    #[must_use]
    pub fn commitment(&self) -> [u8; 32] {
        self.field::<{ at::COMMITMENT }, 32>()
    }

    /// Number of the key version, from 1.
    #[must_use]
    pub fn key_version(&self) -> u32 {
        u32::from_be_bytes(self.field::<{ at::KEY_VERSION }, 4>())
    }

    /// The DEK under that version.
    #[must_use]
    pub fn wrapped(&self) -> WrappedDek {
        WrappedDek(self.field::<{ at::WRAPPED }, { WrappedDek::LEN }>())
    }

    /// Bytes 0 to 3, which enter derivation and wrap.
    #[must_use]
    pub fn first_four(kind: Kind) -> [u8; 4] {
        [VERSION, SUITE, kind as u8, 0]
    }

    /// The wrap algorithm, which enters the wrap AAD.
    #[must_use]
    pub const fn wrap_algorithm() -> u8 {
        WRAP_AES_GCM
    }

    fn field<const AT: usize, const N: usize>(&self) -> [u8; N] {
        const { assert!(AT + N <= Self::LEN) };
        let mut out = [0; N];
        for (to, from) in out.iter_mut().zip(self.0.iter().skip(AT)) {
            *to = *from;
        }
        out
    }

    fn put<const AT: usize, const N: usize>(&mut self, value: &[u8; N]) {
        const { assert!(AT + N <= Self::LEN) };
        for (to, from) in self.0.iter_mut().skip(AT).zip(value) {
            *to = *from;
        }
    }
}

impl std::fmt::Debug for Header {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Header(key {}, version {})",
            self.key_id(),
            self.key_version()
        )
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header() -> Header {
        Header::assemble(
            Kind::Items,
            KeyId([1; 16]),
            [2; 16],
            [3; 32],
            VersionNumber::new(0x0102_0304).unwrap(),
            &WrappedDek([4; 60]),
        )
    }

    #[test]
    fn fields_stand_where_the_format_says() {
        let header = header();
        let bytes = header.as_bytes();
        assert_eq!(bytes[..4], [1, 1, 1, 0]);
        assert_eq!(bytes[4..20], [1; 16]);
        assert_eq!(bytes[20..36], [2; 16]);
        assert_eq!(bytes[36..68], [3; 32]);
        assert_eq!(bytes[68..76], [1, 0, 0, 0, 1, 2, 3, 4]);
        assert_eq!(bytes[76..], [4; 60]);
        assert_eq!(Header::parse(bytes).unwrap(), header);
    }

    #[test]
    fn rewrap_changes_the_tail_only() {
        let before = header();
        let after = before.with_wrap(VersionNumber::FIRST, &WrappedDek([9; 60]));
        assert_eq!(before.as_bytes()[..68], after.as_bytes()[..68]);
        assert_eq!(
            (after.key_version(), after.wrapped()),
            (1, WrappedDek([9; 60]))
        );
    }

    #[test]
    fn every_constant_byte_is_checked() {
        let good = *header().as_bytes();
        for at in [0, 1, 2, 3, 68, 69, 70, 71] {
            for value in 0..=255u8 {
                let mut bytes = good;
                bytes[at] = value;
                let legal = value == good[at] || (at == 2 && value == 2);
                assert_eq!(Header::parse(&bytes).is_ok(), legal, "byte {at} = {value}");
            }
        }
        let mut version_zero = good;
        version_zero[72..76].fill(0);
        assert_eq!(Header::parse(&version_zero), Err(Malformed::Constant));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100_000))]

        #[test]
        fn any_bytes_are_refused_or_read_back(bytes in proptest::collection::vec(any::<u8>(), 0..200), start in any::<bool>()) {
            let mut bytes = bytes;
            if start && bytes.len() >= 4 { bytes[..4].copy_from_slice(&[1, 1, 1, 0]); }
            if let Ok(header) = Header::parse(&bytes) {
                prop_assert_eq!(header.as_bytes().as_slice(), &bytes);
            }
        }
    }
}
