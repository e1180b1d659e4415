//! The tokens that hold the same keys: which of them does a job, and what becomes of it
//! when that one is lost.
//!
//! The first token is the *primary*: keys are made there. The others are its copies, made
//! by the vendor's means and at the vendor's pace, so which token holds which key is
//! found out by asking: a handle is used only after it has opened the key's proof, on
//! every token and in every epoch of it, and the proof was made on the primary.
//!
//! A job goes to the token with least to do. What comes back undone for a reason of that
//! token goes to another one, once, if it may be repeated.

use std::{
    collections::HashSet,
    sync::{Arc, Weak},
    time::Instant,
};

use futures_util::future::join_all;
use parking_lot::Mutex;
use tracing::{error, info, warn};

use crate::{
    Connector, KeyRef, KeySpec, Lane, ObjectId, Observer, Op, Options, Place, Result, State, Token,
    error::{Error, Kind, Remedy},
    job::OnKeys,
    member::Member,
};

/// Items per job: enough to pay for the queue, few enough to share the workers.
const BATCH: usize = 32;

pub(crate) struct Group {
    first: Arc<Member>,
    others: Vec<Arc<Member>>,
    observer: Arc<dyn Observer>,
}

/// How one token is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenStatus {
    /// The label or serial it is selected by.
    pub name: String,
    /// Whether it serves, and why not.
    pub state: State,
    /// Keys that were wanted and that it does not show.
    pub missing: usize,
    /// Keys that it shows others in the place of.
    pub diverged: usize,
}

/// Serials that are taken: two places may be one token.
type Taken = Arc<Mutex<HashSet<(String, String)>>>;

impl Group {
    pub(crate) fn start(
        places: Vec<Place>,
        options: Options,
        observer: Arc<dyn Observer>,
    ) -> Result<Arc<Self>> {
        let none = || Error::new(Kind::Setup, "no token is configured");
        let new = |(index, place): (usize, &Place)| {
            let observer = Arc::clone(&observer);
            Arc::new(Member::new(index, place.name.clone(), options, observer))
        };
        let mut members = places.iter().enumerate().map(new);
        let group = Arc::new(Self {
            first: members.next().ok_or_else(none)?,
            others: members.collect(),
            observer: Arc::clone(&observer),
        });
        let taken = Taken::default();
        let mut absent = Vec::new();
        for (member, place) in group.shared().zip(places) {
            match join(member, &place, &taken) {
                Ok(()) => {}
                Err(e) if may_come(&e) => absent.push((member, place, e)),
                Err(e) => {
                    group.close();
                    return Err(e);
                }
            }
        }
        if group.connectors().next().is_none() {
            return Err(absent.into_iter().next().map_or_else(none, |(_, _, e)| e));
        }
        for (member, place, e) in absent {
            error!(token = member.name(), error = %e, "this token of the group is not there; going on without it, and looking for it");
            look_for(member, place, &taken, &e)?;
        }
        Ok(group)
    }

    fn shared(&self) -> impl Iterator<Item = &Arc<Member>> {
        std::iter::once(&self.first).chain(&self.others)
    }

    pub(crate) fn members(&self) -> impl Iterator<Item = &Member> {
        self.shared().map(|m| &**m)
    }

    pub(crate) fn connectors(&self) -> impl Iterator<Item = &Arc<dyn Connector>> {
        self.members().filter_map(|m| m.watched.connector())
    }

    /// Ends the workers, then closes the sessions.
    pub(crate) fn close(&self) {
        for member in self.members() {
            member.workers.end();
        }
        for connector in self.connectors() {
            connector.close();
        }
    }

    /// Where keys are made and read back.
    pub(crate) fn primary(&self) -> &Member {
        &self.first
    }

    /// Ready when one serves; else what may change by itself comes first.
    pub(crate) fn state(&self) -> State {
        let states: Vec<State> = self.members().map(|m| m.watched.state()).collect();
        let best = State::ALL.into_iter().find(|s| states.contains(s));
        best.unwrap_or(State::Down)
    }

    pub(crate) fn status(&self) -> Vec<TokenStatus> {
        let one = |member: &Member| {
            let (missing, diverged) = member.lacking();
            TokenStatus {
                name: member.name().to_owned(),
                state: member.watched.state(),
                missing,
                diverged,
            }
        };
        self.members().map(one).collect()
    }

