//! A question on the wire, and its answer in the words of the model.

use bytes::Bytes;
use keywright_client::{
    Client,
    proto::{self, KeyState as S},
};
use tonic::Status;

use crate::{
    history::{Ask, CLIENTS, Done, KEYS, Kind, Sample, World},
    model::{Change, Pairs, Picture, Use},
};

/// Asks one question.
pub(crate) async fn ask(
    world: &World,
    client: &Client,
    who: usize,
    key: usize,
    ask: &Ask,
) -> Result<Done, Status> {
    let name = world.key_name(key);
    let (mut keys, mut crypto) = (client.keys(), client.crypto());
    let picture = |key: Option<proto::Key>| Done::Key(Picture::of(&key.unwrap()));
    Ok(match ask {
        Ask::Change(it) => picture(change(client, name, key, it).await?),
        Ask::Wrong => {
            let request = proto::ChangeStateRequest {
                name,
                version: 0,
                state: S::Destroyed.into(),
                revision: 0,
            };
            picture(keys.change_state(request).await?.into_inner().key)
        }
        Ask::Get => {
            let request = proto::GetKeyRequest { name };
            picture(keys.get_key(request).await?.into_inner().key)
        }
        Ask::List => {
            let request = proto::ListKeysRequest {
                prefix: format!("{}/", world.name),
                ..Default::default()
            };
            let found = keys.list_keys(request).await?.into_inner().keys;
            let index = |k: &proto::Key| {
                let own = |i: &usize| world.key_name(*i) == k.name;
                (0..KEYS.len()).find(own).unwrap()
            };
            Done::Keys(found.iter().map(|k| (index(k), Picture::of(k))).collect())
        }
        Ask::Random => {
            let request = proto::GenerateRandomRequest {
                lengths: vec![16],
                want_crc32c: false,
            };
            crypto.generate_random(request).await?;
            Done::Version(0)
        }
        Ask::Public { version } => {
            let request = proto::GetPublicKeyRequest {
                name,
                version: *version,
            };
            Done::Version(keys.get_public_key(request).await?.into_inner().version)
        }
        Ask::Evidence => {
            let request = proto::GetKeyEvidenceRequest {
                name,
                version: 9999,
            };
            keys.get_key_evidence(request).await?;
            Done::Version(0)
        }
        Ask::Explain {
            action,
            version,
            of,
            foreign,
            context,
        } => {
            let other = |role: &char| {
                let (_, name, _) = CLIENTS.iter().find(|(_, _, r)| r == role).unwrap();
                let domain = match (CLIENTS[who].0, foreign) {
                    ("red", true) => "blue",
                    (_, true) => "red",
                    (own, false) => own,
                };
                format!("spiffe://{domain}.example/{name}")
            };
            let request = proto::ExplainRequest {
                key: name,
                action: (*action).into(),
                context: wire(context),
                principal: of.as_ref().map(other).unwrap_or_default(),
                key_version: *version,
            };
            let said = keys.explain(request).await?.into_inner();
            Done::Explained {
                allowed: said.allowed,
                version: said.key_version,
                usable: said.unusable.is_empty(),
            }
        }
        Ask::Protect(wanted, _, context) => {
            protect(world, client, who, key, *wanted, ask, context).await?
        }
        Ask::Open {
            from,
            action,
            context,
            spoiled,
            named_other,
        } => {
            let request = open(world, from, context, *spoiled, *named_other);
            let (opened, due) = if *action == "decrypt" {
                let opened = crypto.decrypt(request).await?.into_inner();
                (opened.plaintexts, opened.rewrap_due)
            } else {
                let request = proto::DecryptDataKeysRequest {
                    context: request.context,
                    wrapped: vec![request.header],
                    key: request.key,
                    ..Default::default()
                };
                let opened = crypto.decrypt_data_keys(request).await?.into_inner();
                (opened.plaintexts, opened.rewrap_due)
            };
            Done::Opened {
                right: opened.len() == 1 && opened[0] == from.plaintext,
                due: !due.is_empty(),
            }
        }
        Ask::Rewrap(from) => {
            let request = proto::RewrapRequest {
                envelopes: vec![from.header.clone()],
                ..Default::default()
            };
            let moved = crypto.rewrap(request).await?.into_inner();
            let header = moved.envelopes[0].clone();
            let version = u32::from_be_bytes(header[72..76].try_into().unwrap());
            assert_eq!(
                header[..68],
                from.header[..68],
                "rewrap changed the fixed part"
            );
            assert_eq!(moved.rewrapped == 0, header == from.header);
            if moved.rewrapped == 1 {
                let sample = Sample {
                    header,
                    version,
                    ..from.clone()
                };
                world.samples.lock().unwrap().push(sample);
            }
            Done::Version(version)
        }
        Ask::Reencrypt(from) => {
            let fresh = Pairs::from([("desk".to_owned(), "b".to_owned())]);
            let request = proto::ReencryptRequest {
                key: name,
                context: wire(&from.context),
                header: from.header.clone(),
                items: vec![from.item.clone()],
                new_context: Some(proto::NewContext {
                    pairs: wire(&fresh),
                }),
                ..Default::default()
            };
            let sealed = crypto.reencrypt(request).await?.into_inner();
            world.samples.lock().unwrap().push(Sample {
                key,
                version: sealed.key_version,
                header: sealed.header,
                item: sealed.items[0].clone(),
                context: fresh,
                ..from.clone()
            });
            Done::Version(sealed.key_version)
        }
        Ask::Check {
            made,
            wanted,
            only,
            spoiled,
        } => {
            let mut input = made.plaintext.to_vec();
            if *spoiled {
                input.push(0);
            }
            let verdicts = match wanted {
                Use::Sign => {
                    let request = proto::VerifyRequest {
                        key: name,
                        inputs: vec![input.into()],
                        signatures: vec![made.item.clone()],
                        key_version: *only,
                        ..Default::default()
                    };
                    crypto.verify(request).await?.into_inner().verdicts
                }
                _ => {
                    let request = proto::VerifyMacRequest {
                        key: name,
                        inputs: vec![input.into()],
                        macs: vec![made.item.clone()],
                        key_version: *only,
                        ..Default::default()
                    };
                    crypto.verify_mac(request).await?.into_inner().verdicts
                }
            };
            assert_eq!(verdicts[0].valid, verdicts[0].key_version != 0);
            Done::Version(verdicts[0].key_version)
        }
        Ask::AsymmetricDecrypt => {
            let request = proto::AsymmetricDecryptRequest {
                key: name,
                ciphertexts: vec![Bytes::from_static(&[1; 256])],
                ..Default::default()
            };
            crypto.asymmetric_decrypt(request).await?;
            Done::Version(0)
        }
    })
}

