//! A tour of the client library: run it against `make demo`'s daemon, or any other, with
//! an identity that may create and use keys.
//!
//! ```text
//! set -a; . ./demo-data/client.env; set +a
//! cargo run -p keywright-client --example tour
//! ```
#![allow(clippy::print_stdout, reason = "this is an example")]

use std::collections::BTreeMap;

use keywright_client::{Client, Failure, FailureKind, Settings, proto::KeySpec};

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let client = Client::connect(&Settings::from_env()?).await?;
    for (name, spec) in [
        ("tour/cards", KeySpec::Aes256),
        ("tour/releases", KeySpec::EcP256),
        ("tour/webhooks", KeySpec::HmacSha256),
    ] {
        match client.create_key(name, spec).await {
            // From an earlier tour.
            Err(e) if e.reason() == Some("KEY_EXISTS") => {}
            made => drop(made?),
        }
    }

    // Encrypt a batch; the same context is needed to open it.
    let context = BTreeMap::from([("table".to_owned(), "cards".to_owned())]);
    let cards = vec!["4111 1111 1111 1111".into(), "5500 0000 0000 0004".into()];
    let sealed = client
        .encrypt("tour/cards", &context, cards.clone())
        .await?;
    let opened = client.decrypt(&sealed, &context).await?;
    assert_eq!(opened.plaintexts, cards);
    let other = BTreeMap::new();
    let refused = client.decrypt(&sealed, &other).await.map(drop);
    assert_eq!(refused.map_err(|e| e.kind()), Err(FailureKind::Data));

    // Rotate, and move what is stored: only the header travels.
    client.rotate_key("tour/cards").await?;
    let opened = client.decrypt(&sealed, &context).await?;
    assert!(opened.rewrap_due);
    let headers = client.rewrap(vec![sealed.header.clone()]).await?;
    let mut moved = sealed.clone();
    moved.header = headers.into_iter().next().unwrap_or_default();
    let opened = client.decrypt(&moved, &context).await?;
    assert!(opened.plaintexts == cards && !opened.rewrap_due);

    // Sign and verify, MAC and compare.
    let release = vec!["release 1.0".into()];
    let signatures = client.sign("tour/releases", release.clone()).await?;
    let valid = client.verify("tour/releases", release.clone(), signatures.clone());
    assert_eq!(valid.await?, [true]);
    let forged = client.verify("tour/releases", vec!["release 6.6".into()], signatures);
    assert_eq!(forged.await?, [false]);
    let macs = client.mac("tour/webhooks", release.clone()).await?;
    let valid = client.verify_mac("tour/webhooks", release, macs);
    assert_eq!(valid.await?, [true]);

    // A key for a cipher of our own.
    let key = client.data_key("tour/cards", &context, 32).await?;
    let again = client
        .open_data_key(key.wrapped.clone(), &context, 32)
        .await?;
    assert_eq!(again, key.plaintext);

    let key = client.key("tour/cards").await?;
    println!(
        "{} has {} versions; all of it worked",
        key.name,
        key.versions.len()
    );
    Ok(())
}
