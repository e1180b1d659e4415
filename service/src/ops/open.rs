//! Envelopes into plaintexts: items grouped by header, each DEK unwrapped once, every
//! cryptographic failure one answer.
//!
//! Order (`docs/envelope.md`): length and constant bytes, authorise, version policy,
//! unwrap, derive, commitment, items.

use std::{collections::HashMap, sync::Arc};

use keywright_hsm::{Dek, Unwrap};
use sha2::{Digest, Sha256};

use super::{App, Call, Failures, Output, Strings};
use crate::{
    envelope::{Context, Header, ITEM_OVERHEAD, Kind, Opener, Schedule, wrap_aad},
    error::{Error, Reason, Result},
    key::{Key, KeyId, KeyName, KeyUse, KeyVersion, VersionNumber},
    metrics,
    policy::{KeyAction, Permit},
};

/// Items to be opened.
#[derive(Debug)]
pub struct Envelopes {
    /// The header of all items; none: each item carries its own in front.
    pub header: Option<Vec<u8>>,
    /// In order.
    pub items: Strings,
    /// One for each item, or none.
    pub aads: Option<Strings>,
    /// The context of all items.
    pub context: Context,
    /// Refuse items of any other key.
    pub only_key: Option<KeyName>,
}

impl Envelopes {
    fn aad(&self, index: usize) -> &[u8] {
        self.aads.as_ref().map_or(&[], |a| a.get(index))
    }

    /// Header bytes and body of an item.
    fn split(&self, index: usize) -> (&[u8], &[u8]) {
        let item = self.items.get(index);
        match &self.header {
            Some(header) => (header, item),
            None => item.split_at_checked(Header::LEN).unwrap_or((item, &[])),
        }
    }
}

/// Opens every item under a permit for `A`; also gives the positions of those that stand
/// under an old version.
///
/// # Errors
/// None of its own: what fails stands in the output, item by item.
pub(super) async fn open<A: KeyAction>(
    app: &Arc<App>,
    call: &mut Call,
    input: &Envelopes,
) -> (Output, Vec<usize>) {
    call.bind(&input.context);
    let groups = Groups::of((0..input.items.len()).map(|i| input.split(i).0));
    let mut keys = Keys::<A>::new(app, input.only_key.as_ref(), &[Kind::Items]);
    let found: Vec<Result<Found>> = groups.headers.iter().map(|h| keys.find(call, h)).collect();
    note_envelopes(call, &found);

    let jobs = found.iter().flatten().map(|f| f.unwrap.clone()).collect();
    let mut deks = app.hsm.unwrap(jobs, call.deadline).await.into_iter();
    let old: Vec<bool> = found.iter().map(is_old).collect();
    let now_ms = call.now_ms;
    let openers: Vec<Result<Opener>> = found
        .into_iter()
        .map(|found| {
            let found = found?;
            let dek = deks.next().unwrap_or_else(|| {
                Err(keywright_hsm::Error::new(
                    keywright_hsm::Kind::Fault,
                    "an unwrap got lost",
                ))
            });
            let opener = opener(&found, dek, &input.context)?;
            found.was_processed(now_ms);
            Ok(opener)
        })
        .collect();
    let output = metrics::crypto(|| open_items(input, &groups, &openers));
    let due = old_items(&groups, &old, &output.failures);
    (output, due)
}

/// Protected by a version that is no longer the primary one?
pub(super) fn is_old(found: &Result<Found>) -> bool {
    found
        .as_ref()
        .is_ok_and(|f| f.header.key_version() != f.key.primary.get())
}

/// Positions of the items that were opened and should be rewrapped.
fn old_items(groups: &Groups<'_>, old: &[bool], failures: &Failures) -> Vec<usize> {
    if !old.contains(&true) {
        return Vec::new();
    }
    let mut failed = failures.iter().map(|(index, _)| index).peekable();
    let is_due = |(index, group): (usize, &usize)| {
        let lost = failed.next_if_eq(&index).is_some();
        (!lost && old.get(*group) == Some(&true)).then_some(index)
    };
    groups
        .of_item
        .iter()
        .enumerate()
        .filter_map(is_due)
        .collect()
}

fn opener(found: &Found, dek: keywright_hsm::Result<Dek>, context: &Context) -> Result<Opener> {
    let dek = dek.map_err(Error::from)?;
    Schedule::verify(&dek, &found.header, found.key.tenant, context)
        .and_then(Schedule::opener)
        .map_err(|_| Error::refused())
}

fn open_items(input: &Envelopes, groups: &Groups<'_>, openers: &[Result<Opener>]) -> Output {
    let count = input.items.len();
    let mut output = Output {
        data: vec![0; input.items.total_bytes()].into(),
        ends: Vec::with_capacity(count),
        ..Output::default()
    };
    let mut end = 0;
    for (index, group) in groups.of_item.iter().enumerate() {
        let opened = match openers.get(*group) {
            Some(Ok(opener)) => {
                let (_, item) = input.split(index);
                item.len()
                    .checked_sub(ITEM_OVERHEAD)
                    .and_then(|len| output.data.get_mut(end..end + len))
                    .ok_or_else(Error::refused)
                    .and_then(|room| {
                        let len = room.len();
                        opener
                            .open(input.aad(index), item, room)
                            .map(|()| len)
                            .map_err(|_| Error::refused())
                    })
            }
            Some(Err(e)) => Err(e.clone()),
            None => Err(Error::internal("an item without a group")),
        };
        match opened {
            Ok(len) => end += len,
            Err(e) => output.failures.push(index, e),
        }
        output.ends.push(end);
    }
    output.data.truncate(end);
    output
}

