//! Move envelopes to the primary version of their key. Bytes 68 to 135 of a header and
//! nothing else; payload, context and AAD are neither needed nor looked at.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Instant,
};

use keywright_hsm::{self as hsm, Unwrap, WrappedDek};

use super::{
    App, Call, Failures, Strings,
    open::{Found, Groups, Keys, note_envelopes, number},
    wraps,
};
use crate::{
    envelope::{Header, Kind, wrap_aad},
    error::{Error, Reason, Result},
    key::{Key, KeyId, KeyName, KeyUse, VersionNumber},
    policy::act,
};

/// What to rewrap.
#[derive(Debug)]
pub struct Rewrap {
    /// Headers or attached items.
    pub envelopes: Strings,
    /// Refuse envelopes of any other key.
    pub only_key: Option<KeyName>,
}

/// Rewrapped envelopes.
#[derive(Debug)]
pub struct Rewrapped {
    /// One for each envelope, one after the other; failed ones are empty.
    pub data: Vec<u8>,
    /// Offset after each.
    pub ends: Vec<usize>,
    /// What failed.
    pub failures: Failures,
    /// Envelopes that moved.
    pub rewrapped: usize,
    /// Envelopes that were there already.
    pub already_current: usize,
}

/// What becomes of a header.
enum Fate {
    Current(Header),
    Moves(Box<Move>),
}

struct Move {
    found: Found,
    to: VersionNumber,
    job: hsm::Rewrap,
}

/// What the headers of one lease have in common (`docs/envelope.md`): what is bound to the
/// wrap, and the wrap. One unwrap and one wrap do for all of them.
type Tail = ([u8; 56], WrappedDek);

/// The first of a batch and every so-manieth after it, which is one in each job at the token,
/// is opened again before anything leaves, so that a token that wraps wrongly is found at
/// once. All of them would cost a third of the throughput; what `Encrypt` wraps is not opened
/// again either.
const VERIFY_EVERY: usize = 32;

/// Rewraps a batch. Envelopes that share a header, or a DEK, cost one pass through the HSM.
///
/// # Errors
/// When every envelope failed alike; else failures stand in the output.
pub async fn rewrap(app: &Arc<App>, call: &mut Call, request: Rewrap) -> Result<Rewrapped> {
    let envelopes = &request.envelopes;
    let groups = Groups::of((0..envelopes.len()).map(|i| front(envelopes.get(i))));
    let mut keys = Keys::<act::Rewrap>::new(
        app,
        request.only_key.as_ref(),
        &[Kind::Items, Kind::DataKey],
    );
    let found: Vec<Result<Found>> = groups.headers.iter().map(|h| keys.find(call, h)).collect();
    note_envelopes(call, &found);
    let headers = move_all(app, found, call.deadline, call.now_ms).await;
    let out = assemble(envelopes, &groups, &headers);
    let failed = out.failures.len();
    call.items(
        envelopes.len() - failed,
        failed,
        groups.headers.len() * Header::LEN,
    );
    out.failures.unless_all_alike(envelopes.len())?;
    Ok(out)
}

/// Each header under the primary version of its key, and whether it was moved there.
pub(super) async fn move_all(
    app: &Arc<App>,
    found: Vec<Result<Found>>,
    deadline: Instant,
    now_ms: i64,
) -> Vec<Result<(Header, bool)>> {
    let mut fates: Vec<Result<Fate>> = found.into_iter().map(|found| fate(found?)).collect();
    count_wraps(app, &mut fates).await;

    let mut place: HashMap<Tail, usize> = HashMap::new();
    let mut jobs = Vec::new();
    for m in fates.iter().flatten().filter_map(moves) {
        place.entry(m.tail()).or_insert_with(|| {
            jobs.push(hsm::Rewrap {
                verify: jobs.len() % VERIFY_EVERY == 0,
                ..m.job.clone()
            });
            jobs.len() - 1
        });
    }
    let moved = app.hsm.rewrap(jobs, deadline).await;
    let wrapped = |m: &Move| match place.get(&m.tail()).and_then(|i| moved.get(*i)) {
        Some(wrapped) => wrapped.clone(),
        None => Err(hsm::Error::new(hsm::Kind::Fault, "a rewrap got lost")),
    };
    fates
        .into_iter()
        .map(|fate| match fate? {
            Fate::Current(header) => Ok((header, false)),
            Fate::Moves(m) => {
                let wrapped = wrapped(&m);
                m.finish(wrapped, now_ms).map(|header| (header, true))
            }
        })
        .collect()
}

/// The first 136 bytes; all of it when there are fewer, to be refused later.
fn front(envelope: &[u8]) -> &[u8] {
    envelope.get(..Header::LEN).unwrap_or(envelope)
}

