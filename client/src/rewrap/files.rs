//! The files below a directory that keywright encrypted, in the order of their paths.
//!
//! Each envelope of a file is an entry; any other file is one. A file with something to
//! move is copied beside itself with new headers and takes its own place whole, so whoever
//! reads it meanwhile has the old one or the new one. What is in the envelopes does not
//! travel.

mod copy;
mod look;
mod walk;

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use bytes::Bytes;

use super::{Entry, Page, Place, Value, Written};
use crate::{Failure, FailureKind, proto::JobKind};

use copy::Copied;
use look::Looked;
use walk::Walk;

/// A directory.
pub struct Files {
    dir: PathBuf,
    /// Where the last page ended, so that the next one need not begin at the top.
    walk: Mutex<Option<(Option<String>, Walk)>>,
}

impl Files {
    /// Everything below a directory.
    ///
    /// # Errors
    /// [`FailureKind::Usage`] when that is none.
    pub fn open(dir: &Path) -> Result<Self, Failure> {
        let real = dir
            .canonicalize()
            .map_err(|e| Failure::new(FailureKind::Usage, format!("{}: {e}", dir.display())))?;
        if !real.is_dir() {
            let text = format!("{} is no directory", dir.display());
            return Err(Failure::new(FailureKind::Usage, text));
        }
        Ok(Self {
            dir: real,
            walk: Mutex::default(),
        })
    }

    /// Files behind a path, until there are enough entries.
    fn page(&self, after: Option<&str>, most: usize) -> Result<Option<Page<Vec<Looked>>>, Failure> {
        let mut kept = self.walk.lock().unwrap_or_else(PoisonError::into_inner);
        let mut walk = match kept.take() {
            Some((at, walk)) if at.as_deref() == after => walk,
            _ => Walk::new(&self.dir, after),
        };
        let mut page = Page {
            entries: Vec::new(),
            after: String::new(),
            own: Vec::new(),
        };
        while page.entries.len() < most {
            let Some(path) = walk.next()? else {
                break;
            };
            page.after = walk::escape(&path);
            self.look(&path, &mut page);
        }
        if page.own.is_empty() {
            return Ok(None);
        }
        *kept = Some((Some(page.after.clone()), walk));
        Ok(Some(page))
    }

    /// The entries of one file; none when it is gone.
    fn look(&self, path: &Path, page: &mut Page<Vec<Looked>>) {
        let first = page.entries.len();
        let name = path.display();
        let entry = |name: String, value| Entry { name, value };
        match look::look(&self.dir.join(path), path, first) {
            Ok(Some((looked, values))) => {
                let many = values.len() > 1;
                for (i, value) in values.into_iter().enumerate() {
                    let name = match many {
                        true => format!("{name}, segment {i}"),
                        false => name.to_string(),
                    };
                    page.entries.push(entry(name, value));
                }
                page.own.push(looked);
            }
            Ok(None) => {}
            Err(e) => {
                let value = Value::Unreadable(e.to_string());
                page.entries.push(entry(name.to_string(), value));
                page.own.push(Looked::unreadable(path, first));
            }
        }
    }
}

/// Work on a disk, beside the work on the network.
async fn beside<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| Failure::new(FailureKind::Other, "work on a file broke off"))
}

impl Place for Files {
    type Own = Vec<Looked>;

    fn kind(&self) -> JobKind {
        JobKind::Files
    }

    fn subject(&self) -> String {
        format!("files://{}{}", super::host(), self.dir.display())
    }

    fn order(&self) -> String {
        "files by path".to_owned()
    }

    async fn expected(&self) -> Result<u64, Failure> {
        // To know it is to go through all of them.
        Ok(0)
    }

    async fn read(
        &self,
        after: Option<&str>,
        most: usize,
    ) -> Result<Option<Page<Vec<Looked>>>, Failure> {
        self.page(after, most)
    }