/// Items by header, in order of first appearance.
pub(super) struct Groups<'a> {
    pub(super) headers: Vec<&'a [u8]>,
    pub(super) of_item: Vec<usize>,
}

impl<'a> Groups<'a> {
    pub(super) fn of(headers: impl ExactSizeIterator<Item = &'a [u8]>) -> Self {
        let mut groups = Self {
            headers: Vec::new(),
            of_item: Vec::with_capacity(headers.len()),
        };
        let mut known: HashMap<&[u8], usize> = HashMap::new();
        for header in headers {
            // Neighbours mostly share a header: one comparison instead of a hash.
            let last = groups.of_item.last().copied();
            let group = match last.filter(|g| groups.headers.get(*g).is_some_and(|h| *h == header))
            {
                Some(group) => group,
                None => *known.entry(header).or_insert_with(|| {
                    groups.headers.push(header);
                    groups.headers.len() - 1
                }),
            };
            groups.of_item.push(group);
        }
        groups
    }
}

/// A header whose key the caller may use, and whose version may process.
pub(super) struct Found {
    pub(super) header: Header,
    pub(super) key: Arc<Key>,
    pub(super) unwrap: Unwrap,
}

fn unwrap(key: &Key, version: &KeyVersion, header: &Header) -> Unwrap {
    Unwrap {
        key: version.on_token.clone(),
        aad: wrap_aad(header.kind(), key.id, key.tenant, version.number),
        wrapped: header.wrapped(),
    }
}

impl Found {
    /// For what the appliance does by itself to a header that it keeps.
    pub(super) fn of(key: Arc<Key>, header: Header) -> Result<Self> {
        if header.key_id() != key.id {
            return Err(Error::internal("a kept data key stands under another key"));
        }
        let version = key.to_process(KeyUse::Encrypt, header.key_version())?.get();
        let unwrap = unwrap(&key, version, &header);
        Ok(Self {
            header,
            key,
            unwrap,
        })
    }

    /// It opened: its version is in use. What does not open says nothing about that.
    pub(super) fn was_processed(&self, now_ms: i64) {
        if let Some(version) = self.key.version(self.header.key_version()) {
            version.used.processes(now_ms);
        }
    }
}

/// Looks keys up by the ids in headers, each once for a request.
pub(super) struct Keys<'a, A> {
    app: &'a App,
    only: Option<&'a KeyName>,
    kinds: &'static [Kind],
    permits: HashMap<KeyId, Result<Permit<A>>>,
}

impl<'a, A: KeyAction> Keys<'a, A> {
    /// `kinds`: what the operation is for.
    pub(super) fn new(app: &'a App, only: Option<&'a KeyName>, kinds: &'static [Kind]) -> Self {
        Self {
            app,
            only,
            kinds,
            permits: HashMap::new(),
        }
    }

    /// Constant bytes, permit, version policy.
    pub(super) fn find(&mut self, call: &mut Call, header: &[u8]) -> Result<Found> {
        let header = Header::parse(header)
            .map_err(|e| Error::new(Reason::EnvelopeMalformed, e.to_string()))?;
        if !self.kinds.contains(&header.kind()) {
            let text = match header.kind() {
                Kind::DataKey => "this is a wrapped data key, not an envelope of items",
                Kind::Items => "this is an envelope of items, not a wrapped data key",
            };
            return Err(Error::new(Reason::EnvelopeMalformed, text));
        }
        let key = self.key(call, header.key_id())?;
        let version = call.to_process(&key, KeyUse::Encrypt, header.key_version())?;
        call.note(&key, Some(version.number.get()));
        let unwrap = unwrap(&key, version, &header);
        Ok(Found {
            header,
            key,
            unwrap,
        })
    }

    fn key(&mut self, call: &mut Call, id: KeyId) -> Result<Arc<Key>> {
        let Self {
            app,
            only,
            permits,
            kinds: _,
        } = self;
        let permit = permits.entry(id).or_insert_with(|| {
            let permit = call.open_id::<A>(app, id)?;
            match only {
                Some(name) if permit.key().name != **name => Err(Error::field(
                    Reason::InvalidArgument,
                    "key",
                    "this envelope was made under another key than the one named",
                )),
                _ => Ok(permit),
            }
        });
        permit
            .as_ref()
            .map(Permit::shared_key)
            .map_err(Clone::clone)
    }
}

/// Links the record to the envelopes: the id of the one, or a digest over all ids.
pub(super) fn note_envelopes(call: &mut Call, found: &[Result<Found>]) {
    let salts: Vec<[u8; 16]> = found.iter().flatten().map(|f| f.header.salt()).collect();
    call.entry.envelopes = salts.len();
    call.entry.envelope = match salts.as_slice() {
        [] => None,
        [one] => Some(hex::encode(one)),
        several => {
            let mut hash = Sha256::new();
            several.iter().for_each(|s| hash.update(s));
            Some(hex::encode(hash.finalize()))
        }
    };
}

/// Number of a version, for a header that passed [`Keys::find`].
pub(super) fn number(found: &Found) -> Option<VersionNumber> {
    VersionNumber::new(found.header.key_version())
}
