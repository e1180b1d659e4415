//! How a key changes: each change makes the next picture, or says why there is none.

use std::sync::Arc;

use super::{Key, KeyState, KeyVersion, Labels, Revision, Rules, Unusable, VersionNumber};

impl Key {
    /// The next picture: one more version, which protects nothing yet. The first phase of a
    /// rotation.
    #[must_use]
    pub fn with_version(&self, version: KeyVersion) -> Self {
        let mut next = self.next_picture();
        let state = KeyState::PreActivation;
        next.versions
            .insert(version.number, KeyVersion { state, ..version });
        next
    }

    /// The next picture: the version that waited is primary from now on. The second phase of
    /// a rotation, when every node knows of the version.
    ///
    /// # Errors
    /// [`Unusable::NoneMay`] when none waits.
    pub fn promoted(&self, now_ms: i64) -> Result<Self, Unusable> {
        let nothing = Unusable::NoneMay(KeyState::Active);
        let number = self.waiting().ok_or(nothing)?;
        let mut next = self.next_picture();
        let version = next.versions.get_mut(&number).ok_or(nothing)?;
        version.state = KeyState::Active;
        next.primary = number;
        next.promoted_ms = now_ms;
        Ok(next)
    }

    /// Both phases.
    #[cfg(test)]
    pub(crate) fn rotated(&self, version: KeyVersion) -> Self {
        let now_ms = version.created_ms;
        self.with_version(version).promoted(now_ms).unwrap()
    }

    /// What is stored, with what this process counts by itself: its own blocks of wraps,
    /// and uses that are not stored yet.
    #[must_use]
    pub fn heard(&self, mut stored: Self) -> Self {
        for version in stored.versions.values_mut() {
            let Some(known) = self.versions.get(&version.number) else {
                continue;
            };
            known.wraps.hear(version.wraps.reserved());
            known.used.hear(&version.used);
            version.wraps = Arc::clone(&known.wraps);
            version.used = Arc::clone(&known.used);
            version.lease = Arc::clone(&known.lease);
        }
        stored
    }

    /// The next picture, with nothing changed yet but the revision.
    fn next_picture(&self) -> Self {
        let mut next = self.clone();
        next.revision = Revision(self.revision.0 + 1);
        next
    }

    /// The next picture: one version in another state, or (`only` is `None`) every version
    /// that may move there; and which ones moved.
    ///
    /// # Errors
    /// [`Unusable::NoSuchVersion`], or [`Unusable::Move`] when the table of states has no
    /// such move, or [`Unusable::Scheduled`].
    pub fn moved(
        &self,
        only: Option<u32>,
        to: KeyState,
    ) -> Result<(Self, Vec<VersionNumber>), Unusable> {
        self.change_versions(only, Unusable::NoneMay(to), |version| {
            let KeyVersion { number, state, .. } = *version;
            match version.destroy_at_ms {
                // A compromise is a fact, whatever else is planned.
                Some(at) if to != KeyState::Compromised => {
                    return Err(Unusable::Scheduled(number, at));
                }
                // Only a promotion activates what has not been active.
                _ if state == KeyState::PreActivation && to == KeyState::Active => {
                    let from = state;
                    return Err(Unusable::Move { number, from, to });
                }
                _ if state.may_become(to) => version.state = to,
                _ => {
                    let from = state;
                    return Err(Unusable::Move { number, from, to });
                }
            }
            Ok(())
        })
    }

    /// The next picture: one version, or (`only` is `None`) all that still have material,
    /// scheduled for destruction.
    ///
    /// # Errors
    /// [`Unusable::NoSuchVersion`], [`Unusable::InUse`], [`Unusable::Scheduled`] already,
    /// or [`Unusable::Move`] when it is destroyed.
    pub fn scheduled(
        &self,
        only: Option<u32>,
        at_ms: i64,
    ) -> Result<(Self, Vec<VersionNumber>), Unusable> {
        let wanted = |v: &&KeyVersion| only.is_none_or(|n| n == v.number.get());
        let active = |v: &&KeyVersion| v.state == KeyState::Active;
        if let Some(version) = self.versions().filter(wanted).find(active) {
            return Err(Unusable::InUse(version.number));
        }
        let nothing = Unusable::NoneMay(KeyState::Destroyed);
        self.change_versions(only, nothing, |version| {
            may_be_destroyed(version)?;
            version.destroy_at_ms = Some(at_ms);
            Ok(())
        })
    }