    async fn write(
        &self,
        page: &Page<Vec<Looked>>,
        new: &[(usize, Bytes)],
    ) -> Result<Written, Failure> {
        let mut written = Written::default();
        for file in &page.own {
            let range = file.first..file.first + file.offsets.len();
            let headers: Vec<(u64, Bytes)> = new
                .iter()
                .filter(|(i, _)| range.contains(i))
                .filter_map(|(i, h)| Some((*file.offsets.get(i - file.first)?, h.clone())))
                .collect();
            if headers.is_empty() {
                continue;
            }
            let (path, looked) = (self.dir.join(&file.path), file.clone());
            match beside(move || copy::replace(&path, &looked, &headers)).await? {
                Ok(Copied::Yes) => {}
                Ok(Copied::Changed) => written.lost.extend(range),
                Err(e) if e.kind() == std::io::ErrorKind::StorageFull => {
                    return Err(Failure::io(file.path.display(), &e));
                }
                Err(e) => written.failed.extend(range.map(|i| (i, e.to_string()))),
            }
        }
        Ok(written)
    }

    async fn again(
        &self,
        page: &Page<Vec<Looked>>,
        which: &[usize],
    ) -> Result<Page<Vec<Looked>>, Failure> {
        let mut now = Page {
            entries: Vec::new(),
            after: page.after.clone(),
            own: Vec::new(),
        };
        for file in page.own.iter().filter(|f| which.contains(&f.first)) {
            self.look(&file.path, &mut now);
        }
        Ok(now)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    };

    use super::*;
    use crate::rewrap::fake::header;

    /// A file of two segments, the second one short.
    fn encrypted(version: u32) -> Vec<u8> {
        let mut bytes = b"KW1F\x01\x04\x00\x02".to_vec();
        bytes.extend([5; 16]);
        for (row, payload) in [(1, 72), (2, 30)] {
            bytes.extend(header(row, version));
            bytes.extend(vec![row as u8; payload]);
        }
        bytes
    }

    async fn all(files: &Files, most: usize) -> Vec<Page<Vec<Looked>>> {
        let (mut after, mut pages) = (None, Vec::new());
        while let Some(page) = files.read(after.as_deref(), most).await.unwrap() {
            after = Some(page.after.clone());
            pages.push(page);
        }
        pages
    }

    #[tokio::test]
    async fn files_come_in_order_and_links_and_leftovers_do_not() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, bytes: &[u8]| {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        };
        put("b/z", &encrypted(1));
        put("b/a%", b"");
        put("b.txt", b"hello");
        put("a", &encrypted(3));
        put("b/.keywright-rewrap-left", &encrypted(3));
        symlink(dir.path().join("a"), dir.path().join("c")).unwrap();
        let files = Files::open(dir.path()).unwrap();
        for most in [1, 3, 100] {
            let pages = all(&files, most).await;
            let names: Vec<String> = pages
                .iter()
                .flat_map(|p| p.entries.iter().map(|e| e.name.clone()))
                .collect();
            let wanted = [
                "a, segment 0",
                "a, segment 1",
                "b/a%",
                "b/z, segment 0",
                "b/z, segment 1",
                "b.txt",
            ];
            assert_eq!(names, wanted, "{most}");
            // Without the walk that was kept, the same from any page on.
            let fresh = Files::open(dir.path()).unwrap();
            let first = &pages[0];
            let rest = fresh.read(Some(&first.after), 100).await.unwrap();
            let left = rest.map_or(0, |p| p.entries.len());
            assert_eq!(left + first.entries.len(), 6, "{most}");
        }
        let kinds: Vec<Value> = all(&files, 100)
            .await
            .remove(0)
            .entries
            .into_iter()
            .map(|e| e.value)
            .collect();
        assert_eq!(kinds[2], Value::Empty);
        assert_eq!(kinds[5], Value::Foreign);
        assert!(matches!(&kinds[4], Value::Envelope(h) if *h == header(2, 1)));
        assert!(!dir.path().join("b/.keywright-rewrap-left").exists());
    }

    #[tokio::test]
    async fn a_file_is_replaced_whole_unless_it_changed_meanwhile() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        fs::write(&path, encrypted(1)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let files = Files::open(dir.path()).unwrap();
        let page = all(&files, 10).await.remove(0);
        let new = vec![(0, header(1, 3)), (1, header(2, 3))];
        let written = files.write(&page, &new).await.unwrap();
        assert!(written.lost.is_empty() && written.failed.is_empty());
        assert_eq!(fs::read(&path).unwrap(), encrypted(3));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
        // The page is of the file that was there before.
        let written = files.write(&page, &new).await.unwrap();
        assert_eq!(written.lost, [0, 1]);
        let again = files.again(&page, &written.lost).await.unwrap();
        assert_eq!(again.entries[0].value, Value::Envelope(header(1, 3)));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing left");
    }
}
