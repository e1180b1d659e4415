//! Line by line: each input line becomes one `kw1.` token on one line, batched
//! underneath. Line ends stay as they are: a last line without one stays without.

use std::{
    collections::BTreeMap,
    io::{BufRead, Read, Write},
};

use futures_util::{StreamExt, TryStreamExt, stream};
use serde::Serialize;

use crate::{Client, Failure, FailureKind, HEADER_LEN, Move, proto, token};

/// What was done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Lines.
    pub lines: u64,
    /// Batches they travelled in.
    pub batches: u64,
    /// Lines whose header moved to the primary version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rewrapped: Option<u64>,
    /// Lines that were there already.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub already_current: Option<u64>,
}

/// Told how many bytes of the input are done.
pub type Progress<'a> = &'a (dyn Fn(u64) + Sync);

/// Lines of one batch.
const BATCH_LINES: usize = 2000;
/// Bytes after which a batch is full.
const BATCH_BYTES: usize = 1 << 20;
/// A longer line is refused here; the server's limit is lower.
const MAX_LINE_BYTES: usize = 24 << 20;
/// Batches on their way to the server at one time.
const IN_FLIGHT: usize = 4;
/// Bad lines named in one error.
const NAMED: usize = 10;

/// Lines one after the other, and their lengths.
#[derive(Default)]
struct Batch {
    /// Number of the first line, from 1.
    first: u64,
    data: Vec<u8>,
    lengths: Vec<u32>,
    /// Bytes taken from the input.
    taken: u64,
    /// Does the last line end with a newline?
    newline: bool,
}

impl Batch {
    fn lines(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.data.as_slice();
        self.lengths.iter().map(move |n| {
            let (line, after) = rest.split_at_checked(*n as usize).unwrap_or((rest, &[]));
            rest = after;
            line
        })
    }
}

struct Batches<R> {
    input: R,
    line: u64,
    done: bool,
}

impl<R: BufRead> Batches<R> {
    fn new(input: R) -> Self {
        Self {
            input,
            line: 0,
            done: false,
        }
    }