    /// The next picture: one version does nothing for a try.
    ///
    /// # Errors
    /// As for [`Key::scheduled`].
    pub fn browned_out(
        &self,
        number: u32,
        until_ms: i64,
    ) -> Result<(Self, Vec<VersionNumber>), Unusable> {
        let nothing = Unusable::NoSuchVersion(number);
        self.change_versions(Some(number), nothing, |version| {
            if version.state == KeyState::Active {
                return Err(Unusable::InUse(version.number));
            }
            may_be_destroyed(version)?;
            version.brown_out_until_ms = Some(until_ms);
            Ok(())
        })
    }

    /// The next picture: what was to do nothing until now does again what it did.
    ///
    /// # Errors
    /// [`Unusable::NoneScheduled`] when there is none.
    pub fn back(&self, now_ms: i64) -> Result<(Self, Vec<VersionNumber>), Unusable> {
        self.change_versions(None, Unusable::NoneScheduled, |version| {
            match version.brown_out_until_ms {
                Some(until) if until <= now_ms => version.brown_out_until_ms = None,
                _ => return Err(Unusable::NotScheduled(version.number)),
            }
            Ok(())
        })
    }

    /// The next picture: one version, or all that are, no longer scheduled for destruction
    /// and not doing nothing for a try. They have the state they had.
    ///
    /// # Errors
    /// [`Unusable::NoSuchVersion`], [`Unusable::NotScheduled`].
    pub fn spared(&self, only: Option<u32>) -> Result<(Self, Vec<VersionNumber>), Unusable> {
        self.change_versions(only, Unusable::NoneScheduled, |version| {
            let brown_out = version.brown_out_until_ms.take();
            match version.destroy_at_ms.take().or(brown_out) {
                Some(_) => Ok(()),
                None => Err(Unusable::NotScheduled(version.number)),
            }
        })
    }

    /// The next picture: a scheduled version without material. The record stays.
    ///
    /// # Errors
    /// [`Unusable::NoSuchVersion`], [`Unusable::NotScheduled`].
    pub fn destroyed(&self, number: u32) -> Result<(Self, Vec<VersionNumber>), Unusable> {
        self.change_versions(
            Some(number),
            Unusable::NoneScheduled,
            |version| match version.destroy_at_ms.take() {
                Some(_) => {
                    version.state = KeyState::Destroyed;
                    Ok(())
                }
                None => Err(Unusable::NotScheduled(version.number)),
            },
        )
    }

    /// The next picture with other notes and rules.
    ///
    /// # Errors
    /// [`Unusable::NoSuchVersion`] when `minimum` is none of the key's.
    pub fn updated(
        &self,
        labels: Option<Labels>,
        rules: Option<Rules>,
        minimum: Option<u32>,
    ) -> Result<Self, Unusable> {
        let mut next = self.next_picture();
        next.labels = labels.unwrap_or(next.labels);
        next.rules = rules.unwrap_or(next.rules);
        if let Some(minimum) = minimum {
            let version = self.version(minimum);
            next.minimum = version.ok_or(Unusable::NoSuchVersion(minimum))?.number;
        }
        Ok(next)
    }

