//! Sign and verify, public keys, what does not fit.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_ASN1, ED25519,
    RSA_PKCS1_2048_8192_SHA384, RSA_PSS_2048_8192_SHA256, UnparsedPublicKey, VerificationAlgorithm,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use sha2::{Digest, Sha256};

use super::*;

fn algorithm(scheme: SignatureScheme, encoding: SignatureEncoding) -> Option<SignatureAlgorithm> {
    Some(SignatureAlgorithm {
        scheme: scheme.into(),
        encoding: encoding.into(),
        ..Default::default()
    })
}

async fn sign(
    user: &Client,
    algorithm: Option<SignatureAlgorithm>,
    inputs: &[&[u8]],
) -> Result<SignResponse, tonic::Status> {
    let request = SignRequest {
        key: "k".into(),
        algorithm,
        inputs: bytes(inputs),
        ..Default::default()
    };
    user.crypto().sign(request).await.map(|r| r.into_inner())
}

async fn verify(
    user: &Client,
    algorithm: Option<SignatureAlgorithm>,
    inputs: &[&[u8]],
    signatures: Vec<Bytes>,
    key_version: u32,
) -> Result<Vec<Verdict>, tonic::Status> {
    let request = VerifyRequest {
        key: "k".into(),
        algorithm,
        inputs: bytes(inputs),
        signatures,
        key_version,
        ..Default::default()
    };
    let response = user.crypto().verify(request).await?;
    Ok(response.into_inner().verdicts)
}

const MESSAGES: [&[u8]; 3] = [b"", b"m", &[7; 1000]];

#[tokio::test]
async fn every_scheme_verifies_elsewhere_and_here() {
    use SignatureEncoding::{Der, Raw, Unspecified as Native};
    use SignatureScheme as S;
    let rows: [(
        KeySpec,
        S,
        SignatureEncoding,
        S,
        &'static dyn VerificationAlgorithm,
    ); 6] = [
        (
            KeySpec::EcP256,
            S::Unspecified,
            Native,
            S::EcdsaSha256,
            &ECDSA_P256_SHA256_ASN1,
        ),
        (
            KeySpec::EcP256,
            S::EcdsaSha256,
            Raw,
            S::EcdsaSha256,
            &ECDSA_P256_SHA256_FIXED,
        ),
        (
            KeySpec::EcP384,
            S::Unspecified,
            Der,
            S::EcdsaSha384,
            &ECDSA_P384_SHA384_ASN1,
        ),
        (
            KeySpec::Ed25519,
            S::Unspecified,
            Native,
            S::Ed25519,
            &ED25519,
        ),
        (
            KeySpec::Rsa2048,
            S::Unspecified,
            Native,
            S::RsaPssSha256,
            &RSA_PSS_2048_8192_SHA256,
        ),
        (
            KeySpec::Rsa2048,
            S::RsaPkcs1Sha384,
            Native,
            S::RsaPkcs1Sha384,
            &RSA_PKCS1_2048_8192_SHA384,
        ),
    ];
    for (spec, scheme, encoding, used, elsewhere) in rows {
        let (_it, user) = with_key(spec, KeyUse::Unspecified).await;
        let how = algorithm(scheme, encoding);
        let signed = sign(&user, how, &MESSAGES).await.unwrap();
        assert_eq!((signed.key_version, signed.scheme()), (1, used), "{spec:?}");
        let key = UnparsedPublicKey::new(elsewhere, public(&user, 0).await.der);
        for (message, signature) in MESSAGES.iter().zip(&signed.signatures) {
            key.verify(message, signature).unwrap();
        }
        let mut signatures = signed.signatures;
        signatures.swap(0, 1);
        let verdicts = verify(&user, how, &MESSAGES, signatures, 0).await.unwrap();
        let valid: Vec<bool> = verdicts.iter().map(|v| v.valid).collect();
        assert_eq!(valid, [false, false, true], "{spec:?}");
    }
}

#[tokio::test]
async fn a_digest_is_signed_as_its_message_would_be() {
    let (_it, user) = with_key(KeySpec::EcP256, KeyUse::Sign).await;
    let digests = Some(SignatureAlgorithm {
        input: InputKind::Digest.into(),
        ..Default::default()
    });
    let digest = Sha256::digest(b"m");
    let signed = sign(&user, digests, &[&digest]).await.unwrap();
    let verdicts = verify(&user, None, &[b"m"], signed.signatures, 0).await;
    assert!(verdicts.unwrap()[0].valid);
    // One of the wrong length among good ones fails alone.
    let signed = sign(&user, digests, &[&digest, &digest[..31], &digest])
        .await
        .unwrap();
    assert_eq!(signed.errors.len(), 1);
    assert_eq!(
        (signed.errors[0].index, signed.errors[0].reason.as_str()),
        (1, "INVALID_ARGUMENT")
    );
    assert!(
        signed.errors[0]
            .message
            .contains("31 bytes; this scheme takes 32")
    );
    assert!(signed.signatures[1].is_empty() && !signed.signatures[2].is_empty());
}

