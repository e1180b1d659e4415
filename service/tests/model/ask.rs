//! What a client asks next, and how it is put on the wire.

use keywright_client::proto::KeyState as S;

use crate::{
    history::{Ask, CLIENTS, KEYS, Kind, Rng, Sample, World},
    model::{Change, Pairs, Use},
};

const STATES: [S; 7] = [
    S::Active,
    S::Active,
    S::Active,
    S::Suspended,
    S::Suspended,
    S::Deactivated,
    S::Compromised,
];

const ACTIONS: [&str; 12] = [
    "encrypt",
    "decrypt",
    "rewrap",
    "reencrypt_to",
    "sign",
    "verify",
    "mac",
    "verify_mac",
    "generate_data_key",
    "get_key",
    "rotate_key",
    "update_key",
];

fn labels(rng: &mut Rng) -> Pairs {
    let mut labels = Pairs::new();
    for (label, n) in [("frozen", 3), ("hidden", 3), ("desk", 4)] {
        if rng.one_in(n) {
            labels.insert(label.into(), "a".into());
        }
    }
    labels
}

fn context(rng: &mut Rng) -> Pairs {
    match rng.below(3) {
        0 => Pairs::new(),
        n => Pairs::from([("desk".into(), ["a", "b"][n as usize - 1].into())]),
    }
}

pub(crate) fn create(rng: &mut Rng) -> Ask {
    Ask::Change(Change::Create {
        labels: labels(rng),
    })
}

/// Everybody asks for everything; most often for what they may.
pub(crate) fn choose(world: &World, rng: &mut Rng, client: usize) -> (usize, Ask) {
    let (tenant, _, role) = CLIENTS[client];
    let key = rng.below(KEYS.len() as u64) as usize;
    let newest = world.newest.lock().unwrap()[usize::from(tenant == "blue")][key];
    let own = match role {
        'A' => rng.below(10),
        'E' => rng.below(30),
        'R' => [12, 12, 12, 30][rng.below(4) as usize],
        _ => 10 + rng.below(20),
    };
    let what = if rng.one_in(5) { rng.below(33) } else { own };
    let version = [0, 0, 1, 1, 2, 3][rng.below(6) as usize];
    // Right, stale, or none.
    let seen = [0, 0, newest, newest.saturating_sub(1)][rng.below(4) as usize];
    if what < 10 {
        return (key, change(rng, what, version, seen));
    }
    let sample = |rng: &mut Rng, kinds: &[Kind]| {
        let samples = world.samples.lock().unwrap();
        let fit: Vec<&Sample> = samples
            .iter()
            .filter(|s| kinds.contains(&s.kind) && (s.tenant == tenant || rng.one_in(10)))
            .collect();
        (!fit.is_empty()).then(|| fit[rng.below(fit.len() as u64) as usize].clone())
    };
    let any_key = |rng: &mut Rng, usual: u64| if rng.one_in(8) { key } else { usual as usize };
    let usual = rng.below(2);
    let enc = any_key(rng, usual);
    let open = |rng: &mut Rng, kinds: &[Kind], action| {
        let from = sample(rng, kinds)?;
        let wrong = rng.one_in(10);
        Some(Ask::Open {
            context: if wrong {
                Pairs::from([("desk".into(), "elsewhere".into())])
            } else {
                from.context.clone()
            },
            spoiled: wrong,
            named_other: rng.one_in(12),
            from,
            action,
        })
    };
    let asked = match what {
        10 | 11 => Some((enc, Ask::Protect(Use::Encrypt, "encrypt", context(rng)))),
        12 => sample(rng, &[Kind::Items, Kind::DataKey]).map(|s| (s.key, Ask::Rewrap(s))),
        13..=15 => {
            let kinds: &[Kind] = match rng.one_in(12) {
                true => &[Kind::DataKey],
                false => &[Kind::Items],
            };
            open(rng, kinds, "decrypt").map(|a| (0, a))
        }
        16 => sample(rng, &[Kind::Items]).map(|s| (enc, Ask::Reencrypt(s))),
        17 => Some((
            enc,
            Ask::Protect(Use::Encrypt, "generate_data_key", context(rng)),
        )),
        18 => open(rng, &[Kind::DataKey], "decrypt_data_key").map(|a| (0, a)),
        19 | 20 => Some((
            any_key(rng, 2),
            Ask::Protect(Use::Sign, "sign", Pairs::new()),
        )),
        21 | 22 => Some((any_key(rng, 3), Ask::Protect(Use::Mac, "mac", Pairs::new()))),
        23 | 24 => sample(rng, &[Kind::Signature]).map(|made| {
            let only = version;
            let (wanted, spoiled) = (Use::Sign, rng.one_in(5));
            (
                any_key(rng, 2),
                Ask::Check {
                    made,
                    wanted,
                    only,
                    spoiled,
                },
            )
        }),
        25 | 26 => sample(rng, &[Kind::Mac]).map(|made| {
            let only = version;
            let (wanted, spoiled) = (Use::Mac, rng.one_in(5));
            (
                any_key(rng, 3),
                Ask::Check {
                    made,
                    wanted,
                    only,
                    spoiled,
                },
            )
        }),
        27 => Some((any_key(rng, 2), Ask::Public { version })),
        28 => Some((key, Ask::AsymmetricDecrypt)),
        29 => Some((0, Ask::Random)),
        30 => Some((
            key,
            Ask::Explain {
                action: rng.pick(&ACTIONS),
                version,
                foreign: rng.one_in(4),
                of: rng.one_in(4).then(|| rng.pick(&['U', 'A', 'R', 'T', 'E'])),
                context: context(rng),
            },
        )),
        31 => Some((0, Ask::List)),
        _ => None,
    };
    asked.unwrap_or_else(|| match rng.one_in(20) {
        true => (key, Ask::Evidence),
        false => (key, Ask::Get),
    })
}

fn change(rng: &mut Rng, what: u64, version: u32, seen: u64) -> Ask {
    Ask::Change(match what {
        0 => Change::Rotate,
        1 if rng.one_in(4) => return create(rng),
        1..=4 => Change::State {
            version,
            to: rng.pick(&STATES),
            seen,
        },
        5 | 6 => Change::Update {
            labels: Some(labels(rng)).filter(|_| what == 5),
            rules: rng
                .one_in(3)
                .then(|| (1 + rng.below(9) as u32, 0, rng.pick(&[0, 1 << 20]))),
            minimum: 1 + rng.below(3) as u32,
            seen,
        },
        7 | 8 => Change::Schedule {
            version: 1 + rng.below(3) as u32,
            days: rng.pick(&[7, 7, 8, 30, 90]),
            seen,
        },
        _ if rng.one_in(6) => return Ask::Wrong,
        _ => Change::Cancel { version, seen },
    })
}
