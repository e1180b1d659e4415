//! One field of JSON Lines, or one column of a CSV file.
//!
//! The output appears whole or not at all, so a run that was killed begins at the beginning:
//! the job is reported once, at its end.

mod csv_rows;
mod json_lines;

use std::{
    io::{BufRead, Write},
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;

use super::{Entry, Page, Place, Value, Written};
use crate::{Failure, HEADER_LEN, proto::JobKind, token};

use csv_rows::Rows;
use json_lines::JsonLines;

/// Where the output goes.
pub trait Whole: Write {
    /// Everything was written: make it visible.
    ///
    /// # Errors
    /// What the disk says.
    fn appear(self) -> Result<(), Failure>;
}

/// How the text is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextFormat {
    /// One JSON object a line.
    JsonLines,
    /// RFC 4180, with a header row.
    Csv,
}

/// A line or a row, and where its value is.
trait Line {
    /// What lies there.
    fn value(&self) -> Found<'_>;
    /// Puts another token there.
    fn put(&mut self, token: &str);
}

/// What lies in a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found<'a> {
    /// No such field, null, or nothing in it.
    Nothing,
    /// A text.
    Text(&'a [u8]),
    /// Something else.
    Other,
}

enum Input<R> {
    Json(JsonLines<R>),
    Csv(Box<Rows<R>>),
}

/// One line of either kind.
pub enum AnyLine {
    /// Of JSON.
    Json(json_lines::JsonLine),
    /// Of CSV.
    Csv(csv_rows::Row),
}

impl AnyLine {
    fn line(&self) -> &dyn Line {
        match self {
            Self::Json(line) => line,
            Self::Csv(row) => row,
        }
    }

    fn line_mut(&mut self) -> &mut dyn Line {
        match self {
            Self::Json(line) => line,
            Self::Csv(row) => row,
        }
    }
}

/// A text file on its way to another one.
pub struct Text<R, W> {
    subject: String,
    order: String,
    input: Mutex<Input<R>>,
    /// None: nothing is written, or it has appeared.
    output: Mutex<Option<W>>,
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<R: BufRead, W: Whole> Text<R, W> {
    /// `name` is what the input is called; no output: only looks.
    ///
    /// # Errors
    /// A CSV file without such a column, or what the input or output says.
    pub fn open(
        format: TextFormat,
        name: &str,
        column: &str,
        input: R,
        mut output: Option<W>,
    ) -> Result<Self, Failure> {
        let input = match format {
            TextFormat::JsonLines => Input::Json(JsonLines::new(input, column)),
            TextFormat::Csv => {
                let rows = Rows::open(input, column)?;
                if let Some(output) = &mut output {
                    rows.write_headers(output)?;
                }
                Input::Csv(Box::new(rows))
            }
        };
        let host = super::host();
        Ok(Self {
            subject: format!("lines://{host}{name}#{column}"),
            order: format!("lines of {name}"),
            input: Mutex::new(input),
            output: Mutex::new(output),
        })
    }
}

impl<R: BufRead, W: Whole> Place for Text<R, W> {
    type Own = Vec<AnyLine>;

    fn kind(&self) -> JobKind {
        JobKind::Lines
    }

    fn subject(&self) -> String {
        self.subject.clone()
    }

    fn order(&self) -> String {
        self.order.clone()
    }

    fn goes_on(&self) -> bool {
        false
    }

    async fn expected(&self) -> Result<u64, Failure> {
        Ok(0)
    }

    async fn read(
        &self,
        _after: Option<&str>,
        most: usize,
    ) -> Result<Option<Page<Vec<AnyLine>>>, Failure> {
        let mut input = held(&self.input);
        let (mut entries, mut own) = (Vec::new(), Vec::new());
        while own.len() < most {
            let next = match &mut *input {
                Input::Json(lines) => lines.next()?.map(|(n, l)| (n, AnyLine::Json(l))),
                Input::Csv(rows) => rows.next()?.map(|(n, r)| (n, AnyLine::Csv(r))),
            };
            let Some((number, line)) = next else {
                break;
            };
            entries.push(Entry {
                name: format!("line {number}"),
                value: value(line.line().value()),
            });
            own.push(line);
        }
        let after = entries.last().map(|e| e.name.clone());
        Ok(after.map(|after| Page {
            entries,
            after,
            own,
        }))
    }

    async fn write(
        &self,
        _page: &Page<Vec<AnyLine>>,
        _new: &[(usize, Bytes)],
    ) -> Result<Written, Failure> {
        // In order, when the page is taken.
        Ok(Written::default())
    }

    async fn again(
        &self,
        _page: &Page<Vec<AnyLine>>,
        _which: &[usize],
    ) -> Result<Page<Vec<AnyLine>>, Failure> {
        Err(Failure::nonsense())
    }

    fn take(&self, mut page: Page<Vec<AnyLine>>, new: &[(usize, Bytes)]) -> Result<(), Failure> {
        let mut output = held(&self.output);
        let Some(output) = output.as_mut() else {
            return Ok(());
        };
        for (i, header) in new {
            let line = page.own.get_mut(*i).ok_or_else(Failure::nonsense)?;
            let line = line.line_mut();
            let Found::Text(text) = line.value() else {
                return Err(Failure::nonsense());
            };
            let old = token::decode(text).map_err(|_| Failure::nonsense())?;
            let payload = old.get(HEADER_LEN..).unwrap_or_default();
            line.put(&token::encode(header, payload));
        }
        for line in &page.own {
            match line {
                AnyLine::Json(line) => output.write_all(line.text()),
                AnyLine::Csv(row) => output.write_all(&row.text()?),
            }
            .map_err(|e| Failure::io("output", &e))?;
        }
        Ok(())
    }

