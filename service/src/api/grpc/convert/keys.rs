//! Keys: wire words to domain words and back.

use bytes::Bytes;
use keywright_hsm::{Curve, Hash, RsaBits};
use keywright_pki::SpiffeId;
use keywright_proto::v1 as proto;

use super::{context, key_name};
use crate::{
    error::{Error, Reason, Result},
    key::{Key, KeyName, KeySpec, KeyState, KeyUse, KeyVersion, Labels, Rules, VersionNumber},
    ops,
    policy::{Action, Proposal},
};

/// Size of a page when none is asked for.
const PAGE: u32 = 100;
/// Largest page.
const MAX_PAGE: u32 = 1000;

pub(in super::super) fn proposal(request: proto::CreateKeyRequest) -> Result<Proposal> {
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

pub(super) fn wire_spec(spec: KeySpec) -> proto::KeySpec {
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

pub(super) fn wire_use(key_use: KeyUse) -> proto::KeyUse {
    match key_use {
        KeyUse::Encrypt => proto::KeyUse::Encrypt,
        KeyUse::Sign => proto::KeyUse::Sign,
        KeyUse::Mac => proto::KeyUse::Mac,
        KeyUse::Decrypt => proto::KeyUse::Decrypt,
    }
}

pub(in super::super) fn list(request: proto::ListKeysRequest) -> Result<ops::ListKeys> {
    let limit = page_size(request.page_size)?;
    let after = match request.page_token.as_str() {
        "" => None,
        token => Some(KeyName::parse(token).map_err(|_| {
            Error::field(Reason::InvalidArgument, "page_token", "not a token of ours")
        })?),
    };
    Ok(ops::ListKeys {
        prefix: request.prefix,
        after,
        limit: usize::try_from(limit).unwrap_or(usize::MAX),
    })
}

/// How many on one page.
pub(super) fn page_size(asked: u32) -> Result<u32> {
    match asked {
        0 => Ok(PAGE),
        n if n <= MAX_PAGE => Ok(n),
        n => Err(Error::field(
            Reason::InvalidArgument,
            "page_size",
            format!("{n} on one page; at most {MAX_PAGE}"),
        )),
    }
}

pub(in super::super) fn change_state(
    request: &proto::ChangeStateRequest,
) -> Result<ops::ChangeState> {
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
        version: version_asked(request.version),
        to,
        seen: seen(request.revision),
    })
}

pub(in super::super) fn update_key(request: proto::UpdateKeyRequest) -> Result<ops::UpdateKey> {
    let wrong = |field, text| Error::field(Reason::InvalidArgument, field, text);
    let labels = request
        .labels
        .map(|l| Labels::new(l.pairs))
        .transpose()
        .map_err(|e| wrong("labels", e))?;
    let rules = request.rules.map(|r| Rules {
        rotate_after_days: Some(r.rotate_after_days).filter(|n| *n != 0),
        rotate_after_wraps: Some(r.rotate_after_wraps).filter(|n| *n != 0),
        rotate_after_bytes: Some(r.rotate_after_bytes).filter(|n| *n != 0),
        rotate_by_hand: r.rotate_by_hand,
        deactivate_after_days: Some(r.deactivate_after_days).filter(|n| *n != 0),
        wrap_limit: Some(r.wrap_limit).filter(|n| *n != 0),
        lease_seconds: Some(r.lease_seconds).filter(|n| *n != 0),
    });
    if let Some(rules) = rules {
        rules.check().map_err(|(field, text)| wrong(field, text))?;
    }
    let minimum = Some(request.minimum_version).filter(|n| *n != 0);
    if labels.is_none() && rules.is_none() && minimum.is_none() {
        return Err(Error::new(
            Reason::InvalidArgument,
            "nothing to change: give labels, rules or a minimum version",
        ));
    }
    Ok(ops::UpdateKey {
        name: key_name("name", &request.name)?,
        labels,
        rules,
        minimum,
        seen: seen(request.revision),
    })
}

pub(in super::super) fn schedule_destruction(
    request: &proto::ScheduleDestructionRequest,
) -> Result<ops::ScheduleDestruction> {
    Ok(ops::ScheduleDestruction {
        name: key_name("name", &request.name)?,
        version: version_asked(request.version),
        days: match request.days {
            0 => ops::ScheduleDestruction::DEFAULT_DAYS,
            days => days,
        },
        brown_out_minutes: (request.brown_out_minutes != 0).then_some(request.brown_out_minutes),
        seen: seen(request.revision),
    })
}