fn fate(found: Found) -> Result<Fate> {
    let to = found.key.to_protect(KeyUse::Encrypt)?.get();
    if number(&found) == Some(to.number) {
        // Already where it belongs. It is not opened: whether it is genuine is for
        // decrypt to say.
        return Ok(Fate::Current(found.header));
    }
    let Key { id, tenant, .. } = *found.key;
    let job = hsm::Rewrap {
        from: found.unwrap.clone(),
        to: to.on_token.clone(),
        to_aad: wrap_aad(found.header.kind(), id, tenant, to.number),
        verify: true,
    };
    Ok(Fate::Moves(Box::new(Move {
        to: to.number,
        job,
        found,
    })))
}

impl Move {
    fn tail(&self) -> Tail {
        (self.job.from.aad, self.job.from.wrapped)
    }

    /// The new header, after a last look at it: same fixed part, and it says what it
    /// should. That it opens to the same DEK was checked in the HSM, for some of a batch.
    fn finish(self, wrapped: hsm::Result<WrappedDek>, now_ms: i64) -> Result<Header> {
        let before = self.found.header;
        let after = before.with_wrap(self.to, &wrapped?);
        let fixed = |h: &Header| h.as_bytes().first_chunk::<{ Header::FIXED_LEN }>().copied();
        if fixed(&after) != fixed(&before) || Header::parse(after.as_bytes()) != Ok(after) {
            return Err(Error::internal("rewrap made a header that is not one"));
        }
        let Unwrap { wrapped: old, .. } = self.job.from;
        if after.wrapped() == old {
            return Err(Error::internal("rewrap gave the old wrap back"));
        }
        // Its old version is not used by this: it is left behind.
        if let Some(to) = self.found.key.version(self.to.get()) {
            to.used.protects(now_ms);
        }
        Ok(after)
    }
}

/// Counts the wraps of each key before they are made; what cannot be counted fails.
async fn count_wraps(app: &Arc<App>, fates: &mut [Result<Fate>]) {
    let mut wanted: BTreeMap<KeyId, (Arc<Key>, u64)> = BTreeMap::new();
    let mut seen = HashSet::new();
    for m in fates.iter().flatten().filter_map(moves) {
        let (_, wraps) = wanted
            .entry(m.found.key.id)
            .or_insert_with(|| (Arc::clone(&m.found.key), 0));
        *wraps += u64::from(seen.insert(m.tail()));
    }
    for (id, (key, n)) in wanted {
        let counted = match key.to_protect(KeyUse::Encrypt) {
            Ok(version) => wraps::count(app, &key, version.get(), n).await,
            Err(e) => Err(e.into()),
        };
        if let Err(e) = counted {
            for fate in fates.iter_mut() {
                if fate
                    .as_ref()
                    .ok()
                    .and_then(moves)
                    .is_some_and(|m| m.found.key.id == id)
                {
                    *fate = Err(e.clone());
                }
            }
        }
    }
}

fn moves(fate: &Fate) -> Option<&Move> {
    match fate {
        Fate::Current(_) => None,
        Fate::Moves(m) => Some(m),
    }
}

/// New headers in front of old payloads.
fn assemble(
    envelopes: &Strings,
    groups: &Groups<'_>,
    headers: &[Result<(Header, bool)>],
) -> Rewrapped {
    let mut out = Rewrapped {
        data: Vec::with_capacity(envelopes.total_bytes()),
        ends: Vec::with_capacity(envelopes.len()),
        failures: Failures::default(),
        rewrapped: 0,
        already_current: 0,
    };
    for (index, group) in groups.of_item.iter().enumerate() {
        let envelope = envelopes.get(index);
        let payload = envelope.get(Header::LEN..).unwrap_or_default();
        match headers.get(*group) {
            // A header alone, or a header with at least an empty item behind it.
            Some(Ok(_))
                if !payload.is_empty() && payload.len() < crate::envelope::ITEM_OVERHEAD =>
            {
                let text = format!(
                    "an envelope of {} bytes is neither a header nor an attached item",
                    envelope.len()
                );
                out.failures
                    .push(index, Error::new(Reason::EnvelopeMalformed, text));
            }
            Some(Ok((header, moved))) => {
                out.data.extend_from_slice(header.as_bytes());
                out.data.extend_from_slice(payload);
                if *moved {
                    out.rewrapped += 1;
                } else {
                    out.already_current += 1;
                }
            }
            Some(Err(e)) => out.failures.push(index, e.clone()),
            None => out
                .failures
                .push(index, Error::internal("an envelope without a group")),
        }
        out.ends.push(out.data.len());
    }
    out
}
