//! What batches are made of: many byte strings in, many out, some of them failed.

use bytes::Bytes;
use keywright_hsm as hsm;
use zeroize::Zeroizing;

use crate::error::{Error, Reason, Result};

/// The byte strings of a batch, as separate slices or in one buffer; never copied.
#[derive(Debug, Clone)]
pub enum Strings {
    /// Each by itself.
    Separate(Vec<Bytes>),
    /// One after the other in `data`; `ends` are the offsets after each.
    Packed {
        /// All of them.
        data: Bytes,
        /// Offset after each.
        ends: Vec<usize>,
    },
}

impl Strings {
    /// The packed form, when the lengths add up to the data.
    ///
    /// # Errors
    /// [`Reason::InvalidArgument`] naming `field` when they do not.
    pub fn packed(data: Bytes, lengths: &[u32], field: &'static str) -> Result<Self> {
        let mut end = 0usize;
        let ends: Option<Vec<usize>> = lengths
            .iter()
            .map(|n| {
                end = end.checked_add(usize::try_from(*n).ok()?)?;
                Some(end)
            })
            .collect();
        match ends {
            Some(ends) if end == data.len() => Ok(Self::Packed { data, ends }),
            _ => Err(Error::field(
                Reason::InvalidArgument,
                field,
                format!(
                    "the lengths do not add up to the {} bytes of data",
                    data.len()
                ),
            )),
        }
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Separate(items) => items.len(),
            Self::Packed { ends, .. } => ends.len(),
        }
    }

    /// None at all?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All bytes together.
    #[must_use]
    pub fn total_bytes(&self) -> usize {
        match self {
            Self::Separate(items) => items.iter().map(Bytes::len).sum(),
            Self::Packed { data, .. } => data.len(),
        }
    }

    /// Did they come packed? The answer then goes packed too.
    #[must_use]
    pub fn is_packed(&self) -> bool {
        matches!(self, Self::Packed { .. })
    }

    /// In order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len()).map(|i| self.get(i))
    }

    /// One of them; empty past the end.
    #[must_use]
    pub fn get(&self, index: usize) -> &[u8] {
        match self {
            Self::Separate(items) => items.get(index).map_or(&[], |b| b),
            Self::Packed { data, ends } => {
                let start = index
                    .checked_sub(1)
                    .and_then(|i| ends.get(i))
                    .copied()
                    .unwrap_or(0);
                let end = ends.get(index).copied().unwrap_or(start);
                data.get(start..end).unwrap_or(&[])
            }
        }
    }
}

/// Results of a batch: one buffer, an end for each item (failed ones are empty).
#[derive(Debug, Default)]
pub struct Output {
    /// All results, one after the other; cleared when it is dropped unsent.
    pub data: Zeroizing<Vec<u8>>,
    /// Offset after each result.
    pub ends: Vec<usize>,
    /// What failed.
    pub failures: Failures,
}

impl Output {
    /// One result; empty for failed ones.
    #[must_use]
    pub fn get(&self, index: usize) -> &[u8] {
        let start = index
            .checked_sub(1)
            .and_then(|i| self.ends.get(i))
            .copied()
            .unwrap_or(0);
        let end = self.ends.get(index).copied().unwrap_or(start);
        self.data.get(start..end).unwrap_or(&[])
    }
}

impl Output {
    /// Results that came one by one, in order.
    pub(super) fn collect<B: AsRef<[u8]>>(results: impl IntoIterator<Item = Result<B>>) -> Self {
        let results: Vec<Result<B>> = results.into_iter().collect();
        let bytes = results.iter().flatten().map(|b| b.as_ref().len()).sum();
        // All the room at once: a buffer that grows leaves its old self uncleared.
        let mut output = Self {
            data: Vec::with_capacity(bytes).into(),
            ..Self::default()
        };
        for (index, result) in results.into_iter().enumerate() {
            match result {
                Ok(bytes) => output.data.extend_from_slice(bytes.as_ref()),
                Err(e) => output.failures.push(index, e),
            }
            output.ends.push(output.data.len());
        }
        output
    }
}

