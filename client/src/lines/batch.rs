//! Some lines that travel together.

use std::io::{BufRead, Read};

use crate::{Failure, FailureKind, proto, token};

/// Lines of one batch.
const BATCH_LINES: usize = 2000;
/// Bytes after which a batch is full.
const BATCH_BYTES: usize = 1 << 20;
/// A longer line is refused here; the server's limit is lower.
const MAX_LINE_BYTES: usize = 24 << 20;
/// Bad lines named in one error.
const NAMED: usize = 10;

/// Where the lines of a batch stand in the input.
#[derive(Debug, Default)]
pub(super) struct Place {
    /// Number of the first line, from 1.
    pub(super) first: u64,
    /// How many.
    pub(super) count: u64,
    /// Bytes taken from the input.
    pub(super) taken: u64,
    /// Does the last line end with a newline?
    pub(super) newline: bool,
}

/// Lines one after the other, and their lengths.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) place: Place,
    pub(super) data: Vec<u8>,
    pub(super) lengths: Vec<u32>,
}

impl Batch {
    pub(super) fn lines(&self) -> impl Iterator<Item = &[u8]> {
        cut(&self.data, &self.lengths)
    }

    /// The lines as they are.
    pub(super) fn packed(self) -> (Place, proto::Packed) {
        (self.place, packed(self.data, self.lengths))
    }

    /// Tokens to attached items.
    pub(super) fn decode(self) -> Result<(Place, proto::Packed), Failure> {
        let (mut data, mut lengths, mut bad) = (Vec::new(), Vec::new(), Vec::new());
        for (number, line) in (self.place.first..).zip(self.lines()) {
            match token::decode(line) {
                Ok(item) => {
                    lengths.push(u32::try_from(item.len()).unwrap_or(u32::MAX));
                    data.extend_from_slice(&item);
                }
                Err(e) => bad.push(format!("line {number}: {e}")),
            }
        }
        if bad.is_empty() {
            Ok((self.place, packed(data, lengths)))
        } else {
            Err(Failure::new(FailureKind::Data, some(&bad)))
        }
    }
}

impl Place {
    /// Names the lines that failed.
    pub(super) fn fail_on(&self, errors: &[proto::ItemError]) -> Result<(), Failure> {
        let Some(first) = errors.first() else {
            return Ok(());
        };
        let bad: Vec<String> = errors
            .iter()
            .map(|e| format!("line {}: {}", self.first + u64::from(e.index), e.message))
            .collect();
        Err(Failure::item(first).reworded(some(&bad)))
    }

    /// All lines failed alike.
    pub(super) fn name(&self, failure: Failure) -> Failure {
        if failure.kind() != FailureKind::Data {
            return failure;
        }
        match self.count {
            1 => failure.at(format_args!("line {}", self.first)),
            n => failure.at(format_args!(
                "lines {} to {}",
                self.first,
                self.first + n - 1
            )),
        }
    }
}

fn some(bad: &[String]) -> String {
    let mut text: Vec<&str> = bad.iter().take(NAMED).map(String::as_str).collect();
    let more = format!("and {} lines more", bad.len().saturating_sub(NAMED));
    if bad.len() > NAMED {
        text.push(&more);
    }
    text.join("\n")
}

fn packed(data: Vec<u8>, lengths: Vec<u32>) -> proto::Packed {
    proto::Packed {
        data: data.into(),
        lengths,
    }
}

/// The strings of a packed field.
pub(super) fn split(packed: &proto::Packed) -> impl Iterator<Item = &[u8]> {
    cut(&packed.data, &packed.lengths)
}

/// One string after the other.
pub(crate) fn cut<'a>(mut rest: &'a [u8], lengths: &'a [u32]) -> impl Iterator<Item = &'a [u8]> {
    lengths.iter().map(move |n| {
        let (one, after) = rest.split_at_checked(*n as usize).unwrap_or((rest, &[]));
        rest = after;
        one
    })
}

/// Cuts the input into batches.
pub(super) struct Batches<R> {
    input: R,
    line: u64,
    done: bool,
}

impl<R: BufRead> Batches<R> {
    pub(super) fn new(input: R) -> Self {
        Self {
            input,
            line: 0,
            done: false,
        }
    }

    fn batch(&mut self) -> Result<Option<Batch>, Failure> {
        let mut batch = Batch::default();
        batch.place.first = self.line + 1;
        while batch.lengths.len() < BATCH_LINES && batch.data.len() < BATCH_BYTES {
            let before = batch.data.len();
            let mut limited = self.input.by_ref().take(MAX_LINE_BYTES as u64 + 1);
            let taken = limited
                .read_until(b'\n', &mut batch.data)
                .map_err(|e| Failure::io("input", &e))?;
            if taken == 0 {
                self.done = true;
                break;
            }
            self.line += 1;
            batch.place.count += 1;
            batch.place.taken += taken as u64;
            batch.place.newline = batch.data.last() == Some(&b'\n');
            if batch.place.newline {
                batch.data.pop();
            } else if taken > MAX_LINE_BYTES {
                return Err(Failure::new(
                    FailureKind::Data,
                    format!(
                        "line {} is longer than {MAX_LINE_BYTES} bytes; work on it as a file, without --lines",
                        self.line
                    ),
                ));
            }
            let length = batch.data.len() - before;
            batch
                .lengths
                .push(u32::try_from(length).unwrap_or(u32::MAX));
        }
        Ok((batch.place.count > 0).then_some(batch))
    }
}

impl<R: BufRead> Iterator for Batches<R> {
    type Item = Result<Batch, Failure>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let batch = self.batch();
        self.done |= batch.is_err();
        batch.transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batches(text: &[u8]) -> Vec<Batch> {
        Batches::new(text).map(Result::unwrap).collect()
    }

    #[test]
    fn empty_lines_count_and_the_last_line_end_is_remembered() {
        let read = |text: &[u8]| {
            let all = batches(text);
            let lines: Vec<Vec<u8>> = all
                .iter()
                .flat_map(|b| b.lines().map(<[u8]>::to_vec))
                .collect();
            (lines, all.last().is_none_or(|b| b.place.newline))
        };
        assert_eq!(read(b""), (vec![], true));
        assert_eq!(read(b"\n"), (vec![b"".to_vec()], true));
        assert_eq!(
            read(b"a\n\nb\r\n"),
            (vec![b"a".to_vec(), b"".to_vec(), b"b\r".to_vec()], true)
        );
        assert_eq!(read(b"a\nb"), (vec![b"a".to_vec(), b"b".to_vec()], false));
    }

    #[test]
    fn line_numbers_go_on_over_batches() {
        let text = "x\n".repeat(BATCH_LINES + 5);
        let all = batches(text.as_bytes());
        assert_eq!(all.len(), 2);
        assert_eq!(all[1].place.first, BATCH_LINES as u64 + 1);
        assert_eq!(
            all.iter().map(|b| b.place.taken).sum::<u64>(),
            text.len() as u64
        );
    }

    #[test]
    fn many_bad_lines_are_counted_not_listed() {
        let text = "junk\n".repeat(100);
        let failure = batches(text.as_bytes()).remove(0).decode().unwrap_err();
        let shown = failure.to_string();
        assert!(
            shown.starts_with("line 1: not a kw1. token\nline 2:"),
            "{shown}"
        );
        assert!(shown.ends_with("and 90 lines more"), "{shown}");
    }
}
