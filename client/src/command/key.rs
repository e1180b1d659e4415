//! `keywright key …`.

mod rotation;
mod show;

use std::{collections::BTreeMap, io::Write};

use base64::{Engine, prelude::BASE64_STANDARD};
use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};
use keywright_client::{
    Client, Failure, FailureKind,
    proto::{
        self, CancelDestructionRequest, ChangeStateRequest, CreateKeyRequest,
        GetKeyEvidenceRequest, GetKeyRequest, GetPublicKeyRequest, KeyRules, KeyState,
        ListKeysRequest, NewLabels, RotateKeyRequest, ScheduleDestructionRequest, UpdateKeyRequest,
    },
};
use serde_json::{Value, json};
use show::{key_json, show, state_of};
pub(super) use show::{table, time};

use crate::{
    args::{Changes, Destruction, Key, Output, PublicForm, Spec, Use, Versions},
    output::{self, print},
};

const PAGE: u32 = 500;

pub(crate) async fn run(client: &Client, command: Key, output: Output) -> Result<(), Failure> {
    match command {
        Key::Create {
            name,
            spec,
            key_use,
            labels,
        } => {
            let request = CreateKeyRequest {
                name,
                spec: spec.wire().into(),
                labels: once(labels)?,
                r#use: key_use.map_or(0, |u| u.wire().into()),
            };
            let response = client.keys().create_key(request).await?;
            show(response.into_inner().key, output)
        }
        Key::Show { name } => {
            let response = client.keys().get_key(GetKeyRequest { name }).await?;
            show(response.into_inner().key, output)
        }
        Key::Rotate { name } => {
            let response = client.keys().rotate_key(RotateKeyRequest { name }).await?;
            show(response.into_inner().key, output)
        }
        Key::List { prefix } => list(client, &prefix, output).await,
        Key::RotationStatus { prefix } => rotation::status(&all(client, &prefix).await?, output),
        Key::Suspend(which) => change(client, which, KeyState::Suspended, output).await,
        Key::Resume(which) => change(client, which, KeyState::Active, output).await,
        Key::Deactivate(which) => change(client, which, KeyState::Deactivated, output).await,
        Key::Compromise { which, all } => {
            if which.version.is_none() && !all {
                return Err(Failure::new(
                    FailureKind::Usage,
                    "compromised is for ever: say --version N, or --all for every version",
                ));
            }
            change(client, which, KeyState::Compromised, output).await
        }
        Key::Update(changes) => update(client, changes, output).await,
        Key::ScheduleDestruction(destruction) => schedule(client, destruction, output).await,
        Key::CancelDestruction(which) => cancel(client, which, output).await,
        Key::Public {
            name,
            format,
            version,
        } => public(client, name, version, format, output).await,
        Key::Evidence { name, version } => {
            let request = GetKeyEvidenceRequest {
                name,
                version: version.unwrap_or(0),
            };
            let response = client.keys().get_key_evidence(request).await?;
            evidence(&response.into_inner(), output)
        }
    }
}

