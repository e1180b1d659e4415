//! `keywright.v1.Crypto` over TLS on the fake token: round trips in every layout, one bad
//! item among good ones, limits, rewrap, re-encrypt, random.
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

use bytes::Bytes;
use common::{Appliance, encrypt, pairs, reason};
use keywright_client::proto::{
    DecryptRequest, EncryptRequest, EncryptResponse, Form, GenerateRandomRequest, NewContext,
    Packed, ReencryptRequest, RewrapRequest,
};
use keywright_hsm::fake::Fault;
use keywright_service::config::Limits;
use tonic::Code;

const KEY: &str = "payments/cards";

fn packed(items: &[&[u8]]) -> Option<Packed> {
    let lengths = items
        .iter()
        .map(|i| u32::try_from(i.len()).unwrap())
        .collect();
    Some(Packed {
        data: items.concat().into(),
        lengths,
    })
}

fn unpack(packed: &Packed) -> Vec<Bytes> {
    let mut at = 0;
    packed
        .lengths
        .iter()
        .map(|n| {
            let item = packed.data.slice(at..at + *n as usize);
            at += *n as usize;
            item
        })
        .collect()
}

fn items(response: &EncryptResponse) -> Vec<Bytes> {
    response
        .packed_items
        .as_ref()
        .map_or_else(|| response.items.clone(), unpack)
}

/// A detached response as a request to open it.
fn decrypt(sealed: &EncryptResponse) -> DecryptRequest {
    DecryptRequest {
        header: sealed.header.clone(),
        items: items(sealed),
        ..Default::default()
    }
}

#[tokio::test]
async fn every_layout_comes_back_in_order() {
    let it = Appliance::start().await;
    it.create("red", KEY).await;
    let crypto = it.client("red", "user").await.crypto();
    let plain: [&[u8]; 4] = [b"one", b"", b"a longer third item", &[0; 1000]];
    let aads: [&[u8]; 4] = [b"row 1", b"", b"row 3", b"row 4"];
    for form in [Form::Detached, Form::Attached] {
        for is_packed in [false, true] {
            let separate = |x: &[&[u8]]| x.iter().map(|b| Bytes::copy_from_slice(b)).collect();
            let mut request = EncryptRequest {
                key: KEY.into(),
                context: pairs(&[("table", "cards")]),
                form: form.into(),
                ..Default::default()
            };
            if is_packed {
                request.packed_plaintexts = packed(&plain);
                request.packed_aads = packed(&aads);
            } else {
                request.plaintexts = separate(&plain);
                request.aads = separate(&aads);
            }
            let sealed = crypto.clone().encrypt(request).await.unwrap().into_inner();
            let overhead = if form == Form::Detached { 20 } else { 156 };
            assert_eq!(
                sealed.header.len(),
                if form == Form::Detached { 136 } else { 0 }
            );
            assert_eq!(sealed.packed_items.is_some(), is_packed);
            for (i, item) in items(&sealed).iter().enumerate() {
                assert_eq!(item.len(), plain[i].len() + overhead);
            }
            let request = DecryptRequest {
                context: pairs(&[("table", "cards")]),
                form: form.into(),
                header: sealed.header.clone(),
                items: if is_packed { vec![] } else { sealed.items },
                packed_items: sealed.packed_items,
                aads: if is_packed { vec![] } else { separate(&aads) },
                packed_aads: if is_packed { packed(&aads) } else { None },
                ..Default::default()
            };
            let opened = crypto.clone().decrypt(request).await.unwrap().into_inner();
            assert!(opened.errors.is_empty());
            let out = opened
                .packed_plaintexts
                .as_ref()
                .map_or(opened.plaintexts.clone(), unpack);
            assert_eq!(
                out,
                plain.map(Bytes::copy_from_slice),
                "{form:?}, packed {is_packed}"
            );
        }
    }
}

