//! One page: what is old in it is moved and written back.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use bytes::Bytes;

use super::{
    Event, Tell,
    pace::Pace,
    patience::Patience,
    place::{Page, Place, Value},
    server::Server,
    sort::{FIXED_LEN, Sort, sort, version},
    tally::{Fate, Tally},
};
use crate::{Failure, FailureKind, HEADER_LEN, proto};

/// Headers of one call.
const HEADERS: usize = 2_000;
/// How often a node that does not know the newest version yet is asked again.
const BEHIND_TRIES: u32 = 8;
/// How often entries are looked at again that somebody else keeps changing.
const ROUNDS: u32 = 5;
/// How many troubles are told one by one.
const NAMED: usize = 10;

/// New headers and the entries they belong to.
type Moves = Vec<(usize, Bytes)>;

/// A page that is done.
pub(super) struct Done<T> {
    pub(super) page: Page<T>,
    pub(super) new: Moves,
    /// What the next page begins behind.
    pub(super) after: String,
    pub(super) tally: Tally,
}

/// Moves pages of one job.
pub(super) struct Mover<'a, S> {
    pub(super) server: &'a S,
    pub(super) key: &'a proto::Key,
    pub(super) target: u32,
    pub(super) dry_run: bool,
    pub(super) pace: &'a Pace,
    pub(super) patience: &'a Patience<'a>,
    pub(super) tell: Tell<'a>,
    /// The newest version the key is known to have.
    pub(super) newest: &'a AtomicU32,
    /// Troubles told so far.
    pub(super) named: &'a AtomicUsize,
}

