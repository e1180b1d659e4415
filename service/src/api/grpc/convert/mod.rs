//! The only place that knows both the wire and the domain. Limits of a batch are
//! checked here, before anything is looked up or made.

mod signature;

use std::collections::BTreeMap;

use bytes::Bytes;
use keywright_hsm::{Curve, Hash, RsaBits};
use keywright_proto::v1 as proto;

pub(super) use signature::*;

use super::status::code;
use crate::{
    config::Limits,
    envelope::{Context, Header},
    error::{Error, Reason, Result},
    key::{Key, KeyName, KeySpec, KeyState, KeyUse, KeyVersion, Labels},
    ops::{self, Envelopes, Failures, Strings},
    policy::Proposal,
};

/// Keys of one page when none is asked for.
const PAGE: usize = 100;
/// Most keys of one page.
const MAX_PAGE: usize = 1000;

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

pub(super) fn proposal(request: proto::CreateKeyRequest) -> Result<Proposal> {
    let spec = key_spec(request.spec, request.r#use)?;
    let labels = Labels::new(request.labels)
        .map_err(|e| Error::field(Reason::InvalidArgument, "labels", e))?;
    Ok(Proposal {
        name: key_name("name", &request.name)?,
        spec,
        labels,
    })
}

fn key_spec(spec: i32, key_use: i32) -> Result<KeySpec> {
    let wrong = |field, text: String| Error::field(Reason::InvalidArgument, field, text);
    let names = || {
        let mut names: Vec<&str> = KeySpec::ALL.iter().map(|s| s.name()).collect();
        names.sort_unstable();
        names.dedup();
        names.join(", ")
    };
    let spec = proto::KeySpec::try_from(spec).unwrap_or_default();
    let same: Vec<KeySpec> = KeySpec::ALL
        .into_iter()
        .filter(|s| wire_spec(*s) == spec)
        .collect();
    let Some(first) = same.first() else {
        return Err(wrong("spec", format!("choose a key spec: {}", names())));
    };
    match proto::KeyUse::try_from(key_use) {
        Ok(proto::KeyUse::Unspecified) => Ok(*first),
        wanted => same
            .iter()
            .find(|s| Ok(wire_use(s.key_use())) == wanted)
            .copied()
            .ok_or_else(|| {
                let uses: Vec<&str> = same.iter().map(|s| s.key_use().name()).collect();
                let uses = uses.join(" or ");
                wrong("use", format!("a key of {} is for: {uses}", first.name()))
            }),
    }
}

fn wire_spec(spec: KeySpec) -> proto::KeySpec {
    match spec {
        KeySpec::Aes256 => proto::KeySpec::Aes256,
        KeySpec::Ec(Curve::P256) => proto::KeySpec::EcP256,
        KeySpec::Ec(Curve::P384) => proto::KeySpec::EcP384,
        KeySpec::Ed25519 => proto::KeySpec::Ed25519,
        KeySpec::RsaSign(bits) | KeySpec::RsaDecrypt(bits) => match bits {
            RsaBits::B2048 => proto::KeySpec::Rsa2048,
            RsaBits::B3072 => proto::KeySpec::Rsa3072,
            RsaBits::B4096 => proto::KeySpec::Rsa4096,
        },
        KeySpec::Hmac(Hash::Sha256) => proto::KeySpec::HmacSha256,
        KeySpec::Hmac(Hash::Sha384) => proto::KeySpec::HmacSha384,
        KeySpec::Hmac(Hash::Sha512) => proto::KeySpec::HmacSha512,
    }
}

fn wire_use(key_use: KeyUse) -> proto::KeyUse {
    match key_use {
        KeyUse::Encrypt => proto::KeyUse::Encrypt,
        KeyUse::Sign => proto::KeyUse::Sign,
        KeyUse::Mac => proto::KeyUse::Mac,
        KeyUse::Decrypt => proto::KeyUse::Decrypt,
    }
}

pub(super) fn list(request: proto::ListKeysRequest) -> Result<ops::ListKeys> {
    let limit = match usize::try_from(request.page_size).unwrap_or(usize::MAX) {
        0 => PAGE,
        n if n <= MAX_PAGE => n,
        n => {
            return Err(Error::field(
                Reason::InvalidArgument,
                "page_size",
                format!("{n} keys on one page; at most {MAX_PAGE}"),
            ));
        }
    };
    let after = match request.page_token.as_str() {
        "" => None,
        token => Some(KeyName::parse(token).map_err(|_| {
            Error::field(Reason::InvalidArgument, "page_token", "not a token of ours")
        })?),
    };
    Ok(ops::ListKeys {
        prefix: request.prefix,
        after,
        limit,
    })
}

pub(super) fn change_state(request: &proto::ChangeStateRequest) -> Result<ops::ChangeState> {
    let to = match proto::KeyState::try_from(request.state) {
        Ok(proto::KeyState::Active) => KeyState::Active,
        Ok(proto::KeyState::Suspended) => KeyState::Suspended,
        Ok(proto::KeyState::Deactivated) => KeyState::Deactivated,
        Ok(proto::KeyState::Compromised) => KeyState::Compromised,
        _ => {
            return Err(Error::field(
                Reason::InvalidArgument,
                "state",
                "choose active, suspended, deactivated or compromised",
            ));
        }
    };
    Ok(ops::ChangeState {
        name: key_name("name", &request.name)?,
        version: (request.version != 0).then_some(request.version),
        to,
        seen: (request.revision != 0).then_some(request.revision),
    })
}

pub(super) fn page(page: &ops::Page) -> proto::ListKeysResponse {
    let next = page.keys.last().filter(|_| page.more);
    proto::ListKeysResponse {
        keys: page.keys.iter().map(|k| key(k)).collect(),
        next_page_token: next.map_or_else(String::new, |k| k.name.to_string()),
    }
}

pub(super) fn key(key: &Key) -> proto::Key {
    proto::Key {
        name: key.name.to_string(),
        id: Bytes::copy_from_slice(&key.id.0),
        spec: wire_spec(key.spec).into(),
        r#use: wire_use(key.spec.key_use()).into(),
        primary_version: key.primary.get(),
        versions: key.versions().map(version).collect(),
        labels: key.labels.pairs().clone(),
        created_unix_ms: key.created_ms,
        revision: key.revision.0,
    }
}

fn version(version: &KeyVersion) -> proto::KeyVersion {
    let state = match version.state {
        KeyState::PreActivation => proto::KeyState::PreActivation,
        KeyState::Active => proto::KeyState::Active,
        KeyState::Suspended => proto::KeyState::Suspended,
        KeyState::Deactivated => proto::KeyState::Deactivated,
        KeyState::Compromised => proto::KeyState::Compromised,
        KeyState::Destroyed => proto::KeyState::Destroyed,
    };
    proto::KeyVersion {
        number: version.number.get(),
        state: state.into(),
        created_unix_ms: version.created_ms,
        wraps_reserved: version.wraps.reserved(),
        rotation_due: version.wraps.rotation_due(),
    }
}

pub(super) fn evidence(evidence: ops::Evidence) -> proto::GetKeyEvidenceResponse {
    let module = evidence.module;
    proto::GetKeyEvidenceResponse {
        name: evidence.name.to_string(),
        id: Bytes::copy_from_slice(&evidence.id.0),
        versions: evidence
            .versions
            .into_iter()
            .map(version_evidence)
            .collect(),
        module: Some(proto::ModuleEvidence {
            module_path: module.module_path,
            module_description: module.module_description,
            module_version: module.module_version,
            token_label: module.token_label,
            token_serial: module.token_serial,
            token_model: module.token_model,
            token_manufacturer: module.token_manufacturer,
            token_firmware: module.token_firmware,
            attacks: module
                .attacks
                .into_iter()
                .map(|a| proto::AttackResult {
                    id: a.id.into(),
                    attempt: a.attempt.into(),
                    outcome: a.outcome,
                    resisted: a.resisted,
                })
                .collect(),
        }),
    }
}

fn version_evidence(evidence: ops::VersionEvidence) -> proto::VersionEvidence {
    let a = evidence.attributes;
    proto::VersionEvidence {
        version: evidence.version,
        cannot_leave: a.cannot_leave(),
        object_id: Bytes::copy_from_slice(&a.object.0),
        local: a.local == Some(true),
        sensitive: a.sensitive == Some(true),
        always_sensitive: a.always_sensitive == Some(true),
        // Unknown counts as the worse of the two.
        extractable: a.extractable != Some(false),
        never_extractable: a.never_extractable == Some(true),
        modifiable: a.modifiable,
        copyable: a.copyable,
        wrap: a.wrap,
        unwrap: a.unwrap,
        derive: a.derive,
        allowed_mechanisms: a.allowed_mechanisms,
        generated_by: a.generated_by,
        not_supported: a.not_supported,
    }
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
