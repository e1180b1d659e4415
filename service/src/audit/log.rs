//! The files of the log: segments of lines, named by the number of their first record.
//!
//! A crash can leave an unfinished last line. Nobody was answered for it (the answer
//! waits for the sync), so it is cut off and the next record says so. Anything else
//! that does not fit the chain stops the start: somebody changed the log.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;
use serde::Deserialize;

use super::record::{Entry, GENESIS_HASH, line, line_hash};
use crate::store::{Anchor, Anchors, LogId};

/// Why the log cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The disk said no.
    #[error("audit log {path}: {source}", path = path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line does not follow from the one before it.
    #[error(
        "audit log {path}, line {line}: {what}; the log was changed, the daemon does not start on it. Keep it as evidence and run: keywright audit verify", path = path.display()
    )]
    Broken {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What is wrong.
        what: &'static str,
    },
    /// The store has seen records that are not there any more.
    #[error(
        "audit log {path}: the store has seen record {seq} and it is not there as it was; records were removed or exchanged. Restore the log, then start again", path = path.display()
    )]
    Truncated {
        /// Which folder.
        path: PathBuf,
        /// Number of the record.
        seq: u64,
    },
    /// A log of which the store knows nothing.
    #[error(
        "audit log {path}: the store does not know this log ({log}); it belongs to another appliance, or this node was not added: keywrightd init --join", path = path.display()
    )]
    Foreign {
        /// Which folder.
        path: PathBuf,
        /// Its id.
        log: LogId,
    },
    /// Its name of its own cannot be read.
    #[error("audit log {path}: the id of this log cannot be read; restore the file", path = path.display())]
    Nameless {
        /// Which file.
        path: PathBuf,
    },
}

/// The open log.
#[derive(Debug)]
pub struct Log {
    id: LogId,
    dir: PathBuf,
    segment_bytes: u64,
    file: File,
    path: PathBuf,
    /// Bytes of the segment that are on disk for good.
    durable: u64,
    head: Anchor,
}

/// What opening found.
#[derive(Debug)]
pub struct Opened {
    /// The log, ready for the next record.
    pub log: Log,
    /// Bytes of an unfinished last line that were cut off.
    pub torn_bytes: u64,
    /// No record was ever written.
    pub empty: bool,
    /// The store has seen it.
    pub anchored: bool,
}

#[derive(Deserialize)]
struct Link {
    seq: u64,
    prev: String,
}

impl Log {
    /// Opens or begins the log of a folder and checks its last segment and the anchor.
    ///
    /// # Errors
    /// [`LogError`]; nothing is changed except that an unfinished last line is cut off.
    pub fn open(dir: &Path, segment_bytes: u64, anchors: &Anchors) -> Result<Opened, LogError> {
        fs::create_dir_all(dir).map_err(io_error(dir))?;
        let id = read_id(dir)?;
        let segments = segments(dir)?;
        let anchor = anchors.get(&id);
        if let Some(anchor) = anchor {
            check_anchor(dir, &segments, *anchor)?;
        }
        let Some((first, path)) = segments.last() else {
            let head = Anchor {
                seq: 0,
                hash: GENESIS_HASH,
            };
            let (file, path) = new_segment(dir, 1)?;
            return Ok(Opened {
                log: Self {
                    id,
                    dir: dir.to_owned(),
                    segment_bytes,
                    file,
                    path,
                    durable: 0,
                    head,
                },
                torn_bytes: 0,
                empty: true,
                anchored: anchor.is_some(),
            });
        };
        let before = match segments.len().checked_sub(2).and_then(|i| segments.get(i)) {
            Some((first, previous)) => scan(previous, *first, None)?.head,
            None => Anchor {
                seq: 0,
                hash: GENESIS_HASH,
            },
        };
        let end = scan(path, *first, Some(before))?;
        let file = OpenOptions::new()
            .append(true)
            .custom_flags(flags())
            .open(path)
            .map_err(io_error(path))?;
        let length = file.metadata().map_err(io_error(path))?.len();
        let torn_bytes = length - end.bytes;
        if torn_bytes > 0 {
            file.set_len(end.bytes)
                .and_then(|()| file.sync_all())
                .map_err(io_error(path))?;
        }
        Ok(Opened {
            empty: end.head.seq == 0,
            anchored: anchor.is_some(),
            log: Self {
                id,
                dir: dir.to_owned(),
                segment_bytes,
                file,
                path: path.clone(),
                durable: end.bytes,
                head: end.head,
            },
            torn_bytes,
        })
    }

