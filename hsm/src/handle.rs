//! [`Hsm`]: the async handle on a token. A bounded queue, worker threads that own
//! one session each, a deadline on every call, one retry of what is safe to repeat.
//!
//! PKCS#11 calls block, cannot be cancelled and belong to one session, so a thread
//! is a session and async code only ever waits on a channel. When the queue is full
//! the caller hears so at once; nothing piles up behind a slow token.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crossbeam_channel::{Sender, TrySendError, bounded};
use futures_util::future::join_all;
use subtle::ConstantTimeEq;
use tokio::sync::oneshot;
use tracing::{Span, debug_span, warn};
use zeroize::Zeroizing;

use crate::{
    Connector, DataObject, Dek, KeyEvidence, KeyRef, KeySpec, Lane, ModuleEvidence, NewKey,
    ObjectId, Observer, Op, PublicKey, Result, State, Times, Token, TokenObject, Unverified,
    WrappedDek,
    error::{Error, Kind, Remedy},
    job::{Decrypt, Mac, Rewrap, Sign, Unwrap},
    key::os_random,
    workers::{Job, Watched, Workers},
};

/// How many workers, how long a queue, how often to look after the token.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Threads, and sessions, for wrap and unwrap. SoftHSM is slower with more than
    /// two; network HSMs want 8 to 64.
    pub workers: usize,
    /// Jobs that may wait; one more is refused.
    pub queue_jobs: usize,
    /// Pause between health checks of an idle token; keeps some HSM links alive.
    pub check_every: Duration,
}

/// A cloneable handle on one token.
#[derive(Clone)]
pub struct Hsm {
    inner: Arc<Inner>,
}

struct Inner {
    work_tx: Sender<Job>,
    admin_tx: Sender<Job>,
    workers: Workers,
    watched: Arc<Watched>,
}

fn public(job: &Sign) -> Result<&PublicKey> {
    job.key
        .public()
        .ok_or_else(|| Error::new(Kind::Unsupported, "this key makes no signatures"))
}

/// The signature, when the public key says so.
fn verified(job: &Sign, signature: Unverified) -> Result<Vec<u8>> {
    let key = public(job)?;
    signature.checked(|bytes| match key.verify(job.how, &job.input, bytes) {
        Ok(()) => Ok(bytes.to_vec()),
        Err(_) => Err(Error::new(
            Kind::BadSignature,
            "the token made a signature that does not verify",
        )),
    })
}

/// DEKs per job: enough to pay for the queue, few enough to share the workers.
const BATCH: usize = 32;

impl Hsm {
    /// Starts the workers.
    ///
    /// # Errors
    /// Whatever the first sessions answer, or [`Kind::Setup`] when no thread starts.
    pub fn start(
        connector: Arc<dyn Connector>,
        options: Options,
        observer: Arc<dyn Observer>,
    ) -> Result<Self> {
        let (work_tx, work_rx) = bounded(options.queue_jobs.max(1));
        let (admin_tx, admin_rx) = bounded(options.queue_jobs.max(1));
        let watched = Arc::new(Watched::new(connector, observer));
        let mut workers = Workers::default();
        for n in 0..options.workers.max(1) {
            let token = watched.connector.connect(Lane::Work)?;
            workers.work(&format!("hsm-{n}"), token, work_rx.clone())?;
        }
        let token = watched.connector.connect(Lane::Admin)?;
        workers.administer(token, admin_rx, options.check_every, Arc::clone(&watched))?;
        let inner = Arc::new(Inner {
            work_tx,
            admin_tx,
            workers,
            watched,
        });
        Ok(Self { inner })
    }

    /// Makes a fresh DEK (token generator XOR operating system generator) and wraps it.
    ///
    /// # Errors
    /// As for [`Token::wrap`], and [`Kind::Busy`] or [`Kind::Late`].
    pub async fn mint(
        &self,
        key: &KeyRef,
        aad: [u8; 56],
        deadline: Instant,
    ) -> Result<(Dek, WrappedDek)> {
        let key = key.clone();
        self.call(Lane::Work, Op::Mint, deadline, move |token| {
            mint(token, &key, &aad)
        })
        .await
    }

    /// As [`Hsm::mint`], `count` times.
    ///
    /// # Errors
    /// What went wrong for one DEK stands in its place.
    pub async fn mint_many(
        &self,
        key: &KeyRef,
        aad: [u8; 56],
        count: usize,
        deadline: Instant,
    ) -> Vec<Result<(Dek, WrappedDek)>> {
        let jobs = vec![(key.clone(), aad); count];
        self.batched(Op::Mint, jobs, deadline, |token, (key, aad)| {
            mint(token, key, aad)
        })
        .await
    }

