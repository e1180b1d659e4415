//! Data keys: made, opened, moved, and refused.

use super::*;

async fn make(user: &Client, lengths: &[u32], form: DataKeyForm) -> GenerateDataKeysResponse {
    let request = GenerateDataKeysRequest {
        key: "k".into(),
        context: pairs(&[("app", "x")]),
        lengths: lengths.to_vec(),
        form: form.into(),
        ..Default::default()
    };
    user.crypto()
        .generate_data_keys(request)
        .await
        .unwrap()
        .into_inner()
}

fn open(wrapped: Vec<Bytes>, lengths: &[u32]) -> DecryptDataKeysRequest {
    DecryptDataKeysRequest {
        context: pairs(&[("app", "x")]),
        wrapped,
        lengths: lengths.to_vec(),
        ..Default::default()
    }
}

#[tokio::test]
async fn data_keys_come_back_also_after_rotation_and_rewrap() {
    let (it, user) = with_key(KeySpec::Aes256, KeyUse::Encrypt).await;
    let lengths = [16, 32, 64, 32];
    let made = make(&user, &lengths, DataKeyForm::Unspecified)
        .await
        .data_keys;
    for (key, length) in made.iter().zip(lengths) {
        assert_eq!(
            (key.plaintext.len(), key.wrapped.len()),
            (length as usize, 136)
        );
    }
    assert_ne!(made[1].plaintext, made[3].plaintext);
    let wrapped: Vec<Bytes> = made.iter().map(|k| k.wrapped.clone()).collect();
    let opened = user
        .crypto()
        .decrypt_data_keys(open(wrapped.clone(), &lengths))
        .await
        .unwrap()
        .into_inner();
    let plain: Vec<Bytes> = made.iter().map(|k| k.plaintext.clone()).collect();
    assert_eq!(opened.plaintexts, plain);
    // Only 32 is the default; another length is another key, not a part of it.
    let opened = user
        .crypto()
        .decrypt_data_keys(open(wrapped.clone(), &[]))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(opened.plaintexts[1], plain[1]);
    assert_ne!(opened.plaintexts[2].as_ref(), &plain[2][..32]);

    rotate(&it).await;
    let request = RewrapRequest {
        envelopes: wrapped.clone(),
        ..Default::default()
    };
    let jobs = it.client("red", "rewrap").await;
    let moved = jobs.crypto().rewrap(request).await.unwrap().into_inner();
    assert_eq!(moved.rewrapped, 4);
    for (old, new) in wrapped.iter().zip(&moved.envelopes) {
        assert_eq!(old[..68], new[..68]);
        assert_ne!(old[68..], new[68..]);
    }
    let opened = user
        .crypto()
        .decrypt_data_keys(open(moved.envelopes, &lengths))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(opened.plaintexts, plain);
}

#[tokio::test]
async fn each_form_gives_what_it_says() {
    let (_it, user) = with_key(KeySpec::Aes256, KeyUse::Encrypt).await;
    let wrapped = make(&user, &[32], DataKeyForm::Wrapped)
        .await
        .data_keys
        .remove(0);
    assert!(wrapped.plaintext.is_empty() && wrapped.wrapped.len() == 136);
    let plain = make(&user, &[32], DataKeyForm::Plaintext)
        .await
        .data_keys
        .remove(0);
    assert!(plain.plaintext.len() == 32 && plain.wrapped.is_empty());
}

#[tokio::test]
async fn what_is_no_data_key_of_this_context_is_refused() {
    let (_it, user) = with_key(KeySpec::Aes256, KeyUse::Encrypt).await;
    let wrapped = make(&user, &[32], DataKeyForm::Both)
        .await
        .data_keys
        .remove(0)
        .wrapped;
    let refused = async |request: DecryptDataKeysRequest| {
        reason(&user.crypto().decrypt_data_keys(request).await.unwrap_err())
    };
    let other_context = DecryptDataKeysRequest {
        context: pairs(&[("app", "y")]),
        ..open(vec![wrapped.clone()], &[])
    };
    assert_eq!(refused(other_context).await, "DECRYPTION_FAILED");
    for at in [20, 40, 70, 80, 135] {
        let mut changed = wrapped.to_vec();
        changed[at] ^= 1;
        let reason = refused(open(vec![changed.into()], &[])).await;
        assert!(
            ["DECRYPTION_FAILED", "ENVELOPE_MALFORMED"].contains(&reason.as_str()),
            "{at}"
        );
    }
    assert_eq!(
        refused(open(vec![wrapped.slice(..135)], &[])).await,
        "ENVELOPE_MALFORMED"
    );
    assert_eq!(
        refused(open(vec![wrapped.clone()], &[24])).await,
        "INVALID_ARGUMENT"
    );
    assert_eq!(
        refused(open(vec![wrapped.clone()], &[32, 32])).await,
        "INVALID_ARGUMENT"
    );
    // The header of items is no data key, and a data key no header of items.
    let sealed = user
        .crypto()
        .encrypt(encrypt("k", &[b"m"]))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        refused(open(vec![sealed.header], &[])).await,
        "ENVELOPE_MALFORMED"
    );
    let request = proto::DecryptRequest {
        header: wrapped,
        items: sealed.items,
        ..Default::default()
    };
    let e = user.crypto().decrypt(request).await.unwrap_err();
    assert_eq!(reason(&e), "ENVELOPE_MALFORMED");
    for lengths in [vec![], vec![33], vec![0]] {
        let request = GenerateDataKeysRequest {
            key: "k".into(),
            lengths,
            ..Default::default()
        };
        assert_eq!(
            user.crypto()
                .generate_data_keys(request)
                .await
                .unwrap_err()
                .code(),
            Code::InvalidArgument
        );
    }
}