    /// Gives a folder without records the name of a log of its own, for a node that joins
    /// others. Once is enough: one that was given stays.
    ///
    /// # Errors
    /// [`LogError::Io`].
    pub fn name(dir: &Path, id: LogId) -> Result<(), LogError> {
        fs::create_dir_all(dir).map_err(io_error(dir))?;
        let path = dir.join(ID);
        if path.exists() {
            return Ok(());
        }
        let beside = path.with_extension("new");
        fs::write(&beside, format!("{id}\n"))
            .and_then(|()| File::open(&beside)?.sync_all())
            .and_then(|()| fs::rename(&beside, &path))
            .and_then(|()| File::open(dir)?.sync_all())
            .map_err(io_error(&path))
    }

    /// Which log this is.
    #[must_use]
    pub fn id(&self) -> LogId {
        self.id
    }

    /// Number and hash of the last durable record.
    #[must_use]
    pub fn head(&self) -> Anchor {
        self.head
    }

    /// Writes records and makes them durable together, all or none.
    ///
    /// # Errors
    /// [`Append::Full`]: nothing was written, it may be tried again.
    /// [`Append::Fatal`]: it is not known what is on the disk; the log must be opened
    /// anew.
    pub fn append(&mut self, entries: &[&Entry], now_ms: i64) -> Result<(), Append> {
        if self.durable >= self.segment_bytes {
            self.roll()?;
        }
        let mut head = self.head;
        let mut block = Vec::with_capacity(entries.len() * 512);
        for entry in entries {
            let line = line(entry, head.seq + 1, now_ms, &head.hash)
                .map_err(|e| Append::Full(self.error(io::Error::other(e))))?;
            head = Anchor {
                seq: head.seq + 1,
                hash: line_hash(&line),
            };
            block.extend_from_slice(&line);
        }
        if let Err(e) = self.file.write_all(&block) {
            let error = self.error(e);
            // Take back what came through of the block.
            return Err(match self.file.set_len(self.durable) {
                Ok(()) => Append::Full(error),
                Err(_) => Append::Fatal(error),
            });
        }
        // A failed sync is never retried: the kernel may have dropped the pages.
        self.file
            .sync_data()
            .map_err(|e| Append::Fatal(self.error(e)))?;
        self.durable += block.len() as u64;
        self.head = head;
        Ok(())
    }

    fn roll(&mut self) -> Result<(), Append> {
        let (file, path) = new_segment(&self.dir, self.head.seq + 1).map_err(Append::Full)?;
        self.file = file;
        self.path = path;
        self.durable = 0;
        Ok(())
    }

    fn error(&self, source: io::Error) -> LogError {
        LogError::Io {
            path: self.path.clone(),
            source,
        }
    }
}

/// How an append failed.
#[derive(Debug)]
pub enum Append {
    /// Nothing was written; it may be tried again.
    Full(LogError),
    /// Nobody knows what is on the disk.
    Fatal(LogError),
}

fn io_error(path: &Path) -> impl Fn(io::Error) -> LogError + '_ {
    |source| LogError::Io {
        path: path.to_owned(),
        source,
    }
}

/// Absent: the log that the appliance began with.
const ID: &str = "log-id";

fn read_id(dir: &Path) -> Result<LogId, LogError> {
    let path = dir.join(ID);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(LogId::FIRST),
        Err(e) => return Err(io_error(&path)(e)),
    };
    let mut id = LogId::FIRST;
    match hex::decode_to_slice(text.trim_end(), &mut id.0) {
        Ok(()) if id != LogId::FIRST => Ok(id),
        _ => Err(LogError::Nameless { path }),
    }
}

/// A symbolic link in place of a segment is not followed.
fn flags() -> i32 {
    i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or(0)
}

