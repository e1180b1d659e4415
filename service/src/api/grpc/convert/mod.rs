//! The only place that knows both the wire and the domain. Limits of a batch are
//! checked here, before anything is looked up or made.

mod jobs;
mod keys;
mod pki;
mod signature;

use std::collections::BTreeMap;

use bytes::Bytes;
use keywright_proto::v1 as proto;

pub(super) use jobs::*;
pub(super) use keys::*;
pub(super) use pki::*;
pub(super) use signature::*;

use super::status::code;
use crate::{
    config::Limits,
    envelope::{Context, Header},
    error::{Error, Reason, Result},
    key::KeyName,
    ops::{self, Envelopes, Failures, Strings},
};

pub(super) fn encrypt(request: proto::EncryptRequest, limits: &Limits) -> Result<ops::Encrypt> {
    let plaintexts = batch(
        request.plaintexts,
        request.packed_plaintexts,
        "plaintexts",
        limits.batch_bytes,
        limits,
    )?;
    Ok(ops::Encrypt {
        key: key_name("key", &request.key)?,
        context: context("context", &request.context)?,
        aads: aads(request.aads, request.packed_aads, plaintexts.len())?,
        attached: attached(request.form)?,
        plaintexts,
    })
}

pub(super) fn decrypt(request: proto::DecryptRequest, limits: &Limits) -> Result<ops::Decrypt> {
    let items = batch(
        request.items,
        request.packed_items,
        "items",
        limits.message_bytes,
        limits,
    )?;
    Ok(Envelopes {
        header: header(request.form, request.header)?,
        aads: aads(request.aads, request.packed_aads, items.len())?,
        context: context("context", &request.context)?,
        only_key: optional_key(&request.key)?,
        items,
    })
}

pub(super) fn rewrap(request: proto::RewrapRequest, limits: &Limits) -> Result<ops::Rewrap> {
    Ok(ops::Rewrap {
        envelopes: batch(
            request.envelopes,
            request.packed_envelopes,
            "envelopes",
            limits.message_bytes,
            limits,
        )?,
        only_key: optional_key(&request.key)?,
    })
}

pub(super) fn reencrypt(
    request: proto::ReencryptRequest,
    limits: &Limits,
) -> Result<ops::Reencrypt> {
    let items = batch(
        request.items,
        request.packed_items,
        "items",
        limits.message_bytes,
        limits,
    )?;
    let new_context = request
        .new_context
        .map(|c| context("new_context", &c.pairs))
        .transpose()?;
    Ok(ops::Reencrypt {
        to: key_name("key", &request.key)?,
        new_context,
        from: Envelopes {
            header: header(request.form, request.header)?,
            aads: aads(request.aads, request.packed_aads, items.len())?,
            context: context("context", &request.context)?,
            only_key: None,
            items,
        },
    })
}

pub(super) fn lengths(request: &proto::GenerateRandomRequest, limits: &Limits) -> Result<()> {
    counted("lengths", request.lengths.len(), limits)
}

/// One of two layouts; how many; how much.
fn batch(
    separate: Vec<Bytes>,
    packed: Option<proto::Packed>,
    field: &'static str,
    bytes: usize,
    limits: &Limits,
) -> Result<Strings> {
    let strings = strings(separate, packed, field)?;
    counted(field, strings.len(), limits)?;
    let total = strings.total_bytes();
    if total > bytes {
        return Err(Error::field(
            Reason::BatchTooLarge,
            field,
            format!("the batch has {total} bytes; at most {bytes}"),
        ));
    }
    Ok(strings)
}

fn counted(field: &'static str, items: usize, limits: &Limits) -> Result<()> {
    if items == 0 {
        return Err(Error::field(
            Reason::BatchEmpty,
            field,
            "the batch has no items",
        ));
    }
    if items > limits.batch_items {
        return Err(Error::field(
            Reason::BatchTooLarge,
            field,
            format!(
                "the batch has {items} items; at most {}",
                limits.batch_items
            ),
        ));
    }
    Ok(())
}

fn strings(
    separate: Vec<Bytes>,
    packed: Option<proto::Packed>,
    field: &'static str,
) -> Result<Strings> {
    match packed {
        None => Ok(Strings::Separate(separate)),
        Some(_) if !separate.is_empty() => Err(Error::field(
            Reason::InvalidArgument,
            field,
            "both the repeated and the packed layout are given",
        )),
        Some(packed) => Strings::packed(packed.data, &packed.lengths, field),
    }
}

fn aads(
    separate: Vec<Bytes>,
    packed: Option<proto::Packed>,
    items: usize,
) -> Result<Option<Strings>> {
    if separate.is_empty() && packed.is_none() {
        return Ok(None);
    }
    let aads = strings(separate, packed, "aads")?;
    if aads.len() != items {
        return Err(Error::field(
            Reason::InvalidArgument,
            "aads",
            format!(
                "{} AADs for {items} items; give none, or one for each",
                aads.len()
            ),
        ));
    }
    Ok(Some(aads))
}

fn attached(form: i32) -> Result<bool> {
    match proto::Form::try_from(form) {
        Ok(proto::Form::Unspecified | proto::Form::Detached) => Ok(false),
        Ok(proto::Form::Attached) => Ok(true),
        Err(_) => Err(Error::field(
            Reason::InvalidArgument,
            "form",
            format!("unknown form {form}"),
        )),
    }
}

fn header(form: i32, header: Bytes) -> Result<Option<Vec<u8>>> {
    let wrong = |text: String| Err(Error::field(Reason::InvalidArgument, "header", text));
    match (attached(form)?, header.len()) {
        (true, 0) => Ok(None),
        (true, _) => wrong("attached items carry their header; leave this empty".into()),
        (false, Header::LEN) => Ok(Some(header.to_vec())),
        (false, n) => wrong(format!(
            "detached items need their header of {} bytes, not {n}",
            Header::LEN
        )),
    }
}

fn context(field: &'static str, pairs: &BTreeMap<String, String>) -> Result<Context> {
    Context::new(pairs).map_err(|e| Error::field(Reason::InvalidArgument, field, e.to_string()))
}

pub(super) fn key_name(field: &'static str, text: &str) -> Result<KeyName> {
    KeyName::parse(text).map_err(|e| Error::field(Reason::InvalidArgument, field, e.to_string()))
}

fn optional_key(text: &str) -> Result<Option<KeyName>> {
    if text.is_empty() {
        Ok(None)
    } else {
        key_name("key", text).map(Some)
    }
}

/// How many, on the wire.
pub(super) fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// Results in the layout of the request: slices of one buffer, or the buffer.
pub(super) fn results(
    data: Vec<u8>,
    ends: &[usize],
    packed: bool,
) -> (Vec<Bytes>, Option<proto::Packed>) {
    let data = Bytes::from(data);
    let mut start = 0;
    let spans = ends.iter().map(|end| {
        let span = start..*end;
        start = *end;
        span
    });
    if packed {
        // Lengths fit: a message is far below 4 GiB.
        let lengths = spans
            .map(|s| u32::try_from(s.len()).unwrap_or(u32::MAX))
            .collect();
        (Vec::new(), Some(proto::Packed { data, lengths }))
    } else {
        (spans.map(|s| data.slice(s)).collect(), None)
    }
}

pub(super) fn errors(failures: &Failures) -> Vec<proto::ItemError> {
    failures
        .iter()
        .map(|(index, e)| proto::ItemError {
            index: u32::try_from(index).unwrap_or(u32::MAX),
            code: code(e.reason().kind()).into(),
            reason: e.reason().name().to_owned(),
            message: e.text().to_owned(),
        })
        .collect()
}
