//! Rewrap and re-encrypt.

use super::*;

#[tokio::test]
async fn rewrap_moves_the_tail_and_nothing_else() {
    let it = Appliance::start().await;
    it.create("red", KEY).await;
    let user = it.client("red", "user").await;
    let rewrapper = it.client("red", "rewrap").await;
    let request = EncryptRequest {
        context: pairs(&[("a", "b")]),
        aads: vec!["x".into(), "y".into()],
        ..encrypt(KEY, &[b"one", b"two"])
    };
    let detached = user
        .crypto()
        .encrypt(request.clone())
        .await
        .unwrap()
        .into_inner();
    let attached = EncryptRequest {
        form: Form::Attached.into(),
        ..request
    };
    let attached = user.crypto().encrypt(attached).await.unwrap().into_inner();
    let envelopes = vec![
        detached.header.clone(),
        attached.items[0].clone(),
        attached.items[1].clone(),
        detached.header.clone(),
    ];
    let rewrap = |envelopes: Vec<Bytes>| {
        let mut crypto = rewrapper.crypto();
        async move {
            crypto
                .rewrap(RewrapRequest {
                    envelopes,
                    ..Default::default()
                })
                .await
        }
    };
    // Before a rotation everything is current, and comes back as it went in.
    let same = rewrap(envelopes.clone()).await.unwrap().into_inner();
    assert_eq!((same.rewrapped, same.already_current), (0, 4));
    assert_eq!(same.envelopes, envelopes);

    it.rotate("red", KEY).await;
    let before = it.device.operations();
    let moved = rewrap(envelopes.clone()).await.unwrap().into_inner();
    assert_eq!((moved.rewrapped, moved.already_current), (4, 0));
    // Two distinct headers: unwrap, wrap, check each; the rest came for free.
    let checks = it.device.operations() - before;
    assert!(checks <= 6 + 2, "{checks} operations for two DEKs");
    for (old, new) in envelopes.iter().zip(&moved.envelopes) {
        assert_eq!(old[..68], new[..68], "fixed part");
        assert_eq!(old[136..], new[136..], "payload");
        assert_eq!(new[72..76], [0, 0, 0, 2], "version");
        assert_ne!(old[76..136], new[76..136], "wrap");
    }
    // Old and new open to the same.
    for header in [&detached.header, &moved.envelopes[0]] {
        let request = DecryptRequest {
            context: pairs(&[("a", "b")]),
            aads: vec!["x".into(), "y".into()],
            header: header.clone(),
            ..decrypt(&detached)
        };
        let opened = user.crypto().decrypt(request).await.unwrap().into_inner();
        assert_eq!(opened.plaintexts, [&b"one"[..], b"two"]);
    }
    // A rewrapper never decrypts.
    let e = rewrapper
        .crypto()
        .decrypt(decrypt(&detached))
        .await
        .unwrap_err();
    assert_eq!(e.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn rewrap_tells_good_from_bad_item_by_item() {
    let it = Appliance::start().await;
    it.create("red", KEY).await;
    it.create("blue", KEY).await;
    let sealed = it
        .client("red", "user")
        .await
        .crypto()
        .encrypt(encrypt(KEY, &[b"x"]))
        .await
        .unwrap()
        .into_inner();
    let blue = it
        .client("blue", "user")
        .await
        .crypto()
        .encrypt(encrypt(KEY, &[b"x"]))
        .await
        .unwrap()
        .into_inner();
    it.rotate("red", KEY).await;
    let mut forged = sealed.header.to_vec();
    forged[100] ^= 1;
    let mut cut = sealed.header.to_vec();
    cut.extend([0; 19]);
    let request = RewrapRequest {
        envelopes: vec![
            sealed.header.clone(),
            Bytes::from_static(b"junk"),
            forged.into(),
            blue.header,
            cut.into(),
            sealed.header.clone(),
        ],
        ..Default::default()
    };
    let out = it
        .client("red", "rewrap")
        .await
        .crypto()
        .rewrap(request)
        .await
        .unwrap()
        .into_inner();
    let bad: Vec<(u32, &str)> = out
        .errors
        .iter()
        .map(|e| (e.index, e.reason.as_str()))
        .collect();
    assert_eq!(
        bad,
        [
            (1, "ENVELOPE_MALFORMED"),
            (2, "DECRYPTION_FAILED"),
            (3, "KEY_NOT_FOUND"),
            (4, "ENVELOPE_MALFORMED")
        ]
    );
    assert_eq!(out.rewrapped, 2);
    assert_eq!(out.envelopes[0], out.envelopes[5]);
    assert!(out.envelopes[1].is_empty());
}

/// As a client writes them that seals for itself under one DEK: a salt of their own for
/// each, one tail for all.
#[tokio::test]
async fn headers_that_share_a_dek_are_rewrapped_together() {
    let it = Appliance::start().await;
    it.create("red", KEY).await;
    let user = it.client("red", "user").await;
    let sealed = user.crypto().encrypt(encrypt(KEY, &[b"x"])).await.unwrap();
    let EncryptResponse {
        header: first,
        items,
        ..
    } = sealed.into_inner();
    let envelopes: Vec<Bytes> = (0..200u8)
        .map(|n| {
            let mut header = first.to_vec();
            header[20] = n;
            header.into()
        })
        .collect();
    it.rotate("red", KEY).await;
    let rewrapper = it.client("red", "rewrap").await;
    let before = it.device.operations();
    let request = RewrapRequest {
        envelopes: envelopes.clone(),
        ..Default::default()
    };
    let moved = rewrapper.crypto().rewrap(request).await.unwrap();
    let moved = moved.into_inner();
    assert_eq!(moved.rewrapped, 200);
    let made = it.device.operations() - before;
    assert!(made <= 3 + 2, "{made} operations for one DEK");
    for (old, new) in envelopes.iter().zip(&moved.envelopes) {
        assert_eq!(old[..68], new[..68], "fixed part");
        assert_eq!(new[68..], moved.envelopes[0][68..], "one tail");
    }
    // The one that was really sealed still opens.
    let header = [&first[..68], &moved.envelopes[0][68..]].concat().into();
    let request = DecryptRequest {
        header,
        items,
        ..Default::default()
    };
    let opened = user.crypto().decrypt(request).await.unwrap().into_inner();
    assert_eq!(opened.plaintexts, ["x"]);
}

#[tokio::test]
async fn a_token_that_wraps_wrongly_is_caught_by_rewrap() {
    let it = Appliance::start().await;
    it.create("red", KEY).await;
    let sealed = it
        .client("red", "user")
        .await
        .crypto()
        .encrypt(encrypt(KEY, &[b"x"]))
        .await
        .unwrap()
        .into_inner();
    it.rotate("red", KEY).await;
    it.device.inject([Fault::FlipBit]);
    let request = RewrapRequest {
        envelopes: vec![sealed.header],
        ..Default::default()
    };
    let e = it
        .client("red", "rewrap")
        .await
        .crypto()
        .rewrap(request)
        .await
        .unwrap_err();
    assert_eq!(e.code(), Code::Internal);
    assert!(!e.message().contains("token"), "{}", e.message());
}

#[tokio::test]
async fn reencrypt_makes_a_new_envelope_also_under_another_key_and_context() {
    let it = Appliance::start().await;
    it.create("red", KEY).await;
    it.create("red", "archive").await;
    let user = it.client("red", "user").await;
    let request = EncryptRequest {
        context: pairs(&[("a", "b")]),
        aads: vec!["x".into(), "y".into()],
        ..encrypt(KEY, &[b"one", b"two"])
    };
    let sealed = user.crypto().encrypt(request).await.unwrap().into_inner();
    let mut broken = sealed.items[0].to_vec();
    broken[9] ^= 1;
    let request = ReencryptRequest {
        key: "archive".into(),
        context: pairs(&[("a", "b")]),
        header: sealed.header.clone(),
        items: vec![
            sealed.items[0].clone(),
            broken.into(),
            sealed.items[1].clone(),
        ],
        aads: vec!["x".into(), "x".into(), "y".into()],
        new_context: Some(NewContext {
            pairs: pairs(&[("year", "2026")]),
        }),
        ..Default::default()
    };
    let new = user.crypto().reencrypt(request).await.unwrap().into_inner();
    assert_eq!(new.errors.len(), 1);
    assert_eq!(
        (new.errors[0].index, new.errors[0].reason.as_str()),
        (1, "DECRYPTION_FAILED")
    );
    assert_ne!(
        new.header[4..68],
        sealed.header[4..68],
        "another key, salt and commitment"
    );
    let request = DecryptRequest {
        context: pairs(&[("year", "2026")]),
        header: new.header.clone(),
        items: vec![new.items[0].clone(), new.items[2].clone()],
        aads: vec!["x".into(), "y".into()],
        key: "archive".into(),
        ..Default::default()
    };
    let opened = user
        .crypto()
        .decrypt(request.clone())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(opened.plaintexts, [&b"one"[..], b"two"]);
    // The key that was named is the only one.
    let e = user
        .crypto()
        .decrypt(DecryptRequest {
            key: KEY.into(),
            ..request
        })
        .await
        .unwrap_err();
    assert!(e.message().contains("another key"), "{e:?}");
}
