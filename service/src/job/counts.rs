//! What a job came across: in all, and by version of its key.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::key::VersionNumber;

/// What was found. Every item is one of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Counts {
    /// All.
    pub seen: u64,
    /// Moved from an old version.
    pub moved: u64,
    /// At the target or above.
    pub current: u64,
    /// Nothing there.
    pub empty: u64,
    /// Not an envelope; left alone.
    pub foreign: u64,
    /// An envelope of another key; left alone.
    pub other_key: u64,
    /// Still under an old version.
    pub left: u64,
}

impl Counts {
    /// `None` when they are more than can be counted.
    #[must_use]
    pub fn sum(&self) -> Option<u64> {
        let Self {
            seen: _,
            moved,
            current,
            empty,
            foreign,
            other_key,
            left,
        } = *self;
        sum([moved, current, empty, foreign, other_key, left].into_iter())
    }

    /// What was found under versions of the key was moved, is current or is left. Of what is
    /// left the version may not be readable.
    #[must_use]
    pub fn fit(&self, census: &Census) -> bool {
        let found = sum(census.0.values().map(|f| f.found));
        let left = sum(census.0.values().map(|f| f.left));
        let stays = self.current.checked_add(self.left);
        let (Some(found), Some(left), Some(stays)) = (found, left, stays) else {
            return false;
        };
        census.0.values().all(|f| f.left <= f.found) && left <= stays && found - left == self.moved
    }

    /// Of what is still under a version of the key: how many whose version the census does
    /// not know.
    #[must_use]
    pub fn unknown(&self, census: &Census) -> u64 {
        let known = sum(census.0.values().map(|f| f.left)).unwrap_or(u64::MAX);
        let stays = self.current.saturating_add(self.left);
        stays.saturating_sub(known)
    }

    /// And these too.
    pub fn add(&mut self, more: &Self) {
        let Self {
            seen,
            moved,
            current,
            empty,
            foreign,
            other_key,
            left,
        } = self;
        for (count, more) in [
            (seen, more.seen),
            (moved, more.moved),
            (current, more.current),
            (empty, more.empty),
            (foreign, more.foreign),
            (other_key, more.other_key),
            (left, more.left),
        ] {
            *count = count.saturating_add(more);
        }
    }
}

fn sum(mut counts: impl Iterator<Item = u64>) -> Option<u64> {
    counts.try_fold(0, u64::checked_add)
}

/// What was found under one version.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Found {
    /// Under it when it was looked at.
    pub found: u64,
    /// Under it still.
    pub left: u64,
}

/// What was found, by version. In the store and in reports: JSON, by number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Census(BTreeMap<VersionNumber, Found>);

impl Census {
    /// Most versions of one key that are counted.
    pub const MAX_VERSIONS: usize = 4096;

    /// From pairs; of two for one version the last.
    pub fn new(found: impl IntoIterator<Item = (VersionNumber, Found)>) -> Self {
        Self(found.into_iter().collect())
    }

    /// By version.
    pub fn versions(&self) -> impl Iterator<Item = (VersionNumber, Found)> {
        self.0.iter().map(|(number, found)| (*number, *found))
    }

    /// Of one version.
    #[must_use]
    pub fn of(&self, version: VersionNumber) -> Found {
        self.0.get(&version).copied().unwrap_or_default()
    }

    /// And these too.
    pub fn add(&mut self, more: &Self) {
        for (version, Found { found, left }) in more.versions() {
            let sum = self.0.entry(version).or_default();
            sum.found = sum.found.saturating_add(found);
            sum.left = sum.left.saturating_add(left);
        }
    }
}
