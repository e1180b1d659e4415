//! What a token can do: each mechanism that an appliance uses, by the number of sessions,
//! and what an appliance could do with it.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};
use clap::ValueEnum;
use keywright_hsm::{
    Connector, Curve, Dek, Hash, KeyRef, KeySpec, Lane, ObjectId, PinSource, PssSalt, RsaBits,
    Signing, Token,
    pkcs11::{self, Device, TokenConfig},
};
use serde::Serialize;

use crate::{
    args,
    report::{Cells, whole},
};

/// As bound to a wrapped DEK (`docs/envelope.md`).
const AAD: [u8; 56] = [1; 56];

/// What is asked of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Mechanism {
    /// A new data key: 32 random bytes, wrapped with AES-256-GCM.
    Mint,
    /// A wrapped data key opened.
    Unwrap,
    /// HMAC-SHA-256 of 64 bytes.
    Mac,
    /// ECDSA on P-256.
    SignP256,
    /// ECDSA on P-384.
    SignP384,
    /// Ed25519 of 64 bytes.
    SignEd25519,
    /// RSA-PSS, 2048 bits.
    SignRsa2048,
    /// RSA-PSS, 3072 bits.
    SignRsa3072,
}

impl Mechanism {
    fn spec(self) -> KeySpec {
        match self {
            Self::Mint | Self::Unwrap => KeySpec::Aes256,
            Self::Mac => KeySpec::Hmac(Hash::Sha256),
            Self::SignP256 => KeySpec::Ec(Curve::P256),
            Self::SignP384 => KeySpec::Ec(Curve::P384),
            Self::SignEd25519 => KeySpec::Ed25519,
            Self::SignRsa2048 => KeySpec::RsaSign(RsaBits::B2048),
            Self::SignRsa3072 => KeySpec::RsaSign(RsaBits::B3072),
        }
    }

    /// What one of them serves.
    fn serves(self) -> &'static str {
        match self {
            Self::Mint => "Encrypt and GenerateDataKeys: batches of a key without a lease",
            Self::Unwrap => "Decrypt: batches; half of a rewrapped header",
            Self::Mac => "Mac: items",
            Self::SignP256 | Self::SignP384 | Self::SignEd25519 => {
                "Sign: items; certificates and OCSP answers"
            }
            Self::SignRsa2048 | Self::SignRsa3072 => "Sign: items; certificates",
        }
    }

    fn name(self) -> String {
        let value = self.to_possible_value();
        value.map_or_else(String::new, |v| v.get_name().to_owned())
    }
}

/// One of them with so many sessions.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Rate {
    pub(crate) mechanism: Mechanism,
    pub(crate) sessions: u32,
    pub(crate) calls_per_second: f64,
}

/// What came of it all.
#[derive(Debug, Serialize)]
pub(crate) struct Sizing {
    pub(crate) rates: Vec<Rate>,
    /// What the token cannot do, and why.
    pub(crate) not_there: Vec<(Mechanism, String)>,
    /// Sessions with which everything together goes best: `hsm.workers`.
    pub(crate) workers: u32,
}

/// Makes a key for each mechanism, measures, and destroys it again.
pub(crate) fn size(asked: &args::Token) -> Result<Sizing> {
    let pin = PinSource::File(asked.pin_file.clone());
    let device = pkcs11::open(TokenConfig {
        module: asked.module.clone(),
        init_reserved: None,
        label: asked.label.clone(),
        serial: asked.serial.clone(),
        pin,
        pin_latch: None,
        scout: None,
    })?;
    let mut admin = device.connect(Lane::Admin)?;
    let wanted = match asked.mechanism.as_slice() {
        [] => Mechanism::value_variants(),
        some => some,
    };
    let mut sizing = Sizing {
        rates: Vec::new(),
        not_there: Vec::new(),
        workers: 1,
    };
    for mechanism in wanted {
        let id = ObjectId::random()?;
        let key = match admin.generate(id, mechanism.spec(), "keywright-bench") {
            Ok(new) => new.key,
            Err(e) => {
                sizing.not_there.push((*mechanism, e.to_string()));
                continue;
            }
        };
        let measured = rates(&device, &key, *mechanism, asked);
        let destroyed = admin.destroy(id, mechanism.spec());
        match measured {
            Ok(rates) => sizing.rates.extend(rates),
            Err(e) => sizing.not_there.push((*mechanism, format!("{e:#}"))),
        }
        destroyed.with_context(|| format!("the key {id} of keywright-bench stays on the token"))?;
    }
    sizing.workers = best(&sizing.rates);
    Ok(sizing)
}

fn rates(
    device: &Arc<Device>,
    key: &KeyRef,
    mechanism: Mechanism,
    asked: &args::Token,
) -> Result<Vec<Rate>> {
    let one = |sessions: &u32| {
        Ok(Rate {
            mechanism,
            sessions: *sessions,
            calls_per_second: per_second(device, key, mechanism, *sessions, asked.seconds)?,
        })
    };
    asked.sessions.iter().map(one).collect()
}