    /// Each item with its own outcome, in order.
    pub(crate) async fn batched<J, T>(
        &self,
        op: Op,
        jobs: Vec<J>,
        deadline: Instant,
        one: fn(&mut dyn Token, &J) -> Result<T>,
    ) -> Vec<Result<T>>
    where
        J: OnKeys + Clone + Send + Sync + 'static,
        T: Send + 'static,
    {
        let chunks = jobs.chunks(BATCH);
        let calls = chunks.map(|chunk| self.chunk(op, chunk.into(), deadline, one));
        // They are queued together, so that all workers share them.
        join_all(calls).await.into_iter().flatten().collect()
    }

    async fn chunk<J, T>(
        &self,
        op: Op,
        jobs: Arc<[J]>,
        deadline: Instant,
        one: fn(&mut dyn Token, &J) -> Result<T>,
    ) -> Vec<Result<T>>
    where
        J: OnKeys + Clone + Send + Sync + 'static,
        T: Send + 'static,
    {
        let first = self.choose(&jobs, None).unwrap_or(&self.first);
        let mut results = self.run(first, op, &jobs, deadline, one).await;
        let undone = |r: &Result<T>| r.as_ref().is_err_and(Error::is_of_this_token);
        let pairs = jobs.iter().zip(&results);
        let again: Arc<[J]> = pairs
            .filter(|(_, r)| undone(r))
            .map(|(job, _)| job.clone())
            .collect();
        if again.is_empty() || !op.repeatable() || Instant::now() >= deadline {
            return results;
        }
        let Some(second) = self.choose(&again, Some(first)) else {
            return results;
        };
        self.observer.moved(op);
        let moved = self.run(second, op, &again, deadline, one).await;
        for (result, moved) in results.iter_mut().filter(|r| undone(r)).zip(moved) {
            // That the other one lacks the key says less than why this one did not do it.
            if !moved.as_ref().is_err_and(|e| lacks(e.kind())) {
                *result = moved;
            }
        }
        results
    }

    /// On one token, which may hand the whole back.
    async fn run<J, T>(
        &self,
        member: &Member,
        op: Op,
        jobs: &Arc<[J]>,
        deadline: Instant,
        one: fn(&mut dyn Token, &J) -> Result<T>,
    ) -> Vec<Result<T>>
    where
        J: OnKeys + Clone + Send + Sync + 'static,
        T: Send + 'static,
    {
        let (batch, watched) = (Arc::clone(jobs), Arc::clone(&member.watched));
        let leave = || op.repeatable() && self.choose(jobs, Some(member)).is_some();
        let mut again = false;
        let run = move |token: &mut dyn Token| {
            let again = std::mem::replace(&mut again, true);
            let items = batch.iter().map(|job| {
                let result = one(token, job);
                // Each is a sign of life, however many there are.
                watched.load.moved();
                settle(result, again)
            });
            items.collect()
        };
        let results = match member.call(Lane::Work, op, deadline, leave, run).await {
            Ok(results) => results,
            Err(e) => jobs.iter().map(|_| Err(e.clone())).collect::<Vec<_>>(),
        };
        if self.others.is_empty() {
            return results;
        }
        for (job, result) in jobs.iter().zip(&results) {
            match result {
                Ok(_) => member.holds(job.keys().map(|k| k.object)),
                Err(e) => member.learn(e),
            }
        }
        results
    }

    /// The one with least to do of those that serve, that hold all keys if any does. With
    /// nothing to do anywhere it is the primary.
    fn choose(&self, jobs: &[impl OnKeys], except: Option<&Member>) -> Option<&Member> {
        if self.others.is_empty() {
            return None;
        }
        let not = |m: &&Member| except.is_none_or(|e| !std::ptr::eq(*m, e));
        let lacking = |m: &Member| {
            let mut keys = jobs.iter().flat_map(OnKeys::keys);
            keys.any(|key| m.lacks(key.object))
        };
        let serving = self.members().filter(not).filter(|m| m.serves());
        serving.min_by_key(|m| (lacking(m), m.watched.load.jobs()))
    }

