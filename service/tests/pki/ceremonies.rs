//! Authorities: planned by one, approved by several, carried out once.

use keywright_client::proto;
use tonic::Code;

use crate::{
    common::{
        Appliance,
        authority::{INTERMEDIATE, ROOT, approve, authority, commit, plan},
        reason,
    },
    openssl,
};

#[tokio::test]
async fn root_and_intermediate_are_what_was_planned() {
    let it = Appliance::start().await;
    let planned = plan(&it, "red", ROOT).await.unwrap();
    assert_eq!(
        (planned.approvals_needed, planned.stage.as_str()),
        (2, "planned")
    );
    assert!(planned.approved_by.is_empty());
    // The planner's own yes counts as one; nobody's counts twice.
    // Who is to approve sees the same bytes.
    let admin = it.client("red", "pki-two").await;
    let request = proto::ListIssuersRequest {};
    let all = admin.pki_admin().list_issuers(request).await.unwrap();
    let seen = all.into_inner().issuers.pop().unwrap();
    assert_eq!(
        (&seen.tbs_der, seen.approvals_needed),
        (&planned.tbs_der, 2)
    );
    assert!(seen.root && seen.text == ROOT);
    let once = approve(&it, "red", "pki", &planned).await.unwrap();
    assert_eq!(once.approved_by, ["spiffe://red.example/pki"]);
    assert_eq!(once.tbs_der, planned.tbs_der);
    let e = approve(&it, "red", "pki", &planned).await.unwrap_err();
    assert_eq!(reason(&e), "ISSUER_STATE");
    assert!(e.message().contains("another identity"), "{e:?}");
    let e = commit(&it, "red", &planned).await.unwrap_err();
    assert_eq!(reason(&e), "ISSUER_STATE");
    assert!(e.message().contains("1 of 2 approvals"), "{e:?}");
    let twice = approve(&it, "red", "pki-two", &planned).await.unwrap();
    assert_eq!(twice.approved_by.len(), 2);
    let root = commit(&it, "red", &planned).await.unwrap().issuer.unwrap();
    assert!(root.root && root.may_issue && root.may_sign_crls);
    assert_eq!((root.stage.as_str(), root.chain_der.len()), ("active", 0));
    // The approved bytes are in the certificate, as they are.
    let holds = |whole: &[u8], part: &[u8]| whole.windows(part.len()).any(|w| w == part);
    assert!(holds(&root.certificate_der, &planned.tbs_der));
    let e = commit(&it, "red", &planned).await.unwrap_err();
    assert_eq!(reason(&e), "ISSUER_STATE", "once is enough: {e:?}");

    let int = authority(&it, "red", INTERMEDIATE).await.unwrap();
    assert!(!int.root);
    assert_eq!(int.shards, 2);
    assert_eq!(int.chain_der, std::slice::from_ref(&root.certificate_der));
    openssl::verify(&root.certificate_der, &[], &int.certificate_der, None).unwrap();
    let text = |der: &[u8]| {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("c.der"), der).unwrap();
        let arguments = ["x509", "-inform", "DER", "-in", "c.der", "-noout", "-text"];
        openssl::run(dir.path(), &arguments).1
    };
    let said = text(&int.certificate_der);
    for line in [
        "CA:TRUE, pathlen:0",
        "Certificate Sign, CRL Sign",
        "URI:http://pki.example/root.crl",
        "URI:http://pki.example/root.cer",
        "ecdsa-with-SHA384",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
}

#[tokio::test]
async fn what_was_not_approved_is_not_signed() {
    let it = Appliance::start().await;
    let planned = plan(&it, "red", ROOT).await.unwrap();
    let other = proto::Ceremony {
        digest: vec![7; 32].into(),
        ..planned.clone()
    };
    let e = approve(&it, "red", "pki", &other).await.unwrap_err();
    assert_eq!((e.code(), reason(&e).as_str()), (Code::Aborted, "CONFLICT"));
    let shown: String = planned.digest.iter().map(|b| format!("{b:02x}")).collect();
    assert!(e.message().contains(&shown), "{e:?}");
    let e = commit(&it, "red", &planned).await.unwrap_err();
    assert!(e.message().contains("0 of 2 approvals"), "{e:?}");
    // Another tenant's administrators have no say, and do not hear of it.
    let e = approve(&it, "blue", "pki", &planned).await.unwrap_err();
    assert_eq!(reason(&e), "ISSUER_NOT_FOUND");
    let e = plan(&it, "red", ROOT).await.unwrap_err();
    assert_eq!(reason(&e), "AUTHORITY_EXISTS");
    // Nothing was signed.
    let request = proto::ListIssuersRequest {};
    let pki = it.client("red", "pki").await;
    let all = pki.pki_admin().list_issuers(request).await.unwrap();
    let all = all.into_inner().issuers;
    assert_eq!(all.len(), 1);
    assert!(all[0].certificate_der.is_empty() && !all[0].may_issue);
}

