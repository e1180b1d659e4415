//! Data keys for callers that encrypt for themselves: an envelope header of kind 2 and
//! what is derived from it (`docs/envelope.md`). The DEK itself is never handed out. The
//! caller has the header, or the appliance keeps it and the caller has an id.

use std::{collections::HashMap, sync::Arc};

use keywright_hsm::Dek;
use zeroize::Zeroizing;

use super::{
    App, Call, Output, Strings,
    decrypt::Decrypted,
    open::{Keys, is_old, note_envelopes},
    seal,
};
use crate::{
    envelope::{Context, DataKeyId, Header, Kept, Kind, Schedule},
    error::{Error, Reason, Result},
    key::{KeyName, KeyUse},
    policy::act,
};

/// What to make.
#[derive(Debug)]
pub struct GenerateDataKeys {
    /// Under which key.
    pub key: KeyName,
    /// Bound to each.
    pub context: Context,
    /// 16, 32 or 64, one for each.
    pub lengths: Vec<u32>,
    /// The wrapped forms stay here.
    pub keep: bool,
}

/// A data key.
#[derive(Debug)]
pub struct DataKey {
    /// For use now.
    pub plaintext: Zeroizing<Vec<u8>>,
    /// For the shelf.
    pub wrapped: Shelf,
}

/// Where the wrapped form of a data key is.
#[derive(Debug)]
pub enum Shelf {
    /// With its owner.
    Here(Header),
    /// With us, under this id.
    Kept(DataKeyId),
}

/// Which data keys.
#[derive(Debug)]
pub enum Which {
    /// Their wrapped forms, in order.
    Here(Strings),
    /// Kept ones, in order.
    Kept(Vec<DataKeyId>),
}

impl Which {
    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Here(wrapped) => wrapped.len(),
            Self::Kept(ids) => ids.len(),
        }
    }

    /// None at all?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes that say it.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len()).map(|i| match self {
            Self::Here(wrapped) => wrapped.get(i),
            Self::Kept(ids) => ids.get(i).map_or(&[][..], |id| &id.0),
        })
    }
}

/// What to open.
#[derive(Debug)]
pub struct DecryptDataKeys {
    /// The context of all of them.
    pub context: Context,
    /// Which ones.
    pub which: Which,
    /// The length of each; none: 32 for all.
    pub lengths: Vec<u32>,
    /// Refuse data keys of any other key.
    pub only_key: Option<KeyName>,
}

/// Makes data keys, each under a DEK of its own; gives the version too.
///
/// # Errors
/// Permission, use, state and exhaustion of the key, HSM, store.
pub async fn generate_data_keys(
    app: &Arc<App>,
    call: &mut Call,
    request: GenerateDataKeys,
) -> Result<(Vec<DataKey>, u32)> {
    call.bind(&request.context);
    let permit = call.open::<act::GenerateDataKey>(app, &request.key)?;
    let key = permit.key();
    let version = key.to_protect(KeyUse::Encrypt)?.get();
    let count = request.lengths.len();
    let schedules = seal::begin(
        app,
        call,
        key,
        &request.context,
        version,
        Kind::DataKey,
        count,
    )
    .await?;
    call.entry.envelopes = count;
    let (mut keys, mut kept) = (Vec::with_capacity(count), Vec::new());
    let mut bytes = 0;
    for (length, (wrapped, schedule)) in request.lengths.iter().zip(schedules) {
        let plaintext = export(&schedule, *length)?;
        bytes += plaintext.len();
        let (header, wrapped) = if request.keep {
            let id = DataKeyId(wrapped.salt());
            (Some(wrapped), Shelf::Kept(id))
        } else {
            (None, Shelf::Here(wrapped))
        };
        kept.extend(header.map(|header| Kept {
            tenant: key.tenant,
            header,
            created_ms: call.now_ms,
        }));
        keys.push(DataKey { plaintext, wrapped });
    }
    if !kept.is_empty() {
        call.entry.detail.insert("kept", kept.len().to_string());
        app.store.keep(&kept).await?;
    }
    call.items(count, 0, bytes);
    Ok((keys, version.number.get()))
}

/// Opens wrapped data keys.
///
/// # Errors
/// When every one failed alike; else failures stand in the output.
pub async fn decrypt_data_keys(
    app: &Arc<App>,
    call: &mut Call,
    request: DecryptDataKeys,
) -> Result<Decrypted> {
    call.bind(&request.context);
    let mut keys =
        Keys::<act::DecryptDataKey>::new(app, request.only_key.as_ref(), &[Kind::DataKey]);
    let wrapped = match request.which {
        Which::Here(wrapped) => wrapped.iter().map(|w| Ok(w.to_vec())).collect(),
        Which::Kept(ids) => fetch(app, call, &ids).await?,
    };
    let wrapped: Vec<Result<Vec<u8>>> = wrapped;
    let found: Vec<_> = wrapped
        .iter()
        .map(|header| keys.find(call, header.as_ref().map_err(Clone::clone)?))
        .collect();
    note_envelopes(call, &found);
    let old: Vec<bool> = found.iter().map(is_old).collect();
    let now_ms = call.now_ms;
    let jobs = found.iter().flatten().map(|f| f.unwrap.clone()).collect();
    let mut deks = app.hsm.unwrap(jobs, call.deadline).await.into_iter();
    let lengths = request
        .lengths
        .iter()
        .copied()
        .chain(std::iter::repeat(DEFAULT));
    let output = Output::collect(found.into_iter().zip(lengths).map(|(found, length)| {
        let found = found?;
        let dek: Dek = deks
            .next()
            .ok_or_else(|| Error::internal("an unwrap got lost"))??;
        let schedule = Schedule::verify(&dek, &found.header, found.key.tenant, &request.context)
            .map_err(|_| Error::refused())?;
        found.was_processed(now_ms);
        export(&schedule, length)
    }));
    let failed = output.failures.len();
    let bytes = old.len() * Header::LEN;
    call.items(old.len() - failed, failed, bytes);
    output.failures.unless_all_alike(old.len())?;
    let mut rewrap_due: Vec<usize> = (0..old.len())
        .filter(|i| old.get(*i) == Some(&true))
        .collect();
    rewrap_due.retain(|i| output.failures.iter().all(|(failed, _)| failed != *i));
    Ok(Decrypted { output, rewrap_due })
}

/// The wrapped forms of kept data keys, in the order of their ids.
async fn fetch(app: &App, call: &Call, ids: &[DataKeyId]) -> Result<Vec<Result<Vec<u8>>>> {
    let kept = app.store.kept(call.caller.tenant, ids).await?;
    let kept: HashMap<DataKeyId, Header> = kept.iter().map(|k| (k.id(), k.header)).collect();
    let header = |id| kept.get(id).map(|header| header.as_bytes().to_vec());
    Ok(ids
        .iter()
        .map(|id| header(id).ok_or_else(no_such_data_key))
        .collect())
}

fn no_such_data_key() -> Error {
    Error::new(
        Reason::DataKeyNotFound,
        "no such data key is kept here: it was forgotten, or it is not yours",
    )
}

/// What most ciphers want.
const DEFAULT: u32 = 32;

fn export(schedule: &Schedule, length: u32) -> Result<Zeroizing<Vec<u8>>> {
    let mut out = Zeroizing::new(vec![0; usize::try_from(length).unwrap_or(0)]);
    schedule.export(&mut out).map_err(|_| {
        Error::field(
            Reason::InvalidArgument,
            "lengths",
            format!("a data key of {length} bytes; choose 16, 32 or 64"),
        )
    })?;
    Ok(out)
}