/// Runs the jobs that could be made in one go, and puts the results where they belong.
pub(super) async fn each<J, T>(
    jobs: Vec<Result<J>>,
    run: impl AsyncFnOnce(Vec<J>) -> Vec<hsm::Result<T>>,
) -> Vec<Result<T>> {
    let mut good = Vec::with_capacity(jobs.len());
    let places: Vec<Result<()>> = jobs
        .into_iter()
        .map(|job| job.map(|job| good.push(job)))
        .collect();
    let mut done = run(good).await.into_iter();
    places
        .into_iter()
        .map(|place| {
            place?;
            let result = done.next();
            result.map_or_else(
                || Err(Error::internal("a job got lost in the HSM")),
                |r| r.map_err(Error::from),
            )
        })
        .collect()
}

/// Whether a signature or MAC is valid, and which version made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// `None`: not valid under any version that was asked.
    pub version: Option<u32>,
}

/// What came of checking a batch.
#[derive(Debug)]
pub struct Checked {
    /// One for each input; that of a failed one means nothing.
    pub verdicts: Vec<Verdict>,
    /// What could not be checked.
    pub failures: Failures,
}

impl Checked {
    pub(super) fn collect(results: Vec<Result<Verdict>>) -> Self {
        let mut failures = Failures::default();
        let verdict = |(index, result): (usize, Result<Verdict>)| {
            result.unwrap_or_else(|e| {
                failures.push(index, e);
                Verdict { version: None }
            })
        };
        let verdicts = results.into_iter().enumerate().map(verdict).collect();
        Self { verdicts, failures }
    }
}

/// The items that failed, in the order of the request.
#[derive(Debug, Default)]
pub struct Failures(Vec<(usize, Error)>);

impl Failures {
    /// One more; must come in order.
    pub fn push(&mut self, index: usize, error: Error) {
        self.0.push((index, error));
    }

    /// In order.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &Error)> {
        self.0.iter().map(|(i, e)| (*i, e))
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// None at all?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// When all of `items` failed with the same answer, that answer: the call then fails
    /// as a whole, so that a batch of one behaves like a plain call and nobody takes
    /// empty results for good ones.
    ///
    /// # Errors
    /// The answer.
    pub fn unless_all_alike(&self, items: usize) -> Result<()> {
        match self.0.split_first() {
            Some(((_, first), rest))
                if self.0.len() == items && rest.iter().all(|(_, e)| e.same_answer(first)) =>
            {
                Err(first.clone())
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_layouts_read_alike() {
        let separate = Strings::Separate(vec!["ab".into(), "".into(), "c".into()]);
        let packed = Strings::packed("abc".into(), &[2, 0, 1], "f").unwrap();
        for strings in [&separate, &packed] {
            assert_eq!(
                strings.iter().collect::<Vec<_>>(),
                [b"ab".as_slice(), b"", b"c"]
            );
            assert_eq!((strings.len(), strings.total_bytes()), (3, 3));
            assert_eq!(strings.get(9), b"");
        }
    }

    #[test]
    fn lengths_must_add_up() {
        for lengths in [&[2u32, 2] as &[u32], &[1], &[u32::MAX, u32::MAX], &[]] {
            assert!(
                Strings::packed("abc".into(), lengths, "f").is_err(),
                "{lengths:?}"
            );
        }
        assert!(Strings::packed("".into(), &[], "f").is_ok());
        assert!(Strings::packed("".into(), &[0, 0], "f").is_ok());
    }

    #[test]
    fn only_a_unanimous_failure_fails_the_call() {
        let mut failures = Failures::default();
        failures.push(0, Error::refused());
        assert!(failures.unless_all_alike(2).is_ok());
        assert!(failures.unless_all_alike(1).is_err());
        failures.push(1, Error::no_such_key());
        assert!(failures.unless_all_alike(2).is_ok());
    }
}
