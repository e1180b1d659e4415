//! Certificates on many nodes: what is revoked on one is revoked on all, and one of them
//! makes the lists.

use std::{fs, process::Command};

use keywright_client::proto::RevocationReason;
use keywright_pki::certificate_to_pem;
use keywright_service::{
    authority::AuthorityName,
    key::TenantId,
    ops::pki::{Ocsp, Question},
};

use super::{
    common::authority::{self, INTERMEDIATE, PROFILE, ROOT, crl, issued, revoke},
    *,
};

/// Root and intermediate with OCSP, made on the first node and known to all.
async fn hierarchy(nodes: &[Appliance]) -> proto::Issuer {
    authority::authority(&nodes[0], "red", ROOT).await.unwrap();
    let with_ocsp = format!("{INTERMEDIATE}ocsp = true\n");
    let int = authority::authority(&nodes[0], "red", &with_ocsp).await;
    authority::put(&nodes[0], "red", PROFILE).await.unwrap();
    for node in nodes {
        let known = async || list(node, 2).await.is_some();
        until(SOON, "lists of the new issuer", known).await;
    }
    int.unwrap()
}

async fn list(node: &Appliance, shard: u32) -> Option<proto::GetCrlResponse> {
    let request = proto::GetCrlRequest {
        issuer: "int-a".into(),
        shard,
    };
    let pki = node.client("red", "pki").await;
    pki.pki()
        .get_crl(request)
        .await
        .ok()
        .map(|l| l.into_inner())
}

/// Every node has the very same lists, with so many entries; says the number of the full one.
async fn same_lists(nodes: &[&Appliance], entries: u64) -> u64 {
    let same = async || {
        for shard in 0..=2 {
            let first = list(nodes[0], shard).await.unwrap();
            for node in &nodes[1..] {
                if list(node, shard).await.unwrap().crl_der != first.crl_der {
                    return false;
                }
            }
            if shard == 0 && first.entries != entries {
                return false;
            }
        }
        true
    };
    until(LONG, "the same lists", same).await;
    let issuers = nodes[0].app.authorities.all_issuers();
    assert!(issuers.iter().all(|i| i.issuer.alarm.is_empty()));
    list(nodes[0], 0).await.unwrap().number
}

fn openssl(words: &[&str]) -> String {
    let said = Command::new("openssl").args(words).output().unwrap();
    assert!(said.status.success(), "{said:?}");
    String::from_utf8(said.stdout).unwrap()
}

/// What a node's responder says of a certificate, in OpenSSL's words.
async fn status(
    responder: &Arc<Ocsp>,
    int: &proto::Issuer,
    certificate: &proto::IssuedCertificate,
) -> String {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name).display().to_string();
    let [issuer, cert, asked, said] = ["issuer", "cert", "asked", "said"].map(file);
    fs::write(&issuer, certificate_to_pem(&int.certificate_der)).unwrap();
    fs::write(&cert, certificate_to_pem(&certificate.certificate_der)).unwrap();
    let ask = ["ocsp", "-no_nonce", "-issuer", &issuer, "-cert", &cert];
    openssl(&[&ask[..], &["-reqout", &asked]].concat());
    let question = Question {
        tenant: TenantId([1; 16]),
        issuer: &AuthorityName::parse("int-a").unwrap(),
        request: &fs::read(&asked).unwrap(),
    };
    fs::write(&said, responder.answer(&question).await.der).unwrap();
    openssl(&["ocsp", "-respin", &said, "-noverify", "-resp_text"])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_revoked_on_one_node_is_revoked_on_all() {
    let nodes = three("revoked").await;
    let int = hierarchy(&nodes).await;
    let [a, b, _] = &nodes[..] else { panic!() };
    let (held, key) = issued(a, "red").await;
    let ders = [&held.certificate_der, &held.chain_der[0]];
    let chain: String = ders.iter().map(|der| certificate_to_pem(der)).collect();
    let [cert, key_file] = ["held.pem", "held.key"].map(|f| b.dir.path().join(f));
    fs::write(&cert, chain).unwrap();
    fs::write(&key_file, key.serialize_pem()).unwrap();
    let settings = Settings {
        cert: Some(cert),
        key: Some(key_file),
        ..b.settings("red", "service")
    };
    let holder = Client::connect(&settings).await.unwrap();
    let call = async || holder.pki().get_bundle(proto::GetBundleRequest {}).await;
    call().await.unwrap();
    // Both make what they answer with at the same time.
    let responders = [a, b].map(|node| Arc::new(Ocsp::new(Arc::clone(&node.app))));
    let (one, other) = tokio::join!(
        status(&responders[0], &int, &held),
        status(&responders[1], &int, &held)
    );
    for said in [one, other] {
        assert!(said.contains("Cert Status: good"), "{said}");
    }
    let done = revoke(a, "red", &held, RevocationReason::Superseded).await;
    assert_eq!(done.unwrap().revoked.len(), 1);
    let refused = async || call().await.is_err();
    until(SOON, "a revocation", refused).await;
    let e = call().await.unwrap_err();
    assert_eq!(reason(&e), "UNAUTHENTICATED");
    let said = status(&responders[1], &int, &held).await;
    assert!(said.contains("Cert Status: revoked"), "{said}");
    assert!(said.contains("superseded"), "{said}");
    // That it is worse than was thought is heard as well.
    revoke(a, "red", &held, RevocationReason::KeyCompromise)
        .await
        .unwrap();
    let heard = async || {
        let said = status(&responders[1], &int, &held).await;
        said.contains("keyCompromise")
    };
    until(SOON, "a worse reason", heard).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_node_makes_the_lists_and_the_next_one_goes_on() {
    let mut nodes = three("lists").await;
    hierarchy(&nodes).await;
    let mut certificates = Vec::new();
    for _ in 0..3 {
        certificates.push(issued(&nodes[0], "red").await.0);
    }
    let revoke = async |node: &Appliance, which: usize| {
        let certificate = &certificates[which];
        let done = revoke(node, "red", certificate, RevocationReason::Superseded).await;
        done.unwrap();
    };
    // Not by the one that makes lists.
    revoke(&nodes[1], 0).await;
    let [a, b, c] = &nodes[..] else { panic!() };
    let first = same_lists(&[a, b, c], 1).await;
    // Nobody answers a list with another one.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(list(b, 0).await.unwrap().number, first);
    // The first one hears nothing any more, and the others do not know that yet.
    nodes[0].freeze();
    revoke(&nodes[2], 1).await;
    let [a, b, c] = &nodes[..] else { panic!() };
    let second = same_lists(&[b, c], 2).await;
    assert!(second > first);
    assert_eq!(list(a, 0).await.map(|l| l.number), None, "it is fenced");
    // It comes back, and begins where the others are; so does one that has no files yet.
    nodes[0].thaw();
    let late = node("lists", &nodes[0].device, 4).await;
    let [a, b, c] = &nodes[..] else { panic!() };
    until(SOON, "it is back", async || list(a, 0).await.is_some()).await;
    until(SOON, "lists", async || list(&late, 0).await.is_some()).await;
    let third = same_lists(&[a, b, c, &late], 2).await;
    assert!(third >= second);
    revoke(c, 2).await;
    assert!(same_lists(&[&late, a, b, c], 3).await > third);
    crl(&late, "int-a", 0, 3).await;
}