    /// Opens wrapped DEKs, each with its own outcome, in order.
    ///
    /// # Errors
    /// What went wrong for one DEK stands in its place.
    pub async fn unwrap(&self, jobs: Vec<Unwrap>, deadline: Instant) -> Vec<Result<Dek>> {
        self.batched(Op::Unwrap, jobs, deadline, |token, job| {
            token.unwrap(&job.key, &job.aad, &job.wrapped)
        })
        .await
    }

    /// Moves wrapped DEKs to another key version, each with its own outcome, in
    /// order. Every new wrap is opened and compared before it is given out.
    ///
    /// # Errors
    /// What went wrong for one DEK stands in its place.
    pub async fn rewrap(&self, jobs: Vec<Rewrap>, deadline: Instant) -> Vec<Result<WrappedDek>> {
        self.batched(Op::Rewrap, jobs, deadline, |token, job| {
            let dek = token.unwrap(&job.from.key, &job.from.aad, &job.from.wrapped)?;
            let wrapped = token.wrap(&job.to, &job.to_aad, &dek)?;
            if !job.verify {
                return Ok(wrapped);
            }
            let again = token
                .unwrap(&job.to, &job.to_aad, &wrapped)
                .map_err(own_fault)?;
            if bool::from(dek.expose().ct_eq(again.expose())) {
                Ok(wrapped)
            } else {
                Err(Error::new(
                    Kind::Fault,
                    "the token wrapped a DEK and opened it to another value",
                ))
            }
        })
        .await
    }

    /// Signs digests (messages for Ed25519), each with its own outcome, in order. Every
    /// signature is verified with the public key before it is given out: a fault while
    /// signing can give the private key away (Boneh, DeMillo, Lipton 1997).
    ///
    /// # Errors
    /// What went wrong for one input stands in its place.
    pub async fn sign(&self, jobs: Vec<Sign>, deadline: Instant) -> Vec<Result<Vec<u8>>> {
        let asked = jobs.clone();
        let made = self.sign_unverified(jobs, deadline).await;
        let count = made.len();
        // Not by the worker: the token would stand still meanwhile.
        let verified = tokio::task::spawn_blocking(move || {
            let pairs = made.into_iter().zip(&asked);
            pairs
                .map(|(signature, job)| verified(job, signature?))
                .collect()
        });
        verified.await.unwrap_or_else(|e| {
            let lost = Error::new(Kind::Fault, format!("verifying signatures: {e}"));
            vec![Err(lost); count]
        })
    }

    /// The same for who verifies by itself, over the bytes that it will give out.
    ///
    /// # Errors
    /// What went wrong for one input stands in its place.
    pub async fn sign_unverified(
        &self,
        jobs: Vec<Sign>,
        deadline: Instant,
    ) -> Vec<Result<Unverified>> {
        self.batched(Op::Sign, jobs, deadline, |token, job| {
            // One that nobody could verify is not made.
            public(job)?;
            let signature = token.sign(&job.key, job.how, &job.input)?;
            Ok(Unverified::new(signature))
        })
        .await
    }

    /// MACs of messages, each with its own outcome, in order.
    ///
    /// # Errors
    /// What went wrong for one message stands in its place.
    pub async fn mac(&self, jobs: Vec<Mac>, deadline: Instant) -> Vec<Result<Vec<u8>>> {
        self.batched(Op::Mac, jobs, deadline, |token, job| {
            token.mac(&job.key, &job.message)
        })
        .await
    }

    /// Opens RSA-OAEP ciphertexts, each with its own outcome, in order.
    ///
    /// # Errors
    /// What went wrong for one ciphertext stands in its place.
    pub async fn decrypt(
        &self,
        jobs: Vec<Decrypt>,
        deadline: Instant,
    ) -> Vec<Result<Zeroizing<Vec<u8>>>> {
        self.batched(Op::Decrypt, jobs, deadline, |token, job| {
            token.decrypt(&job.key, job.how, &job.ciphertext)
        })
        .await
    }

    /// `len` random bytes: token generator XOR operating system generator.
    ///
    /// # Errors
    /// As for [`Token::random`], and [`Kind::Busy`] or [`Kind::Late`].
    pub async fn random(&self, len: usize, deadline: Instant) -> Result<Zeroizing<Vec<u8>>> {
        self.call(Lane::Work, Op::Random, deadline, move |token| {
            let mut out = Zeroizing::new(vec![0; len]);
            mixed_random(token, &mut out)?;
            Ok(out)
        })
        .await
    }

