//! Lines of JSON that keep every byte but those of one field.

use std::{
    fmt,
    io::{BufRead, Read},
    ops::Range,
};

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{Found, Line};
use crate::{Failure, FailureKind};

/// Longer lines are no lines.
const MAX_LINE_BYTES: u64 = 64 << 20;

/// The input.
pub(super) struct JsonLines<R> {
    input: R,
    path: Vec<String>,
    number: u64,
}

/// One line with its end.
#[derive(Debug)]
pub struct JsonLine {
    text: Vec<u8>,
    spot: Spot,
}

impl<R: BufRead> JsonLines<R> {
    pub(super) fn new(input: R, field: &str) -> Self {
        Self {
            input,
            path: field.split('.').map(str::to_owned).collect(),
            number: 0,
        }
    }

    pub(super) fn next(&mut self) -> Result<Option<(u64, JsonLine)>, Failure> {
        let mut text = Vec::new();
        let mut limited = self.input.by_ref().take(MAX_LINE_BYTES);
        let taken = limited.read_until(b'\n', &mut text);
        if taken.map_err(|e| Failure::io("input", &e))? == 0 {
            return Ok(None);
        }
        self.number += 1;
        let wrong = |what: String| {
            Failure::new(
                FailureKind::Data,
                format!("line {}: {what}; nothing was written", self.number),
            )
        };
        if text.len() as u64 == MAX_LINE_BYTES {
            return Err(wrong(format!("longer than {MAX_LINE_BYTES} bytes")));
        }
        let spot = match text.trim_ascii().is_empty() {
            true => Spot::Nothing,
            false => spot(&text, &self.path).map_err(|e| wrong(format!("no JSON object: {e}")))?,
        };
        Ok(Some((self.number, JsonLine { text, spot })))
    }
}

impl JsonLine {
    pub(super) fn text(&self) -> &[u8] {
        &self.text
    }
}

impl Line for JsonLine {
    fn value(&self) -> Found<'_> {
        match &self.spot {
            Spot::Nothing => Found::Nothing,
            Spot::Other => Found::Other,
            Spot::At(range) => Found::Text(self.text.get(range.clone()).unwrap_or_default()),
        }
    }

    fn put(&mut self, token: &str) {
        if let Spot::At(range) = &mut self.spot {
            self.text.splice(range.clone(), token.bytes());
            range.end = range.start + token.len();
        }
    }
}

/// Where the text of a field stands in its line.
#[derive(Debug, PartialEq, Eq)]
enum Spot {
    Nothing,
    Other,
    At(Range<usize>),
}

fn spot(line: &[u8], path: &[String]) -> Result<Spot, serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_slice(line);
    let found = Seek { line, path }.deserialize(&mut reader)?;
    reader.end()?;
    Ok(found)
}

/// Follows a path into a value.
struct Seek<'a> {
    line: &'a [u8],
    path: &'a [String],
}

impl<'de> DeserializeSeed<'de> for Seek<'_> {
    type Value = Spot;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Spot, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seek<'_> {
    type Value = Spot;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    /// A text without escapes is a piece of the line itself, and so its place is known. A
    /// token has no need of escapes.
    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Spot, E> {
        if !self.path.is_empty() {
            return Ok(Spot::Other);
        }
        if text.is_empty() {
            return Ok(Spot::Nothing);
        }
        let start = (text.as_ptr() as usize).checked_sub(self.line.as_ptr() as usize);
        Ok(match start.map(|start| start..start + text.len()) {
            Some(range) if self.line.get(range.clone()) == Some(text.as_bytes()) => Spot::At(range),
            _ => Spot::Other,
        })
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<Spot, E> {
        Ok(Spot::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Spot, A::Error> {
        let Some((wanted, deeper)) = self.path.split_first() else {
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            return Ok(Spot::Other);
        };
        let mut found = None;
        while let Some(name) = map.next_key::<String>()? {
            if name != *wanted {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let seek = Seek {
                line: self.line,
                path: deeper,
            };
            if found.replace(map.next_value_seed(seek)?).is_some() {
                return Err(A::Error::custom(format_args!("{wanted:?} is there twice")));
            }
        }
        Ok(found.unwrap_or(Spot::Nothing))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Spot, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Spot::Other)
    }

    fn visit_unit<E: Error>(self) -> Result<Spot, E> {
        Ok(Spot::Nothing)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Spot, E> {
        Ok(Spot::Other)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Spot, E> {
        Ok(Spot::Other)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Spot, E> {
        Ok(Spot::Other)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Spot, E> {
        Ok(Spot::Other)
    }
}
