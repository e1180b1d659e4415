//! A spare of the token's own record, because SoftHSM2 writes it in place: at every login
//! `token.object` is cut to nothing and written again, and a process that is killed in
//! between leaves a token that SoftHSM2 does not know any more, PINs and all. The keys lie
//! in files of their own and are not touched.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

const RECORD: &str = "token.object";
const SPARE: &str = "token.object.spare";

/// Puts a spare beside each token that was just made.
pub(super) fn keep_spares(tokens: &Path) -> io::Result<()> {
    for folder in folders(tokens)? {
        fs::copy(folder.join(RECORD), folder.join(SPARE))?;
    }
    Ok(())
}

/// Puts the spare in the place of a record that was cut short. Nobody may use the token
/// meanwhile.
pub(super) fn mend(tokens: &Path) -> io::Result<()> {
    for folder in folders(tokens)? {
        let (record, spare) = (folder.join(RECORD), folder.join(SPARE));
        let len = |path: &Path| fs::metadata(path).map_or(0, |m| m.len());
        if len(&record) < len(&spare) {
            tracing::warn!(token = %folder.display(), "SoftHSM2's record of the token was cut short; the spare takes its place");
            fs::copy(&spare, &record)?;
        }
    }
    Ok(())
}

fn folders(tokens: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(tokens)?.collect::<io::Result<Vec<_>>>()?;
    Ok(entries
        .into_iter()
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_cut_short_is_mended_and_a_whole_one_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("token");
        fs::create_dir(&folder).unwrap();
        let record = folder.join(RECORD);
        fs::write(&record, "whole").unwrap();
        keep_spares(dir.path()).unwrap();
        for cut in ["", "who"] {
            fs::write(&record, cut).unwrap();
            mend(dir.path()).unwrap();
            assert_eq!(fs::read(&record).unwrap(), b"whole");
        }
        fs::write(&record, "newer").unwrap();
        mend(dir.path()).unwrap();
        assert_eq!(fs::read(&record).unwrap(), b"newer");
    }
}
