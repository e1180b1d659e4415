//! Keys: named, versioned, and never leaving the HSM. Pure data, no I/O.
//!
//! A [`Key`] is an immutable picture; a change makes a new picture with a higher
//! [`Revision`]. What a version may do follows from its state alone (`state`).

mod name;
mod state;
mod wraps;

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fmt,
    num::NonZeroU32,
    sync::Arc,
};

use keywright_hsm::KeyRef;
pub use keywright_hsm::{KeySpec, KeyUse};

pub use name::{KeyName, NameError};
pub use state::KeyState;
pub use wraps::{Take, WrapCounter};

/// Permanent id of a tenant: the wall between two users of one appliance. It enters
/// every envelope's derivation and wrap.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TenantId(pub [u8; 16]);

/// Permanent id of a key; what envelopes carry instead of its name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(pub [u8; 16]);

macro_rules! hex_id {
    ($id:ident) => {
        impl fmt::Display for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }
        impl fmt::Debug for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($id))
            }
        }
    };
}
hex_id!(TenantId);
hex_id!(KeyId);

/// Number of a key version, from 1. Never used twice in the life of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VersionNumber(NonZeroU32);

impl VersionNumber {
    /// The first version of every key.
    pub const FIRST: Self = Self(NonZeroU32::MIN);

    /// `None` for 0.
    #[must_use]
    pub fn new(number: u32) -> Option<Self> {
        NonZeroU32::new(number).map(Self)
    }

    /// From 1.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0.get()
    }

    /// The number after this one; `None` at the end of the range.
    #[must_use]
    pub fn next(self) -> Option<Self> {
        self.0.checked_add(1).map(Self)
    }
}

impl fmt::Display for VersionNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Version of a stored row, for compare-and-swap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Revision(pub u64);

/// Operator's notes on a key; seen by policies, never secret.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels(BTreeMap<String, String>);

impl Labels {
    /// Most labels of one key.
    pub const MAX_COUNT: usize = 64;
    /// Longest label key in bytes.
    pub const MAX_KEY_BYTES: usize = 63;
    /// Longest label value in bytes.
    pub const MAX_VALUE_BYTES: usize = 255;

    /// Checks count, sizes and characters.
    ///
    /// # Errors
    /// A sentence that says which label is wrong and how.
    pub fn new(pairs: BTreeMap<String, String>) -> Result<Self, String> {
        if pairs.len() > Self::MAX_COUNT {
            return Err(format!(
                "{} labels; at most {}",
                pairs.len(),
                Self::MAX_COUNT
            ));
        }
        for (key, value) in &pairs {
            let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b);
            if key.is_empty() || key.len() > Self::MAX_KEY_BYTES || !key.bytes().all(legal) {
                return Err(format!(
                    "label {key:?}: a label key is 1 to {} of a-z 0-9 - _ .",
                    Self::MAX_KEY_BYTES
                ));
            }
            if value.len() > Self::MAX_VALUE_BYTES || value.chars().any(char::is_control) {
                return Err(format!(
                    "label {key:?}: a value has at most {} bytes and no control characters",
                    Self::MAX_VALUE_BYTES
                ));
            }
        }
        Ok(Self(pairs))
    }

    /// The pairs in key order.
    #[must_use]
    pub fn pairs(&self) -> &BTreeMap<String, String> {
        &self.0
    }
}

/// One generation of key material.
#[derive(Debug, Clone)]
pub struct KeyVersion {
    /// From 1.
    pub number: VersionNumber,
    /// SP 800-57 state.
    pub state: KeyState,
    /// Where it is on the token.
    pub on_token: KeyRef,
    /// Serial of the token it was generated in.
    pub token_serial: String,
    /// Milliseconds since the epoch.
    pub created_ms: i64,
    /// How many wraps were made; shared by all pictures of the key.
    pub wraps: Arc<WrapCounter>,
}