impl<S: Server> Mover<'_, S> {
    /// Moves, writes and counts; what somebody else changed in between is looked at again.
    pub(super) async fn page<P: Place>(
        &self,
        place: &P,
        mut page: Page<P::Own>,
    ) -> Result<Done<P::Own>, Failure> {
        let after = page.after.clone();
        let mut tally = Tally::default();
        for round in 1.. {
            let mut sorts: Vec<Sort> = page
                .entries
                .iter()
                .map(|e| sort(&e.value, &self.key.id, self.target))
                .collect();
            self.doubt(&page, &mut sorts).await?;
            let new = self.moved(&page, &sorts).await?;
            let written = match new.is_empty() {
                true => super::Written::default(),
                false => {
                    let write = async || place.write(&page, &new).await;
                    self.patience.insist(write).await?
                }
            };
            let stuck = round == ROUNDS;
            for (i, why) in &written.failed {
                self.trouble(&page, *i, why);
            }
            for (i, sort) in sorts.into_iter().enumerate() {
                let lost = written.lost.contains(&i);
                if lost && !stuck {
                    continue;
                }
                if lost {
                    self.trouble(&page, i, "somebody else changes it all the time");
                }
                let failed = written.failed.iter().any(|(f, _)| *f == i);
                // In the order of the entries, so it can be looked up.
                let moved = new.binary_search_by_key(&i, |(n, _)| *n).is_ok();
                let fate = match sort {
                    Sort::Old(_) if moved && !lost && !failed => Fate::Moved,
                    Sort::Old(_) | Sort::Unreadable => Fate::Left,
                    _ => Fate::AsItWas,
                };
                tally.count(sort, fate);
            }
            if written.lost.is_empty() || stuck {
                return Ok(Done {
                    page,
                    new,
                    after,
                    tally,
                });
            }
            let again = async || place.again(&page, &written.lost).await;
            page = self.patience.insist(again).await?;
        }
        Err(Failure::nonsense())
    }

    /// A version that the key does not have, also when it is asked for now, is damage: it is
    /// not where everything belongs.
    async fn doubt<T>(&self, page: &Page<T>, sorts: &mut [Sort]) -> Result<(), Failure> {
        let newest = || self.newest.load(Ordering::Relaxed);
        if sorts
            .iter()
            .any(|s| matches!(s, Sort::Current(v) if *v > newest()))
        {
            let ask = async || self.server.key(&self.key.name).await;
            let key = self.patience.insist(ask).await?;
            self.newest.fetch_max(newest_of(&key), Ordering::Relaxed);
        }
        for (i, sort) in sorts.iter_mut().enumerate() {
            if let Sort::Current(v) = *sort
                && v > newest()
            {
                let why = format!("its header names version {v}, which the key does not have");
                self.trouble(page, i, &why);
                *sort = Sort::Unreadable;
            }
        }
        Ok(())
    }

    /// New headers for the old ones; what cannot be moved is named and missing.
    async fn moved<T>(&self, page: &Page<T>, sorts: &[Sort]) -> Result<Moves, Failure> {
        let mut old = Vec::new();
        for ((i, entry), sort) in page.entries.iter().enumerate().zip(sorts) {
            match (&entry.value, sort) {
                (Value::Envelope(header), Sort::Old(_)) => old.push((i, header.clone())),
                (Value::Unreadable(why), _) => self.trouble(page, i, why),
                _ => (),
            }
        }
        let mut new = Vec::new();
        if self.dry_run {
            return Ok(new);
        }
        for part in old.chunks(HEADERS) {
            self.pace.wait(part.len()).await;
            let response = self.ask(part).await?;
            for (at, ((i, old), header)) in part.iter().zip(&response.envelopes).enumerate() {
                let error = response.errors.iter().find(|e| e.index as usize == at);
                match error {
                    Some(error) => self.trouble(page, *i, &error.message),
                    None if fits(old, header) => new.push((*i, header.clone())),
                    None => return Err(Failure::nonsense().at(name(page, *i))),
                }
            }
        }
        Ok(new)
    }

    /// Asks until the answer is at the target: behind a balancer there may be a node that
    /// has not heard of it yet.
    async fn ask(&self, old: &[(usize, Bytes)]) -> Result<proto::RewrapResponse, Failure> {
        let headers: Vec<Bytes> = old.iter().map(|(_, h)| h.clone()).collect();
        let call = async || {
            let asked = self.server.rewrap(&self.key.name, headers.clone()).await;
            let response = asked.or_else(|e| each_failed(e, headers.len()))?;
            if response.envelopes.len() != headers.len() {
                return Err(Failure::nonsense());
            }
            // A token that is busy is no fault of the item.
            let passing = response.errors.iter().map(Failure::item);
            match { passing }.find(|f| f.kind() == FailureKind::Unavailable) {
                Some(failure) => Err(failure),
                None => Ok(response),
            }
        };
        let mut pause = self.patience.pause;
        for _ in 0..BEHIND_TRIES {
            let response = self.patience.insist(call).await?;
            let behind = response.envelopes.iter().enumerate().any(|(at, header)| {
                let failed = response.errors.iter().any(|e| e.index as usize == at);
                !failed && version(header).is_none_or(|v| v < self.target)
            });
            if !behind {
                return Ok(response);
            }
            let text = format!("a node does not know version {} yet", self.target);
            (self.tell)(Event::Waiting(text));
            self.patience.stop.sleep(pause).await?;
            pause *= 2;
        }
        let text = format!(
            "the server goes on answering with versions below {} of {}; look at its nodes, then run the same command again",
            self.target, self.key.name
        );
        Err(Failure::new(FailureKind::Unavailable, text))
    }

    /// Says what cannot be moved: the first few by name.
    fn trouble<T>(&self, page: &Page<T>, i: usize, why: &str) {
        let text = match self.named.fetch_add(1, Ordering::Relaxed) {
            n if n < NAMED => format!("{}: {why}; it is left as it is", name(page, i)),
            NAMED => "and more that cannot be moved; they are counted as left".to_owned(),
            _ => return,
        };
        (self.tell)(Event::Note(text));
    }
}

/// The highest number of all versions of a key.
pub(super) fn newest_of(key: &proto::Key) -> u32 {
    let numbers = key.versions.iter().map(|v| v.number);
    numbers.max().unwrap_or(key.primary_version)
}

fn name<T>(page: &Page<T>, i: usize) -> String {
    page.entries
        .get(i)
        .map_or_else(String::new, |e| e.name.clone())
}

/// When all items fail for the same reason, the call fails with it: then each is left. What
/// the caller or the server must mend ends the work.
fn each_failed(failure: Failure, items: usize) -> Result<proto::RewrapResponse, Failure> {
    match failure.kind() {
        FailureKind::Data | FailureKind::State | FailureKind::NotFound => {}
        _ => return Err(failure),
    }
    let code = match failure.kind() {
        FailureKind::Data => tonic::Code::InvalidArgument,
        _ => tonic::Code::FailedPrecondition,
    };
    let error = |index| proto::ItemError {
        index,
        code: code.into(),
        reason: failure.reason().unwrap_or_default().to_owned(),
        message: failure.to_string(),
    };
    Ok(proto::RewrapResponse {
        envelopes: vec![Bytes::new(); items],
        errors: (0..).take(items).map(error).collect(),
        ..Default::default()
    })
}

/// Does the new header belong in front of the old payload?
fn fits(old: &[u8], new: &[u8]) -> bool {
    new.len() == HEADER_LEN && new.get(..FIXED_LEN) == old.get(..FIXED_LEN)
}
