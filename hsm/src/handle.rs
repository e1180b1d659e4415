//! [`Hsm`]: the async handle on the tokens that hold our keys. Which of them does a job is
//! for the `group` to say, how it gets there for the `member`.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::{
    Connector, DataObject, Dek, KeyEvidence, KeyRef, KeySpec, ModuleEvidence, NewKey, ObjectId,
    Observer, Op, Opened, Place, PublicKey, Result, State, Token, TokenObject, TokenStatus,
    Unverified, WrappedDek,
    error::{Error, Kind},
    group::Group,
    job::{Decrypt, Mac, Rewrap, Sign, Unwrap},
    key::os_random,
    member::Member,
};

/// How many workers, how long a queue, how often to look after the token.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Threads, and sessions, for wrap and unwrap. SoftHSM is slower with more than
    /// two; network HSMs want 8 to 64. A [`Place`] says it for itself.
    pub workers: usize,
    /// Jobs that may wait for a token; one more is refused.
    pub queue_jobs: usize,
    /// Pause between health checks of an idle token; keeps some HSM links alive.
    pub check_every: Duration,
}

/// A cloneable handle on one token, or on several that hold the same keys.
#[derive(Clone)]
pub struct Hsm {
    group: Arc<Group>,
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

impl Hsm {
    /// Starts the workers of one token.
    ///
    /// # Errors
    /// Whatever the first sessions answer, or [`Kind::Setup`] when no thread starts.
    pub fn start(
        connector: Arc<dyn Connector>,
        options: Options,
        observer: Arc<dyn Observer>,
    ) -> Result<Self> {
        let place = Place {
            name: connector.evidence().token_label,
            open: Box::new(move || {
                Ok(Opened {
                    connector: Arc::clone(&connector),
                    workers: options.workers,
                })
            }),
        };
        Self::start_group(vec![place], options, observer)
    }

    /// Starts on several tokens that hold the same keys; the first of them is the primary,
    /// on which keys are made. Those that are not there yet are looked for until they are.
    ///
    /// # Errors
    /// As for [`Hsm::start`]; none of them is there; two places are one token; anything
    /// else that keeps a token from being opened than that it is away or refuses the PIN.
    pub fn start_group(
        places: Vec<Place>,
        options: Options,
        observer: Arc<dyn Observer>,
    ) -> Result<Self> {
        let group = Group::start(places, options, observer)?;
        Ok(Self { group })
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
        let jobs = vec![(key.clone(), aad)];
        let minted = self.group.batched(Op::Mint, jobs, deadline, mint).await;
        only(minted)
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
        self.group.batched(Op::Mint, jobs, deadline, mint).await
    }

