//! Rows of a CSV file with a header row (RFC 4180). Values stay; quotes are written where
//! they are needed.

use std::io::{BufRead, Write};

use csv::{ByteRecord, Reader, ReaderBuilder, Terminator, WriterBuilder};

use super::{Found, Line};
use crate::{Failure, FailureKind};

/// The input behind its header row.
pub(super) struct Rows<R> {
    reader: Reader<R>,
    headers: ByteRecord,
    column: usize,
    terminator: Terminator,
}

/// One row.
#[derive(Debug)]
pub struct Row {
    record: ByteRecord,
    column: usize,
    terminator: Terminator,
}

fn wrong(e: &csv::Error) -> Failure {
    let at = e.position().map(|p| format!("line {}: ", p.line()));
    let text = format!("{}no CSV: {e}; nothing was written", at.unwrap_or_default());
    Failure::new(FailureKind::Data, text)
}

impl<R: BufRead> Rows<R> {
    pub(super) fn open(mut input: R, column: &str) -> Result<Self, Failure> {
        let buffer = input.fill_buf().map_err(|e| Failure::io("input", &e))?;
        // As the header row ends, so do the others.
        let end = buffer.iter().position(|b| *b == b'\n');
        let crlf = end.is_some_and(|n| n > 0 && buffer.get(n - 1) == Some(&b'\r'));
        let terminator = match crlf {
            true => Terminator::CRLF,
            false => Terminator::Any(b'\n'),
        };
        let mut reader = ReaderBuilder::new().from_reader(input);
        let headers = reader.byte_headers().map_err(|e| wrong(&e))?.clone();
        let places = headers.iter().enumerate();
        let places: Vec<usize> = places
            .filter(|(_, name)| *name == column.as_bytes())
            .map(|(i, _)| i)
            .collect();
        let refuse = |text: String| Err(Failure::new(FailureKind::Usage, text));
        match places.as_slice() {
            [column] => Ok(Self {
                reader,
                headers,
                column: *column,
                terminator,
            }),
            [] => refuse(format!("the header row has no column {column:?}")),
            _ => refuse(format!("the header row has two columns {column:?}")),
        }
    }

    pub(super) fn write_headers(&self, output: &mut impl Write) -> Result<(), Failure> {
        let text = text(&self.headers, self.terminator)?;
        output
            .write_all(&text)
            .map_err(|e| Failure::io("output", &e))
    }

    pub(super) fn next(&mut self) -> Result<Option<(u64, Row)>, Failure> {
        let mut record = ByteRecord::new();
        let more = self.reader.read_byte_record(&mut record);
        if !more.map_err(|e| wrong(&e))? {
            return Ok(None);
        }
        let line = record.position().map_or(0, csv::Position::line);
        let row = Row {
            record,
            column: self.column,
            terminator: self.terminator,
        };
        Ok(Some((line, row)))
    }
}

impl Row {
    pub(super) fn text(&self) -> Result<Vec<u8>, Failure> {
        text(&self.record, self.terminator)
    }
}

fn text(record: &ByteRecord, terminator: Terminator) -> Result<Vec<u8>, Failure> {
    let mut writer = WriterBuilder::new()
        .terminator(terminator)
        .from_writer(Vec::new());
    writer.write_byte_record(record).map_err(|e| wrong(&e))?;
    writer
        .into_inner()
        .map_err(|e| Failure::new(FailureKind::Other, e.to_string()))
}

impl Line for Row {
    fn value(&self) -> Found<'_> {
        match self.record.get(self.column) {
            None | Some([]) => Found::Nothing,
            Some(text) => Found::Text(text),
        }
    }

    fn put(&mut self, token: &str) {
        let fields = self.record.iter().enumerate();
        self.record = fields
            .map(|(i, field)| match i == self.column {
                true => token.as_bytes(),
                false => field,
            })
            .collect();
    }
}