/// A picture of a key.
#[derive(Debug, Clone)]
pub struct Key {
    /// Permanent.
    pub id: KeyId,
    /// Every key belongs to one.
    pub tenant: TenantId,
    /// Operator's handle.
    pub name: KeyName,
    /// Algorithm and size.
    pub spec: KeySpec,
    /// Operator's notes.
    pub labels: Labels,
    /// The version that protects new data.
    pub primary: VersionNumber,
    versions: BTreeMap<VersionNumber, KeyVersion>,
    /// Milliseconds since the epoch.
    pub created_ms: i64,
    /// Rises with every change.
    pub revision: Revision,
}

/// Why a key cannot do what was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unusable {
    /// There is no such version.
    NoSuchVersion(u32),
    /// Its state forbids it.
    State(VersionNumber, KeyState),
    /// No such move in the table of states.
    Move {
        /// Which version.
        number: VersionNumber,
        /// Its state.
        from: KeyState,
        /// The state that was asked for.
        to: KeyState,
    },
    /// The key is for another use.
    Use {
        /// What it is for.
        is: KeyUse,
        /// What was asked.
        wanted: KeyUse,
    },
}

impl Key {
    /// A key with its first version.
    #[must_use]
    pub fn new(
        id: KeyId,
        tenant: TenantId,
        name: KeyName,
        spec: KeySpec,
        labels: Labels,
        first: KeyVersion,
    ) -> Self {
        Self {
            id,
            tenant,
            name,
            spec,
            labels,
            primary: first.number,
            created_ms: first.created_ms,
            versions: BTreeMap::from([(first.number, first)]),
            revision: Revision(1),
        }
    }

    /// Puts a stored version into the picture; `false` when the number is taken.
    pub fn restore(&mut self, version: KeyVersion) -> bool {
        match self.versions.entry(version.number) {
            Entry::Vacant(place) => {
                place.insert(version);
                true
            }
            Entry::Occupied(_) => false,
        }
    }

    /// The next picture: a new version that is primary from now on.
    #[must_use]
    pub fn rotated(&self, version: KeyVersion) -> Self {
        let mut next = self.clone();
        next.primary = version.number;
        next.versions.insert(version.number, version);
        next.revision = Revision(self.revision.0 + 1);
        next
    }

    /// The next picture: one version in another state, or (`only` is `None`) every version
    /// that may move there; and which ones moved.
    ///
    /// # Errors
    /// [`Unusable::NoSuchVersion`], or [`Unusable::Move`] when the table of states has no
    /// such move.
    pub fn moved(
        &self,
        only: Option<u32>,
        to: KeyState,
    ) -> Result<(Self, Vec<VersionNumber>), Unusable> {
        let named = only.unwrap_or(self.primary.get());
        let named = self.version(named).ok_or(Unusable::NoSuchVersion(named))?;
        let mut next = self.clone();
        next.revision = Revision(self.revision.0 + 1);
        let mut moved = Vec::new();
        for version in next.versions.values_mut() {
            let wanted = only.is_none_or(|n| n == version.number.get());
            if wanted && version.state.may_become(to) {
                version.state = to;
                moved.push(version.number);
            }
        }
        if moved.is_empty() {
            return Err(Unusable::Move {
                number: named.number,
                from: named.state,
                to,
            });
        }
        Ok((next, moved))
    }

    /// Number of the next version; `None` when the numbers are used up.
    #[must_use]
    pub fn next_number(&self) -> Option<VersionNumber> {
        self.versions.last_key_value().and_then(|(n, _)| n.next())
    }

    /// All versions, oldest first.
    pub fn versions(&self) -> impl DoubleEndedIterator<Item = &KeyVersion> + Clone {
        self.versions.values()
    }

    /// One version, whatever its state; for reading about it, not for using it.
    #[must_use]
    pub fn version(&self, number: u32) -> Option<&KeyVersion> {
        VersionNumber::new(number).and_then(|n| self.versions.get(&n))
    }

