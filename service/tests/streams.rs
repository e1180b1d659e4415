//! Streams of batches over TLS: order, references, errors that end nothing, readers that
//! stop, streams that break, checksums.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::too_many_lines,
    clippy::useless_vec,
    reason = "this is a test"
)]

mod common;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use common::{Appliance, encrypt, reason};
use keywright_client::proto::{
    self, DecryptStreamRequest, EncryptStreamRequest, decrypt_stream_response::Result as Opened,
    encrypt_stream_response::Result as Sealed,
};
use keywright_service::config::Limits;
use tokio_stream::{StreamExt, iter};
use tonic::Code;

fn piece(n: usize, batch: proto::EncryptRequest) -> EncryptStreamRequest {
    EncryptStreamRequest {
        reference: n.to_string().into(),
        batch: Some(batch),
    }
}

#[tokio::test]
async fn a_million_items_go_through_one_stream_in_order() {
    const BATCHES: usize = 250;
    const ITEMS: usize = 4000;
    let it = Appliance::start().await;
    it.create("red", "k").await;
    let user = it.client("red", "user").await;
    let plain = |n: usize| {
        let data: Vec<u8> = (0..ITEMS)
            .flat_map(|i| u32::try_from(n * ITEMS + i).unwrap().to_be_bytes())
            .collect();
        proto::Packed {
            data: data.into(),
            lengths: vec![4; ITEMS],
        }
    };
    let pieces = iter(0..BATCHES).map(move |n| {
        let batch = proto::EncryptRequest {
            key: "k".into(),
            packed_plaintexts: Some(plain(n)),
            ..Default::default()
        };
        piece(n, batch)
    });
    let sealed = user.crypto().encrypt_stream(pieces).await.unwrap();
    // What comes out of the one stream goes into the other.
    let to_open = sealed.into_inner().map(|answer| {
        let answer = answer.unwrap();
        let Some(Sealed::Batch(batch)) = answer.result else {
            panic!("{answer:?}");
        };
        DecryptStreamRequest {
            reference: answer.reference,
            batch: Some(proto::DecryptRequest {
                header: batch.header,
                packed_items: batch.packed_items,
                ..Default::default()
            }),
        }
    });
    let opened = user.crypto().decrypt_stream(to_open).await.unwrap();
    let mut opened = opened.into_inner();
    let mut seen = 0;
    while let Some(answer) = opened.message().await.unwrap() {
        let Some(Opened::Batch(batch)) = answer.result else {
            panic!("batch {seen} failed");
        };
        assert_eq!(answer.reference, Bytes::from(seen.to_string()));
        assert_eq!(batch.packed_plaintexts.unwrap().data, plain(seen).data);
        assert!(batch.errors.is_empty());
        seen += 1;
    }
    assert_eq!(seen, BATCHES);
    // The streams, and each batch on them, are on record.
    let records = it.records("EncryptStream");
    assert_eq!(records.len(), BATCHES + 1);
    let id = records[0]["request_id"].as_str().unwrap().to_owned();
    assert!(
        records
            .iter()
            .any(|r| r["request_id"] == format!("{id}.{BATCHES}"))
    );
}

#[tokio::test]
async fn a_batch_that_fails_ends_nothing() {
    let it = Appliance::start().await;
    it.create("red", "k").await;
    let user = it.client("red", "user").await;
    let huge = vec![0; (1 << 20) + 1];
    let mixed = proto::EncryptRequest {
        plaintexts: vec![Bytes::from("a"), Bytes::from(huge)],
        ..encrypt("k", &[])
    };
    let pieces = vec![
        piece(0, encrypt("k", &[b"x"])),
        piece(1, encrypt("no/such", &[b"x"])),
        piece(2, encrypt("k", &[])),
        EncryptStreamRequest::default(),
        EncryptStreamRequest {
            reference: vec![1; 257].into(),
            batch: Some(encrypt("k", &[b"x"])),
        },
        piece(5, mixed),
    ];
    let answers = user.crypto().encrypt_stream(iter(pieces)).await.unwrap();
    let answers: Vec<_> = answers.into_inner().map(Result::unwrap).collect().await;
    let reasons: Vec<String> = answers
        .iter()
        .map(|a| match a.result.as_ref().unwrap() {
            Sealed::Batch(batch) => format!("{} failed", batch.errors.len()),
            Sealed::Error(e) => e.reason.clone(),
        })
        .collect();
    assert_eq!(
        reasons,
        [
            "0 failed",
            "KEY_NOT_FOUND",
            "BATCH_EMPTY",
            "BATCH_EMPTY",
            "INVALID_ARGUMENT",
            "1 failed"
        ]
    );
    let references: Vec<&[u8]> = answers.iter().map(|a| &a.reference[..]).collect();
    assert_eq!(references, [&b"0"[..], b"1", b"2", b"", b"", b"5"]);
}

