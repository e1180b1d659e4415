//! The account of every request: complete, without secrets, and without it no answer.
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

use std::fs;

use common::{Appliance, encrypt, pairs, reason};
use keywright_client::{audit, proto};
use keywright_service::config::Limits;
use tonic::Code;

#[tokio::test]
async fn a_record_says_who_did_what_with_which_key() {
    let it = Appliance::start().await;
    let key = it.create("red", "a/b").await;
    let user = it.client("red", "user").await;
    let request = proto::EncryptRequest {
        context: pairs(&[("k", "v")]),
        ..encrypt("a/b", &[b"one", b"two"])
    };
    let mut request = tonic::Request::new(request);
    request
        .metadata_mut()
        .insert("x-request-id", "order-4711".parse().unwrap());
    let response = user.crypto().encrypt(request).await.unwrap();
    assert_eq!(
        response.metadata().get("x-request-id").unwrap(),
        "order-4711"
    );
    let sealed = response.into_inner();

    let record = it.records("Encrypt").pop().unwrap();
    assert_eq!(record["request_id"], "order-4711");
    assert_eq!(record["caller"], "spiffe://red.example/user");
    assert_eq!(record["tenant"], "red");
    assert_eq!(record["peer"], "127.0.0.1");
    assert_eq!(record["certificate"].as_str().unwrap().len(), 64);
    assert_eq!(record["keys"][0]["name"], "a/b");
    assert_eq!(record["keys"][0]["id"], hex::encode(&key.id));
    assert_eq!(record["keys"][0]["version"], 1);
    assert_eq!(record["decision"], "allow");
    assert_eq!(record["policies"][0], "key-user");
    assert_eq!(record["outcome"], "OK");
    assert_eq!(
        (&record["items_ok"], &record["bytes"]),
        (&2.into(), &6.into())
    );
    assert_eq!(record["context_pairs"], 1);
    // The record finds the envelope, and the envelope the record.
    assert_eq!(record["envelope"], hex::encode(&sealed.header[20..36]));
}

#[tokio::test]
async fn denied_failed_and_misshapen_requests_are_recorded_too() {
    let it = Appliance::start().await;
    it.create("red", "k").await;
    let before = it.audit().len();
    let admin = it.client("red", "admin").await;
    admin
        .crypto()
        .encrypt(encrypt("k", &[b"x"]))
        .await
        .unwrap_err();
    admin
        .crypto()
        .encrypt(encrypt("none", &[b"x"]))
        .await
        .unwrap_err();
    admin.crypto().encrypt(encrypt("k", &[])).await.unwrap_err();
    let records = it.audit().split_off(before);
    let outcomes: Vec<&str> = records
        .iter()
        .map(|r| r["outcome"].as_str().unwrap())
        .collect();
    assert_eq!(
        outcomes,
        ["PERMISSION_DENIED", "KEY_NOT_FOUND", "BATCH_EMPTY"]
    );
    assert_eq!(records[0]["decision"], "deny");
    assert_eq!(records[0]["policies"][0], "keywright:key-admin-uses-no-key");
    assert_eq!(records[0]["keys"][0]["name"], "k");
}

#[tokio::test]
async fn no_record_no_answer() {
    let limits = Limits {
        audit_segment_bytes: 4096,
        audit_ms: 2000,
        ..Limits::default()
    };
    let it = Appliance::with(limits).await;
    it.create("red", "k").await;
    let user = it.client("red", "user").await;
    let folder = it.dir.path().join("audit");
    // The next segment cannot be made: as with a full disk, nothing can be written.
    fs::rename(&folder, it.dir.path().join("away")).unwrap();
    let mut refused = 0;
    for _ in 0..40 {
        match user.crypto().encrypt(encrypt("k", &[b"x"])).await {
            Ok(_) => assert_eq!(refused, 0, "answered again without a record"),
            Err(e) => {
                assert_eq!(
                    (e.code(), reason(&e).as_str()),
                    (Code::Unavailable, "AUDIT_UNAVAILABLE")
                );
                refused += 1;
            }
        }
    }
    assert!(refused > 10, "{refused}");
    assert!(!it.app.audit.healthy());
    // Denials and strangers get no answer of their own either.
    let e = it
        .client("red", "nobody")
        .await
        .crypto()
        .encrypt(encrypt("k", &[b"x"]))
        .await
        .unwrap_err();
    assert_eq!(reason(&e), "AUDIT_UNAVAILABLE");
    fs::rename(it.dir.path().join("away"), &folder).unwrap();
    user.crypto().encrypt(encrypt("k", &[b"x"])).await.unwrap();
    let report = audit::verify(it.dir.path(), None).unwrap();
    assert!(report.segments >= 2);
}

#[tokio::test]
async fn the_chain_is_the_one_an_independent_reader_computes() {
    let it = Appliance::with(Limits {
        audit_segment_bytes: 4096,
        ..Limits::default()
    })
    .await;
    it.create("red", "k").await;
    let user = it.client("red", "user").await;
    for _ in 0..50 {
        user.crypto().encrypt(encrypt("k", &[b"x"])).await.unwrap();
    }
    let head = it.app.audit.head();
    drop(user);
    let report = audit::verify(it.dir.path(), None).unwrap();
    assert_eq!(
        (report.records, report.head),
        (head.seq, hex::encode(head.hash))
    );
    assert!(report.segments > 3);
    let it = it.restart().await;
    it.create("red", "k2").await;
    assert!(audit::verify(it.dir.path(), None).unwrap().records > head.seq);
}

/// Canaries as plaintext, AAD, context value and PIN-like text: none of them is found in
/// anything the daemon writes.
#[tokio::test]
async fn nothing_secret_is_written_down() {
    const CANARIES: [&str; 3] = [
        "PLAINTEXT-canary-7c1f",
        "AAD-canary-91ab",
        "CONTEXT-canary-03de",
    ];
    let it = Appliance::start().await;
    it.create("red", "k").await;
    let user = it.client("red", "user").await;
    let request = proto::EncryptRequest {
        context: pairs(&[("c", CANARIES[2])]),
        aads: vec![CANARIES[1].into()],
        ..encrypt("k", &[CANARIES[0].as_bytes()])
    };
    let sealed = user
        .crypto()
        .encrypt(request.clone())
        .await
        .unwrap()
        .into_inner();
    let decrypt = proto::DecryptRequest {
        context: request.context.clone(),
        aads: request.aads.clone(),
        header: sealed.header.clone(),
        items: sealed.items,
        ..Default::default()
    };
    user.crypto().decrypt(decrypt.clone()).await.unwrap();
    let e = user
        .crypto()
        .decrypt(proto::DecryptRequest {
            aads: vec![],
            ..decrypt
        })
        .await
        .unwrap_err();
    let mut texts = vec![format!("{e:?}")];
    let mut folders = vec![it.dir.path().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                texts.push(String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned());
            }
        }
    }
    assert!(
        texts.iter().any(|t| t.contains("\"Decrypt\"")),
        "the scan sees the audit log"
    );
    for canary in CANARIES {
        assert!(
            !texts.iter().any(|t| t.contains(canary)),
            "{canary} was written"
        );
    }
}
