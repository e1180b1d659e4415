//! Plaintexts into one new envelope: one DEK, one HSM operation, one header.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use keywright_hsm::{self as hsm, Dek, WrappedDek};

use super::{App, Call, Output, leased, wraps};
use crate::{
    config::Limits,
    envelope::{
        Binding, Context, Header, ITEM_OVERHEAD, Kind, Refused, Salt, Schedule, Sealer, wrap_aad,
    },
    error::{Error, Reason, Result},
    key::{Key, KeyUse, KeyVersion},
    metrics,
};

/// A batch to be sealed.
pub(super) struct Plain<'a> {
    pub(super) key: &'a Key,
    pub(super) context: &'a Context,
    /// Each item carries the header in front.
    pub(super) attached: bool,
    /// In order; an error stays in its place.
    pub(super) items: &'a mut (dyn ExactSizeIterator<Item = Result<Item<'a>>> + Send),
    /// Bytes of all plaintexts, to make room once.
    pub(super) bytes: usize,
}

/// One item.
pub(super) struct Item<'a> {
    pub(super) aad: &'a [u8],
    pub(super) plaintext: &'a [u8],
}

impl<'a> Item<'a> {
    /// Checks the limits of one item.
    pub(super) fn new(limits: &Limits, aad: &'a [u8], plaintext: &'a [u8]) -> Result<Self> {
        too_large("item", plaintext.len(), limits.item_bytes)?;
        too_large("AAD", aad.len(), limits.aad_bytes)?;
        Ok(Self { aad, plaintext })
    }
}

/// The limit of one item, for operations without AAD.
pub(super) fn fits(limits: &Limits, bytes: usize) -> Result<()> {
    too_large("item", bytes, limits.item_bytes)
}

pub(super) fn too_large(what: &str, bytes: usize, limit: usize) -> Result<()> {
    if bytes <= limit {
        return Ok(());
    }
    Err(Error::new(
        Reason::ItemTooLarge,
        format!("the {what} has {bytes} bytes; at most {limit}"),
    ))
}

/// A new envelope.
pub(super) struct Envelope {
    pub(super) header: Header,
    pub(super) version: u32,
    pub(super) output: Output,
}

/// Seals a batch under the primary version of a key. The DEK is made after the whole
/// request is in memory and lives until this returns, unless the key has it on lease.
pub(super) async fn seal(app: &Arc<App>, call: &mut Call, plain: Plain<'_>) -> Result<Envelope> {
    let version = plain.key.to_protect(KeyUse::Encrypt)?.get();
    let (header, schedule) = begin_one(app, call, plain.key, plain.context, version).await?;
    call.entry.envelope = Some(hex::encode(header.salt()));
    call.entry.envelopes = 1;
    let bytes = u64::try_from(plain.bytes).unwrap_or(u64::MAX);
    let output = metrics::crypto(|| seal_items(schedule, &header, plain))?;
    version.used.seals(bytes);
    Ok(Envelope {
        header,
        version: version.number.get(),
        output,
    })
}

/// Items in order, each where the one before ended; what fails is skipped.
fn seal_items(schedule: Schedule, header: &Header, plain: Plain<'_>) -> Result<Output> {
    let mut sealer = schedule.sealer().map_err(never)?;
    let header = plain.attached.then_some(header);
    let front = header.map_or(0, |_| Header::LEN);
    let count = plain.items.len();
    let mut output = Output {
        data: vec![0; plain.bytes + count * (front + ITEM_OVERHEAD)].into(),
        ends: Vec::with_capacity(count),
        ..Output::default()
    };
    let mut end = 0;
    for (index, item) in plain.items.enumerate() {
        let sealed = item.and_then(|item| {
            let room = output.data.get_mut(end..).unwrap_or_default();
            put(&mut sealer, room, header, &item)
        });
        match sealed {
            Ok(bytes) => end += bytes,
            Err(e) => {
                // The index stays the position in the request.
                sealer.skip();
                output.failures.push(index, e);
            }
        }
        output.ends.push(end);
    }
    output.data.truncate(end);
    Ok(output)
}

/// A new envelope for items, under a data key on lease where the key's rules allow it.
async fn begin_one(
    app: &Arc<App>,
    call: &mut Call,
    key: &Key,
    context: &Context,
    version: &KeyVersion,
) -> Result<(Header, Schedule)> {
    if let Some(seconds) = key.rules.lease_seconds {
        let life = Duration::from_secs(seconds.into());
        let leased = leased::take(app, call, key, version, life).await?;
        let made = (&leased.dek, &leased.wrapped);
        return envelope(app, key, context, version, Kind::Items, made);
    }
    let begun = begin(app, call, key, context, version, Kind::Items, 1);
    begun.await?.pop().ok_or_else(|| never(Refused))
}

/// New envelopes, each with a DEK of its own: headers, and what is derived from the DEKs.
pub(super) async fn begin(
    app: &Arc<App>,
    call: &mut Call,
    key: &Key,
    context: &Context,
    version: &KeyVersion,
    kind: Kind,
    count: usize,
) -> Result<Vec<(Header, Schedule)>> {
    call.protects(key, version);
    let minted = mint(app, key, version, kind, count, call.deadline).await?;
    let begun = minted.into_iter().map(|minted| {
        let (dek, wrapped) = minted?;
        envelope(app, key, context, version, kind, (&dek, &wrapped))
    });
    begun.collect()
}

/// A header with a salt of its own, and what is derived from the DEK with it.
fn envelope(
    app: &App,
    key: &Key,
    context: &Context,
    version: &KeyVersion,
    kind: Kind,
    (dek, wrapped): (&Dek, &WrappedDek),
) -> Result<(Header, Schedule)> {
    let mut salt: Salt = [0; 16];
    app.entropy.fill(&mut salt)?;
    let binding = Binding {
        kind,
        key_id: key.id,
        tenant: key.tenant,
        salt,
        context,
    };
    let schedule = Schedule::derive(dek, &binding).map_err(never)?;
    let commitment = schedule.commitment();
    let header = Header::assemble(kind, key.id, salt, commitment, version.number, wrapped);
    Ok((header, schedule))
}

/// New DEKs, counted before they are made.
pub(super) async fn mint(
    app: &Arc<App>,
    key: &Key,
    version: &KeyVersion,
    kind: Kind,
    count: usize,
    deadline: Instant,
) -> Result<Vec<hsm::Result<(Dek, WrappedDek)>>> {
    let aad = wrap_aad(kind, key.id, key.tenant, version.number);
    let wraps = u64::try_from(count).unwrap_or(u64::MAX);
    wraps::count(app, key, version, wraps).await?;
    let minted = app.hsm.mint_many(&version.on_token, aad, count, deadline);
    Ok(minted.await)
}

/// Seals one item to the front of `room`; returns how much it took.
fn put(
    sealer: &mut Sealer,
    room: &mut [u8],
    header: Option<&Header>,
    item: &Item<'_>,
) -> Result<usize> {
    let front = header.map_or(0, |_| Header::LEN);
    let bytes = front + item.plaintext.len() + ITEM_OVERHEAD;
    let room = room.get_mut(..bytes).ok_or_else(|| never(Refused))?;
    let (head, body) = room.split_at_mut(front);
    if let Some(header) = header {
        head.copy_from_slice(header.as_bytes());
    }
    sealer.seal(item.aad, item.plaintext, body).map_err(never)?;
    Ok(bytes)
}

/// Sealing cannot fail for a caller's reason.
fn never(_: Refused) -> Error {
    Error::internal("sealing failed")
}
