//! One file: what it is, and the headers in it.

use std::{
    fs::{File, Metadata, OpenOptions},
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use bytes::Bytes;

use crate::{HEADER_LEN, file::FileLayout, rewrap::Value};

/// A file as it was when its headers were read.
#[derive(Debug, Clone)]
pub struct Looked {
    /// Below the directory.
    pub(super) path: PathBuf,
    /// Its first entry in the page.
    pub(super) first: usize,
    /// Where its headers are; one for each entry.
    pub(super) offsets: Vec<u64>,
    pub(super) identity: Option<Identity>,
}

impl Looked {
    /// It has one entry, and that is never written.
    pub(super) fn unreadable(path: &Path, first: usize) -> Self {
        Self {
            path: path.to_owned(),
            first,
            offsets: vec![0],
            identity: None,
        }
    }
}

/// What is another one when somebody wrote to the file, or put another in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
    /// Unlike the one above nobody can set it back.
    changed: (i64, i64),
}

impl Identity {
    pub(super) fn of(meta: &Metadata) -> Self {
        Self {
            device: meta.dev(),
            inode: meta.ino(),
            length: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }
}

/// The headers of a file; none when it is gone.
pub(super) fn look(
    full: &Path,
    path: &Path,
    first: usize,
) -> io::Result<Option<(Looked, Vec<Value>)>> {
    let mut file = match OpenOptions::new().read(true).open(full) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let identity = Identity::of(&file.metadata()?);
    let (mut offsets, mut values) = (Vec::new(), Vec::new());
    match layout(&mut file, identity.length)? {
        Ok(layout) => {
            let mut at = layout.first as u64;
            while at < identity.length {
                offsets.push(at);
                values.push(header(&mut file, at)?);
                at += layout.segment as u64;
            }
        }
        Err(value) => {
            offsets.push(0);
            values.push(value);
        }
    }
    let looked = Looked {
        path: path.to_owned(),
        first,
        offsets,
        identity: Some(identity),
    };
    Ok(Some((looked, values)))
}

/// Where its headers are, or what it is instead.
fn layout(file: &mut File, length: u64) -> io::Result<Result<FileLayout, Value>> {
    if length == 0 {
        return Ok(Err(Value::Empty));
    }
    let mut front = Vec::new();
    file.take(FileLayout::FRONT as u64)
        .read_to_end(&mut front)?;
    // Ours has at least one segment.
    let layout = FileLayout::parse(&front).filter(|l| length > l.first as u64);
    Ok(layout.ok_or(Value::Foreign))
}

fn header(file: &mut File, at: u64) -> io::Result<Value> {
    let mut bytes = Vec::with_capacity(HEADER_LEN);
    file.seek(SeekFrom::Start(at))?;
    file.take(HEADER_LEN as u64).read_to_end(&mut bytes)?;
    Ok(match bytes.len() {
        HEADER_LEN => Value::Envelope(Bytes::from(bytes)),
        _ => Value::Foreign,
    })
}
