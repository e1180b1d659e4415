//! The audit log checked offline: every line holds the SHA-256 of the line before, the
//! numbers have no gap, the segments follow each other.
//!
//! This is written apart from the daemon's own code, so that a mistake there does not
//! hide itself here.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, ErrorKind},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{Failure, FailureKind};

/// What a log that holds together says about itself.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Records.
    pub records: u64,
    /// Files.
    pub segments: usize,
    /// Time of the first record.
    pub first_time: String,
    /// Time of the last record.
    pub last_time: String,
    /// SHA-256 of the last line: write it down elsewhere, and nobody can shorten the log
    /// unseen.
    pub head: String,
    /// Bytes of an unfinished last line; nobody was answered for it.
    pub unfinished_bytes: u64,
}

#[derive(Deserialize)]
struct Link {
    seq: u64,
    time: String,
    prev: String,
}

/// Checks the log of a data directory (`DIR/audit`), or of a folder of segments. `noted`:
/// a head from before, in hexadecimal, that the log must still pass through.
///
/// # Errors
/// [`FailureKind::Audit`] with file and line of the first break; [`FailureKind::Usage`]
/// for a directory that has nothing to do with it.
pub fn verify(dir: &Path, noted: Option<&str>) -> Result<Report, Failure> {
    if noted.is_some_and(|head| head.len() != 64 || hex::decode(head).is_err()) {
        return Err(Failure::new(
            FailureKind::Usage,
            "--head is 64 hexadecimal digits, as `keywright audit verify` prints them",
        ));
    }
    let of_daemon = dir.join("audit");
    let (folder, must_have) = match of_daemon.is_dir() {
        true => (of_daemon, true),
        false => (dir.to_owned(), false),
    };
    let segments = segments(&folder)?;
    if segments.is_empty() && !must_have {
        return Err(Failure::new(
            FailureKind::Usage,
            format!(
                "{} holds no audit log: give the data directory of the daemon (with a folder audit in it), or a folder with segments (*.jsonl)",
                dir.display()
            ),
        ));
    }
    let mut report = Report {
        records: 0,
        segments: segments.len(),
        first_time: String::new(),
        last_time: String::new(),
        head: "0".repeat(64),
        unfinished_bytes: 0,
    };
    let last = segments.len().saturating_sub(1);
    let noted = noted.map(str::to_ascii_lowercase);
    let noted = noted.as_deref();
    let mut seen = noted.is_none();
    for (n, path) in segments.iter().enumerate() {
        segment(path, &mut report, &mut |head| seen |= noted == Some(head))?;
        if report.unfinished_bytes > 0 && n != last {
            return Err(broken(
                path,
                report.records + 1,
                "an unfinished line in the middle of the log",
            ));
        }
    }
    if report.records == 0 {
        return Err(Failure::new(
            FailureKind::Audit,
            format!("{}: no audit records", folder.display()),
        ));
    }
    if !seen {
        return Err(Failure::new(
            FailureKind::Audit,
            format!(
                "the record with the noted head is not in the log any more: records were removed from the end, or it is another log (it holds {} records)",
                report.records
            ),
        ));
    }
    Ok(report)
}

fn segments(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let io = |e| Failure::io(folder.display(), &e);
    let mut found = Vec::new();
    let entries = fs::read_dir(folder).map_err(|e| match e.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => Failure::new(
            FailureKind::Usage,
            format!("{}: no such directory", folder.display()),
        ),
        _ => io(e),
    })?;
    for entry in entries {
        let path = entry.map_err(io)?.path();
        if path.extension().is_some_and(|e| e == "jsonl") {
            found.push(path);
        }
    }
    // The names are the numbers of the first records, padded.
    found.sort();
    Ok(found)
}

fn segment(path: &Path, report: &mut Report, passed: &mut dyn FnMut(&str)) -> Result<(), Failure> {
    let io = |e| Failure::io(path.display(), &e);
    let mut reader = BufReader::new(File::open(path).map_err(io)?);
    let named: Option<u64> = path.file_stem().and_then(|s| s.to_str()?.parse().ok());
    if named != Some(report.records + 1) {
        return Err(broken(
            path,
            report.records + 1,
            "the segment before it is missing, or it was renamed",
        ));
    }
    let mut line = Vec::new();
    loop {
        line.clear();
        reader.read_until(b'\n', &mut line).map_err(io)?;
        let Some(body) = line.strip_suffix(b"\n") else {
            report.unfinished_bytes = line.len() as u64;
            return Ok(());
        };
        let link: Link = serde_json::from_slice(body)
            .map_err(|_| broken(path, report.records + 1, "not a record"))?;
        if link.seq != report.records + 1 {
            return Err(broken(
                path,
                report.records + 1,
                "a record is missing, added or out of order",
            ));
        }
        if link.prev != report.head {
            return Err(broken(
                path,
                link.seq,
                "it does not follow from the record before: one of the two was changed",
            ));
        }
        report.head = hex::encode(Sha256::digest(body));
        passed(&report.head);
        report.records = link.seq;
        if report.first_time.is_empty() {
            report.first_time.clone_from(&link.time);
        }
        report.last_time = link.time;
    }
}

