//! Bad input: each has its clear reason, and nothing is issued.

use bytes::Bytes;
use keywright_client::proto;
use rcgen::{BasicConstraints, CertificateParams, CustomExtension, IsCa, KeyPair};
use sha2::{Digest, Sha256};

use crate::common::{
    Appliance,
    authority::{NAME, PROFILE, csr, dns, hierarchy, issue, issued, put, request, sign, spiffe},
    reason,
};

async fn leaves(it: &Appliance) -> usize {
    let request = proto::SearchRequest {
        issuer: "int-a".into(),
        ..Default::default()
    };
    crate::records::search(it, request).await.len()
}

#[tokio::test]
async fn a_bad_csr_says_what_is_wrong() {
    let it = Appliance::start().await;
    hierarchy(&it, "red").await;
    let key = KeyPair::generate().unwrap();
    let good = csr(&key, vec![dns(NAME)]);
    let mut flipped = good.to_vec();
    *flipped.last_mut().unwrap() ^= 1;
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let mut extra = CertificateParams::default();
    extra.custom_extensions = vec![CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0])];
    let names = (0..101).map(|n| dns(&format!("n{n}.apps.example.internal")));
    // A name with other bytes in place of `service`, signed as it is.
    let named = |name: &str| csr(&key, vec![dns(name)]);
    for (csr, says) in [
        (Bytes::from(vec![0x30; (16 << 10) + 1]), "16"),
        (Bytes::from("no csr"), "cannot be read"),
        (flipped.into(), "signature"),
        (request(&key, ca), "CA"),
        (request(&key, extra), "1.2.3.4"),
        (csr(&key, names.collect()), "100"),
        (named("192.0.2.1"), "IP"),
        (named("a.*.example.internal"), "wildcard"),
        (named("service.svc.example.internal."), "dot"),
        (named("nul\0.apps.example.internal"), "\\0"),
        (named("a_b.apps.example.internal"), "_"),
    ] {
        let e = issue(&it, "red", "service", sign(csr)).await.unwrap_err();
        assert_eq!(reason(&e), "CSR_REFUSED", "{says}: {e:?}");
        assert!(e.message().contains(says), "{says}: {}", e.message());
    }
    assert_eq!(leaves(&it).await, 0);
}

/// Made with openssl and Python, which are less careful than we are.
#[tokio::test]
async fn a_weak_key_is_not_certified() {
    let it = Appliance::start().await;
    hierarchy(&it, "red").await;
    let dir = tempfile::tempdir().unwrap();
    for (options, says) in [
        ("rsa_keygen_bits:1024", "1024"),
        ("rsa_keygen_bits:2048 -pkeyopt rsa_keygen_pubexp:3", "65537"),
    ] {
        let run = |line: String| {
            let arguments: Vec<&str> = line.split(' ').collect();
            let (ok, said) = crate::openssl::run(dir.path(), &arguments);
            assert!(ok, "{said}");
        };
        run(format!(
            "genpkey -algorithm RSA -pkeyopt {options} -out k.pem"
        ));
        run("req -new -key k.pem -subj /CN=x -outform DER -out k.csr".to_owned());
        let csr = std::fs::read(dir.path().join("k.csr")).unwrap();
        let e = issue(&it, "red", "service", sign(csr.into()))
            .await
            .unwrap_err();
        assert_eq!(reason(&e), "CSR_REFUSED", "{e:?}");
        assert!(e.message().contains(says), "{says}: {}", e.message());
    }
    assert_eq!(leaves(&it).await, 0);
}

