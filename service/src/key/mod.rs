//! Keys: named, versioned, and never leaving the HSM. Pure data, no I/O.
//!
//! A [`Key`] is an immutable picture; a change makes a new picture with a higher
//! [`Revision`]. What a version may do follows from its state alone (`state`).

mod labels;
mod lease;
mod lifecycle;
mod name;
mod rules;
mod state;
mod version;
mod wraps;

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fmt,
    num::NonZeroU32,
};

pub use keywright_hsm::{KeySpec, KeyUse};

pub use labels::Labels;
pub use lease::{DekLease, LeasedDek, Taken};
pub use name::{KeyName, NameError};
pub use rules::{Due, Rules};
pub use state::KeyState;
pub use version::{KeyVersion, LastUsed, UseTimes};
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
pub(crate) use hex_id;

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
    /// When to rotate, and how much a version may do.
    pub rules: Rules,
    /// The version that protects new data.
    pub primary: VersionNumber,
    /// Since when it is that, in milliseconds since the epoch.
    pub promoted_ms: i64,
    /// Versions below this one process nothing any more.
    pub minimum: VersionNumber,
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
    /// It is scheduled for destruction, at this time in milliseconds since the epoch.
    Scheduled(VersionNumber, i64),
    /// It does nothing for a try, until this time in milliseconds since the epoch.
    BrownOut(VersionNumber, i64),
    /// It is not scheduled for destruction.
    NotScheduled(VersionNumber),
    /// None of the versions is scheduled for destruction.
    NoneScheduled,
    /// None of the versions may move to this state.
    NoneMay(KeyState),
    /// It is active: nothing in use is destroyed.
    InUse(VersionNumber),
    /// It lies below the minimum version of the key.
    BelowMinimum(VersionNumber, VersionNumber),
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
            rules: Rules::default(),
            primary: first.number,
            promoted_ms: first.created_ms,
            minimum: VersionNumber::FIRST,
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

    /// Number of the next version; `None` when the numbers are used up.
    #[must_use]
    pub fn next_number(&self) -> Option<VersionNumber> {
        self.versions.last_key_value().and_then(|(n, _)| n.next())
    }

    /// The version between the two phases of a rotation: it exists, and becomes primary
    /// when every node knows of it.
    #[must_use]
    pub fn waiting(&self) -> Option<VersionNumber> {
        let newest = self.versions.values().next_back()?;
        let waits = newest.number > self.primary
            && newest.state == KeyState::PreActivation
            && newest.destroy_at_ms.is_none()
            && newest.brown_out_until_ms.is_none();
        waits.then_some(newest.number)
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
        if !primary.state.may_protect() {
            return Err(Unusable::State(primary.number, primary.state));
        }
        Ok(ProtectVersion(primary))
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
        // Said first: whoever still needs it has not much time.
        if let Some(at) = version.destroy_at_ms {
            return Err(Unusable::Scheduled(version.number, at));
        }
        if let Some(until) = version.brown_out_until_ms {
            return Err(Unusable::BrownOut(version.number, until));
        }
        if !version.state.may_process() {
            return Err(Unusable::State(version.number, version.state));
        }
        if version.number < self.minimum {
            return Err(Unusable::BelowMinimum(version.number, self.minimum));
        }
        Ok(ProcessVersion(version))
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

    /// The versions that may not process, newest first, and why.
    pub fn barred(&self, wanted: KeyUse) -> impl Iterator<Item = (&KeyVersion, Unusable)> {
        self.versions().rev().filter_map(move |v| {
            let why = self.to_process(wanted, v.number.get()).err()?;
            Some((v, why))
        })
    }

    /// Why a version should be rotated by now, if it should.
    #[must_use]
    pub fn rotation_due(&self, version: &KeyVersion, now_ms: i64) -> Option<Due> {
        self.rules
            .rotation_due(version, self.since_ms(version), now_ms)
    }

    /// Old versions that are to process only by now.
    #[must_use]
    pub fn deactivation_due(&self, now_ms: i64) -> Vec<VersionNumber> {
        let followers = self.versions().skip(1);
        self.versions()
            .zip(followers)
            .filter(|(old, _)| old.number < self.primary && old.state == KeyState::Active)
            .filter(|(old, _)| old.destroy_at_ms.is_none())
            .filter(|(_, next)| self.rules.deactivation_due(self.since_ms(next), now_ms))
            .map(|(old, _)| old.number)
            .collect()
    }

    /// When the primary version is to be rotated by age, in milliseconds since the epoch;
    /// `None`: never.
    #[must_use]
    pub fn rotation_ms(&self) -> Option<i64> {
        self.rules.rotation_ms(self.promoted_ms)
    }

    /// Since when a version protects, or did: it may have existed for a while before. Of
    /// those that were primary before, only their beginning is known.
    fn since_ms(&self, version: &KeyVersion) -> i64 {
        if version.number == self.primary {
            self.promoted_ms
        } else {
            version.created_ms
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
    use std::sync::Arc;

    use keywright_hsm::{KeyProof, KeyRef, ObjectId, WrappedDek};

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
            destroy_at_ms: None,
            brown_out_until_ms: None,
            wraps: Arc::new(WrapCounter::new(0)),
            used: Arc::default(),
            lease: Arc::default(),
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
        assert_eq!(new.revision, Revision(3));
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
}
