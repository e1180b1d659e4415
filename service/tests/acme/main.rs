//! ACME in process: the real door over TLS, a fake token, a client of our own, and on
//! loopback the resolver and the web server of the client's host.
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

mod alpn;
mod client;
#[path = "../common/mod.rs"]
mod common;
mod hosts;
mod networks;
mod refused;
mod setup;

use keywright_service::acme::{RenewalId, decode64, encode64};
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};

use client::{Client, Reply};
use setup::World;

/// A CSR for these names, and its key.
fn csr(names: &[&str]) -> (Value, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    // Its own has a common name that no order has.
    params.distinguished_name = rcgen::DistinguishedName::new();
    let csr = params.serialize_request(&key).unwrap();
    (json!({"csr": encode64(csr.der())}), key)
}

async fn ordered(client: &mut Client, names: &[&str]) -> Reply {
    let identifiers: Vec<Value> = names
        .iter()
        .map(|n| json!({"type": "dns", "value": n}))
        .collect();
    let url = client.directory["newOrder"].as_str().unwrap().to_owned();
    let reply = client
        .post(&url, &json!({"identifiers": identifiers}))
        .await;
    assert_eq!(reply.status, 201, "{}", reply.text());
    reply
}

/// Shows control of every name of an order over `kind`, and waits for the verdict.
async fn prove(world: &World, client: &mut Client, order: &Reply, kind: &str) -> Vec<Value> {
    let mut seen = Vec::new();
    for url in order.json()["authorizations"].as_array().unwrap() {
        let url = url.as_str().unwrap();
        let authorization = client.get(url).await.json();
        let all = authorization["challenges"].as_array().unwrap();
        let challenge = all.iter().find(|c| c["type"] == kind).unwrap();
        let token = challenge["token"].as_str().unwrap();
        let shown = format!("{token}.{}", client.thumbprint());
        world
            .files
            .lock()
            .unwrap()
            .insert(token.to_owned(), shown.clone());
        let name = authorization["identifier"]["value"].as_str().unwrap();
        let txt = encode64(&client::sha256(shown.as_bytes()));
        let record = format!("_acme-challenge.{name}");
        world.texts.lock().unwrap().insert(record, txt);
        client
            .post(challenge["url"].as_str().unwrap(), &json!({}))
            .await;
        seen.push(client.wait(url, "pending").await);
    }
    seen
}