#[tokio::test]
async fn a_name_that_is_not_the_callers_is_refused() {
    let it = Appliance::start().await;
    hierarchy(&it, "red").await;
    let key = KeyPair::generate().unwrap();
    for names in [
        vec![dns("www.elsewhere.example")],
        vec![dns("a.b.apps.example.internal")],
        vec![dns("*.apps.example.internal")],
        // What the placeholder makes of somebody else.
        vec![dns("user.svc.example.internal")],
        vec![spiffe("red", "pki")],
        vec![spiffe("blue", "service")],
        vec![dns(NAME), rcgen::SanType::IpAddress([10, 21, 0, 1].into())],
        vec![],
    ] {
        let request = sign(csr(&key, names.clone()));
        let e = issue(&it, "red", "service", request).await.unwrap_err();
        assert_eq!(reason(&e), "PROFILE_REFUSED", "{names:?}: {e:?}");
    }
    let long = proto::SignCsrRequest {
        ttl_seconds: 9001 * 3600,
        ..sign(csr(&key, vec![dns(NAME)]))
    };
    let past = proto::SignCsrRequest {
        ttl_seconds: 8900 * 3600,
        ..sign(csr(&key, vec![dns(NAME)]))
    };
    for (request, says) in [(long, "at most"), (past, "after the issuer's")] {
        let e = issue(&it, "red", "service", request).await.unwrap_err();
        assert_eq!(reason(&e), "PROFILE_REFUSED", "{e:?}");
        assert!(e.message().contains(says), "{e:?}");
    }
    let u_label = proto::SignCsrRequest {
        sans: vec![proto::San {
            name: Some(proto::san::Name::Dns("bücher.apps.example.internal".into())),
        }],
        ..sign(csr(&key, vec![]))
    };
    let e = issue(&it, "red", "service", u_label).await.unwrap_err();
    assert_eq!(reason(&e), "INVALID_ARGUMENT");
    assert!(e.message().contains("A-labels"), "{e:?}");
    assert_eq!(leaves(&it).await, 0);
}

#[tokio::test]
async fn a_blocked_key_and_the_key_of_a_revoked_certificate_are_not_certified() {
    let it = Appliance::start().await;
    hierarchy(&it, "red").await;
    let (certificate, key) = issued(&it, "red").await;
    crate::common::authority::revoke(
        &it,
        "red",
        &certificate,
        proto::RevocationReason::CessationOfOperation,
    )
    .await
    .unwrap();
    let blocked = KeyPair::generate().unwrap();
    let spki = Sha256::digest(rcgen::PublicKeyData::subject_public_key_info(&blocked));
    let request = proto::BlockKeyRequest {
        spki_sha256: spki.to_vec().into(),
        why: "seen in a repository".into(),
    };
    let pki = it.client("red", "pki").await;
    pki.pki_admin().block_key(request).await.unwrap();
    for (key, says) in [(key, "certified before"), (blocked, "blocked")] {
        let request = sign(csr(&key, vec![dns(NAME)]));
        let dry = proto::DryRunRequest {
            request: Some(request.clone()),
        };
        let client = it.client("red", "service").await;
        let dry = client.pki().dry_run(dry).await.unwrap().into_inner();
        assert!(!dry.would_issue, "{dry:?}");
        assert!(dry.violations[0].contains(says), "{dry:?}");
        let e = issue(&it, "red", "service", request).await.unwrap_err();
        assert_eq!(reason(&e), "KEY_BLOCKED", "{e:?}");
        assert!(e.message().contains(says), "{e:?}");
    }
    assert_eq!(leaves(&it).await, 1);
}

