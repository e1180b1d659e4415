//! The same questions on a stream: a few batches of one kind, answered in order. Each is
//! held against the model like a call of its own.

use std::sync::atomic::Ordering::SeqCst;

use bytes::Bytes;
use keywright_client::{
    Client, Piece,
    proto::{self, DecryptStreamRequest, EncryptStreamRequest, SignStreamRequest},
};
use tonic::{Status, Streaming};

use crate::{
    common::as_status,
    history::{Ask, CLIENTS, Done, Kind, Sample, World},
    model::Pairs,
    wire::{open, wire},
};

/// The RPCs that are asked here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rpc {
    Encrypt,
    Decrypt,
    Sign,
}

/// The stream a question could be a batch of.
pub(crate) fn fits(ask: &Ask) -> Option<Rpc> {
    match ask {
        Ask::Protect(_, "encrypt", _) => Some(Rpc::Encrypt),
        Ask::Protect(_, "sign", _) => Some(Rpc::Sign),
        Ask::Open {
            action: "decrypt", ..
        } => Some(Rpc::Decrypt),
        _ => None,
    }
}

/// Asks all of them on one stream and writes the answers down.
pub(crate) async fn ask(
    world: &World,
    connection: &Client,
    client: usize,
    rpc: Rpc,
    batches: Vec<(usize, Ask)>,
) {
    let clock = world.now_ms();
    let began: Vec<(u64, i64)> = batches.iter().map(|_| (world.tick(), clock)).collect();
    world.streams.fetch_add(1, SeqCst);
    let (send, mut answers) = tokio::sync::mpsc::unbounded_channel();
    let asked = batches.clone();
    let run = async {
        match rpc {
            Rpc::Encrypt => encrypt(world, connection, client, &asked, send).await,
            Rpc::Decrypt => decrypt(world, connection, &asked, send).await,
            Rpc::Sign => sign(world, connection, client, &asked, send).await,
        }
    };
    let note = async {
        // Each as soon as it is there: the later, the more the model would have to allow.
        for ((key, ask), began) in batches.into_iter().zip(began) {
            let Some(out) = answers.recv().await else {
                return false;
            };
            world.answered(client, key, ask, began, out);
        }
        assert!(answers.recv().await.is_none(), "more answers than batches");
        true
    };
    let (ended, answered) = tokio::join!(run, note);
    ended.expect("a stream that ends well");
    assert!(answered, "a batch without an answer");
}

type Answers = tokio::sync::mpsc::UnboundedSender<Result<Done, Status>>;

fn reference(n: usize) -> Bytes {
    Bytes::from(n.to_string())
}

/// The model knows what is new by its plaintext.
fn fresh(world: &World, key: usize) -> Bytes {
    Bytes::from(format!("{} {}", world.key_name(key), world.tick()))
}

async fn encrypt(
    world: &World,
    connection: &Client,
    client: usize,
    asked: &[(usize, Ask)],
    send: Answers,
) -> Result<(), Status> {
    let mut plain = Vec::new();
    let mut pieces = Vec::new();
    for (n, (key, ask)) in asked.iter().enumerate() {
        let Ask::Protect(_, _, context) = ask else {
            unreachable!("only what fits");
        };
        let plaintext = fresh(world, *key);
        pieces.push(EncryptStreamRequest {
            reference: reference(n),
            batch: Some(proto::EncryptRequest {
                key: world.key_name(*key),
                context: wire(context),
                plaintexts: vec![plaintext.clone()],
                ..Default::default()
            }),
        });
        plain.push((*key, plaintext, context.clone()));
    }
    let pieces = tokio_stream::iter(pieces);
    let answers = EncryptStreamRequest::open(connection, pieces).await?;
    follow::<EncryptStreamRequest>(answers, &send, |n, mut made| {
        let (key, plaintext, context) = plain[n].clone();
        let item = made.items.remove(0);
        let sample = sample(client, key, Kind::Items, made.key_version, item);
        world.samples.lock().unwrap().push(Sample {
            header: made.header,
            plaintext,
            context,
            ..sample
        });
        Done::Version(made.key_version)
    })
    .await
}

/// Each answer as it comes, in the order of the batches.
async fn follow<P: Piece>(
    mut answers: Streaming<P::Reply>,
    send: &Answers,
    mut done: impl FnMut(usize, P::Answer) -> Done,
) -> Result<(), Status> {
    let mut n = 0;
    while let Some(answer) = answers.message().await? {
        let (of, result) = P::read(answer);
        assert_eq!(of, reference(n), "out of order");
        let result = result.expect("an answer or an error");
        let outcome = result.map(|answer| done(n, answer));
        send.send(outcome.map_err(|e| as_status(&e))).unwrap();
        n += 1;
    }
    Ok(())
}

async fn sign(
    world: &World,
    connection: &Client,
    client: usize,
    asked: &[(usize, Ask)],
    send: Answers,
) -> Result<(), Status> {
    let keys = asked.iter().map(|(key, _)| *key);
    let plain: Vec<(usize, Bytes)> = keys.map(|key| (key, fresh(world, key))).collect();
    let piece = |(n, (key, input)): (usize, &(usize, Bytes))| SignStreamRequest {
        reference: reference(n),
        batch: Some(proto::SignRequest {
            key: world.key_name(*key),
            inputs: vec![input.clone()],
            ..Default::default()
        }),
    };
    let pieces: Vec<_> = plain.iter().enumerate().map(piece).collect();
    let pieces = tokio_stream::iter(pieces);
    let answers = SignStreamRequest::open(connection, pieces).await?;
    follow::<SignStreamRequest>(answers, &send, |n, mut made| {
        let (key, plaintext) = plain[n].clone();
        let item = made.signatures.remove(0);
        let sample = sample(client, key, Kind::Signature, made.key_version, item);
        let sample = Sample {
            plaintext,
            ..sample
        };
        world.samples.lock().unwrap().push(sample);
        Done::Version(made.key_version)
    })
    .await
}

async fn decrypt(
    world: &World,
    connection: &Client,
    asked: &[(usize, Ask)],
    send: Answers,
) -> Result<(), Status> {
    let mut wanted = Vec::new();
    let mut pieces = Vec::new();
    for (n, (_, ask)) in asked.iter().enumerate() {
        let Ask::Open {
            from,
            context,
            spoiled,
            named_other,
            ..
        } = ask
        else {
            unreachable!("only what fits");
        };
        pieces.push(DecryptStreamRequest {
            reference: reference(n),
            batch: Some(open(world, from, context, *spoiled, *named_other)),
        });
        wanted.push(from.plaintext.clone());
    }
    let pieces = tokio_stream::iter(pieces);
    let answers = DecryptStreamRequest::open(connection, pieces).await?;
    follow::<DecryptStreamRequest>(answers, &send, |n, opened| Done::Opened {
        right: opened.plaintexts == [wanted[n].clone()],
        due: !opened.rewrap_due.is_empty(),
    })
    .await
}

fn sample(client: usize, key: usize, kind: Kind, version: u32, item: Bytes) -> Sample {
    Sample {
        tenant: CLIENTS[client].0,
        key,
        kind,
        version,
        header: Bytes::new(),
        item,
        plaintext: Bytes::new(),
        context: Pairs::new(),
    }
}
