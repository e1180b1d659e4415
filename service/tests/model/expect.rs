//! The one answer of the model to one question, with this picture of the key and these
//! policies in force.

use crate::{
    history::{Ask, CLIENTS, Done, KEYS, Kind, Op},
    model::{self, Change, DAY_MS, Pairs, Picture, Use, Why, judge},
};

/// The tenant of whoever asked.
pub(crate) fn tenant(op: &Op) -> &'static str {
    CLIENTS[op.client].0
}

/// When a destruction that was scheduled now is due: as the answer says, if that fits the
/// clock.
pub(crate) fn due(
    op: &Op,
    change: &Change,
    before: &Picture,
    after: &Picture,
) -> Result<i64, String> {
    let Change::Schedule { days, .. } = change else {
        return Ok(0);
    };
    let new = before.versions.iter().zip(&after.versions);
    let at = new.filter(|(b, a)| b != a).map(|(_, a)| a.destroy).next();
    let at = at.ok_or("nothing was scheduled")?;
    let asked = at - i64::from(*days) * DAY_MS;
    match (op.clock.0..=op.clock.1).contains(&asked) {
        true => Ok(at),
        false => Err(format!("scheduled for another day: {op:?}")),
    }
}

pub(crate) fn short(done: Done) -> String {
    match done {
        Done::Key(picture) => format!("revision {}", picture.revision),
        other => format!("{other:?}"),
    }
}

pub(crate) fn same(op: &Op, expected: &Result<Done, Why>) -> bool {
    match (&op.out, expected) {
        (Err(got), Err(why)) => got == why,
        (Ok(Done::Key(a)), Ok(Done::Key(b))) => {
            // When exactly it is due was checked with the order of changes.
            a == b
                || (matches!(op.ask, Ask::Change(Change::Schedule { .. }))
                    && a.revision == b.revision)
        }
        (Ok(Done::Version(a)), Ok(Done::Version(b))) => a == b,
        (Ok(Done::Opened { right, due }), Ok(Done::Opened { due: expected, .. })) => {
            *right && due == expected
        }
        (
            Ok(Done::Explained {
                allowed,
                version,
                usable,
            }),
            Ok(Done::Explained {
                allowed: a,
                version: v,
                usable: u,
            }),
        ) => (allowed, version, usable) == (a, v, u),
        _ => false,
    }
}