    /// The version that protects new data.
    ///
    /// # Errors
    /// When the key is for another use, or the state of the primary version forbids it.
    pub fn to_protect(&self, wanted: KeyUse) -> Result<ProtectVersion<'_>, Unusable> {
        self.is_for(wanted)?;
        let primary = self
            .versions
            .get(&self.primary)
            .ok_or(Unusable::NoSuchVersion(self.primary.get()))?;
        if primary.state.may_protect() {
            Ok(ProtectVersion(primary))
        } else {
            Err(Unusable::State(primary.number, primary.state))
        }
    }

    /// A version for opening what it protected.
    ///
    /// # Errors
    /// When the key is for another use, there is no such version, or its state forbids it.
    pub fn to_process(&self, wanted: KeyUse, number: u32) -> Result<ProcessVersion<'_>, Unusable> {
        self.is_for(wanted)?;
        let version = self
            .version(number)
            .ok_or(Unusable::NoSuchVersion(number))?;
        if version.state.may_process() {
            Ok(ProcessVersion(version))
        } else {
            Err(Unusable::State(version.number, version.state))
        }
    }

    /// The versions that may have made a signature or MAC: the one asked for, or every one
    /// that may process, newest first; never none.
    ///
    /// # Errors
    /// As for [`Key::to_process`], of the primary version when none may process.
    pub fn to_check(
        &self,
        wanted: KeyUse,
        only: Option<u32>,
    ) -> Result<Vec<ProcessVersion<'_>>, Unusable> {
        if let Some(number) = only {
            return Ok(vec![self.to_process(wanted, number)?]);
        }
        let may: Vec<ProcessVersion<'_>> = self
            .versions()
            .rev()
            .filter_map(|v| self.to_process(wanted, v.number.get()).ok())
            .collect();
        match may.is_empty() {
            false => Ok(may),
            true => self
                .to_process(wanted, self.primary.get())
                .map(|primary| vec![primary]),
        }
    }

    fn is_for(&self, wanted: KeyUse) -> Result<(), Unusable> {
        let is = self.spec.key_use();
        if is == wanted {
            Ok(())
        } else {
            Err(Unusable::Use { is, wanted })
        }
    }
}

/// A version whose state allows protecting. Only [`Key::to_protect`] makes one.
#[derive(Debug, Clone, Copy)]
pub struct ProtectVersion<'a>(&'a KeyVersion);

/// A version whose state allows processing. Only [`Key::to_process`] makes one.
#[derive(Debug, Clone, Copy)]
pub struct ProcessVersion<'a>(&'a KeyVersion);

impl<'a> ProtectVersion<'a> {
    /// The version.
    #[must_use]
    pub fn get(self) -> &'a KeyVersion {
        self.0
    }
}

impl<'a> ProcessVersion<'a> {
    /// The version.
    #[must_use]
    pub fn get(self) -> &'a KeyVersion {
        self.0
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use keywright_hsm::{KeyProof, ObjectId, WrappedDek};

    use super::*;

    pub(crate) fn version(number: u32, state: KeyState) -> KeyVersion {
        KeyVersion {
            number: VersionNumber::new(number).unwrap(),
            state,
            on_token: KeyRef {
                object: ObjectId([u8::try_from(number).unwrap_or(0); 16]),
                spec: KeySpec::Aes256,
                proof: KeyProof::Wrapped(WrappedDek([0; 60])),
            },
            token_serial: "0".into(),
            created_ms: 0,
            wraps: Arc::new(WrapCounter::new(0)),
        }
    }

    pub(crate) fn key(name: &str) -> Key {
        Key::new(
            KeyId([1; 16]),
            TenantId([2; 16]),
            KeyName::parse(name).unwrap(),
            KeySpec::Aes256,
            Labels::default(),
            version(1, KeyState::Active),
        )
    }

    #[test]
    fn rotation_makes_the_new_version_primary_and_keeps_the_old() {
        let old = key("a/b");
        let new = old.rotated(version(2, KeyState::Active));
        assert_eq!(
            new.to_protect(KeyUse::Encrypt).unwrap().get().number.get(),
            2
        );
        assert_eq!(
            new.to_process(KeyUse::Encrypt, 1)
                .unwrap()
                .get()
                .number
                .get(),
            1
        );
        assert_eq!(new.revision, Revision(2));
        assert_eq!(
            old.to_protect(KeyUse::Encrypt).unwrap().get().number.get(),
            1,
            "the old picture is untouched"
        );
    }

