//! Was every answer of a history one the model could have given?
//!
//! Changes of one key are put in order by the revisions they were answered with: none may
//! be missing, none may be there twice, and each must follow from the one before. A
//! question that was answered while the key changed may have seen the key before or after:
//! it is held against every picture that could have been in force between its start and
//! its end. Where that is one picture, the answer must be exactly that of the model.

use std::{collections::BTreeMap, time::Duration};

use keywright_client::proto::KeyState as S;

use crate::{
    expect::{due, expect, same, short, tenant},
    history::{Ask, CLIENTS, Done, KEYS, Moment, Op, Sample, World},
    model::{self, Change, Pairs, Picture, Use, Why, judge},
};

/// A picture and when it came: it may be seen from `start` on, and nothing older after
/// `end`.
struct Stage {
    picture: Option<Picture>,
    start: u64,
    end: u64,
}

/// The whole life of one key; the place is the revision.
type Life = Vec<Stage>;

/// What was found out about a history.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) violations: Vec<String>,
    /// Answers by their class.
    pub(crate) classes: BTreeMap<String, u64>,
    /// Answers for which only one picture came into question.
    pub(crate) exact: u64,
    pub(crate) ops: u64,
    pub(crate) destroyed: u64,
    pub(crate) changes: u64,
}

struct Oracle<'a> {
    ops: &'a [Op],
    /// For each number: the one that was given as long before as a node may not know yet
    /// what another one did.
    since: Vec<u64>,
    rounds: Vec<Moment>,
    policies: Vec<Moment>,
    /// By tenant and key.
    lives: BTreeMap<(&'static str, usize), Life>,
}

/// Checks everything that was asked in a history.
pub(crate) fn check(world: &World) -> Findings {
    let ops = world.ops.lock().unwrap();
    let mut found = Findings::default();
    let mut oracle = Oracle {
        ops: &ops,
        since: since(world),
        rounds: world.rounds.lock().unwrap().clone(),
        policies: world.policies.lock().unwrap().clone(),
        lives: BTreeMap::new(),
    };
    for tenant in ["red", "blue"] {
        for key in 0..KEYS.len() {
            match oracle.life(tenant, key, &mut found) {
                Ok(life) => {
                    oracle.lives.insert((tenant, key), life);
                }
                Err(why) => found.violations.push(format!("{tenant} {key}: {why}")),
            }
        }
    }
    if !found.violations.is_empty() {
        return found;
    }
    for op in ops.iter() {
        let class = match &op.out {
            Ok(_) => "OK".to_owned(),
            Err(reason) => reason.clone(),
        };
        *found.classes.entry(class).or_default() += 1;
        found.ops += 1;
        match oracle.explained(op) {
            Ok(exact) => found.exact += u64::from(exact),
            Err(why) => found.violations.push(format!("{why}: {op:?}")),
        }
    }
    found
}

/// Beyond this a node has read what others changed, or does nothing (`docs/scaling.md`).
const FENCE: Duration = Duration::from_secs(5);

fn since(world: &World) -> Vec<u64> {
    let times = world.times.lock().unwrap();
    let behind = |number: usize| match world.nodes.len() {
        1 => number,
        _ => times
            .partition_point(|t| *t + FENCE <= times[number])
            .saturating_sub(1),
    };
    (0..times.len()).map(|n| behind(n) as u64).collect()
}

fn rotates(op: &Op) -> bool {
    matches!(op.ask, Ask::Change(Change::Rotate))
}

fn pictures(op: &Op) -> Vec<(usize, &Picture)> {
    match &op.out {
        Ok(Done::Key(picture)) => vec![(op.key, picture)],
        Ok(Done::Keys(all)) => all.iter().map(|(key, p)| (*key, p)).collect(),
        _ => Vec::new(),
    }
}

