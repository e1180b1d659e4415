//! Counts and census of what was found.

use std::collections::BTreeMap;

use super::sort::Sort;
use crate::proto::{JobCounts, VersionCount};

/// What became of one entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// Nothing was to be done.
    AsItWas,
    Moved,
    /// Old, and still old.
    Left,
}

/// A sum.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) counts: JobCounts,
    /// By version: found, left.
    census: BTreeMap<u32, (u64, u64)>,
}

impl Tally {
    pub(super) fn count(&mut self, sort: Sort, fate: Fate) {
        let counts = &mut self.counts;
        counts.seen += 1;
        let (field, version) = match (sort, fate) {
            (Sort::Empty, _) => (&mut counts.empty, None),
            (Sort::Foreign, _) => (&mut counts.foreign, None),
            (Sort::OtherKey, _) => (&mut counts.other_key, None),
            (Sort::Unreadable, _) => (&mut counts.left, None),
            (Sort::Current(v), _) => (&mut counts.current, Some(v)),
            (Sort::Old(v), Fate::Moved) => (&mut counts.moved, Some(v)),
            (Sort::Old(v), _) => (&mut counts.left, Some(v)),
        };
        *field += 1;
        // There is no version 0: that header is damaged.
        if let Some(version) = version.filter(|v| *v != 0) {
            let (found, left) = self.census.entry(version).or_default();
            *found += 1;
            // What is current stays under its version too; what is moved does not.
            *left += u64::from(fate != Fate::Moved);
        }
    }

    pub(super) fn add(&mut self, more: &Self) {
        self.counts = sum(&self.counts, &more.counts);
        for (version, (found, left)) in &more.census {
            let mine = self.census.entry(*version).or_default();
            mine.0 += found;
            mine.1 += left;
        }
    }

    pub(super) fn census(&self) -> Vec<VersionCount> {
        self.census
            .iter()
            .map(|(version, (found, left))| VersionCount {
                version: *version,
                found: *found,
                left: *left,
            })
            .collect()
    }
}

pub(super) fn sum(a: &JobCounts, b: &JobCounts) -> JobCounts {
    JobCounts {
        seen: a.seen + b.seen,
        moved: a.moved + b.moved,
        current: a.current + b.current,
        empty: a.empty + b.empty,
        foreign: a.foreign + b.foreign,
        other_key: a.other_key + b.other_key,
        left: a.left + b.left,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seen_is_the_sum_and_the_census_says_what_is_left() {
        let mut tally = Tally::default();
        tally.count(Sort::Empty, Fate::AsItWas);
        tally.count(Sort::Foreign, Fate::AsItWas);
        tally.count(Sort::OtherKey, Fate::AsItWas);
        tally.count(Sort::Unreadable, Fate::Left);
        tally.count(Sort::Current(3), Fate::AsItWas);
        tally.count(Sort::Old(1), Fate::Moved);
        tally.count(Sort::Old(1), Fate::Left);
        tally.count(Sort::Old(0), Fate::Left);
        let mut twice = tally.clone();
        twice.add(&tally);
        let c = twice.counts;
        assert_eq!(c.seen, 16);
        assert_eq!(
            c.seen,
            c.moved + c.current + c.empty + c.foreign + c.other_key + c.left
        );
        let census: Vec<_> = twice
            .census()
            .iter()
            .map(|v| (v.version, v.found, v.left))
            .collect();
        assert_eq!(census, [(1, 4, 2), (3, 2, 2)]);
    }
}
