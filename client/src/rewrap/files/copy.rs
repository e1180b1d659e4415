//! A file with new headers in the place of the old one, whole or not at all.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::{MetadataExt, chown},
    path::Path,
};

use bytes::Bytes;

use super::look::{Identity, Looked};
use crate::rewrap::sort::FIXED_LEN;

/// How names of half-written files begin.
pub(super) const LEFTOVER: &str = ".keywright-rewrap-";

pub(super) enum Copied {
    Yes,
    /// It is not the file any more that was looked at; nothing was touched.
    Changed,
}

/// Copies a file with new headers at these offsets and puts it in its place, if it is still
/// the same when the copy is done. (Between that look and the exchange somebody may still
/// write to it, for some microseconds: who writes into files in place must not do it while
/// a job runs. Exchanging them, as every careful program does, is safe.)
pub(super) fn replace(
    full: &Path,
    looked: &Looked,
    headers: &[(u64, Bytes)],
) -> io::Result<Copied> {
    let same = |meta: io::Result<fs::Metadata>| match meta {
        Ok(meta) => Ok(looked.identity == Some(Identity::of(&meta))),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    };
    let mut old = match File::open(full) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Copied::Changed),
        old => old?,
    };
    let meta = old.metadata()?;
    if !same(Ok(meta.clone()))? {
        return Ok(Copied::Changed);
    }
    let folder = full.parent().unwrap_or(Path::new("/"));
    let mut half = tempfile::Builder::new()
        .prefix(LEFTOVER)
        .tempfile_in(folder)?;
    // Whoever comes by sees that somebody is at work on it.
    half.as_file().lock()?;
    io::copy(&mut old, half.as_file_mut())?;
    for (at, header) in headers {
        let half = half.as_file_mut();
        half.seek(SeekFrom::Start(*at))?;
        let mut before = [0; FIXED_LEN];
        half.read_exact(&mut before)?;
        // What rewrap never changes: else it is not the header that was looked at.
        if header.get(..FIXED_LEN) != Some(&before) {
            return Ok(Copied::Changed);
        }
        half.seek(SeekFrom::Start(*at))?;
        half.write_all(header)?;
    }
    if (meta.uid(), meta.gid()) != owner(half.as_file())? {
        // Another owner's file stays his; who may not give it to him leaves it alone.
        chown(half.path(), Some(meta.uid()), Some(meta.gid()))?;
    }
    half.as_file().set_permissions(meta.permissions())?;
    half.as_file().sync_all()?;
    if !same(fs::symlink_metadata(full))? {
        return Ok(Copied::Changed);
    }
    half.persist(full).map_err(|e| e.error)?;
    File::open(folder)?.sync_all()?;
    Ok(Copied::Yes)
}

fn owner(file: &File) -> io::Result<(u32, u32)> {
    let meta = file.metadata()?;
    Ok((meta.uid(), meta.gid()))
}

/// Takes away what a killed run left half-written, unless a living one is at work on it.
/// What cannot be taken away does no harm.
pub(super) fn remove_leftover(full: &Path) {
    let Ok(file) = OpenOptions::new().read(true).write(true).open(full) else {
        return;
    };
    if !matches!(file.try_lock(), Err(TryLockError::WouldBlock)) {
        let _ = fs::remove_file(full);
    }
}