    #[test]
    fn what_a_version_may_do_follows_its_state() {
        for state in KeyState::ALL {
            let mut k = key("a");
            k.versions.insert(VersionNumber::FIRST, version(1, state));
            assert_eq!(
                k.to_protect(KeyUse::Encrypt).is_ok(),
                state.may_protect(),
                "{state:?}"
            );
            assert_eq!(
                k.to_process(KeyUse::Encrypt, 1).is_ok(),
                state.may_process(),
                "{state:?}"
            );
        }
        assert_eq!(
            key("a").to_process(KeyUse::Encrypt, 9).unwrap_err(),
            Unusable::NoSuchVersion(9)
        );
        assert_eq!(
            key("a").to_process(KeyUse::Encrypt, 0).unwrap_err(),
            Unusable::NoSuchVersion(0)
        );
    }

    #[test]
    fn versions_move_as_the_table_says() {
        let two = key("a").rotated(version(2, KeyState::Active));
        let states = |k: &Key| k.versions().map(|v| v.state).collect::<Vec<_>>();
        let (old, moved) = two.moved(Some(1), KeyState::Deactivated).unwrap();
        assert_eq!(moved.len(), 1);
        assert_eq!(states(&old), [KeyState::Deactivated, KeyState::Active]);
        assert_eq!(old.revision, Revision(3));
        // All that may: a compromised one stays where it is.
        let (mixed, _) = two.moved(Some(1), KeyState::Compromised).unwrap();
        let (all, moved) = mixed.moved(None, KeyState::Suspended).unwrap();
        assert_eq!(moved, [VersionNumber::new(2).unwrap()]);
        assert_eq!(states(&all), [KeyState::Compromised, KeyState::Suspended]);
        let refused = |k: &Key, only, to| matches!(k.moved(only, to), Err(Unusable::Move { .. }));
        assert!(refused(&mixed, Some(1), KeyState::Active));
        assert!(refused(&all, None, KeyState::Suspended));
        assert_eq!(
            two.moved(Some(9), KeyState::Suspended).unwrap_err(),
            Unusable::NoSuchVersion(9)
        );
    }

    #[test]
    fn what_may_have_made_it_is_asked_newest_first() {
        let two = key("a").rotated(version(2, KeyState::Active));
        let numbers = |k: &Key, only| -> Vec<u32> {
            let versions = k.to_check(KeyUse::Encrypt, only).unwrap();
            versions.iter().map(|v| v.get().number.get()).collect()
        };
        assert_eq!(numbers(&two, None), [2, 1]);
        assert_eq!(numbers(&two, Some(1)), [1]);
        let (one, _) = two.moved(Some(2), KeyState::Suspended).unwrap();
        assert_eq!(numbers(&one, None), [1]);
        let (none, _) = one.moved(None, KeyState::Compromised).unwrap();
        let e = none.to_check(KeyUse::Encrypt, None).unwrap_err();
        assert!(matches!(e, Unusable::State(n, KeyState::Compromised) if n.get() == 2));
        let e = two.to_check(KeyUse::Sign, None).unwrap_err();
        assert!(matches!(e, Unusable::Use { .. }));
    }

    #[test]
    fn a_key_has_one_use() {
        for wanted in [KeyUse::Sign, KeyUse::Mac, KeyUse::Decrypt] {
            let refused = Unusable::Use {
                is: KeyUse::Encrypt,
                wanted,
            };
            assert_eq!(key("a").to_protect(wanted).unwrap_err(), refused);
            assert_eq!(key("a").to_process(wanted, 1).unwrap_err(), refused);
        }
    }

    #[test]
    fn labels_have_limits() {
        let one = |k: &str, v: &str| Labels::new(BTreeMap::from([(k.to_owned(), v.to_owned())]));
        assert!(one("team", "payments").is_ok());
        assert!(one("Team", "x").is_err() && one("", "x").is_err());
        assert!(one(&"k".repeat(63), &"v".repeat(255)).is_ok());
        assert!(one(&"k".repeat(64), "v").is_err() && one("k", &"v".repeat(256)).is_err());
        assert!(one("k", "a\nb").is_err());
        let many = (0..65).map(|i| (format!("k{i}"), String::new())).collect();
        assert!(Labels::new(many).is_err());
    }
}
