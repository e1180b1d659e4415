//! `encrypt`, `decrypt`, `rewrap`: a file or lines, from here to there.

use std::{
    collections::BTreeMap,
    io::{IsTerminal, Read},
};

use indicatif::ProgressBar;
use keywright_client::{Client, Failure, FailureKind, Move, file, lines, proto};
use serde::Serialize;

use crate::{
    args::{Context, Data, Files, Output},
    output::{Sink, bar, buffered, input},
};

/// Input and output are open; the server has not been asked anything yet.
pub(crate) struct Job {
    lines: bool,
    input: Box<dyn Read + Send>,
    sink: Sink,
    bar: ProgressBar,
}

impl Job {
    pub(crate) fn open(data: &Data, secret: bool) -> Result<Self, Failure> {
        Self::from_to(&data.files, data.lines, secret)
    }

    /// Lines to be signed.
    pub(crate) fn to_sign(files: &Files) -> Result<Self, Failure> {
        Self::from_to(files, true, false)
    }

    fn from_to(files: &Files, lines: bool, secret: bool) -> Result<Self, Failure> {
        let (input, length) = input(files.input_file.as_deref())?;
        let sink = Sink::open(files.output_file.as_deref(), secret)?;
        Ok(Self {
            lines,
            input,
            sink,
            bar: bar(length),
        })
    }

    /// `local`: here, under data keys that are lent.
    pub(crate) async fn encrypt(
        mut self,
        client: &Client,
        key: &str,
        local: bool,
        context: Context,
        output: Output,
    ) -> Result<(), Failure> {
        let context = pairs(context)?;
        let sealer = client.local_sealer(key);
        let place = if local { " on this machine" } else { "" };
        let bar = self.bar.clone();
        let progress = move |done| bar.set_position(done);
        let sink = &mut self.sink;
        if self.lines {
            let input = buffered(self.input);
            let done = if local {
                lines::encrypt_here(&sealer, &context, input, sink, &progress).await
            } else {
                lines::encrypt(client, key, &context, input, sink, &progress).await
            };
            let s = done.map_err(|e| self.sink.lines_failed(e))?;
            let text = format!("encrypted {} lines under {key}{place}", s.lines);
            finish(self.sink, &self.bar, output, &s, &text)
        } else {
            let s = if local {
                file::encrypt_here(&sealer, &context, self.input, sink, &progress).await?
            } else {
                file::encrypt(client, key, &context, self.input, sink, &progress).await?
            };
            let text = format!("encrypted {} bytes under {key}{place}", s.bytes_in);
            finish(self.sink, &self.bar, output, &s, &text)
        }
    }

    pub(crate) async fn decrypt(
        mut self,
        client: &Client,
        key: Option<&str>,
        context: Context,
        output: Output,
    ) -> Result<(), Failure> {
        let context = pairs(context)?;
        let bar = self.bar.clone();
        let progress = move |done| bar.set_position(done);
        if self.lines {
            let input = buffered(self.input);
            let done =
                lines::decrypt(client, key, &context, input, &mut self.sink, &progress).await;
            let s = done.map_err(|e| self.sink.lines_failed(e))?;
            let text = format!("decrypted {} lines", s.lines);
            let text = due(
                text,
                s.counts.rewrap_due,
                "lines",
                "--lines --in TOKENS --out TOKENS",
            );
            finish(self.sink, &self.bar, output, &s, &text)
        } else {
            let s =
                file::decrypt(client, key, &context, self.input, &mut self.sink, &progress).await?;
            let text = format!("decrypted {} bytes", s.bytes_out);
            let text = due(text, s.rewrap_due, "segments", "--in FILE --out FILE");
            finish(self.sink, &self.bar, output, &s, &text)
        }
    }

    /// Signs each line.
    pub(crate) async fn sign(
        mut self,
        client: &Client,
        key: &str,
        algorithm: proto::SignatureAlgorithm,
        output: Output,
    ) -> Result<(), Failure> {
        let bar = self.bar.clone();
        let progress = move |done| bar.set_position(done);
        let input = buffered(self.input);
        let done = lines::sign(client, key, algorithm, input, &mut self.sink, &progress).await;
        let s = done.map_err(|e| self.sink.lines_failed(e))?;
        let text = format!("signed {} lines with {key}", s.lines);
        finish(self.sink, &self.bar, output, &s, &text)
    }

