//! A place where envelopes lie, as the driver sees it: pages of entries in one fixed
//! order.

use bytes::Bytes;

use crate::{Failure, proto};

/// What lies at one spot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Nothing.
    Empty,
    /// Nothing of ours.
    Foreign,
    /// The first 136 bytes of what may be an envelope.
    Envelope(Bytes),
    /// It could not be looked at; why.
    Unreadable(String),
}

/// A spot and what lies there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// For people: the key of a row, a path, the number of a line.
    pub name: String,
    /// What was found.
    pub value: Value,
}

/// Entries that follow one another.
#[derive(Debug, Clone)]
pub struct Page<T> {
    /// In the order of the place.
    pub entries: Vec<Entry>,
    /// What the next page begins behind, in the words of the place.
    pub after: String,
    /// What the place itself needs to write it back.
    pub own: T,
}

/// What became of a page. Entries that are not named here are written.
#[derive(Debug, Default)]
pub struct Written {
    /// Were changed by somebody else since they were read; not touched.
    pub lost: Vec<usize>,
    /// Could not be written; why.
    pub failed: Vec<(usize, String)>,
}

/// Where envelopes lie. Failures of the kind
/// [`Unavailable`](crate::FailureKind::Unavailable) are tried again.
pub trait Place {
    /// What it keeps with a page.
    type Own;

    /// For the job.
    fn kind(&self) -> proto::JobKind;

    /// What the job goes over, without secrets.
    fn subject(&self) -> String;

    /// In which order it goes. A cursor means something in this order only.
    fn order(&self) -> String;

    /// Whether work can go on behind a page; else it begins at the beginning.
    fn goes_on(&self) -> bool {
        true
    }

    /// About how many entries there are; 0: not known.
    fn expected(&self) -> impl Future<Output = Result<u64, Failure>>;

    /// The page behind `after`, of about `most` entries; none at the end.
    fn read(
        &self,
        after: Option<&str>,
        most: usize,
    ) -> impl Future<Output = Result<Option<Page<Self::Own>>, Failure>>;

    /// Writes new headers over old ones, where the old ones are still there.
    fn write(
        &self,
        page: &Page<Self::Own>,
        new: &[(usize, Bytes)],
    ) -> impl Future<Output = Result<Written, Failure>>;

    /// Entries of a page as they are now; those that are gone are left out.
    fn again(
        &self,
        page: &Page<Self::Own>,
        which: &[usize],
    ) -> impl Future<Output = Result<Page<Self::Own>, Failure>>;

    /// Takes a page that is done; pages come in the order of the place.
    ///
    /// # Errors
    /// What the place has to say; the job stops.
    fn take(&self, _page: Page<Self::Own>, _new: &[(usize, Bytes)]) -> Result<(), Failure> {
        Ok(())
    }

    /// Everything was gone through.
    ///
    /// # Errors
    /// What the place has to say; the job is not completed then.
    fn finish(&self) -> Result<(), Failure> {
        Ok(())
    }
}