#[tokio::test]
async fn what_was_changed_is_not_valid_and_no_error() {
    for spec in [KeySpec::EcP256, KeySpec::Ed25519, KeySpec::Rsa2048] {
        let (it, user) = with_key(spec, KeyUse::Unspecified).await;
        let good = sign(&user, None, &[b"m"])
            .await
            .unwrap()
            .signatures
            .remove(0);
        let mut wrong: Vec<Vec<u8>> = (0..good.len())
            .step_by(7)
            .map(|at| {
                let mut bytes = good.to_vec();
                bytes[at] ^= 1;
                bytes
            })
            .collect();
        wrong.push(good[..good.len() - 1].to_vec());
        wrong.push([&good[..], &[0]].concat());
        wrong.push(Vec::new());
        // Of another key.
        create(&it, "other", spec, KeyUse::Sign).await;
        let request = SignRequest {
            key: "other".into(),
            inputs: bytes(&[b"m"]),
            ..Default::default()
        };
        let other = user.crypto().sign(request).await.unwrap().into_inner();
        wrong.push(other.signatures[0].to_vec());
        let inputs: Vec<&[u8]> = vec![b"m"; wrong.len()];
        let signatures = wrong.into_iter().map(Bytes::from).collect();
        let verdicts = verify(&user, None, &inputs, signatures, 0).await.unwrap();
        assert!(
            verdicts.iter().all(|v| !v.valid && v.key_version == 0),
            "{spec:?}"
        );
    }
}

#[tokio::test]
async fn old_versions_go_on_verifying() {
    let (it, user) = with_key(KeySpec::Ed25519, KeyUse::Sign).await;
    let old = sign(&user, None, &[b"m"]).await.unwrap();
    rotate(&it).await;
    let new = sign(&user, None, &[b"m"]).await.unwrap();
    assert_eq!((old.key_version, new.key_version), (1, 2));
    let both = vec![old.signatures[0].clone(), new.signatures[0].clone()];
    let any = verify(&user, None, &[b"m", b"m"], both.clone(), 0)
        .await
        .unwrap();
    assert_eq!([any[0].key_version, any[1].key_version], [1, 2]);
    let second = verify(&user, None, &[b"m", b"m"], both.clone(), 2)
        .await
        .unwrap();
    assert_eq!([second[0].valid, second[1].valid], [false, true]);
    let e = verify(&user, None, &[b"m", b"m"], both, 3)
        .await
        .unwrap_err();
    assert_eq!(reason(&e), "KEY_VERSION_NOT_FOUND");
    assert_ne!(public(&user, 1).await.der, public(&user, 2).await.der);
}

/// "Not valid" would send people looking for a forger.
#[tokio::test]
async fn a_version_that_may_not_process_is_named() {
    let (it, user) = with_key(KeySpec::Ed25519, KeyUse::Sign).await;
    let old = sign(&user, None, &[b"m"]).await.unwrap();
    rotate(&it).await;
    let new = sign(&user, None, &[b"m"]).await.unwrap();
    let admin = it.client("red", "admin").await;
    let state = |state: KeyState| ChangeStateRequest {
        name: "k".into(),
        version: 1,
        state: state.into(),
        ..Default::default()
    };
    let minimum = |n| UpdateKeyRequest {
        name: "k".into(),
        minimum_version: n,
        ..Default::default()
    };
    let both = || vec![old.signatures[0].clone(), new.signatures[0].clone()];
    let verify = async |inputs: &[&[u8]], signatures| {
        let request = VerifyRequest {
            key: "k".into(),
            inputs: bytes(inputs),
            signatures,
            ..Default::default()
        };
        let checked = user.crypto().verify(request).await;
        checked.map(|r| r.into_inner())
    };
    let said = async |word: &str| {
        let checked = verify(&[b"m", b"m"], both()).await.unwrap();
        assert_eq!(
            [checked.verdicts[0].valid, checked.verdicts[1].valid],
            [false, true]
        );
        let [error] = &checked.errors[..] else {
            panic!("{checked:?}");
        };
        assert_eq!((error.index, error.reason.as_str()), (0, "KEY_STATE"));
        assert!(error.message.contains(word), "{}", error.message);
        // Alone it is the answer of the call, as with an explicit version.
        let e = verify(&[b"m"], both()[..1].to_vec()).await.unwrap_err();
        assert_eq!(e.code(), Code::FailedPrecondition);
        // What nobody made is not valid, and no error.
        let forged = verify(&[b"n"], both()[..1].to_vec()).await.unwrap();
        assert!(forged.errors.is_empty() && !forged.verdicts[0].valid);
    };
    let mut keys = admin.keys();
    keys.change_state(state(KeyState::Suspended)).await.unwrap();
    said("suspended").await;
    keys.change_state(state(KeyState::Active)).await.unwrap();
    keys.update_key(minimum(2)).await.unwrap();
    said("below its minimum version 2").await;
    keys.update_key(minimum(1)).await.unwrap();
    let checked = verify(&[b"m", b"m"], both()).await.unwrap();
    assert!(checked.errors.is_empty() && checked.verdicts.iter().all(|v| v.valid));
}

