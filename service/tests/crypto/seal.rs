//! Encrypt and decrypt: layouts, neighbours, one answer for every failure.

use super::*;

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
