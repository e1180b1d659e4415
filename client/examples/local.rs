//! Sealing on this machine under data keys that the appliance lends: a hundred thousand
//! records without one of them travelling. Run it as the tour.
//!
//! ```text
//! set -a; . ./demo-data/client.env; set +a
//! cargo run --release -p keywright-client --example local
//! ```
#![allow(clippy::print_stdout, reason = "this is an example")]

use std::time::{Duration, Instant};

use keywright_client::{
    Client, Context, Failure, Plain, Settings,
    proto::{KeyRules, KeySpec, UpdateKeyRequest},
};

const KEY: &str = "tour/records";

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let client = Client::connect(&Settings::from_env()?).await?;
    match client.create_key(KEY, KeySpec::Aes256).await {
        Err(e) if e.reason() == Some("KEY_EXISTS") => {}
        made => drop(made?),
    }
    // What an administrator does once: data keys of this key are lent for a minute each.
    let rules = KeyRules {
        lease_seconds: 60,
        ..KeyRules::default()
    };
    let request = UpdateKeyRequest {
        name: KEY.into(),
        rules: Some(rules),
        ..UpdateKeyRequest::default()
    };
    client.keys().update_key(request).await?;

    // Seal. The first call asks for a data key; the others ask nobody.
    let sealer = client.local_sealer(KEY);
    let context = Context::from([("table".to_owned(), "records".to_owned())]);
    let record = [b'x'; 256];
    let batch = vec![Plain::from(&record[..]); 1000];
    let began = Instant::now();
    let mut sealed = Vec::new();
    for _ in 0..100 {
        sealed.push(sealer.seal(&context, &batch).await?);
    }
    let took = began.elapsed();

    // What comes out is what the server writes: it opens it, and rewraps it.
    for one in sealed.iter().step_by(25) {
        let opened = client.decrypt(one, &context).await?;
        assert!(opened.plaintexts.iter().all(|p| *p == record[..]));
    }

    // After a rotation the next lease is one of the new version, within a few seconds.
    let before = client.key(KEY).await?.primary_version;
    client.rotate_key(KEY).await?;
    let one = [Plain::from(&record[..])];
    while sealer.seal(&context, &one).await?.key_version == before {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    println!(
        "100,000 records sealed here in {took:.2?}, with one data key; after the rotation under version {}",
        before + 1
    );
    Ok(())
}