#[tokio::test]
async fn one_bad_item_does_not_spoil_its_neighbours() {
    let limits = Limits {
        item_bytes: 10,
        ..Limits::default()
    };
    let it = Appliance::with(limits).await;
    it.create("red", KEY).await;
    let crypto = it.client("red", "user").await.crypto();
    let request = encrypt(
        KEY,
        &[b"good", b"eleven byte", b"ten bytes!", b"twelve bytes"],
    );
    let sealed = crypto.clone().encrypt(request).await.unwrap().into_inner();
    let bad: Vec<(u32, &str)> = sealed
        .errors
        .iter()
        .map(|e| (e.index, e.reason.as_str()))
        .collect();
    assert_eq!(bad, [(1, "ITEM_TOO_LARGE"), (3, "ITEM_TOO_LARGE")]);
    assert!(sealed.errors[0].message.contains("11 bytes; at most 10"));
    // The index in an item is its place in the request.
    assert_eq!(sealed.items[2][..4], [0, 0, 0, 2]);

    let mut request = decrypt(&sealed);
    let mut changed = sealed.items[2].to_vec();
    changed[7] ^= 1;
    request.items = vec![
        sealed.items[0].clone(),
        changed.into(),
        Bytes::from_static(b"short"),
        sealed.items[2].clone(),
    ];
    let opened = crypto.clone().decrypt(request).await.unwrap().into_inner();
    let bad: Vec<(u32, &str)> = opened
        .errors
        .iter()
        .map(|e| (e.index, e.reason.as_str()))
        .collect();
    assert_eq!(bad, [(1, "DECRYPTION_FAILED"), (2, "DECRYPTION_FAILED")]);
    assert_eq!(opened.errors[0].message, opened.errors[1].message);
    assert_eq!(opened.plaintexts, [&b"good"[..], b"", b"", b"ten bytes!"]);
    // An audit record tells how many.
    let record = it.records("Decrypt").pop().unwrap();
    assert_eq!(
        (&record["items_ok"], &record["items_failed"]),
        (&2.into(), &2.into())
    );
}

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
    assert!(
        e.message().contains("limit is: 16777216"),
        "{}",
        e.message()
    );
    let record = it.records("Encrypt").pop().unwrap();
    assert_eq!(record["outcome"], "OUT_OF_RANGE");
    assert_eq!(record["caller"], "spiffe://red.example/user");
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

/// Whatever is wrong, the answer is the same, byte for byte.
#[tokio::test]
async fn every_cryptographic_failure_looks_the_same() {
    let it = Appliance::start().await;
    it.create("red", KEY).await;
    it.create("red", "other").await;
    let crypto = it.client("red", "user").await.crypto();
    let request = EncryptRequest {
        context: pairs(&[("a", "b")]),
        aads: vec!["aad".into()],
        ..encrypt(KEY, &[b"secret"])
    };
    let sealed = crypto
        .clone()
        .encrypt(request.clone())
        .await
        .unwrap()
        .into_inner();
    let second = crypto
        .clone()
        .encrypt(request.clone())
        .await
        .unwrap()
        .into_inner();
    let foreign = EncryptRequest {
        key: "other".into(),
        ..request
    };
    let foreign = crypto.clone().encrypt(foreign).await.unwrap().into_inner();
    let good = DecryptRequest {
        context: pairs(&[("a", "b")]),
        aads: vec!["aad".into()],
        ..decrypt(&sealed)
    };
    assert!(crypto.clone().decrypt(good.clone()).await.is_ok());

    let splice = |from: &[u8], at: std::ops::Range<usize>| {
        let mut header = sealed.header.to_vec();
        header[at.clone()].copy_from_slice(&from[at]);
        DecryptRequest {
            header: header.into(),
            ..good.clone()
        }
    };
    let mut causes = vec![
        DecryptRequest {
            context: pairs(&[]),
            ..good.clone()
        },
        DecryptRequest {
            context: pairs(&[("a", "c")]),
            ..good.clone()
        },
        DecryptRequest {
            aads: vec![],
            ..good.clone()
        },
        DecryptRequest {
            aads: vec!["aax".into()],
            ..good.clone()
        },
        DecryptRequest {
            items: second.items.clone(),
            ..good.clone()
        },
        DecryptRequest {
            header: second.header.clone(),
            ..good.clone()
        },
        splice(&second.header, 20..36),
        splice(&second.header, 36..68),
        splice(&second.header, 68..136),
        splice(&foreign.header, 4..20),
        splice(&foreign.header, 68..136),
        DecryptRequest {
            items: vec![Bytes::new()],
            ..good.clone()
        },
    ];
    // Every byte that is not constant, key id or version.
    for at in (20..68).chain(76..136) {
        let mut header = sealed.header.to_vec();
        header[at] ^= 1;
        causes.push(DecryptRequest {
            header: header.into(),
            ..good.clone()
        });
    }
    for at in 0..sealed.items[0].len() {
        let mut item = sealed.items[0].to_vec();
        item[at] ^= 1;
        causes.push(DecryptRequest {
            items: vec![item.into()],
            ..good.clone()
        });
    }
    for (i, request) in causes.into_iter().enumerate() {
        let e = crypto.clone().decrypt(request).await.unwrap_err();
        assert_eq!(e.code(), Code::InvalidArgument, "cause {i}: {e:?}");
        assert_eq!(reason(&e), "DECRYPTION_FAILED", "cause {i}");
        assert_eq!(
            e.message(),
            "decryption failed: key, context, AAD and ciphertext do not belong together",
            "cause {i}"
        );
    }
}

