//! Random bytes, counted wraps, and a token that goes away.

use super::*;

#[tokio::test]
async fn random_bytes_have_the_sizes_asked_for() {
    let it = Appliance::start().await;
    let crypto = it.client("red", "user").await.crypto();
    let call = |lengths: Vec<u32>| {
        let mut crypto = crypto.clone();
        async move {
            crypto
                .generate_random(GenerateRandomRequest {
                    lengths,
                    ..Default::default()
                })
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