    fn finish(&self) -> Result<(), Failure> {
        let output = held(&self.output).take();
        output.map_or(Ok(()), Whole::appear)
    }
}

/// A token is an envelope, nothing is empty, the rest is foreign.
/// What `fuzz/` drives: texts that hold anything. A token that is put where a text was is
/// found there, and nothing else has moved.
#[cfg(fuzzing)]
pub fn fuzz_text(bytes: &[u8]) {
    const TOKEN: &str = "kw1.AAAA";
    let mut lines = JsonLines::new(bytes, "a.b");
    while let Ok(Some((_, mut line))) = lines.next() {
        let Found::Text(old) = line.value() else {
            continue;
        };
        let length = line.text().len() - old.len() + TOKEN.len();
        line.put(TOKEN);
        assert_eq!(line.text().len(), length);
        let again = JsonLines::new(line.text(), "a.b").next();
        let (_, again) = again.expect("JSON as before").expect("a line");
        assert_eq!(again.value(), Found::Text(TOKEN.as_bytes()));
    }
    let Ok(mut rows) = Rows::open(bytes, "a") else {
        return;
    };
    while let Ok(Some((_, mut row))) = rows.next() {
        if let Found::Text(_) = row.value() {
            row.put(TOKEN);
            assert_eq!(row.value(), Found::Text(TOKEN.as_bytes()));
            row.text().expect("a row as before");
        }
    }
}

fn value(found: Found<'_>) -> Value {
    match found {
        Found::Nothing => Value::Empty,
        Found::Other => Value::Foreign,
        // Blanks around a token would be lost.
        Found::Text(text) if text.trim_ascii() != text => Value::Foreign,
        Found::Text(text) => match token::decode(text) {
            Ok(mut bytes) => {
                bytes.truncate(HEADER_LEN);
                Value::Envelope(bytes.into())
            }
            Err(_) => Value::Foreign,
        },
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, atomic::AtomicBool};

    use super::*;
    use crate::rewrap::{
        Order, Stop,
        fake::{World, header},
        run,
    };

    #[derive(Clone, Default)]
    struct Sheet(Arc<Mutex<Vec<u8>>>, Arc<AtomicBool>);

    impl Write for Sheet {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            held(&self.0).write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl Whole for Sheet {
        fn appear(self) -> Result<(), Failure> {
            self.1.store(true, std::sync::atomic::Ordering::Relaxed);
            Ok(())
        }
    }

    async fn moved(
        format: TextFormat,
        column: &str,
        text: &str,
    ) -> Result<(String, [u64; 5]), Failure> {
        let (sheet, world) = (Sheet::default(), World::new(0));
        let place = Text::open(format, "/f", column, text.as_bytes(), Some(sheet.clone()))?;
        let order = Order {
            batch: 2,
            ..Order::new("cards")
        };
        let job = Box::pin(run(&world, &place, &order, &|_| (), &Stop::never())).await?;
        let c = job.counts.unwrap();
        assert!(
            sheet.1.load(std::sync::atomic::Ordering::Relaxed),
            "it appears"
        );
        let text = String::from_utf8(held(&sheet.0).clone()).unwrap();
        Ok((text, [c.seen, c.moved, c.current, c.empty, c.foreign]))
    }

    fn token(row: u32, version: u32) -> String {
        token::encode(&header(row, version), &[row as u8; 25])
    }

    #[tokio::test]
    async fn a_line_of_json_changes_in_one_field_and_nowhere_else() {
        let (old, new) = (token(1, 1), token(1, 3));
        let text = |t: &str| {
            format!(
                "{{\"other\": \"{old}\",  \"card\":{{\"x\":1.50, \"pan\" : \"{t}\"}}}}\r\n\
                 {{\"pan\":\"{old}\",\"card\":{{\"pan\":null}}}}\n\
                 {{\"card\":{{\"pan\":\"\\u0041bc\"}}}}\n\
                 {{\"card\":{{\"p\\u0061n\":\"{t}\"}}}}\n\n{{\"card\":7}}"
            )
        };
        let (out, counts) = moved(TextFormat::JsonLines, "card.pan", &text(&old))
            .await
            .unwrap();
        assert_eq!(out, text(&new));
        assert_eq!(counts, [6, 2, 0, 2, 2]);
        for bad in [
            "{\"card\":{}}\n{\"card\"",
            "{\"card\":{\"pan\":1,\"pan\":2}}",
        ] {
            let failure = moved(TextFormat::JsonLines, "card.pan", bad)
                .await
                .unwrap_err();
            assert!(failure.to_string().starts_with("line "), "{failure}");
        }
    }

    #[tokio::test]
    async fn a_column_of_csv_changes_and_every_other_value_stays() {
        let (old, new, now) = (token(1, 1), token(1, 3), token(2, 3));
        let text = |t: &str| {
            format!(
                "id,pan,note\r\n1,{t},\"a, \"\"b\"\"\nc\"\r\n2,,x\r\n3,junk,\r\n4,{now},\u{e9}\r\n"
            )
        };
        let (out, counts) = moved(TextFormat::Csv, "pan", &text(&old)).await.unwrap();
        assert_eq!(out, text(&new));
        assert_eq!(counts, [4, 1, 1, 1, 1]);
        for (bad, word) in [
            ("id,pin\n1,2\n", "no column \"pan\""),
            ("pan,pan\n1,2\n", "two columns"),
            ("id,pan\n1\n", "line 2"),
        ] {
            let failure = moved(TextFormat::Csv, "pan", bad).await.unwrap_err();
            assert!(failure.to_string().contains(word), "{failure}");
        }
    }
}
