//! What is written: whole batches, in order, and how far that is when something fails.

use std::io::Write;

use super::{Counts, Progress, Summary, batch::Place};
use crate::Failure;

/// Output lines of one batch.
pub(super) struct Done {
    place: Place,
    text: Vec<u8>,
    counts: Counts,
}

impl Done {
    /// Results with the line ends of the input.
    pub(super) fn new(
        place: Place,
        lines: impl Iterator<Item = impl AsRef<[u8]>>,
        counts: Counts,
    ) -> Result<Self, Failure> {
        let (mut text, mut count) = (Vec::new(), 0);
        for line in lines {
            text.extend_from_slice(line.as_ref());
            text.push(b'\n');
            count += 1;
        }
        if count != place.count {
            return Err(Failure::nonsense());
        }
        if !place.newline {
            text.pop();
        }
        Ok(Self {
            place,
            text,
            counts,
        })
    }
}

/// The output so far.
pub(super) struct Page<'a, W> {
    output: W,
    progress: Progress<'a>,
    taken: u64,
    summary: Summary,
    /// Part of a batch may have been written.
    torn: bool,
}

impl<'a, W: Write> Page<'a, W> {
    pub(super) fn new(output: W, progress: Progress<'a>) -> Self {
        Self {
            output,
            progress,
            taken: 0,
            summary: Summary::default(),
            torn: false,
        }
    }

    pub(super) fn put(&mut self, done: &Done) -> Result<(), Failure> {
        self.output.write_all(&done.text).map_err(|e| {
            self.torn = true;
            Failure::io("output", &e)
        })?;
        self.summary.lines += done.place.count;
        self.summary.batches += 1;
        self.summary.counts.add(done.counts);
        self.taken += done.place.taken;
        (self.progress)(self.taken);
        Ok(())
    }

    /// The end, good or bad. A failure says how many lines are written, so that whoever
    /// has them can go on from there.
    pub(super) fn end(mut self, result: Result<(), Failure>) -> Result<Summary, Failure> {
        let flushed = self.output.flush();
        match result {
            Ok(()) => flushed
                .map(|()| self.summary)
                .map_err(|e| Failure::io("output", &e)),
            Err(failure) if self.torn || flushed.is_err() => Err(failure),
            Err(failure) => Err(failure.after_lines(Some(self.summary.lines))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::FailureKind;

    fn done(first: u64, lines: &[&str], newline: bool) -> Done {
        let place = Place {
            first,
            count: lines.len() as u64,
            taken: 7,
            newline,
        };
        Done::new(place, lines.iter(), Counts::default()).unwrap()
    }

    fn failure() -> Failure {
        Failure::new(FailureKind::Unavailable, "gone")
    }

    #[test]
    fn a_failure_says_how_many_lines_are_complete() {
        let mut written = Vec::new();
        let mut page = Page::new(&mut written, &|_| {});
        page.put(&done(1, &["a", "b"], true)).unwrap();
        page.put(&done(3, &["c"], true)).unwrap();
        let failed = page.end(Err(failure())).unwrap_err();
        assert_eq!(failed.complete_lines(), Some(3));
        assert_eq!(written, b"a\nb\nc\n");
    }

    #[test]
    fn half_a_batch_is_not_called_complete() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                match bytes {
                    b"b\n" => Err(io::ErrorKind::StorageFull.into()),
                    _ => Ok(bytes.len()),
                }
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut page = Page::new(Full, &|_| {});
        page.put(&done(1, &["a"], true)).unwrap();
        let failed = page.put(&done(2, &["b"], true)).unwrap_err();
        assert_eq!(page.end(Err(failed)).unwrap_err().complete_lines(), None);
    }

    #[test]
    fn an_answer_of_another_length_is_refused() {
        let place = Place {
            count: 2,
            ..Place::default()
        };
        assert!(Done::new(place, ["a"].iter(), Counts::default()).is_err());
    }
}