    pub(crate) async fn reencrypt(
        mut self,
        client: &Client,
        key: &str,
        context: Context,
        new_context: Option<Context>,
        output: Output,
    ) -> Result<(), Failure> {
        let context = pairs(context)?;
        let new_context = new_context.map(pairs).transpose()?;
        let to = Move {
            key,
            context: &context,
            new_context: new_context.as_ref(),
        };
        let bar = self.bar.clone();
        let progress = move |done| bar.set_position(done);
        if self.lines {
            let input = buffered(self.input);
            let done = lines::reencrypt(client, &to, input, &mut self.sink, &progress).await;
            let s = done.map_err(|e| self.sink.lines_failed(e))?;
            let text = format!("re-encrypted {} lines under {key}", s.lines);
            finish(self.sink, &self.bar, output, &s, &text)
        } else {
            let s = file::reencrypt(client, &to, self.input, &mut self.sink, &progress).await?;
            let text = format!("re-encrypted {} bytes under {key}", s.bytes_in);
            finish(self.sink, &self.bar, output, &s, &text)
        }
    }

    pub(crate) async fn rewrap(
        mut self,
        client: &Client,
        key: Option<&str>,
        output: Output,
    ) -> Result<(), Failure> {
        let bar = self.bar.clone();
        let progress = move |done| bar.set_position(done);
        let moved = |what: &str, rewrapped: Option<u64>, current: Option<u64>| {
            format!(
                "rewrapped {} {what}, {} were current already",
                rewrapped.unwrap_or(0),
                current.unwrap_or(0)
            )
        };
        if self.lines {
            let input = buffered(self.input);
            let done = lines::rewrap(client, key, input, &mut self.sink, &progress).await;
            let s = done.map_err(|e| self.sink.lines_failed(e))?;
            let text = moved("lines", s.counts.rewrapped, s.counts.already_current);
            finish(self.sink, &self.bar, output, &s, &text)
        } else {
            let s = file::rewrap(client, key, self.input, &mut self.sink, &progress).await?;
            let text = moved("headers", s.rewrapped, s.already_current);
            finish(self.sink, &self.bar, output, &s, &text)
        }
    }
}

/// An encrypted file on a terminal helps nobody.
pub(crate) fn not_to_a_screen(data: &Data) -> Result<(), Failure> {
    if data.lines || data.files.output_file.is_some() || !std::io::stdout().is_terminal() {
        return Ok(());
    }
    Err(Failure::new(
        FailureKind::Usage,
        "an encrypted file would go to the terminal; give --out FILE, or --lines",
    ))
}

pub(super) fn pairs(context: Context) -> Result<BTreeMap<String, String>, Failure> {
    let mut pairs = BTreeMap::new();
    for (key, value) in context.pairs {
        if pairs.insert(key.clone(), value).is_some() {
            return Err(Failure::new(
                FailureKind::Usage,
                format!("--context {key} is given twice"),
            ));
        }
    }
    Ok(pairs)
}

/// Says what stands under an old version, and what to do.
fn due(text: String, count: Option<u64>, what: &str, files: &str) -> String {
    match count {
        None | Some(0) => text,
        Some(n) => format!(
            "{text}; {n} {what} are under an old version of their key, move them with: keywright rewrap {files}"
        ),
    }
}

/// The summary goes to standard error: standard output may be the data.
fn finish(
    sink: Sink,
    bar: &ProgressBar,
    output: Output,
    summary: &impl Serialize,
    text: &str,
) -> Result<(), Failure> {
    sink.finish()?;
    bar.finish_and_clear();
    match output {
        Output::Table => anstream::eprintln!("{text}"),
        Output::Json => {
            let json = serde_json::to_string(summary)
                .map_err(|e| Failure::new(FailureKind::Other, e.to_string()))?;
            anstream::eprintln!("{json}");
        }
    }
    Ok(())
}