#[tokio::test]
async fn a_bad_profile_says_where() {
    let it = Appliance::start().await;
    hierarchy(&it, "red").await;
    let next = PROFILE.replace("version = 1", "version = 2");
    for (text, expected, says) in [
        (
            next.replace("backdate", "x") + "[oops]\n",
            "TEXT_REFUSED",
            "oops",
        ),
        (PROFILE.to_owned(), "AUTHORITY_EXISTS", "next version"),
        (
            PROFILE.replace("version = 1", "version = 3"),
            "AUTHORITY_EXISTS",
            "is 2, not 3",
        ),
        (
            next.replace(
                "eku = [\"serverAuth\"",
                "ku = [\"keyCertSign\"]\neku = [\"serverAuth\"",
            ),
            "TEXT_REFUSED",
            "keyCertSign",
        ),
        (
            next.replace("\"int-a\"", "\"int-z\""),
            "TEXT_REFUSED",
            "no issuer int-z",
        ),
        (
            next.replace("\"int-a\"", "\"root\""),
            "TEXT_REFUSED",
            "is a root",
        ),
        (
            next.clone() + "[authz]\napprove = \"two-person\"\n",
            "TEXT_REFUSED",
            "authz.approve",
        ),
        (
            next.clone() + "[authz]\nrequire = [\"token\"]\n",
            "TEXT_REFUSED",
            "authz.require",
        ),
        (
            next.clone() + "[authz]\nrate = { per_principal = \"1/min\", burst = 1 }\n",
            "TEXT_REFUSED",
            "authz.rate",
        ),
        (
            PROFILE.replace("service-tls", "ceremony"),
            "TEXT_REFUSED",
            "ceremony",
        ),
    ] {
        let e = put(&it, "red", &text).await.unwrap_err();
        assert_eq!(reason(&e), expected, "{e:?}");
        assert!(e.message().contains(says), "{says}: {}", e.message());
    }
    put(&it, "red", &next).await.unwrap();
    // Retired: no version of it issues any more.
    let pki = it.client("red", "pki").await;
    let name = "service-tls".into();
    let retired = pki
        .pki_admin()
        .retire_profile(proto::RetireProfileRequest { name })
        .await;
    assert!(
        retired
            .unwrap()
            .into_inner()
            .profile
            .unwrap()
            .retired_unix_ms
            > 0
    );
    let key = KeyPair::generate().unwrap();
    for profile in ["service-tls", "service-tls@1", "service-tls@9"] {
        let request = proto::SignCsrRequest {
            profile: profile.into(),
            ..sign(csr(&key, vec![dns(NAME)]))
        };
        let e = issue(&it, "red", "service", request).await.unwrap_err();
        assert_eq!(reason(&e), "PROFILE_NOT_FOUND", "{profile}");
    }
}

/// The key of an authority in the hands of somebody who has reached its token.
struct AuthorityKey {
    hsm: keywright_hsm::Hsm,
    key: keywright_hsm::KeyRef,
}

impl rcgen::PublicKeyData for AuthorityKey {
    fn der_bytes(&self) -> &[u8] {
        // The point: what a P-256 SubjectPublicKeyInfo ends with.
        let spki = self.key.public().unwrap().spki();
        &spki[spki.len() - 65..]
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl rcgen::SigningKey for AuthorityKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let job = keywright_hsm::Sign {
            key: self.key.clone(),
            how: keywright_hsm::Signing::Ecdsa,
            input: Sha256::digest(message).to_vec().into(),
        };
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
        let made = tokio::task::block_in_place(|| {
            let made = self.hsm.sign(vec![job], deadline);
            tokio::runtime::Handle::current().block_on(made)
        });
        let signature = made.into_iter().next().unwrap().unwrap();
        Ok(keywright_pki::ecdsa_to_der(&signature).unwrap())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_of_an_authority_is_not_certified() {
    let it = Appliance::start().await;
    hierarchy(&it, "red").await;
    let all = it.app.authorities.all_issuers();
    let is = |name: &str| all.iter().find(|a| a.issuer.name.as_str() == name).unwrap();
    let key = AuthorityKey {
        hsm: it.app.hsm.clone(),
        key: is("int-a").issuer.key.clone(),
    };
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![dns(NAME)];
    let der = params.serialize_request(&key).unwrap().der().to_vec();
    let e = issue(&it, "red", "service", sign(der.into()))
        .await
        .unwrap_err();
    assert_eq!(reason(&e), "PROFILE_REFUSED", "{e:?}");
    assert!(e.message().contains("that of an authority"), "{e:?}");
    assert_eq!(leaves(&it).await, 0);
}