impl Oracle<'_> {
    /// Puts the changes of a key in order.
    fn life(&self, of: &'static str, key: usize, found: &mut Findings) -> Result<Life, String> {
        let mut changes: BTreeMap<u64, &Op> = BTreeMap::new();
        let mut seen: BTreeMap<u64, (&Picture, u64)> = BTreeMap::new();
        for op in self.ops.iter().filter(|op| tenant(op) == of) {
            for (_, picture) in pictures(op).into_iter().filter(|(k, _)| *k == key) {
                let known = seen.entry(picture.revision).or_insert((picture, op.end));
                if known.0 != picture {
                    return Err(format!("two pictures: {:?} and {picture:?}", known.0));
                }
                known.1 = known.1.min(op.end);
                if matches!(op.ask, Ask::Change(_))
                    && let Some(other) = changes.insert(picture.revision, op)
                {
                    return Err(format!("one revision given twice: {other:?} and {op:?}"));
                }
            }
        }
        let mut life = vec![Stage {
            picture: None,
            start: 0,
            end: 0,
        }];
        let last = seen.keys().next_back().copied().unwrap_or(0);
        while (life.len() as u64) <= last {
            let revision = life.len() as u64;
            let before = life.last().unwrap().picture.clone();
            let (picture, start, mut end) = match changes.get(&revision) {
                Some(op) => {
                    let (picture, _) = seen[&revision];
                    self.follows(op, before.as_ref(), picture)?;
                    found.changes += 1;
                    (picture.clone(), op.start, op.end)
                }
                None if changes.get(&(revision + 1)).is_some_and(|op| rotates(op)) => {
                    let op = changes[&(revision + 1)];
                    let before = before.ok_or("a rotation of nothing")?;
                    (before.half_rotated(), op.start, op.end)
                }
                None => {
                    let (_, (next, _)) = seen.range(revision..).next().unwrap();
                    found.destroyed += 1;
                    let (picture, start) = self.destruction(before.as_ref(), next)?;
                    (picture, start, u64::MAX)
                }
            };
            if let Some((other, told)) = seen.get(&revision) {
                if **other != picture {
                    return Err(format!("a picture {other:?} instead of {picture:?}"));
                }
                end = end.min(*told);
            }
            life.push(Stage {
                picture: Some(picture),
                start,
                end,
            });
        }
        Ok(life)
    }

    /// Is this the picture the change leads to?
    fn follows(&self, op: &Op, before: Option<&Picture>, after: &Picture) -> Result<(), String> {
        let Ask::Change(change) = &op.ask else {
            return Err("not a change".into());
        };
        let expected = match (before, change) {
            (None, Change::Create { labels }) => {
                Ok(model::created(after.id.clone(), labels.clone()))
            }
            (None, _) => Err("KEY_NOT_FOUND"),
            (Some(before), _) => before.changed(change, due(op, change, before, after)?),
        };
        match expected.as_ref() == Ok(after) {
            true => Ok(()),
            false => Err(format!(
                "no legal move from {before:?} to {after:?}, rather {expected:?}: {op:?}"
            )),
        }
    }

    /// A revision nobody asked for: a version that was due is destroyed.
    fn destruction(
        &self,
        before: Option<&Picture>,
        next: &Picture,
    ) -> Result<(Picture, u64), String> {
        let before = before.ok_or("a revision is missing before the first")?;
        let gone = |(i, v): &(usize, &model::Version)| {
            v.destroy != 0
                && next
                    .versions
                    .get(*i)
                    .is_some_and(|n| n.state == S::Destroyed)
        };
        let (index, version) = before
            .versions
            .iter()
            .enumerate()
            .find(gone)
            .ok_or_else(|| format!("a revision is missing between {before:?} and {next:?}"))?;
        let round = self.rounds.iter().find(|r| r.what >= version.destroy);
        let start = round.ok_or("destroyed before its time")?.start;
        Ok((before.destroyed(index), start))
    }

    /// Every picture of a key that may have been in force while this was answered.
    fn stages(&self, op: &Op, key: usize) -> Vec<&Stage> {
        let life = &self.lives[&(tenant(op), key)];
        let since = self.since[op.start as usize];
        let oldest = life.iter().rposition(|s| s.end < since).unwrap_or(0);
        let from = &life[oldest..];
        from.iter().filter(|s| s.start < op.end).collect()
    }

    fn policies(&self, op: &Op) -> Vec<usize> {
        let all = &self.policies;
        let oldest = all.iter().rposition(|p| p.end < op.start).unwrap_or(0);
        let from = all[oldest..].iter().filter(|p| p.start < op.end);
        from.map(|p| p.what as usize).collect()
    }

    /// Could this have been the answer? And was it the only one?
    fn explained(&self, op: &Op) -> Result<bool, String> {
        if matches!(&op.out, Err(reason) if reason == "CONFLICT") && self.met(op) {
            return Ok(false);
        }
        let policies = self.policies(op);
        let role = CLIENTS[op.client].2;
        let refused = |why: Why| op.out.as_ref().err().map(String::as_str) == Some(why);
        match &op.ask {
            Ask::Random => {
                let fits = match model::RANDOM.contains(role) {
                    true => op.out.is_ok(),
                    false => refused("PERMISSION_DENIED"),
                };
                return fits.then_some(true).ok_or("random bytes".into());
            }
            Ask::List => return self.listed(op, &policies),
            Ask::Wrong => {
                return match refused("INVALID_ARGUMENT") {
                    true => Ok(true),
                    false => Err("an impossible state".into()),
                };
            }
            Ask::Reencrypt(from) => return self.reencrypted(op, from, &policies),
            _ => {}
        }
        // What names no key of this tenant has none.
        let (key, foreign) = match &op.ask {
            Ask::Open { from, .. } | Ask::Rewrap(from) => (from.key, from.tenant != tenant(op)),
            _ => (op.key, false),
        };
        let none = [Stage {
            picture: None,
            start: 0,
            end: 0,
        }];
        let stages: Vec<&Stage> = match foreign {
            true => none.iter().collect(),
            false => self.stages(op, key),
        };
        let mut could = Vec::new();
        for stage in &stages {
            for policy in &policies {
                let expected = expect(op, key, stage.picture.as_ref(), *policy);
                if same(op, &expected) {
                    return Ok(stages.len() == 1 && policies.len() == 1);
                }
                // Explain asks for the policies twice.
                if let (Ask::Explain { .. }, true) = (&op.ask, policies.len() > 1) {
                    return Ok(false);
                }
                could.push(expected.map(short));
            }
        }
        could.dedup_by(|a, b| format!("{a:?}") == format!("{b:?}"));
        Err(format!("the model allows {could:?}"))
    }

    /// Somebody else was changing the same key: one of them may be asked to come again.
    fn met(&self, op: &Op) -> bool {
        let changes = matches!(op.ask, Ask::Change(_));
        let since = self.since[op.start as usize];
        let overlaps = |start: u64, end: u64| start < op.end && since < end;
        let rival = |other: &&Op| {
            matches!(other.ask, Ask::Change(_))
                && (tenant(other), other.key) == (tenant(op), op.key)
                && other.start != op.start
                && overlaps(other.start, other.end)
        };
        let allowed = |other: &Op| "AE".contains(CLIENTS[other.client].2);
        changes
            && allowed(op)
            && (self.ops.iter().filter(rival).any(allowed)
                || self.rounds.iter().any(|r| overlaps(r.start, r.end)))
    }

    fn listed(&self, op: &Op, policies: &[usize]) -> Result<bool, String> {
        let role = CLIENTS[op.client].2;
        let listed = match (&op.out, model::LIST.contains(role)) {
            (Ok(Done::Keys(keys)), true) => keys,
            (Err(why), false) if why == "PERMISSION_DENIED" => return Ok(true),
            _ => return Err("list".into()),
        };
        let none = Pairs::new();
        for key in 0..KEYS.len() {
            let shown = listed.iter().find(|(k, _)| *k == key).map(|(_, p)| p);
            let could = self.stages(op, key).into_iter().any(|stage| {
                policies.iter().any(|policy| {
                    let picture = stage.picture.as_ref();
                    let seen = judge(role, "get_key", picture, *policy, &none).is_ok();
                    picture.filter(|_| seen) == shown
                })
            });
            if !could {
                return Err(format!("list shows {shown:?}"));
            }
        }
        Ok(policies.len() == 1)
    }

    /// Two keys, one after the other: the new one first.
    fn reencrypted(&self, op: &Op, from: &Sample, policies: &[usize]) -> Result<bool, String> {
        let role = CLIENTS[op.client].2;
        let context = Pairs::from([("desk".to_owned(), "b".to_owned())]);
        let foreign = from.tenant != tenant(op);
        let old: Vec<Option<&Picture>> = match foreign {
            true => vec![None],
            false => self
                .stages(op, from.key)
                .iter()
                .map(|s| s.picture.as_ref())
                .collect(),
        };
        let new = self.stages(op, op.key);
        let is = |key: usize| KEYS[key].1;
        let mut could = Vec::new();
        for p in policies {
            for to in &new {
                for of in &old {
                    let expected = judge(role, "reencrypt_to", to.picture.as_ref(), *p, &context)
                        .and_then(|()| judge(role, "reencrypt_from", *of, *p, &from.context))
                        .and_then(|()| {
                            of.unwrap()
                                .process(is(from.key), Use::Encrypt, from.version)
                        })
                        .and_then(|_| {
                            to.picture
                                .as_ref()
                                .unwrap()
                                .protect(is(op.key), Use::Encrypt)
                        })
                        .map(Done::Version);
                    if same(op, &expected) {
                        return Ok(policies.len() * new.len() * old.len() == 1);
                    }
                    could.push(expected.map(short));
                }
            }
        }
        Err(format!("the model allows {could:?}"))
    }
}