    fn batch(&mut self) -> Result<Option<Batch>, Failure> {
        let mut batch = Batch {
            first: self.line + 1,
            newline: true,
            ..Batch::default()
        };
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
            batch.taken += taken as u64;
            batch.newline = batch.data.last() == Some(&b'\n');
            if batch.newline {
                batch.data.pop();
            } else if taken > MAX_LINE_BYTES {
                return Err(Failure::new(
                    FailureKind::Data,
                    format!(
                        "line {} is longer than {MAX_LINE_BYTES} bytes; encrypt it as a file, without --lines",
                        self.line
                    ),
                ));
            }
            let length = batch.data.len() - before;
            batch
                .lengths
                .push(u32::try_from(length).unwrap_or(u32::MAX));
        }
        Ok((!batch.lengths.is_empty()).then_some(batch))
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

/// Encrypts each line under the primary version of a key.
///
/// # Errors
/// The lines that failed, or what the server says.
pub async fn encrypt(
    client: &Client,
    key: &str,
    context: &BTreeMap<String, String>,
    input: impl BufRead,
    output: impl Write,
    progress: Progress<'_>,
) -> Result<Summary, Failure> {
    let one = async |batch: Batch| {
        let request = proto::EncryptRequest {
            key: key.to_owned(),
            context: context.clone(),
            packed_plaintexts: Some(packed(batch.data.clone(), batch.lengths.clone())),
            form: proto::Form::Detached.into(),
            ..Default::default()
        };
        let response = client
            .crypto()
            .encrypt(request)
            .await
            .map_err(|e| named(&batch, e))?;
        let response = response.into_inner();
        fail_on(&batch, &response.errors)?;
        let items = response.packed_items.unwrap_or_default();
        let lines = split(&items).map(|item| token::encode(&response.header, item).into_bytes());
        Ok((joined(&batch, lines)?, Moved::default()))
    };
    run(Batches::new(input), output, progress, one).await
}

/// Decrypts each token to the line it was made of.
///
/// # Errors
/// The lines that failed, or what the server says.
pub async fn decrypt(
    client: &Client,
    key: Option<&str>,
    context: &BTreeMap<String, String>,
    input: impl BufRead,
    output: impl Write,
    progress: Progress<'_>,
) -> Result<Summary, Failure> {
    let one = async |batch: Batch| {
        let (data, lengths) = decode(&batch)?;
        let request = proto::DecryptRequest {
            context: context.clone(),
            form: proto::Form::Attached.into(),
            packed_items: Some(packed(data, lengths)),
            key: key.unwrap_or_default().to_owned(),
            ..Default::default()
        };
        let response = client
            .crypto()
            .decrypt(request)
            .await
            .map_err(|e| named(&batch, e))?;
        let response = response.into_inner();
        fail_on(&batch, &response.errors)?;
        let plaintexts = response.packed_plaintexts.unwrap_or_default();
        let lines = split(&plaintexts).map(<[u8]>::to_vec);
        Ok((joined(&batch, lines)?, Moved::default()))
    };
    run(Batches::new(input), output, progress, one).await
}

/// Moves each token to the primary version of its key. Only headers travel.
///
/// # Errors
/// The lines that failed, or what the server says.
pub async fn rewrap(
    client: &Client,
    key: Option<&str>,
    input: impl BufRead,
    output: impl Write,
    progress: Progress<'_>,
) -> Result<Summary, Failure> {
    let one = async |batch: Batch| {
        let (data, lengths) = decode(&batch)?;
        let old = packed(data, lengths);
        let headers: Vec<bytes::Bytes> = split(&old)
            .map(|t| bytes::Bytes::copy_from_slice(t.get(..HEADER_LEN).unwrap_or(t)))
            .collect();
        let request = proto::RewrapRequest {
            envelopes: headers,
            key: key.unwrap_or_default().to_owned(),
            ..Default::default()
        };
        let response = client
            .crypto()
            .rewrap(request)
            .await
            .map_err(|e| named(&batch, e))?;
        let response = response.into_inner();
        fail_on(&batch, &response.errors)?;
        let lines = response
            .envelopes
            .iter()
            .zip(split(&old))
            .map(|(header, old)| {
                let payload = old.get(HEADER_LEN..).unwrap_or_default();
                token::encode(header, payload).into_bytes()
            });
        let moved = Moved {
            rewrapped: Some(u64::from(response.rewrapped)),
            already_current: Some(u64::from(response.already_current)),
        };
        Ok((joined(&batch, lines)?, moved))
    };
    run(Batches::new(input), output, progress, one).await
}

/// Opens each token and seals its line again, in the server: under another key, another
/// context or a new data key.
///
/// # Errors
/// The lines that failed, or what the server says.
pub async fn reencrypt(
    client: &Client,
    to: &Move<'_>,
    input: impl BufRead,
    output: impl Write,
    progress: Progress<'_>,
) -> Result<Summary, Failure> {
    let one = async |batch: Batch| {
        let (data, lengths) = decode(&batch)?;
        let request = proto::ReencryptRequest {
            form: proto::Form::Attached.into(),
            packed_items: Some(packed(data, lengths)),
            ..to.request()
        };
        let response = client
            .crypto()
            .reencrypt(request)
            .await
            .map_err(|e| named(&batch, e))?;
        let response = response.into_inner();
        fail_on(&batch, &response.errors)?;
        let items = response.packed_items.unwrap_or_default();
        let lines = split(&items).map(|item| {
            let (header, payload) = item.split_at_checked(HEADER_LEN).unwrap_or((item, &[]));
            token::encode(header, payload).into_bytes()
        });
        Ok((joined(&batch, lines)?, Moved::default()))
    };
    run(Batches::new(input), output, progress, one).await
}

#[derive(Default)]
struct Moved {
    rewrapped: Option<u64>,
    already_current: Option<u64>,
}

/// Text to write, lines in it, bytes of input it came from.
struct Done {
    text: Vec<u8>,
    lines: u64,
    taken: u64,
}

async fn run<R: BufRead>(
    batches: Batches<R>,
    mut output: impl Write,
    progress: Progress<'_>,
    one: impl AsyncFn(Batch) -> Result<(Done, Moved), Failure>,
) -> Result<Summary, Failure> {
    let out = |e| Failure::io("output", &e);
    let mut summary = Summary::default();
    let mut taken = 0;
    let done = stream::iter(batches)
        .map(|batch| async { one(batch?).await })
        .buffered(IN_FLIGHT);
    let mut done = std::pin::pin!(done);
    while let Some((done, moved)) = done.try_next().await? {
        output.write_all(&done.text).map_err(out)?;
        summary.lines += done.lines;
        summary.batches += 1;
        add(&mut summary.rewrapped, moved.rewrapped);
        add(&mut summary.already_current, moved.already_current);
        taken += done.taken;
        progress(taken);
    }
    output.flush().map_err(out)?;
    Ok(summary)
}

fn add(sum: &mut Option<u64>, more: Option<u64>) {
    if let Some(more) = more {
        *sum = Some(sum.unwrap_or(0) + more);
    }
}

fn packed(data: Vec<u8>, lengths: Vec<u32>) -> proto::Packed {
    proto::Packed {
        data: data.into(),
        lengths,
    }
}

fn split(packed: &proto::Packed) -> impl Iterator<Item = &[u8]> {
    let mut rest: &[u8] = &packed.data;
    packed.lengths.iter().map(move |n| {
        let (one, after) = rest.split_at_checked(*n as usize).unwrap_or((rest, &[]));
        rest = after;
        one
    })
}

/// Results with the line ends of the input.
fn joined(batch: &Batch, lines: impl Iterator<Item = Vec<u8>>) -> Result<Done, Failure> {
    let mut done = Done {
        text: Vec::new(),
        lines: 0,
        taken: batch.taken,
    };
    for line in lines {
        done.text.extend_from_slice(&line);
        done.text.push(b'\n');
        done.lines += 1;
    }
    if done.lines != batch.lengths.len() as u64 {
        return Err(Failure::new(
            FailureKind::Other,
            "the server's answer makes no sense",
        ));
    }
    if !batch.newline {
        done.text.pop();
    }
    Ok(done)
}

/// Tokens to attached items.
fn decode(batch: &Batch) -> Result<(Vec<u8>, Vec<u32>), Failure> {
    let (mut data, mut lengths, mut bad) = (Vec::new(), Vec::new(), Vec::new());
    for (number, line) in (batch.first..).zip(batch.lines()) {
        match token::decode(line) {
            Ok(item) => {
                lengths.push(u32::try_from(item.len()).unwrap_or(u32::MAX));
                data.extend_from_slice(&item);
            }
            Err(e) => bad.push(format!("line {number}: {e}")),
        }
    }
    if bad.is_empty() {
        Ok((data, lengths))
    } else {
        Err(bad_lines(FailureKind::Data, &bad))
    }
}

/// Names the lines that failed.
fn fail_on(batch: &Batch, errors: &[proto::ItemError]) -> Result<(), Failure> {
    let Some(first) = errors.first() else {
        return Ok(());
    };
    let named: Vec<String> = errors
        .iter()
        .map(|e| format!("line {}: {}", batch.first + u64::from(e.index), e.message))
        .collect();
    Err(bad_lines(Failure::item(first).kind(), &named))
}

fn bad_lines(kind: FailureKind, lines: &[String]) -> Failure {
    let mut text: Vec<&str> = lines.iter().take(NAMED).map(String::as_str).collect();
    let more = format!("and {} lines more", lines.len().saturating_sub(NAMED));
    if lines.len() > NAMED {
        text.push(&more);
    }
    Failure::new(kind, text.join("\n"))
}

/// The whole batch failed alike.
fn named(batch: &Batch, status: tonic::Status) -> Failure {
    let failure = Failure::from(status);
    if failure.kind() != FailureKind::Data {
        return failure;
    }
    match batch.lengths.len() as u64 {
        1 => failure.at(format_args!("line {}", batch.first)),
        n => failure.at(format_args!(
            "lines {} to {}",
            batch.first,
            batch.first + n - 1
        )),
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
            (lines, all.last().is_none_or(|b| b.newline))
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
        assert_eq!(all[1].first, BATCH_LINES as u64 + 1);
        assert_eq!(all.iter().map(|b| b.taken).sum::<u64>(), text.len() as u64);
    }

    #[test]
    fn many_bad_lines_are_counted_not_listed() {
        let text = "junk\n".repeat(100);
        let failure = decode(&batches(text.as_bytes())[0]).unwrap_err();
        let shown = failure.to_string();
        assert!(
            shown.starts_with("line 1: not a kw1. token\nline 2:"),
            "{shown}"
        );
        assert!(shown.ends_with("and 90 lines more"), "{shown}");
    }
}