async fn public(
    client: &Client,
    name: String,
    version: Option<u32>,
    format: PublicForm,
    output: Output,
) -> Result<(), Failure> {
    let version = version.unwrap_or(0);
    let request = GetPublicKeyRequest { name, version };
    let key = client.keys().get_public_key(request).await?.into_inner();
    if output == Output::Json {
        return output::json(&json!({
            "version": key.version,
            "spec": Spec::name(key.spec()),
            "use": Use::name(key.r#use()),
            "pem": key.pem,
            "der": BASE64_STANDARD.encode(&key.der),
            "jwk": serde_json::from_str::<Value>(&key.jwk).unwrap_or_default(),
        }));
    }
    match format {
        PublicForm::Pem => print(&key.pem),
        PublicForm::Jwk => print(&format!("{}\n", key.jwk)),
        PublicForm::Der => std::io::stdout()
            .write_all(&key.der)
            .map_err(|e| Failure::io("standard output", &e)),
    }
}

async fn schedule(
    client: &Client,
    Destruction {
        which,
        days,
        brown_out,
    }: Destruction,
    output: Output,
) -> Result<(), Failure> {
    let minutes = brown_out.map_or(0, |time| time.seconds.div_ceil(60));
    let request = ScheduleDestructionRequest {
        name: which.name,
        version: which.version.unwrap_or(0),
        days,
        revision: which.revision.unwrap_or(0),
        brown_out_minutes: u32::try_from(minutes).unwrap_or(u32::MAX),
    };
    let response = client.keys().schedule_destruction(request).await?;
    show(response.into_inner().key, output)
}

async fn cancel(client: &Client, which: Versions, output: Output) -> Result<(), Failure> {
    let request = CancelDestructionRequest {
        name: which.name,
        version: which.version.unwrap_or(0),
        revision: which.revision.unwrap_or(0),
    };
    let response = client.keys().cancel_destruction(request).await?;
    show(response.into_inner().key, output)
}

async fn change(
    client: &Client,
    which: Versions,
    state: KeyState,
    output: Output,
) -> Result<(), Failure> {
    let request = ChangeStateRequest {
        name: which.name,
        version: which.version.unwrap_or(0),
        state: state.into(),
        revision: which.revision.unwrap_or(0),
    };
    show(
        client.keys().change_state(request).await?.into_inner().key,
        output,
    )
}

/// Rules that are not named stay as they are: they are read first, and the change is
/// refused when somebody else changed the key in between.
async fn update(client: &Client, changes: Changes, output: Output) -> Result<(), Failure> {
    let new_labels = changes.no_labels || !changes.labels.is_empty();
    let rules_change = changes.default_rules
        || changes.rotate_after_days.is_some()
        || changes.rotate_after_wraps.is_some()
        || changes.rotate_after_bytes.is_some()
        || changes.rotate_automatically.is_some()
        || changes.deactivate_after_days.is_some()
        || changes.wrap_limit.is_some()
        || changes.lease_seconds.is_some();
    if !new_labels && !rules_change && changes.minimum_version.is_none() {
        return Err(Failure::new(
            FailureKind::Usage,
            "nothing to change; see: keywright key update --help",
        ));
    }
    let name = changes.name.clone();
    let request = GetKeyRequest { name: name.clone() };
    let key = client.keys().get_key(request).await?.into_inner().key;
    let key = key.unwrap_or_default();
    let old = key
        .rules
        .filter(|_| !changes.default_rules)
        .unwrap_or_default();
    let rules = KeyRules {
        rotate_after_days: changes.rotate_after_days.unwrap_or(old.rotate_after_days),
        rotate_after_wraps: changes.rotate_after_wraps.unwrap_or(old.rotate_after_wraps),
        rotate_after_bytes: changes.rotate_after_bytes.unwrap_or(old.rotate_after_bytes),
        rotate_by_hand: changes
            .rotate_automatically
            .map_or(old.rotate_by_hand, |automatically| !automatically),
        deactivate_after_days: changes
            .deactivate_after_days
            .unwrap_or(old.deactivate_after_days),
        wrap_limit: changes.wrap_limit.unwrap_or(old.wrap_limit),
        lease_seconds: changes.lease_seconds.unwrap_or(old.lease_seconds),
    };
    let request = UpdateKeyRequest {
        name,
        labels: match new_labels {
            true => Some(NewLabels {
                pairs: once(changes.labels)?,
            }),
            false => None,
        },
        rules: rules_change.then_some(rules),
        minimum_version: changes.minimum_version.unwrap_or(0),
        revision: changes.revision.unwrap_or(key.revision),
    };
    let response = client.keys().update_key(request).await?;
    show(response.into_inner().key, output)
}

fn once(labels: Vec<(String, String)>) -> Result<BTreeMap<String, String>, Failure> {
    let mut map = BTreeMap::new();
    for (label, value) in labels {
        if map.insert(label.clone(), value).is_some() {
            return Err(Failure::new(
                FailureKind::Usage,
                format!("--label {label} is given twice"),
            ));
        }
    }
    Ok(map)
}

/// All keys whose names begin with `prefix`.
async fn all(client: &Client, prefix: &str) -> Result<Vec<proto::Key>, Failure> {
    let mut keys = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListKeysRequest {
            page_size: PAGE,
            page_token,
            prefix: prefix.to_owned(),
        };
        let page = client.keys().list_keys(request).await?.into_inner();
        keys.extend(page.keys);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(keys);
        }
    }
}