fn new_segment(dir: &Path, first: u64) -> Result<(File, PathBuf), LogError> {
    let path = dir.join(format!("{first:020}.jsonl"));
    let file = OpenOptions::new()
        .append(true)
        .create_new(true)
        .mode(0o600)
        .custom_flags(flags())
        .open(&path)
        .map_err(io_error(&path))?;
    // The name must be as durable as the records.
    File::open(dir)
        .and_then(|d| d.sync_all())
        .map_err(io_error(dir))?;
    Ok((file, path))
}

/// Number of the first record and path, in order.
fn segments(dir: &Path) -> Result<Vec<(u64, PathBuf)>, LogError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(io_error(dir))? {
        let path = entry.map_err(io_error(dir))?.path();
        if path.extension().is_some_and(|e| e == "jsonl")
            && let Some(first) = path.file_stem().and_then(|s| s.to_str()?.parse().ok())
        {
            found.push((first, path));
        }
    }
    found.sort();
    Ok(found)
}

struct End {
    head: Anchor,
    /// Bytes of whole lines.
    bytes: u64,
}

/// Walks a segment. With `before` its first line must follow from it.
fn scan(path: &Path, first: u64, before: Option<Anchor>) -> Result<End, LogError> {
    let mut end = End {
        head: before.unwrap_or(Anchor {
            seq: first - 1,
            hash: GENESIS_HASH,
        }),
        bytes: 0,
    };
    let mut known = before.is_some();
    lines(path, |number, line| {
        let broken = |what| LogError::Broken {
            path: path.to_owned(),
            line: number,
            what,
        };
        let link: Link = serde_json::from_slice(line).map_err(|_| broken("not a record"))?;
        if link.seq != end.head.seq + 1 {
            return Err(broken("the number does not follow"));
        }
        if known && link.prev != hex::encode(end.head.hash) {
            return Err(broken("the hash of the line before does not fit"));
        }
        known = true;
        end.head = Anchor {
            seq: link.seq,
            hash: line_hash(line),
        };
        end.bytes += line.len() as u64;
        Ok(true)
    })?;
    Ok(end)
}

/// Calls `each` with every finished line, newline included, until it says stop.
fn lines(
    path: &Path,
    mut each: impl FnMut(usize, &[u8]) -> Result<bool, LogError>,
) -> Result<(), LogError> {
    let mut reader = BufReader::new(File::open(path).map_err(io_error(path))?);
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        reader
            .read_until(b'\n', &mut line)
            .map_err(io_error(path))?;
        if line.last() != Some(&b'\n') || !each(number, &line)? {
            break;
        }
    }
    Ok(())
}