async fn issued(
    world: &World,
    client: &mut Client,
    names: &[&str],
    kind: &str,
) -> (Vec<u8>, String) {
    let order = ordered(client, names).await;
    for authorization in prove(world, client, &order, kind).await {
        assert_eq!(authorization["status"], "valid", "{authorization}");
    }
    let finalize = order.json()["finalize"].as_str().unwrap().to_owned();
    let done = client.post(&finalize, &csr(names).0).await;
    assert_eq!(done.status, 200, "{}", done.text());
    assert_eq!(done.header("location"), order.header("location"));
    let certificate = done.json()["certificate"].as_str().unwrap().to_owned();
    let chain = client.get(&certificate).await;
    assert_eq!(
        chain.header("content-type"),
        Some("application/pem-certificate-chain")
    );
    let ders = client::pem(&chain.text());
    assert_eq!(ders.len(), 2, "leaf and intermediate");
    (
        ders[0].clone(),
        order.header("location").unwrap().to_owned(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn from_account_to_certificate_and_back() {
    let world = World::start().await;
    let mut client = world.client().await;
    let (der, order) = issued(
        &world,
        &mut client,
        &["a.dev.example", "b.dev.example"],
        "http-01",
    )
    .await;
    let info = keywright_pki::CertificateInfo::from_der(&der).unwrap();
    assert_eq!(info.sans.len(), 2);

    // When to renew, and a renewal that says what it replaces: once.
    let id = RenewalId {
        aki: info.aki.clone().unwrap(),
        serial: info.serial,
    };
    let url = format!("{}/{id}", client.directory["renewalInfo"].as_str().unwrap());
    let window = client.open("GET", &url).await;
    assert_eq!(window.status, 200);
    assert!(window.header("retry-after").is_some());
    assert!(window.json()["suggestedWindow"]["start"].is_string());
    let new_order = client.directory["newOrder"].as_str().unwrap().to_owned();
    let again = json!({"identifiers": [{"type": "dns", "value": "a.dev.example"}], "replaces": id.to_string()});
    assert_eq!(client.post(&new_order, &again).await.status, 201);
    let twice = client.post(&new_order, &again).await;
    assert_eq!(
        (twice.status, twice.problem().as_str()),
        (409, "alreadyReplaced")
    );

    // Another account may not revoke it, its own may, once.
    let mut other = world.client().await;
    let revoke = client.directory["revokeCert"].as_str().unwrap().to_owned();
    let ask = json!({"certificate": encode64(&der), "reason": 4});
    assert_eq!(other.post(&revoke, &ask).await.problem(), "unauthorized");
    assert_eq!(other.get(&order).await.status, 404);
    let bad = json!({"certificate": encode64(&der), "reason": 6});
    assert_eq!(
        client.post(&revoke, &bad).await.problem(),
        "badRevocationReason"
    );
    assert_eq!(client.post(&revoke, &ask).await.status, 200);
    assert_eq!(client.post(&revoke, &ask).await.problem(), "alreadyRevoked");

    // Everything is on record, and no token is.
    let log = serde_json::to_string(&world.appliance.audit()).unwrap();
    for action in [
        "AcmeNewAccount",
        "AcmeNewOrder",
        "AcmeAnswerChallenge",
        "AcmeValidate",
        "AcmeFinalize",
        "AcmeRevoke",
    ] {
        assert!(!world.appliance.records(action).is_empty(), "{action}");
    }
    for token in world.files.lock().unwrap().keys() {
        assert!(!log.contains(token), "a token is in the audit log");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wildcard_is_proved_in_dns_only() {
    let world = World::start().await;
    let mut client = world.client().await;
    let (der, _) = issued(&world, &mut client, &["*.dev.example"], "dns-01").await;
    let info = keywright_pki::CertificateInfo::from_der(&der).unwrap();
    assert_eq!(info.sans[0].to_string(), "dns:*.dev.example");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_answer_ends_the_order() {
    let world = World::start().await;
    let mut client = world.client().await;
    let order = ordered(&mut client, &["a.dev.example"]).await;
    let url = order.json()["authorizations"][0]
        .as_str()
        .unwrap()
        .to_owned();
    let authorization = client.get(&url).await.json();
    let challenge = authorization["challenges"][0]["url"]
        .as_str()
        .unwrap()
        .to_owned();
    client.post(&challenge, &json!({})).await;
    let verdict = client.wait(&url, "pending").await;
    assert_eq!(verdict["status"], "invalid");
    assert!(
        verdict["challenges"][0]["error"]["type"]
            .as_str()
            .unwrap()
            .ends_with(":incorrectResponse"),
        "{verdict}"
    );
    let own = order.header("location").unwrap().to_owned();
    assert_eq!(client.get(&own).await.json()["status"], "invalid");
    let finalize = order.json()["finalize"].as_str().unwrap().to_owned();
    assert_eq!(
        client
            .post(&finalize, &csr(&["a.dev.example"]).0)
            .await
            .problem(),
        "orderNotReady"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_csr_must_ask_for_the_names_of_the_order() {
    let world = World::start().await;
    let mut client = world.client().await;
    let order = ordered(&mut client, &["a.dev.example"]).await;
    prove(&world, &mut client, &order, "http-01").await;
    let finalize = order.json()["finalize"].as_str().unwrap().to_owned();
    for names in [
        &["b.dev.example"][..],
        &["a.dev.example", "b.dev.example"],
        &[],
    ] {
        let reply = client.post(&finalize, &csr(names).0).await;
        assert_eq!(reply.problem(), "badCSR", "{names:?}");
    }
    // What the profile does not give is not issued, proved or not.
    let order = ordered(&mut client, &["a.elsewhere.example"]).await;
    prove(&world, &mut client, &order, "http-01").await;
    let finalize = order.json()["finalize"].as_str().unwrap().to_owned();
    let reply = client
        .post(&finalize, &csr(&["a.elsewhere.example"]).0)
        .await;
    assert_eq!(
        (reply.status, reply.problem().as_str()),
        (403, "rejectedIdentifier"),
        "{}",
        reply.text()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_comes_in_without_the_operators_key() {
    let world = World::start().await;
    let mut stranger = world.stranger().await;
    assert_eq!(
        stranger.register(None).await.problem(),
        "externalAccountRequired"
    );
    let (kid, key) = world.acme_key.clone();
    let mut wrong = decode64(&key).unwrap();
    wrong[0] ^= 1;
    let reply = stranger.register(Some((&kid, &encode64(&wrong)))).await;
    assert_eq!(reply.problem(), "unauthorized");
    assert!(reply.header("replay-nonce").is_some());
    assert_eq!(stranger.register(Some((&kid, &key))).await.status, 201);
    // The same key again finds the account.
    let again = stranger.register(None).await;
    assert_eq!(
        (again.status, again.header("location")),
        (200, stranger.kid.as_deref())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_not_replayed_or_moved() {
    let world = World::start().await;
    let mut client = world.client().await;
    let url = client.directory["newOrder"].as_str().unwrap().to_owned();
    let payload = json!({"identifiers": [{"type": "dns", "value": "a.dev.example"}]});
    let body = client.sign(&url, &payload).await;
    assert_eq!(client.send(&url, &body).await.status, 201);
    assert_eq!(client.send(&url, &body).await.problem(), "badNonce");
    let body = client.sign(&url, &payload).await;
    let elsewhere = client.directory["revokeCert"].as_str().unwrap().to_owned();
    assert_eq!(
        client.send(&elsewhere, &body).await.problem(),
        "unauthorized"
    );
    let mut forged = client.sign(&url, &payload).await;
    forged["payload"] = json!(encode64(b"{}"));
    assert_eq!(client.send(&url, &forged).await.problem(), "unauthorized");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_changes_its_key_and_is_given_up() {
    let world = World::start().await;
    let mut client = world.client().await;
    let kid = client.kid.clone().unwrap();
    assert_eq!(client.change_key().await.status, 200);
    assert_eq!(client.get(&kid).await.status, 200);
    let gone = client.post(&kid, &json!({"status": "deactivated"})).await;
    assert_eq!(gone.json()["status"], "deactivated");
    assert_eq!(client.get(&kid).await.problem(), "unauthorized");
}