#[tokio::test]
async fn bad_texts_say_where_and_leave_no_key_on_the_token() {
    let it = Appliance::start().await;
    authority(&it, "red", ROOT).await.unwrap();
    let keys = || async {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
        it.app.hsm.objects(deadline).await.unwrap().len()
    };
    let before = keys().await;
    for (text, expected, says) in [
        (ROOT.replace("kind", "sort"), "TEXT_REFUSED", "sort"),
        (
            ROOT.replace("\"root\"\nkind", "\"r2\"\nkind") + "[x]\n",
            "TEXT_REFUSED",
            "x",
        ),
        (
            INTERMEDIATE.replace("\"root\"", "\"elsewhere\""),
            "ISSUER_NOT_FOUND",
            "elsewhere",
        ),
        // Longer than its root: found when the certificate is drafted.
        (
            INTERMEDIATE.replace("365", "3651"),
            "LINT_REFUSED",
            "shorten the validity",
        ),
    ] {
        let e = plan(&it, "red", &text).await.unwrap_err();
        assert_eq!(reason(&e), expected, "{e:?}");
        assert!(e.message().contains(says), "{says}: {e:?}");
    }
    assert_eq!(keys().await, before);
    assert!(it.app.store.load().await.unwrap().intents.is_empty());
}

#[tokio::test]
async fn an_authority_of_every_kind_of_key_signs() {
    let it = Appliance::start().await;
    for (n, key) in ["ec-p256", "ec-p384", "rsa-3072", "ed25519"]
        .iter()
        .enumerate()
    {
        let name = format!("root-{n}");
        let text = ROOT
            .replace("\"root\"\nkind", &format!("\"{name}\"\nkind"))
            .replace("ec-p384", key);
        let root = authority(&it, "red", &text).await.unwrap();
        assert_eq!(root.key_spec, *key);
        let text = INTERMEDIATE
            .replace("\"root\"", &format!("\"{name}\""))
            .replace("int-a", &format!("int-{n}"));
        let int = authority(&it, "red", &text).await.unwrap();
        openssl::verify(&root.certificate_der, &[], &int.certificate_der, None).unwrap();
    }
}

/// A root elsewhere signs our CSR; here openssl plays it.
#[tokio::test]
async fn a_certificate_of_an_external_root_is_taken_if_it_is_for_our_key() {
    let it = Appliance::start().await;
    let text = INTERMEDIATE
        .replace("\"intermediate\"", "\"external\"")
        .replace("parent = \"root\"\n", "");
    let planned = plan(&it, "red", &text).await.unwrap();
    for name in ["pki", "pki-two"] {
        approve(&it, "red", name, &planned).await.unwrap();
    }
    let done = commit(&it, "red", &planned).await.unwrap();
    assert_eq!(done.issuer.unwrap().stage, "waiting");
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(dir.path().join(name), bytes).unwrap();
    write(
        "our.csr",
        openssl::pem("CERTIFICATE REQUEST", &done.csr_der).as_bytes(),
    );
    write(
        "ca.ext",
        b"basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n",
    );
    let openssl = |line: &str| {
        let arguments: Vec<&str> = line.split(' ').collect();
        let (ok, said) = openssl::run(dir.path(), &arguments);
        assert!(ok, "{line}: {said}");
    };
    openssl("ecparam -name prime256v1 -genkey -noout -out root.key");
    openssl(
        "req -x509 -new -key root.key -subj /CN=Elsewhere -days 900 -out root.pem -addext keyUsage=critical,keyCertSign,cRLSign",
    );
    openssl("req -in our.csr -noout -verify");
    openssl(
        "x509 -req -in our.csr -CA root.pem -CAkey root.key -set_serial 0x17171717171717171717 -days 300 -extfile ca.ext -out our.pem",
    );
    openssl("x509 -in our.pem -outform DER -out our.der");
    openssl("x509 -in root.pem -outform DER -out root.der");
    let read = |name: &str| bytes::Bytes::from(std::fs::read(dir.path().join(name)).unwrap());
    let pki = it.client("red", "pki").await;
    let import = |certificate: &str, chain: &[&str]| {
        let request = proto::ImportIssuerRequest {
            id: planned.id.clone(),
            certificate_der: read(certificate),
            chain_der: chain.iter().map(|name| read(name)).collect(),
        };
        let mut admin = pki.pki_admin();
        async move { admin.import_issuer(request).await }
    };
    for (certificate, chain) in [("our.der", &[][..]), ("root.der", &["root.der"])] {
        let e = import(certificate, chain).await.unwrap_err();
        assert_eq!(reason(&e), "INVALID_ARGUMENT", "{certificate}: {e:?}");
    }
    // Of this key, but more than what was approved.
    for (pathlen, days, says) in [(3, 300, "path length"), (0, 900, "days")] {
        let wide = format!(
            "basicConstraints=critical,CA:TRUE,pathlen:{pathlen}\nkeyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"
        );
        write("wide.ext", wide.as_bytes());
        openssl(&format!(
            "x509 -req -in our.csr -CA root.pem -CAkey root.key -set_serial 0x1818 -days {days} -extfile wide.ext -out wide.pem"
        ));
        openssl("x509 -in wide.pem -outform DER -out wide.der");
        let e = import("wide.der", &["root.der"]).await.unwrap_err();
        assert_eq!(reason(&e), "INVALID_ARGUMENT");
        assert!(e.message().contains(says), "{e:?}");
    }
    let issuer = import("our.der", &["root.der"]).await.unwrap();
    let issuer = issuer.into_inner().issuer.unwrap();
    assert_eq!((issuer.stage.as_str(), issuer.root), ("active", false));
    let e = import("our.der", &["root.der"]).await.unwrap_err();
    assert_eq!(reason(&e), "ISSUER_STATE");
}