/// The record the store has seen must still be there, as it was.
fn check_anchor(dir: &Path, segments: &[(u64, PathBuf)], anchor: Anchor) -> Result<(), LogError> {
    let mut found = None;
    let holder = segments
        .iter()
        .rev()
        .find(|(first, _)| *first <= anchor.seq);
    if let Some((_, path)) = holder {
        lines(path, |_, line| {
            let seq = serde_json::from_slice::<Link>(line).map(|l| l.seq).ok();
            if seq == Some(anchor.seq) {
                found = Some(line_hash(line));
            }
            Ok(found.is_none())
        })?;
    }
    if found == Some(anchor.hash) {
        Ok(())
    } else {
        Err(LogError::Truncated {
            path: dir.to_owned(),
            seq: anchor.seq,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(n: usize) -> Entry {
        Entry {
            action: format!("test {n}"),
            outcome: "OK",
            ..Entry::default()
        }
    }

    fn open(dir: &Path) -> Result<Opened, LogError> {
        Log::open(dir, 2_000, &Anchors::new())
    }

    fn write(log: &mut Log, n: usize) {
        for i in 0..n {
            log.append(&[&entry(i)], 0).unwrap();
        }
    }

    fn last_segment(dir: &Path) -> PathBuf {
        segments(dir).unwrap().pop().unwrap().1
    }

    #[test]
    fn a_chain_goes_on_over_restarts_and_segments() {
        let dir = tempfile::tempdir().unwrap();
        for round in 0..5 {
            let mut opened = open(dir.path()).unwrap();
            assert_eq!((opened.torn_bytes, opened.empty), (0, round == 0));
            write(&mut opened.log, 20);
            assert_eq!(opened.log.head().seq, (round + 1) * 20);
        }
        assert!(segments(dir.path()).unwrap().len() > 3, "segments roll");
    }

    #[test]
    fn an_unfinished_line_is_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        write(&mut open(dir.path()).unwrap().log, 3);
        let path = last_segment(dir.path());
        let whole = fs::read(&path).unwrap();
        for cut in [1, 10, 100] {
            fs::write(&path, [&whole[..], &whole[..cut]].concat()).unwrap();
            let mut opened = open(dir.path()).unwrap();
            assert_eq!(opened.torn_bytes, cut as u64);
            write(&mut opened.log, 1);
            assert_eq!(open(dir.path()).unwrap().log.head().seq, 4);
            fs::write(&path, &whole).unwrap();
        }
    }

    #[test]
    fn a_changed_line_stops_the_start() {
        let dir = tempfile::tempdir().unwrap();
        write(&mut open(dir.path()).unwrap().log, 4);
        let path = last_segment(dir.path());
        let text = fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.split_inclusive('\n').collect();
        for spoilt in [
            text.replacen("test 1", "test 9", 1),
            [lines[0], lines[2], lines[3]].concat(),
            [lines[0], lines[2], lines[1], lines[3]].concat(),
            [lines[1], lines[2], lines[3]].concat(),
            text.replacen("{", "[", 1),
        ] {
            fs::write(&path, spoilt).unwrap();
            assert!(matches!(open(dir.path()), Err(LogError::Broken { .. })));
        }
    }

    #[test]
    fn what_the_store_has_seen_must_still_be_there() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = open(dir.path()).unwrap().log;
        write(&mut log, 2);
        let anchor = Anchors::from([(LogId::FIRST, log.head())]);
        write(&mut log, 30);
        drop(log);
        assert!(Log::open(dir.path(), 2_000, &anchor).unwrap().anchored);
        // The last segments removed, or everything.
        let all = segments(dir.path()).unwrap();
        let seen = Anchor {
            seq: 32,
            hash: [0; 32],
        };
        let seen = Anchors::from([(LogId::FIRST, seen)]);
        fs::remove_file(&all.last().unwrap().1).unwrap();
        assert!(matches!(
            Log::open(dir.path(), 2_000, &seen),
            Err(LogError::Truncated { .. })
        ));
        for (_, path) in &all {
            let _ = fs::remove_file(path);
        }
        assert!(matches!(
            Log::open(dir.path(), 2_000, &anchor),
            Err(LogError::Truncated { .. })
        ));
    }

    #[test]
    fn a_log_of_another_node_has_an_anchor_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let id = LogId([7; 16]);
        Log::name(dir.path(), id).unwrap();
        Log::name(dir.path(), LogId([8; 16])).unwrap();
        let mut opened = open(dir.path()).unwrap();
        assert_eq!((opened.log.id(), opened.anchored), (id, false));
        write(&mut opened.log, 3);
        let head = opened.log.head();
        let seen = Anchor { seq: 9, ..head };
        let anchors = Anchors::from([(LogId::FIRST, seen), (id, head)]);
        assert!(Log::open(dir.path(), 2_000, &anchors).unwrap().anchored);
        // Without its name it would be the first one, and that is not what it holds.
        fs::remove_file(dir.path().join(ID)).unwrap();
        let first = Log::open(dir.path(), 2_000, &anchors);
        assert!(matches!(first, Err(LogError::Truncated { seq: 9, .. })));
        for spoilt in ["", "07", "zz", &LogId::FIRST.to_string()] {
            fs::write(dir.path().join(ID), spoilt).unwrap();
            assert!(matches!(open(dir.path()), Err(LogError::Nameless { .. })));
        }
    }

    #[test]
    fn a_link_in_place_of_a_segment_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        write(&mut open(dir.path()).unwrap().log, 1);
        let path = last_segment(dir.path());
        let elsewhere = dir.path().join("elsewhere");
        fs::rename(&path, &elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
        assert!(matches!(open(dir.path()), Err(LogError::Io { .. })));
    }
}