/// The server takes in no more than a window while nobody reads its answers.
#[tokio::test]
async fn a_reader_that_stops_stops_the_writer() {
    let it = Appliance::start().await;
    it.create("red", "k").await;
    let user = it.client("red", "user").await;
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let plain = Bytes::from(vec![7; 1 << 20]);
    let pieces = iter(0..200).map(move |n| {
        count.fetch_add(1, Ordering::SeqCst);
        let batch = proto::EncryptRequest {
            plaintexts: vec![plain.clone()],
            ..encrypt("k", &[])
        };
        piece(n, batch)
    });
    let answers = user.crypto().encrypt_stream(pieces).await.unwrap();
    let mut answers = answers.into_inner();
    answers.message().await.unwrap().unwrap();
    let mut last = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let now = sent.load(Ordering::SeqCst);
        if now == last {
            break;
        }
        last = now;
    }
    // Windows of 4 MiB on both sides, a few batches at work, and what TLS and the
    // sockets hold; far from all 200.
    assert!(
        last < 60,
        "{last} of 200 MiB were taken in without a reader"
    );
    // Others are served meanwhile.
    user.crypto().encrypt(encrypt("k", &[b"x"])).await.unwrap();
    // And who reads on gets everything.
    let mut rest = 1;
    while answers.message().await.unwrap().is_some() {
        rest += 1;
    }
    assert_eq!(rest, 200);
}

#[tokio::test]
async fn a_stream_that_breaks_leaves_nothing_behind() {
    let it = Appliance::start().await;
    it.create("red", "k").await;
    let user = it.client("red", "user").await;
    for _ in 0..20 {
        let pieces = iter(0..50).map(|n| piece(n, encrypt("k", &[b"x"])));
        let answers = user.crypto().encrypt_stream(pieces).await.unwrap();
        let mut answers = answers.into_inner();
        answers.message().await.unwrap().unwrap();
        drop(answers);
    }
    // No place in line is lost: as many requests as there are places still go through.
    user.crypto().encrypt(encrypt("k", &[b"x"])).await.unwrap();
    assert_eq!(it.app.hsm.queued_jobs(), 0);
    // Nobody in: the stream is refused like a call.
    let nobody = it.client("red", "nobody").await;
    let answers = nobody
        .crypto()
        .encrypt_stream(iter([piece(0, encrypt("k", &[b"x"]))]))
        .await
        .unwrap();
    let answer = answers.into_inner().message().await.unwrap().unwrap();
    let Some(Sealed::Error(e)) = answer.result else {
        panic!("{answer:?}");
    };
    assert_eq!(
        (e.code, e.reason.as_str()),
        (Code::NotFound.into(), "KEY_NOT_FOUND")
    );
    // Its id finds its record.
    let records = it.records("EncryptStream");
    let record = records.iter().find(|r| r["request_id"] == e.request_id);
    assert_eq!(record.unwrap()["outcome"], "KEY_NOT_FOUND");
}