    /// Opens wrapped DEKs, each with its own outcome, in order.
    ///
    /// # Errors
    /// What went wrong for one DEK stands in its place.
    pub async fn unwrap(&self, jobs: Vec<Unwrap>, deadline: Instant) -> Vec<Result<Dek>> {
        self.group
            .batched(Op::Unwrap, jobs, deadline, |token, job| {
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
        self.group
            .batched(Op::Rewrap, jobs, deadline, |token, job| {
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
        self.group
            .batched(Op::Sign, jobs, deadline, |token, job| {
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
        self.group
            .batched(Op::Mac, jobs, deadline, |token, job| {
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
        self.group
            .batched(Op::Decrypt, jobs, deadline, |token, job| {
                token.decrypt(&job.key, job.how, &job.ciphertext)
            })
            .await
    }

    /// `len` random bytes: token generator XOR operating system generator.
    ///
    /// # Errors
    /// As for [`Token::random`], and [`Kind::Busy`] or [`Kind::Late`].
    pub async fn random(&self, len: usize, deadline: Instant) -> Result<Zeroizing<Vec<u8>>> {
        let run = |token: &mut dyn Token, len: &usize| {
            let mut out = Zeroizing::new(vec![0; *len]);
            mixed_random(token, &mut out)?;
            Ok(out)
        };
        only(
            self.group
                .batched(Op::Random, vec![len], deadline, run)
                .await,
        )
    }

    /// As [`Token::generate`], on the primary token; never tried twice.
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
        self.group
            .primary()
            .admin(Op::Generate, deadline, move |token| {
                token.generate(id, spec, &label)
            })
            .await
    }

    /// As [`Token::destroy`], on every token; never tried twice on one.
    ///
    /// # Errors
    /// As for [`Token::destroy`], and [`Kind::Busy`] or [`Kind::Late`]. [`Kind::Gone`] when
    /// one of the tokens cannot be reached: nothing is destroyed then. After any other
    /// error some tokens may still hold it.
    pub async fn destroy(&self, id: ObjectId, spec: KeySpec, deadline: Instant) -> Result<()> {
        self.group.destroy(id, spec, deadline).await
    }

    /// Could a key be destroyed now? It may be on any of the tokens.
    ///
    /// # Errors
    /// [`Kind::Gone`], with the token that cannot be reached.
    pub fn can_destroy(&self) -> Result<()> {
        self.group.all_reachable()
    }

    /// As [`Token::describe`], of the primary token.
    ///
    /// # Errors
    /// As for [`Token::describe`], and [`Kind::Busy`] or [`Kind::Late`].
    pub async fn describe(&self, key: &KeyRef, deadline: Instant) -> Result<KeyEvidence> {
        let key = key.clone();
        self.group
            .primary()
            .admin(Op::Describe, deadline, move |token| token.describe(&key))
            .await
    }

    /// Names of the tokens that prove now that they hold the key.
    pub async fn holders(&self, key: &KeyRef, deadline: Instant) -> Vec<String> {
        self.group.holders(key, deadline).await
    }

    /// As [`Token::objects`], of all tokens that can be reached; what several of them show
    /// is there once.
    ///
    /// # Errors
    /// As for [`Token::objects`], and [`Kind::Busy`] or [`Kind::Late`].
    pub async fn objects(&self, deadline: Instant) -> Result<Vec<TokenObject>> {
        let shown = self
            .group
            .everywhere(Op::List, deadline, |token| token.objects())
            .await?;
        let mut all: Vec<TokenObject> = Vec::new();
        let mut seen = HashSet::new();
        for object in shown.into_iter().flatten() {
            if object.id.is_none_or(|id| seen.insert(id)) {
                all.push(object);
            }
        }
        Ok(all)
    }

    /// As [`Token::data`], of all tokens that can be reached: each has what it was told.
    ///
    /// # Errors
    /// As for [`Token::data`], and [`Kind::Busy`] or [`Kind::Late`].
    pub async fn data(&self, deadline: Instant) -> Result<Vec<DataObject>> {
        let shown = self
            .group
            .everywhere(Op::List, deadline, |token| token.data())
            .await?;
        Ok(shown.into_iter().flatten().collect())
    }

    /// As [`Token::put_data`], on all tokens that can be reached; on how many. After
    /// [`Kind::Late`] nobody knows whether it was put.
    ///
    /// # Errors
    /// As for [`Token::put_data`], and [`Kind::Busy`] or [`Kind::Late`].
    pub async fn put_data(
        &self,
        label: String,
        value: Vec<u8>,
        deadline: Instant,
    ) -> Result<usize> {
        let put = move |token: &mut dyn Token| token.put_data(&label, &value);
        let done = self.group.everywhere(Op::Put, deadline, put).await?;
        Ok(done.len())
    }

    /// As [`Token::check`] on a worker's session, of one token.
    ///
    /// # Errors
    /// As for [`Token::check`], and [`Kind::Busy`] or [`Kind::Late`].
    pub async fn check(&self, key: Option<KeyRef>, deadline: Instant) -> Result<()> {
        let run = |token: &mut dyn Token, key: &Option<KeyRef>| token.check(key.as_ref());
        only(
            self.group
                .batched(Op::Check, vec![key], deadline, run)
                .await,
        )
    }

    /// The key the health check uses from now on, which the first token that is there was
    /// seen to hold ([`Hsm::check`]). The others serve when they are seen to.
    pub fn watch(&self, canary: KeyRef) {
        let mut seen = false;
        for member in self.group.members() {
            let first = !seen && member.is_reachable();
            seen |= first;
            member.watch(canary.clone(), first);
        }
    }

    /// The key that is watched: the appliance's own.
    #[must_use]
    pub fn watched(&self) -> Option<KeyRef> {
        self.group.members().find_map(|m| m.watched.canary())
    }

    /// Ready when one of the tokens serves, without asking them.
    #[must_use]
    pub fn state(&self) -> State {
        self.group.state()
    }

    /// How each token is, the primary first, without asking them.
    #[must_use]
    pub fn tokens(&self) -> Vec<TokenStatus> {
        self.group.status()
    }

    /// Do all of them serve?
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.group.members().all(Member::serves)
    }

    /// Jobs that wait for a worker now.
    #[must_use]
    pub fn queued_jobs(&self) -> usize {
        self.group.members().map(Member::queued).sum()
    }

    /// Module, token and attack results of this process: of the primary, or of the first
    /// token that was there.
    #[must_use]
    pub fn evidence(&self) -> ModuleEvidence {
        self.group
            .connectors()
            .next()
            .map(|c| c.evidence())
            .unwrap_or_default()
    }

    /// The PIN sources may hold other PINs now.
    ///
    /// # Errors
    /// As for [`Connector::new_pin`]; all tokens were tried.
    pub fn new_pin(&self) -> Result<()> {
        let tried: Vec<Result<()>> = self.group.connectors().map(|c| c.new_pin()).collect();
        tried.into_iter().collect()
    }

    /// Ends the workers, each after the job it is at, and closes the sessions. Jobs
    /// submitted later find the token gone.
    ///
    /// It blocks: a thread that ends while the process does races with the `atexit`
    /// handlers of the module and of its OpenSSL, which free the same memory.
    pub fn close(&self) {
        self.group.close();
    }
}

impl std::fmt::Debug for Hsm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hsm")
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

/// The answer of a batch of one.
fn only<T>(answers: Vec<Result<T>>) -> Result<T> {
    let none = || Err(Error::new(Kind::Fault, "no answer"));
    answers.into_iter().next().unwrap_or_else(none)
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

fn mint(token: &mut dyn Token, (key, aad): &(KeyRef, [u8; 56])) -> Result<(Dek, WrappedDek)> {
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "these are tests")]
mod tests {
    use aws_lc_rs::{
        digest::{SHA256, digest},
        encoding::AsDer,
        rand::SystemRandom,
        signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
    };

    use super::*;
    use crate::{Curve, KeyProof, Signing};

    /// A pair, and the job that signs `message` with it.
    fn pair(message: &[u8]) -> (EcdsaKeyPair, Sign) {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let spki = pair.public_key().as_der().unwrap();
        let spec = KeySpec::Ec(Curve::P256);
        let public = PublicKey::from_spki(spec, spki.as_ref()).unwrap();
        let job = Sign {
            key: KeyRef {
                object: ObjectId::random().unwrap(),
                spec,
                proof: KeyProof::Public(public),
            },
            how: Signing::Ecdsa,
            input: digest(&SHA256, message).as_ref().to_vec().into(),
        };
        (pair, job)
    }

    #[test]
    fn every_signature_is_checked_with_its_own_key() {
        let (a, by_a) = pair(b"x");
        let (b, by_b) = pair(b"x");
        let sign = |pair: &EcdsaKeyPair| {
            let signature = pair.sign(&SystemRandom::new(), b"x").unwrap();
            Unverified::new(signature.as_ref().to_vec())
        };
        for (pair, job) in [(&a, &by_a), (&b, &by_b)] {
            assert!(verified(job, sign(pair)).is_ok());
        }
        let e = verified(&by_b, sign(&a)).unwrap_err();
        assert_eq!(e.kind(), Kind::BadSignature);
    }
}