#[tokio::test]
async fn any_changed_header_byte_is_refused() {
    let it = Appliance::start().await;
    it.create("red", KEY).await;
    let crypto = it.client("red", "user").await.crypto();
    let sealed = crypto
        .clone()
        .encrypt(encrypt(KEY, &[b"secret"]))
        .await
        .unwrap()
        .into_inner();
    for at in 0..136 {
        for bit in [0x01, 0x80] {
            let mut header = sealed.header.to_vec();
            header[at] ^= bit;
            let request = DecryptRequest {
                header: header.into(),
                ..decrypt(&sealed)
            };
            let e = crypto.clone().decrypt(request).await.unwrap_err();
            let version_zero = (at, bit) == (75, 0x01);
            let expected = match at {
                0..4 | 68..72 => "ENVELOPE_MALFORMED",
                _ if version_zero => "ENVELOPE_MALFORMED",
                4..20 => "KEY_NOT_FOUND",
                72..76 => "KEY_VERSION_NOT_FOUND",
                _ => "DECRYPTION_FAILED",
            };
            assert_eq!(reason(&e), expected, "byte {at}");
        }
    }
}

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

#[tokio::test]
async fn random_bytes_have_the_sizes_asked_for() {
    let it = Appliance::start().await;
    let crypto = it.client("red", "user").await.crypto();
    let call = |lengths: Vec<u32>| {
        let mut crypto = crypto.clone();
        async move {
            crypto
                .generate_random(GenerateRandomRequest { lengths })
                .await
        }
    };
    let values = call(vec![1, 32, 65_536]).await.unwrap().into_inner().values;
    assert_eq!(
        values.iter().map(Bytes::len).collect::<Vec<_>>(),
        [1, 32, 65_536]
    );
    assert_ne!(
        call(vec![32]).await.unwrap().into_inner().values[0],
        values[1]
    );
    for (lengths, expected) in [
        (vec![], "BATCH_EMPTY"),
        (vec![0], "ITEM_TOO_LARGE"),
        (vec![65_537], "ITEM_TOO_LARGE"),
        (vec![65_536; 17], "BATCH_TOO_LARGE"),
    ] {
        assert_eq!(reason(&call(lengths).await.unwrap_err()), expected);
    }
}

#[tokio::test]
async fn a_lost_hsm_is_unavailable_and_nothing_is_lost() {
    let it = Appliance::start().await;
    it.create("red", KEY).await;
    let crypto = it.client("red", "user").await.crypto();
    let sealed = crypto
        .clone()
        .encrypt(encrypt(KEY, &[b"x"]))
        .await
        .unwrap()
        .into_inner();
    it.device.inject([Fault::Unplugged]);
    let e = loop {
        // The health check may have met the fault first.
        match crypto.clone().decrypt(decrypt(&sealed)).await {
            Ok(_) => continue,
            Err(e) => break e,
        }
    };
    assert_eq!(
        (e.code(), reason(&e).as_str()),
        (Code::Unavailable, "HSM_UNAVAILABLE")
    );
    use tonic_types::StatusExt;
    assert!(e.get_error_details().retry_info().is_some());
    it.device.plug_in();
    crypto.clone().decrypt(decrypt(&sealed)).await.unwrap();
}

#[tokio::test]
async fn wraps_are_counted_durably_and_over_restarts() {
    let it = Appliance::start().await;
    it.create("red", KEY).await;
    let reserved = |it: &Appliance| {
        let store = std::sync::Arc::clone(&it.app.store);
        async move {
            let keys = store.load().await.unwrap().keys;
            keys[0].version(1).unwrap().wraps.reserved()
        }
    };
    assert_eq!(reserved(&it).await, 0);
    let user = it.client("red", "user").await;
    for _ in 0..3 {
        user.crypto().encrypt(encrypt(KEY, &[b"x"])).await.unwrap();
    }
    drop(user);
    assert_eq!(reserved(&it).await, 65_536, "one block for many wraps");
    let it = it.restart().await;
    let user = it.client("red", "user").await;
    user.crypto().encrypt(encrypt(KEY, &[b"x"])).await.unwrap();
    assert_eq!(
        reserved(&it).await,
        2 * 65_536,
        "the rest of the old block is not used"
    );
}

#[tokio::test]
async fn a_worn_out_version_refuses_and_rotation_helps() {
    let it = Appliance::start().await;
    it.create("red", KEY).await;
    let key = it.app.store.load().await.unwrap().keys.remove(0);
    let end = (1u64 << 32) - (1 << 16);
    let number = key.primary;
    it.app
        .store
        .reserve_wraps(key.id, number, end, end)
        .await
        .unwrap()
        .unwrap();
    let user = it.client("red", "user").await;
    let e = user
        .crypto()
        .encrypt(encrypt(KEY, &[b"x"]))
        .await
        .unwrap_err();
    assert_eq!(
        (e.code(), reason(&e).as_str()),
        (Code::FailedPrecondition, "KEY_WORN_OUT")
    );
    assert!(e.message().contains("rotate"), "{}", e.message());
    it.rotate("red", KEY).await;
    user.crypto().encrypt(encrypt(KEY, &[b"x"])).await.unwrap();
}