/// The answer of the model.
pub(crate) fn expect(
    op: &Op,
    key: usize,
    picture: Option<&Picture>,
    policy: usize,
) -> Result<Done, Why> {
    let role = CLIENTS[op.client].2;
    let is = KEYS[key].1;
    let none = Pairs::new();
    let may = |action: &str, context: &Pairs| -> Result<&Picture, Why> {
        judge(role, action, picture, policy, context)?;
        picture.ok_or("KEY_NOT_FOUND")
    };
    match &op.ask {
        Ask::Change(change) => changed(op, change, picture, policy),
        Ask::Get => Ok(Done::Key(may("get_key", &none)?.clone())),
        Ask::Public { version } => {
            let picture = may("get_public_key", &none)?;
            let number = if *version == 0 {
                picture.primary
            } else {
                *version
            };
            picture.version(number).ok_or("KEY_VERSION_NOT_FOUND")?;
            match is {
                Use::Sign => Ok(Done::Version(number)),
                _ => Err("KEY_USE"),
            }
        }
        Ask::Evidence => {
            may("get_key_evidence", &none)?;
            Err("KEY_VERSION_NOT_FOUND")
        }
        Ask::Explain {
            action,
            version,
            of,
            foreign,
            context,
        } => {
            let asks = if of.is_some() {
                "explain_other"
            } else {
                "explain"
            };
            let picture = may(asks, context)?;
            let processes = ["decrypt", "rewrap", "verify", "verify_mac"].contains(action);
            if *version != 0 && !processes || of.is_some() && *foreign {
                return Err("INVALID_ARGUMENT");
            }
            let whose = of.unwrap_or(role);
            let allowed = model::allows(whose, action, &picture.labels, policy, context);
            let number = if *version == 0 {
                picture.primary
            } else {
                *version
            };
            let used = match *action {
                "encrypt" | "reencrypt_to" | "generate_data_key" => {
                    picture.protect(is, Use::Encrypt)
                }
                "rewrap" => picture
                    .process(is, Use::Encrypt, number)
                    .and_then(|_| picture.protect(is, Use::Encrypt)),
                "decrypt" => picture.process(is, Use::Encrypt, number),
                "sign" => picture.protect(is, Use::Sign),
                "verify" => picture.process(is, Use::Sign, number),
                "mac" => picture.protect(is, Use::Mac),
                "verify_mac" => picture.process(is, Use::Mac, number),
                _ => Ok(0),
            };
            Ok(Done::Explained {
                allowed,
                version: used.unwrap_or(0),
                usable: used.is_ok(),
            })
        }
        Ask::Protect(wanted, action, context) => {
            let picture = may(action, context)?;
            picture.protect(is, *wanted).map(Done::Version)
        }
        Ask::Open {
            from,
            action,
            context,
            spoiled,
            named_other,
        } => {
            let for_items = *action == "decrypt";
            if for_items != (from.kind == Kind::Items) {
                return Err("ENVELOPE_MALFORMED");
            }
            let flip = *spoiled && !from.item.is_empty() && from.header[20] & 1 == 1;
            let picture = may(action, if flip { &from.context } else { context })?;
            if *named_other {
                return Err("INVALID_ARGUMENT");
            }
            picture.process(is, Use::Encrypt, from.version)?;
            match spoiled {
                true => Err("DECRYPTION_FAILED"),
                false => Ok(Done::Opened {
                    right: true,
                    due: from.version != picture.primary,
                }),
            }
        }
        Ask::Rewrap(from) => {
            let picture = may("rewrap", &none)?;
            picture.process(is, Use::Encrypt, from.version)?;
            picture.protect(is, Use::Encrypt).map(Done::Version)
        }
        Ask::Check {
            made,
            wanted,
            only,
            spoiled,
        } => {
            let action = if *wanted == Use::Sign {
                "verify"
            } else {
                "verify_mac"
            };
            let picture = may(action, &none)?;
            let own = (made.tenant, made.key) == (tenant(op), key) && !*spoiled;
            let made_by = if own { made.version } else { 0 };
            picture
                .check(is, *wanted, *only, made_by)
                .map(Done::Version)
        }
        Ask::AsymmetricDecrypt => {
            may("asymmetric_decrypt", &none)?;
            Err("KEY_USE")
        }
        Ask::Wrong | Ask::List | Ask::Random | Ask::Reencrypt(_) => Err("checked elsewhere"),
    }
}

fn changed(
    op: &Op,
    change: &Change,
    picture: Option<&Picture>,
    policy: usize,
) -> Result<Done, Why> {
    let role = CLIENTS[op.client].2;
    let none = Pairs::new();
    let action = match change {
        Change::Create { labels } => {
            // There is no key to hide yet.
            if !model::allows(role, "create_key", labels, policy, &none) {
                return Err("PERMISSION_DENIED");
            }
            let Some(_) = picture else {
                let Ok(Done::Key(got)) = &op.out else {
                    return Err("a key made");
                };
                return Ok(Done::Key(model::created(got.id.clone(), labels.clone())));
            };
            return Err("KEY_EXISTS");
        }
        Change::Rotate => "rotate_key",
        Change::State { .. } => "change_state",
        Change::Update { .. } => "update_key",
        Change::Schedule { .. } => "schedule_destruction",
        Change::Cancel { .. } => "cancel_destruction",
    };
    judge(role, action, picture, policy, &none)?;
    let picture = picture.ok_or("KEY_NOT_FOUND")?;
    // What never wraps has no rules about wraps.
    if let Change::Update { rules, seen, .. } = change
        && rules.is_some_and(|(_, wraps, limit)| wraps + limit != 0)
        && KEYS[op.key].1 != Use::Encrypt
    {
        picture.seen(*seen)?;
        return Err("INVALID_ARGUMENT");
    }
    let next = picture.changed(change, 1)?;
    // Nobody moves a key to where they could not have touched it.
    if let Change::Update { .. } = change
        && !model::allows(role, action, &next.labels, policy, &none)
    {
        return Err("PERMISSION_DENIED");
    }
    Ok(Done::Key(next))
}