pub(in super::super) fn cancel_destruction(
    request: &proto::CancelDestructionRequest,
) -> Result<ops::CancelDestruction> {
    Ok(ops::CancelDestruction {
        name: key_name("name", &request.name)?,
        version: version_asked(request.version),
        seen: seen(request.revision),
    })
}

pub(in super::super) fn explain(request: &proto::ExplainRequest) -> Result<ops::Explain> {
    let wrong = |field, text| Error::field(Reason::InvalidArgument, field, text);
    let action = Action::parse(&request.action).ok_or_else(|| {
        let names: Vec<&str> = Action::ALL.iter().map(|a| a.name()).collect();
        wrong("action", format!("choose an action: {}", names.join(", ")))
    })?;
    let principal = match request.principal.as_str() {
        "" => None,
        id => Some(
            SpiffeId::parse(id).map_err(|e| wrong("principal", format!("the SPIFFE id {e}")))?,
        ),
    };
    Ok(ops::Explain {
        key: key_name("key", &request.key)?,
        action,
        context: context("context", &request.context)?,
        principal,
        version: version_asked(request.key_version),
    })
}

pub(in super::super) fn explained(explained: ops::Explanation) -> proto::ExplainResponse {
    let unusable = explained.unusable.map(|e| e.text().to_owned());
    proto::ExplainResponse {
        allowed: explained.verdict.allowed(),
        policies: explained.verdict.policies().to_vec(),
        policy_error: explained.verdict.error().unwrap_or_default().to_owned(),
        roles: explained.roles,
        key_version: explained.version.map_or(0, VersionNumber::get),
        unusable: unusable.unwrap_or_default(),
    }
}

fn seen(revision: u64) -> Option<u64> {
    (revision != 0).then_some(revision)
}

/// 0 is "none in particular".
fn version_asked(number: u32) -> Option<u32> {
    (number != 0).then_some(number)
}

pub(in super::super) fn page(page: &ops::Page, now_ms: i64) -> proto::ListKeysResponse {
    let next = page.keys.last().filter(|_| page.more);
    proto::ListKeysResponse {
        keys: page.keys.iter().map(|k| key(k, now_ms)).collect(),
        next_page_token: next.map_or_else(String::new, |k| k.name.to_string()),
    }
}

pub(in super::super) fn key(key: &Key, now_ms: i64) -> proto::Key {
    proto::Key {
        name: key.name.to_string(),
        id: Bytes::copy_from_slice(&key.id.0),
        spec: wire_spec(key.spec).into(),
        r#use: wire_use(key.spec.key_use()).into(),
        primary_version: key.primary.get(),
        versions: key.versions().map(|v| version(key, v, now_ms)).collect(),
        labels: key.labels.pairs().clone(),
        created_unix_ms: key.created_ms,
        revision: key.revision.0,
        minimum_version: key.minimum.get(),
        rules: Some(proto::KeyRules {
            rotate_after_days: key.rules.rotate_after_days.unwrap_or(0),
            rotate_after_wraps: key.rules.rotate_after_wraps.unwrap_or(0),
            wrap_limit: key.rules.wrap_limit.unwrap_or(0),
            rotate_after_bytes: key.rules.rotate_after_bytes.unwrap_or(0),
            rotate_by_hand: key.rules.rotate_by_hand,
            deactivate_after_days: key.rules.deactivate_after_days.unwrap_or(0),
            lease_seconds: key.rules.lease_seconds.unwrap_or(0),
        }),
        rotation_unix_ms: key.rotation_ms().unwrap_or(0),
    }
}

fn version(key: &Key, version: &KeyVersion, now_ms: i64) -> proto::KeyVersion {
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
        rotation_due: key.rotation_due(version, now_ms).is_some(),
        last_protect_unix_ms: version.used.protected_ms().unwrap_or(0),
        last_process_unix_ms: version.used.processed_ms().unwrap_or(0),
        destroy_unix_ms: version.destroy_at_ms.unwrap_or(0),
        brown_out_until_unix_ms: version.brown_out_until_ms.unwrap_or(0),
        last_refused_unix_ms: version.used.refused_ms().unwrap_or(0),
        sealed_bytes: version.used.sealed_bytes(),
    }
}

pub(in super::super) fn evidence(evidence: ops::Evidence) -> proto::GetKeyEvidenceResponse {
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
        tokens: evidence.tokens,
    }
}