async fn list(client: &Client, prefix: &str, output: Output) -> Result<(), Failure> {
    let keys = all(client, prefix).await?;
    if output == Output::Json {
        return output::json(&Value::Array(keys.iter().map(key_json).collect()));
    }
    let mut table = table(&[
        "name", "spec", "use", "primary", "state", "versions", "created",
    ]);
    for key in &keys {
        let mut versions = key.versions.iter();
        let primary = versions.find(|v| v.number == key.primary_version);
        table.add_row([
            key.name.clone(),
            Spec::name(key.spec()),
            Use::name(key.r#use()),
            key.primary_version.to_string(),
            primary.map_or_else(String::new, |v| state_of(key, v)),
            key.versions.len().to_string(),
            time(key.created_unix_ms),
        ]);
    }
    print(&format!("{table}\n"))?;
    Ok(())
}

fn evidence(e: &proto::GetKeyEvidenceResponse, output: Output) -> Result<(), Failure> {
    let module = e.module.clone().unwrap_or_default();
    if output == Output::Json {
        return output::json(&evidence_json(e, &module));
    }
    print(&format!("key      {} ({})\n", e.name, hex::encode(&e.id)))?;
    print(&format!(
        "token    {:?}, serial {}, {} {}\n",
        module.token_label, module.token_serial, module.token_manufacturer, module.token_model
    ))?;
    print(&format!(
        "module   {} ({} {})\n",
        module.module_path, module.module_description, module.module_version
    ))?;
    print(&format!("{}\n", attributes(&e.versions)))?;
    let resisted = module.attacks.iter().filter(|a| a.resisted).count();
    print(&format!(
        "attacks on throw-away keys when the daemon started: {resisted} of {} resisted\n",
        module.attacks.len()
    ))?;
    for attack in &module.attacks {
        print(&format!(
            "  {:<4} {}: {}\n",
            attack.id, attack.attempt, attack.outcome
        ))?;
    }
    if e.versions.iter().all(|v| v.cannot_leave) {
        Ok(())
    } else {
        Err(Failure::new(
            FailureKind::State,
            "the token does not say that this key cannot leave",
        ))
    }
}

/// One column for each version.
fn attributes(versions: &[proto::VersionEvidence]) -> Table {
    let mut columns = vec!["read back from the token now".to_owned()];
    columns.extend(versions.iter().map(|v| format!("version {}", v.version)));
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_header(columns);
    type Read = fn(&proto::VersionEvidence) -> String;
    let rows: [(&str, Read); 12] = [
        ("CKA_LOCAL (made in this token)", |v| v.local.to_string()),
        ("CKA_SENSITIVE", |v| v.sensitive.to_string()),
        ("CKA_ALWAYS_SENSITIVE", |v| v.always_sensitive.to_string()),
        ("CKA_EXTRACTABLE", |v| v.extractable.to_string()),
        ("CKA_NEVER_EXTRACTABLE", |v| v.never_extractable.to_string()),
        ("CKA_MODIFIABLE", |v| known(v.modifiable)),
        ("CKA_COPYABLE", |v| known(v.copyable)),
        ("CKA_WRAP, CKA_UNWRAP, CKA_DERIVE", |v| {
            format!(
                "{}, {}, {}",
                known(v.wrap),
                known(v.unwrap),
                known(v.derive)
            )
        }),
        ("CKA_ALLOWED_MECHANISMS", |v| v.allowed_mechanisms.join(" ")),
        ("CKA_KEY_GEN_MECHANISM", |v| v.generated_by.clone()),
        ("cannot leave", |v| {
            if v.cannot_leave {
                "yes".into()
            } else {
                "NO".into()
            }
        }),
        ("proved on", |v| v.tokens.join(" ")),
    ];
    for (name, read) in rows {
        let mut row = vec![name.to_owned()];
        row.extend(versions.iter().map(read));
        table.add_row(row);
    }
    table
}

fn known(value: Option<bool>) -> String {
    value.map_or_else(|| "unknown to this token".to_owned(), |v| v.to_string())
}

fn evidence_json(e: &proto::GetKeyEvidenceResponse, module: &proto::ModuleEvidence) -> Value {
    let versions: Vec<Value> = e
        .versions
        .iter()
        .map(|v| {
            json!({
                "version": v.version,
                "object_id": hex::encode(&v.object_id),
                "local": v.local,
                "sensitive": v.sensitive,
                "always_sensitive": v.always_sensitive,
                "extractable": v.extractable,
                "never_extractable": v.never_extractable,
                "modifiable": v.modifiable,
                "copyable": v.copyable,
                "wrap": v.wrap,
                "unwrap": v.unwrap,
                "derive": v.derive,
                "allowed_mechanisms": v.allowed_mechanisms,
                "generated_by": v.generated_by,
                "not_supported": v.not_supported,
                "cannot_leave": v.cannot_leave,
                "tokens": v.tokens,
            })
        })
        .collect();
    let attacks: Vec<Value> = module
        .attacks
        .iter()
        .map(|a| json!({ "id": a.id, "attempt": a.attempt, "outcome": a.outcome, "resisted": a.resisted }))
        .collect();
    json!({
        "name": e.name,
        "id": hex::encode(&e.id),
        "versions": versions,
        "module": {
            "path": module.module_path,
            "description": module.module_description,
            "version": module.module_version,
        },
        "token": {
            "label": module.token_label,
            "serial": module.token_serial,
            "model": module.token_model,
            "manufacturer": module.token_manufacturer,
            "firmware": module.token_firmware,
        },
        "attacks": attacks,
    })
}
