//! What clients hear when they ask too often, or wrongly: problem documents (RFC 7807,
//! RFC 8555 §6.7), each with a nonce for the next try.

use keywright_service::config::Limits;
use serde_json::{Value, json};

use crate::{
    client::{Client, Reply},
    ordered,
    setup::World,
};

fn problem(reply: &Reply, status: u16, kind: &str) {
    assert_eq!(
        (reply.status, reply.problem().as_str()),
        (status, kind),
        "{}",
        reply.text()
    );
    let document = reply.json();
    assert_eq!(
        reply.header("content-type"),
        Some("application/problem+json")
    );
    assert_eq!(document["status"], status);
    let urn = format!("urn:ietf:params:acme:error:{kind}");
    assert_eq!(document["type"], json!(urn));
    assert!(document["detail"].as_str().is_some_and(|d| !d.is_empty()));
    // `null` breaks clients.
    assert!(document.get("subproblems").is_none_or(Value::is_array));
    assert!(reply.header("link").unwrap().contains("rel=\"index\""));
}

async fn new_order(client: &mut Client, payload: Value) -> Reply {
    let url = client.directory["newOrder"].as_str().unwrap().to_owned();
    client.post(&url, &payload).await
}

fn name(value: &str) -> Value {
    json!([{"type": "dns", "value": value}])
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_requests_are_told_what_is_wrong() {
    let world = World::start().await;
    let mut client = world.client().await;
    let host = name("a.dev.example");
    for (payload, status, kind) in [
        (json!({}), 400, "malformed"),
        (json!({"identifiers": []}), 400, "malformed"),
        (
            json!({"identifiers": [{"type": "email", "value": "a@b"}]}),
            400,
            "unsupportedIdentifier",
        ),
        (
            json!({"identifiers": name("a_b.dev.example")}),
            400,
            "rejectedIdentifier",
        ),
        (
            json!({"identifiers": name("127.0.0.1")}),
            400,
            "rejectedIdentifier",
        ),
        (
            json!({"identifiers": host, "profile": "other"}),
            400,
            "invalidProfile",
        ),
        (
            json!({"identifiers": host, "notAfter": "2100-01-01T00:00:00Z"}),
            400,
            "malformed",
        ),
        (
            json!({"identifiers": host, "replaces": "x"}),
            400,
            "malformed",
        ),
    ] {
        let reply = new_order(&mut client, payload.clone()).await;
        problem(&reply, status, kind);
    }
    let order_url = client.directory["newOrder"].as_str().unwrap().to_owned();
    problem(&client.open("GET", &order_url).await, 405, "malformed");
    problem(
        &client.send(&order_url, &json!("x")).await,
        400,
        "malformed",
    );
    let large = json!({"payload": "x".repeat(1 << 17)});
    problem(&client.send(&order_url, &large).await, 413, "malformed");
    let nowhere = order_url.replace("new-order", "order/AAAAAAAAAAAAAAAAAAAAAA");
    problem(&client.get(&nowhere).await, 404, "malformed");
    let kid = client.kid.clone().unwrap();
    let contact = json!({"contact": ["tel:123"]});
    problem(
        &client.post(&kid, &contact).await,
        400,
        "unsupportedContact",
    );
    let revoke = client.directory["revokeCert"].as_str().unwrap().to_owned();
    let unknown = json!({"certificate": "AAAA"});
    assert!(client.post(&revoke, &unknown).await.status >= 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_orders_too_often_waits() {
    let limits = Limits {
        acme_orders_per_hour: 3,
        ..World::limits()
    };
    let world = World::with(limits).await;
    let (mut busy, mut other) = (world.client().await, world.client().await);
    for _ in 0..3 {
        ordered(&mut busy, &["a.dev.example"]).await;
    }
    let reply = new_order(&mut busy, json!({"identifiers": name("a.dev.example")})).await;
    problem(&reply, 429, "rateLimited");
    let wait: u64 = reply.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=3600).contains(&wait), "{wait}");
    ordered(&mut other, &["a.dev.example"]).await;
    // What it has goes on.
    let kid = busy.kid.clone().unwrap();
    assert_eq!(busy.get(&kid).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_asks_too_often_waits() {
    let limits = Limits {
        acme_requests_per_minute: 2,
        ..World::limits()
    };
    let world = World::with(limits).await;
    let mut client = world.client().await;
    let kid = client.kid.clone().unwrap();
    // The minute may turn once in between.
    let mut refused = None;
    for _ in 0..5 {
        let reply = client.get(&kid).await;
        if reply.status != 200 {
            refused = Some(reply);
            break;
        }
    }
    let reply = refused.expect("five requests, and two in a minute");
    problem(&reply, 429, "rateLimited");
    let wait: u64 = reply.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
}

/// The profile says where we look; this one lists nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_profile_without_networks_is_looked_for_in_public_only() {
    let world = World::start().await;
    let mut client = world.client().await;
    let payload = json!({"identifiers": name("a.dev.example"), "profile": "public"});
    let order = new_order(&mut client, payload).await;
    assert_eq!(
        (order.status, &order.json()["profile"]),
        (201, &json!("public"))
    );
    for verdict in crate::prove(&world, &mut client, &order, "http-01").await {
        assert_eq!(verdict["status"], "invalid");
        let error = &verdict["challenges"][0]["error"];
        assert!(
            error["type"].as_str().unwrap().ends_with(":connection"),
            "{error}"
        );
        assert!(
            error["detail"].as_str().unwrap().contains("not public"),
            "{error}"
        );
    }
}
