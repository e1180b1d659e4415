//! MACs, checked with another library; OAEP ciphertexts made with one.

use aws_lc_rs::rsa::{
    OAEP_SHA1_MGF1SHA1, OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, PublicEncryptingKey,
};

use super::*;

async fn mac(user: &Client, inputs: &[&[u8]]) -> MacResponse {
    let request = MacRequest {
        key: "k".into(),
        inputs: bytes(inputs),
        ..Default::default()
    };
    user.crypto().mac(request).await.unwrap().into_inner()
}

async fn check(
    user: &Client,
    inputs: &[&[u8]],
    macs: Vec<Bytes>,
    key_version: u32,
) -> Vec<Verdict> {
    let request = VerifyMacRequest {
        key: "k".into(),
        inputs: bytes(inputs),
        macs,
        key_version,
        ..Default::default()
    };
    user.crypto()
        .verify_mac(request)
        .await
        .unwrap()
        .into_inner()
        .verdicts
}

#[tokio::test]
async fn macs_are_those_of_the_key_and_of_nothing_else() {
    for (spec, len) in [
        (KeySpec::HmacSha256, 32),
        (KeySpec::HmacSha384, 48),
        (KeySpec::HmacSha512, 64),
    ] {
        let (it, user) = with_key(spec, KeyUse::Unspecified).await;
        let inputs: [&[u8]; 3] = [b"", b"m", &[1; 5000]];
        let made = mac(&user, &inputs).await;
        assert!(made.macs.iter().all(|m| m.len() == len), "{spec:?}");
        let good = check(&user, &inputs, made.macs.clone(), 0).await;
        assert!(good.iter().all(|v| v.valid && v.key_version == 1));
        let mut wrong = made.macs.clone();
        wrong.rotate_left(1);
        assert!(
            check(&user, &inputs, wrong, 0)
                .await
                .iter()
                .all(|v| !v.valid)
        );
        let short: Vec<Bytes> = made.macs.iter().map(|m| m.slice(..len - 1)).collect();
        assert!(
            check(&user, &inputs, short, 0)
                .await
                .iter()
                .all(|v| !v.valid)
        );
        rotate(&it).await;
        let old = check(&user, &inputs, made.macs.clone(), 0).await;
        assert!(old.iter().all(|v| v.valid && v.key_version == 1));
        assert!(
            check(&user, &inputs, made.macs.clone(), 2)
                .await
                .iter()
                .all(|v| !v.valid)
        );
        assert_ne!(mac(&user, &inputs).await.macs, made.macs);
    }
    // The wrong number of MACs.
    let (_it, user) = with_key(KeySpec::HmacSha256, KeyUse::Mac).await;
    let request = VerifyMacRequest {
        key: "k".into(),
        inputs: bytes(&[b"m"]),
        ..Default::default()
    };
    let e = user.crypto().verify_mac(request).await.unwrap_err();
    assert!(
        e.message().contains("0 macs for 1 inputs"),
        "{}",
        e.message()
    );
}

#[tokio::test]
async fn what_was_encrypted_to_the_public_key_comes_back() {
    let (it, user) = with_key(KeySpec::Rsa2048, KeyUse::Decrypt).await;
    let old = public(&user, 0).await;
    assert!(old.jwk.contains("\"use\":\"enc\""), "{}", old.jwk);
    let key = PublicEncryptingKey::from_der(&old.der).unwrap();
    let key = OaepPublicEncryptingKey::new(key).unwrap();
    let seal = |algorithm, plaintext: &[u8]| {
        let mut out = vec![0; 256];
        let n = key
            .encrypt(algorithm, plaintext, &mut out, None)
            .unwrap()
            .len();
        Bytes::copy_from_slice(&out[..n])
    };
    let open = async |hash: OaepHash, ciphertexts: Vec<Bytes>, key_version: u32| {
        let request = AsymmetricDecryptRequest {
            key: "k".into(),
            key_version,
            hash: hash.into(),
            ciphertexts,
            ..Default::default()
        };
        user.crypto()
            .asymmetric_decrypt(request)
            .await
            .map(|r| r.into_inner())
    };
    let sealed = vec![
        seal(&OAEP_SHA256_MGF1SHA256, b"one"),
        seal(&OAEP_SHA256_MGF1SHA256, b""),
        seal(&OAEP_SHA1_MGF1SHA1, b"other hash"),
        Bytes::from(vec![1; 255]),
    ];
    let opened = open(OaepHash::Unspecified, sealed.clone(), 0)
        .await
        .unwrap();
    assert_eq!(opened.plaintexts, ["one", "", "", ""]);
    let failed: Vec<_> = opened
        .errors
        .iter()
        .map(|e| (e.index, e.reason.as_str()))
        .collect();
    assert_eq!(failed, [(2, "DECRYPTION_FAILED"), (3, "DECRYPTION_FAILED")]);
    // All causes look alike.
    let message = &opened.errors[0].message;
    assert_eq!(*message, opened.errors[1].message);
    assert!(
        !message.contains("context") && !message.contains("AAD"),
        "OAEP has neither: {message}"
    );
    let sha1 = open(OaepHash::Sha1, vec![sealed[2].clone()], 0)
        .await
        .unwrap();
    assert_eq!(sha1.plaintexts, ["other hash"]);
    rotate(&it).await;
    let e = open(OaepHash::Sha256, vec![sealed[0].clone()], 0)
        .await
        .unwrap_err();
    assert_eq!(reason(&e), "DECRYPTION_FAILED");
    let old = open(OaepHash::Sha256, vec![sealed[0].clone()], 1)
        .await
        .unwrap();
    assert_eq!(
        (old.plaintexts[0].as_ref(), old.key_version),
        (b"one".as_slice(), 1)
    );
}