fn per_second(
    device: &Arc<Device>,
    key: &KeyRef,
    mechanism: Mechanism,
    sessions: u32,
    window: Duration,
) -> Result<f64> {
    let tokens: Result<Vec<_>, _> = (0..sessions).map(|_| device.connect(Lane::Work)).collect();
    let began = Instant::now();
    let workers: Vec<_> = tokens?
        .into_iter()
        .map(|mut token| {
            let key = key.clone();
            thread::spawn(move || calls(token.as_mut(), &key, mechanism, began, window))
        })
        .collect();
    let mut done = 0;
    for worker in workers {
        let calls = worker.join().map_err(|_| anyhow!("a session panicked"))?;
        done += calls?;
    }
    Ok(done as f64 / began.elapsed().as_secs_f64())
}

fn calls(
    token: &mut dyn Token,
    key: &KeyRef,
    mechanism: Mechanism,
    began: Instant,
    window: Duration,
) -> keywright_hsm::Result<u64> {
    let wrapped = match mechanism {
        Mechanism::Unwrap => Some(token.wrap(key, &AAD, &Dek::take(&mut [7; Dek::LEN]))?),
        _ => None,
    };
    let pss = Signing::RsaPss(Hash::Sha256, PssSalt::Hash);
    let mut done = 0;
    while began.elapsed() < window {
        match (mechanism, &wrapped) {
            (Mechanism::Unwrap, Some(wrapped)) => drop(token.unwrap(key, &AAD, wrapped)?),
            (Mechanism::Mint | Mechanism::Unwrap, _) => {
                let mut dek = [0; Dek::LEN];
                token.random(&mut dek)?;
                let _ = token.wrap(key, &AAD, &Dek::take(&mut dek))?;
            }
            (Mechanism::Mac, _) => drop(token.mac(key, &[0x5a; 64])?),
            (Mechanism::SignP256, _) => drop(token.sign(key, Signing::Ecdsa, &[0x5a; 32])?),
            (Mechanism::SignP384, _) => drop(token.sign(key, Signing::Ecdsa, &[0x5a; 48])?),
            (Mechanism::SignEd25519, _) => drop(token.sign(key, Signing::Ed25519, &[0x5a; 64])?),
            (Mechanism::SignRsa2048 | Mechanism::SignRsa3072, _) => {
                drop(token.sign(key, pss, &[0x5a; 32])?);
            }
        }
        done += 1;
    }
    Ok(done)
}

/// The fewest sessions with which no mechanism loses more than a twentieth of its best, as
/// far as there are such; else those that lose least.
fn best(rates: &[Rate]) -> u32 {
    let most = |mechanism| {
        let of = rates.iter().filter(|r| r.mechanism == mechanism);
        of.map(|r| r.calls_per_second)
            .fold(f64::MIN_POSITIVE, f64::max)
    };
    let worst = |sessions| {
        let of = rates.iter().filter(|r| r.sessions == sessions);
        of.map(|r| r.calls_per_second / most(r.mechanism))
            .fold(1.0, f64::min)
    };
    let mut tried: Vec<u32> = rates.iter().map(|r| r.sessions).collect();
    tried.sort_unstable();
    tried.dedup();
    let enough = tried.iter().copied().find(|s| worst(*s) >= 0.95);
    let least_lost = tried
        .iter()
        .copied()
        .max_by(|a, b| worst(*a).total_cmp(&worst(*b)));
    enough.or(least_lost).unwrap_or(1)
}

impl Sizing {
    /// Rates by sessions, and what they serve.
    pub(crate) fn tables(&self) -> [Cells; 3] {
        let rate = |r: &Rate| {
            vec![
                r.mechanism.name(),
                r.sessions.to_string(),
                whole(r.calls_per_second),
                format!("{:.1}", f64::from(r.sessions) * 1e6 / r.calls_per_second),
            ]
        };
        let rates = self.rates.iter().map(rate).collect();
        let serves = self.rates.iter().filter(|r| r.sessions == self.workers);
        let serves = serves.map(|r| {
            vec![
                r.mechanism.name(),
                whole(r.calls_per_second),
                whole(r.calls_per_second * 100.0),
                r.mechanism.serves().into(),
            ]
        });
        let not_there = self.not_there.iter();
        let not_there = not_there.map(|(m, why)| vec![m.name(), why.clone()]);
        [
            (vec!["mechanism", "sessions", "calls/s", "us/call"], rates),
            (
                vec![
                    "mechanism",
                    "calls/s at best",
                    "items/s in batches of 100",
                    "serves",
                ],
                serves.collect(),
            ),
            (vec!["mechanism", "not on this token"], not_there.collect()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(mechanism: Mechanism, sessions: u32, calls_per_second: f64) -> Rate {
        Rate {
            mechanism,
            sessions,
            calls_per_second,
        }
    }

    #[test]
    fn the_fewest_sessions_that_lose_nothing() {
        use Mechanism::{Mint, SignRsa2048};
        assert_eq!(best(&[]), 1);
        assert_eq!(best(&[rate(Mint, 1, 100.0), rate(Mint, 2, 104.0)]), 1);
        assert_eq!(best(&[rate(Mint, 1, 100.0), rate(Mint, 2, 190.0)]), 2);
        // One lock for short calls, and signatures that scale: whoever loses less.
        let mixed = [
            rate(Mint, 1, 100.0),
            rate(Mint, 2, 80.0),
            rate(SignRsa2048, 1, 100.0),
            rate(SignRsa2048, 2, 200.0),
        ];
        assert_eq!(best(&mixed), 2);
    }
}