    /// On every token that can be reached, side by side. One that is lost meanwhile does
    /// not count where another has answered. Nothing is put on a token that is no copy.
    pub(crate) async fn everywhere<T: Send + 'static>(
        &self,
        op: Op,
        deadline: Instant,
        run: impl Fn(&mut dyn Token) -> Result<T> + Clone + Send + 'static,
    ) -> Result<Vec<T>> {
        let ours = |m: &Member| op != Op::Put || m.watched.state() != State::Diverged;
        let reachable = self.members().filter(|m| m.is_reachable() && ours(m));
        let mut asked: Vec<&Member> = reachable.collect();
        if asked.is_empty() {
            asked.push(&self.first);
        }
        let calls = asked.iter().map(|m| m.admin(op, deadline, run.clone()));
        let (mut answers, mut lost) = (Vec::new(), None);
        for (member, answer) in asked.iter().zip(join_all(calls).await) {
            match answer {
                Ok(answer) => answers.push(answer),
                Err(e) if e.is_of_this_token() || e.kind() == Kind::Late => {
                    warn!(token = member.name(), op = op.name(), error = %e, "not on this token");
                    lost.get_or_insert(e);
                }
                Err(e) => return Err(e),
            }
        }
        match lost {
            Some(e) if answers.is_empty() => Err(e),
            _ => Ok(answers),
        }
    }

    /// The tokens that prove now that they hold the key.
    pub(crate) async fn holders(&self, key: &KeyRef, deadline: Instant) -> Vec<String> {
        let asked: Vec<&Member> = self.members().filter(|m| m.is_reachable()).collect();
        let calls = asked.iter().map(|m| {
            let key = key.clone();
            m.admin(Op::Check, deadline, move |token| token.check(Some(&key)))
        });
        let answers = join_all(calls).await;
        let holders = asked.iter().zip(answers).filter(|(_, a)| a.is_ok());
        holders.map(|(m, _)| m.name().to_owned()).collect()
    }

    /// Whatever is done on all tokens or on none can be begun.
    pub(crate) fn all_reachable(&self) -> Result<()> {
        match self.members().find(|m| !m.is_reachable()) {
            None => Ok(()),
            Some(away) => Err(Error::new(
                Kind::Gone,
                format!(
                    "the token {} cannot be reached and may hold the key; nothing was destroyed",
                    away.name()
                ),
            )),
        }
    }

    /// On every token, or on none as far as that can be known before. The primary is the
    /// last: who finds the key gone there may take it for gone.
    pub(crate) async fn destroy(
        &self,
        id: ObjectId,
        spec: KeySpec,
        deadline: Instant,
    ) -> Result<()> {
        self.all_reachable()?;
        let mut destroyed = false;
        let members = self.others.iter().rev().chain([&self.first]);
        for member in members {
            let run = move |token: &mut dyn Token| token.destroy(id, spec);
            match member.admin(Op::Destroy, deadline, run).await {
                Ok(()) => destroyed = true,
                Err(e) if e.kind() == Kind::NoSuchKey => {}
                Err(e) => return Err(e),
            }
        }
        if destroyed {
            Ok(())
        } else {
            let text = format!("no token shows the object {id}");
            Err(Error::new(Kind::NoSuchKey, text).of_key(id))
        }
    }
}

fn lacks(kind: Kind) -> bool {
    matches!(kind, Kind::NoSuchKey | Kind::OtherKey)
}

/// What concerns one item only stays in its place; what concerns the token ends the
/// job, so that it can be recovered and repeated. Another key than it should be may be a
/// broken session once; the second time it is another key, and the neighbours' are not.
fn settle<T>(result: Result<T>, again: bool) -> Result<Result<T>> {
    match result {
        Err(e) if again && e.kind() == Kind::OtherKey => Ok(Err(e)),
        Err(e) if e.remedy() != Remedy::None => Err(e),
        settled => Ok(settled),
    }
}

/// Somebody may plug it in, or correct its PIN; nothing else of it becomes better by
/// looking again.
fn may_come(e: &Error) -> bool {
    matches!(
        e.kind(),
        Kind::Gone | Kind::Stale | Kind::Busy | Kind::Blocked
    )
}

fn join(member: &Member, place: &Place, taken: &Taken) -> Result<()> {
    let opened = (place.open)()?;
    let evidence = opened.connector.evidence();
    let token = (evidence.token_manufacturer, evidence.token_serial);
    if taken.lock().insert(token.clone()) {
        return member.begin(opened).inspect_err(|_| {
            taken.lock().remove(&token);
        });
    }
    opened.connector.close();
    let (name, serial) = (&place.name, token.1);
    let text = format!("the token with serial {serial:?} is named twice, here as {name:?}");
    Err(Error::new(Kind::Setup, text))
}

/// Until it is there.
fn look_for(member: &Arc<Member>, place: Place, taken: &Taken, why: &Error) -> Result<()> {
    member.watched.not_found(why);
    let (of, taken) = (Arc::downgrade(member), Arc::clone(taken));
    let mut said = why.to_string();
    member.workers.keep_asking("hsm-look", move || {
        let Some(member) = Weak::upgrade(&of) else {
            return true;
        };
        match join(&member, &place, &taken) {
            Ok(()) => {
                info!(token = member.name(), "this token of the group is there now");
                true
            }
            Err(e) => {
                member.watched.not_found(&e);
                if said != e.to_string() {
                    said = e.to_string();
                    error!(token = member.name(), error = %e, "this token of the group is still not there");
                }
                !may_come(&e)
            }
        }
    })
}
