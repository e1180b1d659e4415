//! One answer for every cryptographic failure.

use super::*;

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
