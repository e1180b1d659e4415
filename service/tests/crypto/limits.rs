//! Limits and contradictions.

use super::*;

#[tokio::test]
async fn limits_hold_at_the_limit_and_one_past_it() {
    let it = Appliance::start().await;
    it.create("red", KEY).await;
    let crypto = it.client("red", "user").await.crypto();
    let call = |request: EncryptRequest| {
        let mut crypto = crypto.clone();
        async move {
            crypto
                .encrypt(request)
                .await
                .map(tonic::Response::into_inner)
        }
    };
    let many = |n: usize| encrypt(KEY, &vec![&b"x"[..]; n]);
    let none = call(many(0)).await.unwrap_err();
    assert_eq!(
        (none.code(), reason(&none).as_str()),
        (Code::InvalidArgument, "BATCH_EMPTY")
    );
    assert_eq!(call(many(4096)).await.unwrap().items.len(), 4096);
    let over = call(many(4097)).await.unwrap_err();
    assert_eq!(reason(&over), "BATCH_TOO_LARGE");
    assert!(
        over.message().contains("4097 items; at most 4096"),
        "{}",
        over.message()
    );

    let large = vec![7; (1 << 20) + 1];
    assert!(
        call(encrypt(KEY, &[&large[1..]]))
            .await
            .unwrap()
            .errors
            .is_empty()
    );
    let over = call(encrypt(KEY, &[&large])).await.unwrap_err();
    assert_eq!(reason(&over), "ITEM_TOO_LARGE");

    // What can be encrypted in one call can be decrypted in one, attached too.
    let eight = EncryptRequest {
        form: Form::Attached.into(),
        ..encrypt(KEY, &vec![&large[1..]; 8])
    };
    let sealed = call(eight).await.unwrap();
    let request = DecryptRequest {
        form: Form::Attached.into(),
        items: sealed.items,
        ..Default::default()
    };
    assert!(
        crypto
            .clone()
            .decrypt(request)
            .await
            .unwrap()
            .into_inner()
            .errors
            .is_empty()
    );
    let over = call(encrypt(KEY, &vec![&large[1..]; 9])).await.unwrap_err();
    assert_eq!(reason(&over), "BATCH_TOO_LARGE");

    let aad = |n: usize| EncryptRequest {
        aads: vec![vec![0; n].into()],
        ..encrypt(KEY, &[b"x"])
    };
    assert!(call(aad(8192)).await.unwrap().errors.is_empty());
    assert_eq!(
        reason(&call(aad(8193)).await.unwrap_err()),
        "ITEM_TOO_LARGE"
    );

    let context = |n: usize| EncryptRequest {
        context: (0..n).map(|i| (format!("k{i}"), String::new())).collect(),
        ..encrypt(KEY, &[b"x"])
    };
    assert!(call(context(64)).await.is_ok());
    assert_eq!(
        reason(&call(context(65)).await.unwrap_err()),
        "INVALID_ARGUMENT"
    );
}

#[tokio::test]
async fn a_message_over_the_limit_is_refused_and_recorded() {
    let it = Appliance::start().await;
    it.create("red", KEY).await;
    let crypto = it.client("red", "user").await.crypto();
    let huge = vec![0; 17 << 20];
    let e = crypto
        .clone()
        .encrypt(encrypt(KEY, &[&huge]))
        .await
        .unwrap_err();
    assert_eq!(e.code(), Code::OutOfRange, "{e:?}");
    let named = |e: &tonic::Status| {
        let text = e.message();
        assert_eq!(reason(e), "MESSAGE_TOO_LARGE", "{e:?}");
        assert!(
            text.contains("16777216") && text.contains("limits.message_bytes"),
            "{text}"
        );
    };
    named(&e);
    let record = it.records("Encrypt").pop().unwrap();
    assert_eq!(record["outcome"], "OUT_OF_RANGE");
    assert_eq!(record["caller"], "spiffe://red.example/user");
    // The same ends a stream, after the answer to what came before.
    let piece = |plaintext: &[u8]| keywright_client::proto::EncryptStreamRequest {
        reference: "r".into(),
        batch: Some(encrypt(KEY, &[plaintext])),
    };
    let pieces = tokio_stream::iter([piece(b"x"), piece(&huge)]);
    let mut answers = crypto.clone().encrypt_stream(pieces).await.unwrap();
    answers.get_mut().message().await.unwrap().unwrap();
    let e = answers.get_mut().message().await.unwrap_err();
    assert_eq!(e.code(), Code::OutOfRange, "{e:?}");
    named(&e);
    let records = it.records("EncryptStream");
    assert!(records.iter().any(|r| r["outcome"] == "MESSAGE_TOO_LARGE"));
}

#[tokio::test]
async fn contradictory_requests_are_refused_with_the_field() {
    use tonic_types::StatusExt;
    let it = Appliance::start().await;
    it.create("red", KEY).await;
    let crypto = it.client("red", "user").await.crypto();
    let sealed = crypto
        .clone()
        .encrypt(encrypt(KEY, &[b"a", b"b"]))
        .await
        .unwrap()
        .into_inner();
    let good = || encrypt(KEY, &[b"a", b"b"]);
    let bad_encrypts = [
        (
            "plaintexts",
            EncryptRequest {
                packed_plaintexts: packed(&[b"a"]),
                ..good()
            },
        ),
        (
            "plaintexts",
            EncryptRequest {
                plaintexts: vec![],
                packed_plaintexts: Some(Packed {
                    data: "abc".into(),
                    lengths: vec![1],
                }),
                ..good()
            },
        ),
        (
            "aads",
            EncryptRequest {
                aads: vec!["x".into()],
                ..good()
            },
        ),
        (
            "aads",
            EncryptRequest {
                aads: vec!["x".into(); 2],
                packed_aads: packed(&[b"a", b"b"]),
                ..good()
            },
        ),
        ("form", EncryptRequest { form: 9, ..good() }),
        (
            "key",
            EncryptRequest {
                key: "Cards".into(),
                ..good()
            },
        ),
        (
            "key",
            EncryptRequest {
                key: String::new(),
                ..good()
            },
        ),
    ];
    for (field, request) in bad_encrypts {
        let e = crypto.clone().encrypt(request).await.unwrap_err();
        assert_eq!(e.code(), Code::InvalidArgument);
        let details = e.get_error_details();
        assert_eq!(
            details.bad_request().unwrap().field_violations[0].field,
            field,
            "{e:?}"
        );
        assert!(
            details
                .error_info()
                .unwrap()
                .metadata
                .contains_key("request_id")
        );
    }
    let bad_decrypts = [
        (
            "header",
            DecryptRequest {
                header: sealed.header.slice(1..),
                ..decrypt(&sealed)
            },
        ),
        (
            "header",
            DecryptRequest {
                header: Bytes::new(),
                ..decrypt(&sealed)
            },
        ),
        (
            "header",
            DecryptRequest {
                form: Form::Attached.into(),
                ..decrypt(&sealed)
            },
        ),
        (
            "items",
            DecryptRequest {
                items: vec![],
                ..decrypt(&sealed)
            },
        ),
        (
            "key",
            DecryptRequest {
                key: "*".into(),
                ..decrypt(&sealed)
            },
        ),
    ];
    for (field, request) in bad_decrypts {
        let e = crypto.clone().decrypt(request).await.unwrap_err();
        let details = e.get_error_details();
        assert_eq!(
            details.bad_request().unwrap().field_violations[0].field,
            field,
            "{e:?}"
        );
    }
}