    /// Changes one version, which must work, or all that can be; and says which ones.
    /// `nothing`: why no version at all could be changed.
    fn change_versions(
        &self,
        only: Option<u32>,
        nothing: Unusable,
        mut change: impl FnMut(&mut KeyVersion) -> Result<(), Unusable>,
    ) -> Result<(Self, Vec<VersionNumber>), Unusable> {
        if let Some(number) = only {
            self.version(number)
                .ok_or(Unusable::NoSuchVersion(number))?;
        }
        let mut next = self.next_picture();
        let mut changed = Vec::new();
        let mut refused = nothing;
        for version in next.versions.values_mut() {
            let number = version.number;
            if only.is_some_and(|n| n != number.get()) {
                continue;
            }
            match change(version) {
                Ok(()) => changed.push(number),
                Err(why) if only.is_some() => refused = why,
                // What is planned for a version is the news, not that the others are done.
                Err(why @ Unusable::Scheduled(..)) => refused = why,
                Err(_) => {}
            }
        }
        if changed.is_empty() {
            return Err(refused);
        }
        Ok((next, changed))
    }
}

fn may_be_destroyed(version: &KeyVersion) -> Result<(), Unusable> {
    let KeyVersion { number, state, .. } = *version;
    if let Some(at) = version.destroy_at_ms {
        return Err(Unusable::Scheduled(number, at));
    }
    if let Some(until) = version.brown_out_until_ms {
        return Err(Unusable::BrownOut(number, until));
    }
    if !state.may_become(KeyState::Destroyed) {
        return Err(Unusable::Move {
            number,
            from: state,
            to: KeyState::Destroyed,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::tests::{key, version};

    #[test]
    fn versions_move_as_the_table_says() {
        let two = key("a").rotated(version(2, KeyState::Active));
        let states = |k: &Key| k.versions().map(|v| v.state).collect::<Vec<_>>();
        let (old, moved) = two.moved(Some(1), KeyState::Deactivated).unwrap();
        assert_eq!(moved.len(), 1);
        assert_eq!(states(&old), [KeyState::Deactivated, KeyState::Active]);
        assert_eq!(old.revision, Revision(4));
        // All that may: a compromised one stays where it is.
        let (mixed, _) = two.moved(Some(1), KeyState::Compromised).unwrap();
        let (all, moved) = mixed.moved(None, KeyState::Suspended).unwrap();
        assert_eq!(moved, [VersionNumber::new(2).unwrap()]);
        assert_eq!(states(&all), [KeyState::Compromised, KeyState::Suspended]);
        let refused = |k: &Key, only, to| matches!(k.moved(only, to), Err(Unusable::Move { .. }));
        assert!(refused(&mixed, Some(1), KeyState::Active));
        assert_eq!(
            all.moved(None, KeyState::Suspended).unwrap_err(),
            Unusable::NoneMay(KeyState::Suspended)
        );
        assert_eq!(
            two.moved(Some(9), KeyState::Suspended).unwrap_err(),
            Unusable::NoSuchVersion(9)
        );
    }

    #[test]
    fn nothing_active_is_scheduled_and_what_is_scheduled_does_nothing() {
        use crate::key::KeyUse;
        let two = key("a").rotated(version(2, KeyState::Active));
        let first = VersionNumber::FIRST;
        assert_eq!(two.scheduled(None, 9).unwrap_err(), Unusable::InUse(first));
        assert_eq!(
            two.scheduled(Some(1), 9).unwrap_err(),
            Unusable::InUse(first)
        );
        let (old, _) = two.moved(Some(1), KeyState::Deactivated).unwrap();
        let (dying, which) = old.scheduled(Some(1), 9).unwrap();
        assert_eq!(which, [first]);
        let scheduled = Unusable::Scheduled(first, 9);
        let process = |k: &Key| k.to_process(KeyUse::Encrypt, 1).map(|_| ());
        assert_eq!(process(&dying), Err(scheduled));
        assert_eq!(dying.scheduled(Some(1), 7).unwrap_err(), scheduled);
        assert_eq!(
            dying.moved(Some(1), KeyState::Active).unwrap_err(),
            scheduled
        );
        assert!(dying.moved(Some(1), KeyState::Compromised).is_ok());
        let (spared, _) = dying.spared(None).unwrap();
        assert_eq!(process(&spared), Ok(()));
        assert_eq!(spared.spared(None).unwrap_err(), Unusable::NoneScheduled);
        let none = Unusable::NotScheduled(first);
        assert_eq!(spared.spared(Some(1)).unwrap_err(), none);
        assert_eq!(spared.destroyed(1).unwrap_err(), none);
        let (gone, _) = dying.destroyed(1).unwrap();
        let gone_state = Unusable::State(first, KeyState::Destroyed);
        assert_eq!(process(&gone), Err(gone_state));
        assert!(gone.spared(Some(1)).is_err() && gone.scheduled(Some(1), 9).is_err());
        assert!(gone.to_protect(KeyUse::Encrypt).is_ok(), "version 2 stands");
    }

    #[test]
    fn a_rotation_has_two_phases() {
        use crate::key::KeyUse;
        let one = key("a");
        let half = one.with_version(version(2, KeyState::Active));
        let second = VersionNumber::new(2).unwrap();
        assert_eq!((half.primary.get(), half.waiting()), (1, Some(second)));
        let protects = half.to_protect(KeyUse::Encrypt).unwrap().get().number;
        assert_eq!(protects.get(), 1);
        // Another node may have been told already that it is primary.
        assert!(half.to_process(KeyUse::Encrypt, 2).is_ok());
        assert!(half.moved(Some(2), KeyState::Active).is_err());
        let whole = half.promoted(99).unwrap();
        assert_eq!((whole.primary, whole.promoted_ms), (second, 99));
        assert_eq!(whole.waiting(), None);
        assert!(whole.promoted(100).is_err());
        // A version that was given up does not stand in the way, and its number is used.
        let (lost, _) = half.moved(Some(2), KeyState::Compromised).unwrap();
        assert_eq!(lost.waiting(), None);
        assert_eq!(lost.next_number(), VersionNumber::new(3));
    }

    #[test]
    fn what_is_stored_takes_nothing_of_our_own_counters() {
        use crate::key::{LastUsed, Take, UseTimes, WrapCounter};
        let known = key("a");
        let own = known.version(1).unwrap();
        own.wraps.grant(WrapCounter::BLOCK);
        assert!(matches!(own.wraps.take(5), Take::Taken { .. }));
        own.used.seals(7);
        own.used.protects(50);
        let mut first = version(1, KeyState::Suspended);
        first.wraps = Arc::new(WrapCounter::new(3 * WrapCounter::BLOCK));
        let times = UseTimes {
            protected_ms: 40,
            processed_ms: 60,
            refused_ms: 0,
        };
        first.used = Arc::new(LastUsed::new(times, 100));
        let mut stored = key("a");
        stored.versions.insert(first.number, first);
        let heard = known.heard(stored);
        let now = heard.version(1).unwrap();
        assert_eq!(now.state, KeyState::Suspended, "news");
        assert_eq!(now.wraps.left(), WrapCounter::BLOCK - 5, "our block");
        assert_eq!(now.wraps.reserved(), 3 * WrapCounter::BLOCK);
        assert_eq!(own.wraps.left(), now.wraps.left());
        let used = &now.used;
        assert_eq!(
            (used.protected_ms(), used.processed_ms()),
            (Some(50), Some(60))
        );
        assert_eq!(
            used.sealed_bytes(),
            107,
            "theirs and what is not stored yet"
        );
        assert_eq!(used.take_unsaved().unwrap().1, 7);
    }

    #[test]
    fn a_minimum_forbids_older_versions() {
        use crate::key::KeyUse;
        let two = key("a").rotated(version(2, KeyState::Active));
        let next = two.updated(None, None, Some(2)).unwrap();
        assert_eq!(next.revision, Revision(4));
        let (one, second) = (VersionNumber::FIRST, next.minimum);
        assert_eq!(
            next.to_process(KeyUse::Encrypt, 1).unwrap_err(),
            Unusable::BelowMinimum(one, second)
        );
        assert!(next.to_process(KeyUse::Encrypt, 2).is_ok());
        let back = next.updated(None, None, Some(1)).unwrap();
        assert!(back.to_process(KeyUse::Encrypt, 1).is_ok());
        assert_eq!(
            two.updated(None, None, Some(3)).unwrap_err(),
            Unusable::NoSuchVersion(3)
        );
    }
}