/// To open a sample, perhaps with something that is wrong.
pub(crate) fn open(
    world: &World,
    from: &Sample,
    context: &Pairs,
    spoiled: bool,
    named_other: bool,
) -> proto::DecryptRequest {
    let mut item = from.item.to_vec();
    // Half of what is spoiled has the right context and one other byte.
    let flip = spoiled && !item.is_empty() && from.header[20] & 1 == 1;
    if flip {
        *item.last_mut().unwrap() ^= 1;
    }
    let other = (0..KEYS.len()).find(|k| *k != from.key).unwrap();
    proto::DecryptRequest {
        context: wire(if flip { &from.context } else { context }),
        header: from.header.clone(),
        items: vec![item.into()],
        key: match named_other {
            true => world.key_name(other),
            false => String::new(),
        },
        ..Default::default()
    }
}

pub(crate) fn wire<C: FromIterator<(String, String)>>(pairs: &Pairs) -> C {
    pairs.clone().into_iter().collect()
}

/// Seals, signs or authenticates something nobody else has, and keeps it for later.
async fn protect(
    world: &World,
    client: &Client,
    who: usize,
    key: usize,
    wanted: Use,
    ask: &Ask,
    context: &Pairs,
) -> Result<Done, Status> {
    let Ask::Protect(_, action, _) = ask else {
        unreachable!("only asked for protection");
    };
    let name = world.key_name(key);
    let mut crypto = client.crypto();
    let plaintext = Bytes::from(format!("{name} {}", world.tick()));
    let input = plaintext.clone();
    let (kind, version, header, item, plaintext) = match (wanted, *action) {
        (Use::Encrypt, "encrypt") => {
            let request = proto::EncryptRequest {
                key: name,
                context: wire(context),
                plaintexts: vec![input],
                ..Default::default()
            };
            let mut made = crypto.encrypt(request).await?.into_inner();
            (
                Kind::Items,
                made.key_version,
                made.header,
                made.items.remove(0),
                plaintext,
            )
        }
        (Use::Encrypt, _) => {
            let request = proto::GenerateDataKeysRequest {
                key: name,
                context: wire(context),
                lengths: vec![32],
                ..Default::default()
            };
            let mut made = crypto.generate_data_keys(request).await?.into_inner();
            let one = made.data_keys.remove(0);
            (
                Kind::DataKey,
                made.key_version,
                one.wrapped,
                Bytes::new(),
                one.plaintext,
            )
        }
        (Use::Sign, _) => {
            let request = proto::SignRequest {
                key: name,
                inputs: vec![input],
                ..Default::default()
            };
            let mut made = crypto.sign(request).await?.into_inner();
            (
                Kind::Signature,
                made.key_version,
                Bytes::new(),
                made.signatures.remove(0),
                plaintext,
            )
        }
        _ => {
            let request = proto::MacRequest {
                key: name,
                inputs: vec![input],
                ..Default::default()
            };
            let mut made = crypto.mac(request).await?.into_inner();
            (
                Kind::Mac,
                made.key_version,
                Bytes::new(),
                made.macs.remove(0),
                plaintext,
            )
        }
    };
    world.samples.lock().unwrap().push(Sample {
        tenant: CLIENTS[who].0,
        key,
        kind,
        version,
        header,
        item,
        plaintext,
        context: context.clone(),
    });
    Ok(Done::Version(version))
}