#[tokio::test]
async fn a_policy_change_is_felt_in_the_middle_of_a_stream() {
    let it = Appliance::start().await;
    it.create("red", "k").await;
    let user = it.client("red", "user").await;
    let (send, receive) = tokio::sync::mpsc::channel(1);
    let pieces = tokio_stream::wrappers::ReceiverStream::new(receive);
    let mut answers = user
        .crypto()
        .encrypt_stream(pieces)
        .await
        .unwrap()
        .into_inner();
    send.send(piece(0, encrypt("k", &[b"x"]))).await.unwrap();
    let answer = answers.message().await.unwrap().unwrap();
    assert!(matches!(answer.result, Some(Sealed::Batch(_))));
    it.app.keyring.enforce(common::engine(
        "forbid (principal, action == Action::\"encrypt\", resource is Key);",
    ));
    send.send(piece(1, encrypt("k", &[b"x"]))).await.unwrap();
    let answer = answers.message().await.unwrap().unwrap();
    let Some(Sealed::Error(e)) = answer.result else {
        panic!("{answer:?}");
    };
    assert_eq!(e.reason, "PERMISSION_DENIED");
    drop(send);
    assert!(answers.message().await.unwrap().is_none());
}

fn crc(parts: &[&[u8]]) -> u32 {
    parts
        .iter()
        .fold(0, |sum, part| crc32c::crc32c_append(sum, part))
}

#[tokio::test]
async fn checksums_are_checked_when_given_and_answered() {
    let it = Appliance::start().await;
    it.create("red", "k").await;
    let user = it.client("red", "user").await;
    let request = proto::EncryptRequest {
        aads: vec![Bytes::from("1"), Bytes::from("2")],
        crc32c: Some(crc(&[b"ab", b"c", b"1", b"2"])),
        ..encrypt("k", &[b"ab", b"c"])
    };
    let sealed = user.crypto().encrypt(request.clone()).await.unwrap();
    let sealed = sealed.into_inner();
    let [one, two] = &sealed.items[..] else {
        panic!("two items");
    };
    assert_eq!(sealed.crc32c, Some(crc(&[&sealed.header, one, two])));
    let wrong = proto::EncryptRequest {
        crc32c: Some(1),
        ..request
    };
    let e = user.crypto().encrypt(wrong).await.unwrap_err();
    assert_eq!(reason(&e), "CHECKSUM_MISMATCH");
    let open = proto::DecryptRequest {
        header: sealed.header.clone(),
        items: sealed.items.clone(),
        aads: vec![Bytes::from("1"), Bytes::from("2")],
        crc32c: Some(crc(&[&sealed.header, one, two, b"1", b"2"])),
        ..Default::default()
    };
    let opened = user.crypto().decrypt(open.clone()).await.unwrap();
    assert_eq!(opened.into_inner().crc32c, Some(crc(&[b"ab", b"c"])));
    let unasked = proto::DecryptRequest {
        crc32c: None,
        ..open
    };
    let opened = user.crypto().decrypt(unasked).await.unwrap();
    assert_eq!(opened.into_inner().crc32c, None);
    let request = proto::GenerateDataKeysRequest {
        key: "k".into(),
        lengths: vec![16],
        want_crc32c: true,
        ..Default::default()
    };
    let keys = user.crypto().generate_data_keys(request).await.unwrap();
    let keys = keys.into_inner();
    let key = &keys.data_keys[0];
    assert_eq!(keys.crc32c, Some(crc(&[&key.plaintext, &key.wrapped])));
}

/// An old connection is asked to go, not cut: what is open on it goes on to its end.
#[tokio::test]
async fn a_stream_outlives_the_age_of_its_connection() {
    let limits = Limits {
        connection_age_ms: 1000,
        request_ms: 100,
        ..Limits::default()
    };
    let it = Appliance::with(limits).await;
    it.create("red", "k").await;
    let user = it.client("red", "user").await;
    let pieces = iter(0..30).throttle(Duration::from_millis(100)).map(|n| {
        let batch = proto::EncryptRequest {
            key: "k".into(),
            plaintexts: vec![Bytes::from_static(b"x")],
            ..Default::default()
        };
        piece(n, batch)
    });
    let sealed = user.crypto().encrypt_stream(pieces).await.unwrap();
    let answers: Vec<_> = sealed.into_inner().collect().await;
    assert_eq!(answers.len(), 30);
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
}