#[tokio::test]
async fn public_keys_come_in_three_forms() {
    for (spec, word) in [
        (KeySpec::EcP256, "\"alg\":\"ES256\""),
        (KeySpec::EcP384, "\"crv\":\"P-384\""),
        (KeySpec::Ed25519, "\"alg\":\"EdDSA\""),
        (KeySpec::Rsa2048, "\"e\":\"AQAB\""),
    ] {
        let (_it, user) = with_key(spec, KeyUse::Sign).await;
        let key = public(&user, 0).await;
        let body: String = key.pem.lines().filter(|l| !l.starts_with("---")).collect();
        assert_eq!(BASE64_STANDARD.decode(body).unwrap(), key.der);
        assert!(
            key.jwk.contains(word) && key.jwk.contains("\"use\":\"sig\""),
            "{}",
            key.jwk
        );
    }
    let (_it, user) = with_key(KeySpec::HmacSha256, KeyUse::Mac).await;
    let request = GetPublicKeyRequest {
        name: "k".into(),
        version: 0,
    };
    let e = user.keys().get_public_key(request).await.unwrap_err();
    assert_eq!(reason(&e), "KEY_USE");
}

#[tokio::test]
async fn what_does_not_fit_the_key_is_named() {
    let (it, user) = with_key(KeySpec::EcP256, KeyUse::Sign).await;
    for scheme in [
        SignatureScheme::EcdsaSha384,
        SignatureScheme::Ed25519,
        SignatureScheme::RsaPssSha256,
    ] {
        let how = algorithm(scheme, SignatureEncoding::Der);
        let e = sign(&user, how, &[b"m"]).await.unwrap_err();
        assert_eq!(reason(&e), "INVALID_ARGUMENT");
        assert!(e.message().contains("ec-p256"), "{}", e.message());
    }
    // Every key for everything it is not for.
    create(&it, "aes", KeySpec::Aes256, KeyUse::Unspecified).await;
    create(&it, "mac", KeySpec::HmacSha512, KeyUse::Mac).await;
    let e = user
        .crypto()
        .encrypt(encrypt("k", &[b"m"]))
        .await
        .unwrap_err();
    assert_eq!(
        (e.code(), reason(&e).as_str()),
        (Code::FailedPrecondition, "KEY_USE")
    );
    for key in ["aes", "mac"] {
        let request = SignRequest {
            key: key.into(),
            inputs: bytes(&[b"m"]),
            ..Default::default()
        };
        let e = user.crypto().sign(request).await.unwrap_err();
        assert_eq!(reason(&e), "KEY_USE", "{key}");
        let request = AsymmetricDecryptRequest {
            key: key.into(),
            ciphertexts: bytes(&[b"m"]),
            ..Default::default()
        };
        let e = user.crypto().asymmetric_decrypt(request).await.unwrap_err();
        assert_eq!(reason(&e), "KEY_USE", "{key}");
    }
    for key in ["aes", "k"] {
        let request = MacRequest {
            key: key.into(),
            inputs: bytes(&[b"m"]),
            ..Default::default()
        };
        let e = user.crypto().mac(request).await.unwrap_err();
        assert_eq!(reason(&e), "KEY_USE", "{key}");
    }
    // A use the spec does not have.
    let request = CreateKeyRequest {
        name: "x".into(),
        spec: KeySpec::EcP256.into(),
        r#use: KeyUse::Decrypt.into(),
        ..Default::default()
    };
    let e = it
        .client("red", "admin")
        .await
        .keys()
        .create_key(request)
        .await
        .unwrap_err();
    assert!(
        e.message().contains("a key of ec-p256 is for: sign"),
        "{}",
        e.message()
    );
    // A salt this token does not know.
    let (_it, user) = with_key(KeySpec::Rsa2048, KeyUse::Sign).await;
    let how = Some(SignatureAlgorithm {
        pss_salt: PssSalt::Max.into(),
        ..Default::default()
    });
    let e = sign(&user, how, &[b"m"]).await.unwrap_err();
    assert_eq!(
        (e.code(), reason(&e).as_str()),
        (Code::Unimplemented, "TOKEN_CANNOT")
    );
}

/// A fault while signing can give a private key away; the signature stays here.
#[tokio::test]
async fn a_wrong_signature_does_not_leave() {
    let (it, user) = with_key(KeySpec::EcP256, KeyUse::Sign).await;
    it.device.inject([keywright_hsm::fake::Fault::FlipBit]);
    let e = sign(&user, None, &[b"m"]).await.unwrap_err();
    assert_eq!(e.code(), Code::Internal);
    sign(&user, None, &[b"m"]).await.unwrap();
}