fn broken(path: &Path, record: u64, what: &str) -> Failure {
    Failure::new(
        FailureKind::Audit,
        format!(
            "the audit log is broken at record {record} ({}): {what}",
            path.display()
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A log written by hand from the description, not by the daemon.
    fn log(dir: &Path, records: u64, per_segment: u64) -> Vec<PathBuf> {
        let (mut prev, mut files) = ("0".repeat(64), Vec::new());
        for seq in 1..=records {
            let line = format!(
                "{{\"seq\":{seq},\"time\":\"t{seq}\",\"action\":\"Encrypt\",\"prev\":\"{prev}\"}}"
            );
            if (seq - 1) % per_segment == 0 {
                files.push(dir.join(format!("{seq:020}.jsonl")));
            }
            let file = files.last().unwrap();
            let before = fs::read_to_string(file).unwrap_or_default();
            fs::write(file, format!("{before}{line}\n")).unwrap();
            prev = hex::encode(Sha256::digest(&line));
        }
        files
    }

    #[test]
    fn a_whole_log_verifies() {
        let dir = tempfile::tempdir().unwrap();
        log(dir.path(), 25, 10);
        let report = verify(dir.path(), None).unwrap();
        assert_eq!((report.records, report.segments), (25, 3));
        assert_eq!(
            (report.first_time.as_str(), report.last_time.as_str()),
            ("t1", "t25")
        );
    }

    #[test]
    fn every_kind_of_change_is_found() {
        type Spoil = fn(&[PathBuf]);
        type Edit = fn(&str) -> String;
        let edit = |f: fn(&str) -> String| {
            move |path: &Path| {
                fs::write(path, f(&fs::read_to_string(path).unwrap())).unwrap();
            }
        };
        let spoils: [(&str, Spoil); 4] = [
            ("a segment removed", |f| fs::remove_file(&f[1]).unwrap()),
            ("the first segment removed", |f| {
                fs::remove_file(&f[0]).unwrap()
            }),
            ("two segments exchanged", |f| {
                let (a, b) = (fs::read(&f[0]).unwrap(), fs::read(&f[1]).unwrap());
                fs::write(&f[0], b).unwrap();
                fs::write(&f[1], a).unwrap();
            }),
            ("everything removed", |f| {
                f.iter().for_each(|p| fs::remove_file(p).unwrap())
            }),
        ];
        for (what, spoil) in spoils {
            let dir = tempfile::tempdir().unwrap();
            let audit = dir.path().join("audit");
            fs::create_dir(&audit).unwrap();
            spoil(&log(&audit, 25, 10));
            assert_eq!(
                verify(dir.path(), None).unwrap_err().kind(),
                FailureKind::Audit,
                "{what}"
            );
        }
        let edits: [(&str, Edit); 5] = [
            ("a word changed", |t| t.replacen("Encrypt", "Decrypt", 1)),
            ("a line removed", |t| {
                t.lines().skip(1).map(|l| format!("{l}\n")).collect()
            }),
            ("a line doubled", |t| {
                format!("{}\n{t}", t.lines().next().unwrap())
            }),
            ("cut inside a line", |t| t[..t.len() / 2].to_owned()),
            ("junk", |t| format!("{t}junk\n")),
        ];
        for (what, change) in edits {
            let dir = tempfile::tempdir().unwrap();
            edit(change)(&log(dir.path(), 25, 10)[1]);
            assert_eq!(
                verify(dir.path(), None).unwrap_err().kind(),
                FailureKind::Audit,
                "{what}"
            );
        }
    }

    #[test]
    fn a_wrong_directory_is_no_broken_log() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "x").unwrap();
        for wrong in [dir.path(), &dir.path().join("missing"), &file] {
            let e = verify(wrong, None).unwrap_err();
            assert_eq!(e.kind(), FailureKind::Usage, "{e}");
        }
    }

    #[test]
    fn a_noted_head_must_still_be_there() {
        let dir = tempfile::tempdir().unwrap();
        log(dir.path(), 6, 4);
        let head = verify(dir.path(), None).unwrap().head;
        assert!(verify(dir.path(), Some(&head)).is_ok());
        assert!(verify(dir.path(), Some(&head.to_uppercase())).is_ok());
        // The same log, longer, still holds it; a shorter one does not.
        let longer = tempfile::tempdir().unwrap();
        log(longer.path(), 9, 4);
        assert!(verify(longer.path(), Some(&head)).is_ok());
        let shorter = tempfile::tempdir().unwrap();
        log(shorter.path(), 5, 4);
        assert!(verify(shorter.path(), None).is_ok());
        let e = verify(shorter.path(), Some(&head)).unwrap_err();
        assert_eq!(e.kind(), FailureKind::Audit);
    }

    #[test]
    fn an_unfinished_last_line_is_told_and_forgiven() {
        let dir = tempfile::tempdir().unwrap();
        let files = log(dir.path(), 5, 10);
        let text = fs::read_to_string(&files[0]).unwrap();
        fs::write(&files[0], format!("{text}{{\"seq\":6")).unwrap();
        assert_eq!(verify(dir.path(), None).unwrap().unfinished_bytes, 8);
    }

    /// Every single byte of a log, changed: nothing but the last line's own content can
    /// change unseen, which is what the head is for.
    #[test]
    fn every_byte_counts() {
        let dir = tempfile::tempdir().unwrap();
        let files = log(dir.path(), 4, 10);
        let good = fs::read(&files[0]).unwrap();
        let head = verify(dir.path(), None).unwrap().head;
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs::write(&files[0], &bad).unwrap();
            let unseen =
                verify(dir.path(), None).is_ok_and(|r| r.head == head && r.unfinished_bytes == 0);
            assert!(!unseen, "byte {at}");
        }
    }
}