    /// As [`Token::generate`]; never tried twice.
    ///
    /// # Errors
    /// As for [`Token::generate`], and [`Kind::Busy`] or [`Kind::Late`].
    pub async fn generate(
        &self,
        id: ObjectId,
        spec: KeySpec,
        label: String,
        deadline: Instant,
    ) -> Result<NewKey> {
        self.call(Lane::Admin, Op::Generate, deadline, move |token| {
            token.generate(id, spec, &label)
        })
        .await
    }

    /// As [`Token::destroy`]; never tried twice.
    ///
    /// # Errors
    /// As for [`Token::destroy`], and [`Kind::Busy`] or [`Kind::Late`].
    pub async fn destroy(&self, id: ObjectId, spec: KeySpec, deadline: Instant) -> Result<()> {
        self.call(Lane::Admin, Op::Destroy, deadline, move |token| {
            token.destroy(id, spec)
        })
        .await
    }

    /// As [`Token::describe`].
    ///
    /// # Errors
    /// As for [`Token::describe`], and [`Kind::Busy`] or [`Kind::Late`].
    pub async fn describe(&self, key: &KeyRef, deadline: Instant) -> Result<KeyEvidence> {
        let key = key.clone();
        self.call(Lane::Admin, Op::Describe, deadline, move |token| {
            token.describe(&key)
        })
        .await
    }

    /// As [`Token::objects`].
    ///
    /// # Errors
    /// As for [`Token::objects`], and [`Kind::Busy`] or [`Kind::Late`].
    pub async fn objects(&self, deadline: Instant) -> Result<Vec<TokenObject>> {
        self.call(Lane::Admin, Op::List, deadline, |token| token.objects())
            .await
    }

    /// As [`Token::data`].
    ///
    /// # Errors
    /// As for [`Token::data`], and [`Kind::Busy`] or [`Kind::Late`].
    pub async fn data(&self, deadline: Instant) -> Result<Vec<DataObject>> {
        self.call(Lane::Admin, Op::List, deadline, |token| token.data())
            .await
    }

    /// As [`Token::put_data`]. After [`Kind::Late`] nobody knows whether it was put.
    ///
    /// # Errors
    /// As for [`Token::put_data`], and [`Kind::Busy`] or [`Kind::Late`].
    pub async fn put_data(&self, label: String, value: Vec<u8>, deadline: Instant) -> Result<()> {
        self.call(Lane::Admin, Op::Put, deadline, move |token| {
            token.put_data(&label, &value)
        })
        .await
    }

    /// As [`Token::check`] on a worker's session.
    ///
    /// # Errors
    /// As for [`Token::check`], and [`Kind::Busy`] or [`Kind::Late`].
    pub async fn check(&self, key: Option<KeyRef>, deadline: Instant) -> Result<()> {
        self.call(Lane::Work, Op::Check, deadline, move |token| {
            token.check(key.as_ref())
        })
        .await
    }

    /// The key the health check uses from now on.
    pub fn watch(&self, canary: KeyRef) {
        self.inner.watched.watch(canary);
    }

    /// The key that is watched: the appliance's own.
    #[must_use]
    pub fn watched(&self) -> Option<KeyRef> {
        self.inner.watched.canary()
    }

    /// How the token is, without asking it.
    #[must_use]
    pub fn state(&self) -> State {
        self.inner.watched.connector.state()
    }

    /// Jobs that wait for a worker now.
    #[must_use]
    pub fn queued_jobs(&self) -> usize {
        self.inner.work_tx.len() + self.inner.admin_tx.len()
    }

    /// Module, token and attack results of this process.
    #[must_use]
    pub fn evidence(&self) -> ModuleEvidence {
        self.inner.watched.connector.evidence()
    }

    /// The PIN source may hold another PIN now.
    ///
    /// # Errors
    /// As for [`Connector::new_pin`].
    pub fn new_pin(&self) -> Result<()> {
        self.inner.watched.connector.new_pin()
    }

    /// Ends the workers, each after the job it is at, and closes the sessions. Jobs
    /// submitted later find the token gone.
    ///
    /// It blocks: a thread that ends while the process does races with the `atexit`
    /// handlers of the module and of its OpenSSL, which free the same memory.
    pub fn close(&self) {
        self.inner.workers.end();
        self.inner.watched.connector.close();
    }