async fn change(
    client: &Client,
    name: String,
    key: usize,
    change: &Change,
) -> Result<Option<proto::Key>, Status> {
    let mut keys = client.keys();
    Ok(match change.clone() {
        Change::Create { labels } => {
            let request = proto::CreateKeyRequest {
                name,
                spec: KEYS[key].2.into(),
                labels: wire(&labels),
                ..Default::default()
            };
            keys.create_key(request).await?.into_inner().key
        }
        Change::Rotate => {
            let request = proto::RotateKeyRequest { name };
            keys.rotate_key(request).await?.into_inner().key
        }
        Change::State { version, to, seen } => {
            let request = proto::ChangeStateRequest {
                name,
                version,
                state: to.into(),
                revision: seen,
            };
            keys.change_state(request).await?.into_inner().key
        }
        Change::Update {
            labels,
            rules,
            minimum,
            seen,
        } => {
            let request = proto::UpdateKeyRequest {
                name,
                labels: labels.map(|l| proto::NewLabels { pairs: wire(&l) }),
                rules: rules.map(|(days, wraps, limit)| proto::KeyRules {
                    rotate_after_days: days,
                    rotate_after_wraps: wraps,
                    wrap_limit: limit,
                    // The model rotates, and nobody else.
                    rotate_by_hand: true,
                    ..Default::default()
                }),
                minimum_version: minimum,
                revision: seen,
            };
            keys.update_key(request).await?.into_inner().key
        }
        Change::Schedule {
            version,
            days,
            seen,
        } => {
            let request = proto::ScheduleDestructionRequest {
                name,
                version,
                days,
                revision: seen,
                ..Default::default()
            };
            keys.schedule_destruction(request).await?.into_inner().key
        }
        Change::Cancel { version, seen } => {
            let request = proto::CancelDestructionRequest {
                name,
                version,
                revision: seen,
            };
            keys.cancel_destruction(request).await?.into_inner().key
        }
    })
}