    async fn call<T: Send + 'static>(
        &self,
        lane: Lane,
        op: Op,
        deadline: Instant,
        mut run: impl FnMut(&mut dyn Token) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        let observer = Arc::clone(&self.inner.watched.observer);
        let submitted = Instant::now();
        // What is logged by the worker belongs to the request; `waiting` ends when the
        // job starts.
        let (request, waiting) = (Span::current(), debug_span!("hsm queue", op = op.name()));
        let job: Job = Box::new(move |token| {
            let started = Instant::now();
            let queued = started.duration_since(submitted);
            drop(waiting);
            // Nobody waits any more: do not spend the token on it.
            if reply.is_closed() || started >= deadline {
                observer.done(op, queued, Duration::ZERO, Some(Kind::Late));
                let _ = reply.send((Err(late()), started, started));
                return;
            }
            let result = request.in_scope(|| {
                let _job = debug_span!("hsm job", op = op.name()).entered();
                attempt(token, op, deadline, &mut run, observer.as_ref())
            });
            drop(request);
            let ended = Instant::now();
            let failed = result.as_ref().err().map(Error::kind);
            observer.done(op, queued, ended.duration_since(started), failed);
            let _ = reply.send((result, started, ended));
        });
        let queue = match lane {
            Lane::Work => &self.inner.work_tx,
            Lane::Admin => &self.inner.admin_tx,
        };
        queue.try_send(job).map_err(|e| match e {
            TrySendError::Full(_) => {
                self.inner.watched.observer.rejected(op);
                Error::new(Kind::Busy, "the queue in front of the HSM is full")
            }
            TrySendError::Disconnected(_) => Error::new(Kind::Gone, "the HSM workers are stopped"),
        })?;
        let (result, started, ended) = match tokio::time::timeout_at(deadline.into(), answer).await
        {
            Ok(Ok(answer)) => answer,
            // Nobody knows how far it came: the token is what did not answer.
            Ok(Err(_)) => {
                let lost = Error::new(Kind::Fault, "the HSM worker dropped the job");
                (Err(lost), submitted, Instant::now())
            }
            Err(_) => (Err(late()), submitted, Instant::now()),
        };
        self.inner.watched.observer.answered(Times {
            submitted,
            started,
            ended,
        });
        result
    }

    async fn batched<J, T>(
        &self,
        op: Op,
        jobs: Vec<J>,
        deadline: Instant,
        one: fn(&mut dyn Token, &J) -> Result<T>,
    ) -> Vec<Result<T>>
    where
        J: Clone + Send + Sync + 'static,
        T: Send + 'static,
    {
        let calls = jobs.chunks(BATCH).map(|chunk| {
            let chunk = chunk.to_vec();
            let len = chunk.len();
            let call = self.call(Lane::Work, op, deadline, move |token| {
                chunk.iter().map(|job| settle(one(token, job))).collect()
            });
            async move {
                match call.await {
                    Ok(results) => results,
                    Err(e) => (0..len).map(|_| Err(e.clone())).collect::<Vec<_>>(),
                }
            }
        });
        // The chunks are queued together, so that all workers share them.
        join_all(calls).await.into_iter().flatten().collect()
    }
}

impl std::fmt::Debug for Hsm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hsm")
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

/// What concerns one DEK only stays in its place; what concerns the token ends the
/// job, so that it can be recovered and repeated.
fn settle<T>(result: Result<T>) -> Result<Result<T>> {
    match result {
        Err(e) if e.remedy() != Remedy::None => Err(e),
        settled => Ok(settled),
    }
}

/// A token that cannot open what it just made is at fault, not the caller.
fn own_fault(e: Error) -> Error {
    if e.kind() == Kind::Refused {
        Error::new(
            Kind::Fault,
            "the token cannot open a DEK it has just wrapped",
        )
    } else {
        e
    }
}

fn late() -> Error {
    Error::new(Kind::Late, "the deadline passed before the HSM answered")
}

fn mint(token: &mut dyn Token, key: &KeyRef, aad: &[u8; 56]) -> Result<(Dek, WrappedDek)> {
    let mut bytes = [0; Dek::LEN];
    mixed_random(token, &mut bytes)?;
    let dek = Dek::take(&mut bytes);
    let wrapped = token.wrap(key, aad, &dek)?;
    Ok((dek, wrapped))
}

fn mixed_random(token: &mut dyn Token, out: &mut [u8]) -> Result<()> {
    token.random(out)?;
    let mut local = Zeroizing::new(vec![0; out.len()]);
    os_random(&mut local)?;
    for (a, b) in out.iter_mut().zip(local.iter()) {
        *a ^= b;
    }
    Ok(())
}

fn attempt<T>(
    token: &mut dyn Token,
    op: Op,
    deadline: Instant,
    run: &mut impl FnMut(&mut dyn Token) -> Result<T>,
    observer: &dyn Observer,
) -> Result<T> {
    let lost = match run(token) {
        Err(e) if e.remedy() != Remedy::None => e,
        settled => return settled,
    };
    warn!(op = op.name(), error = %lost, "the token was lost under an operation");
    token.recover(&lost)?;
    if !op.repeatable() || Instant::now() >= deadline {
        return Err(lost);
    }
    observer.retried(op);
    run(token)
}
