//! `kill -9` at any moment while keys are created, rotated and used: whatever was
//! acknowledged is there afterwards, and the audit chain holds.
//!
//! `KEYWRIGHT_KILLS` sets how often (default 100).
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

use std::{
    path::Path,
    sync::{Arc, Mutex},
};

use keywright_client::{
    Client, Settings, audit,
    proto::{
        CreateKeyRequest, DecryptRequest, EncryptRequest, GetKeyRequest, KeySpec, RotateKeyRequest,
    },
};
use keywright_softhsm_tests::{daemon::Daemon, kills::Kills};

/// What the daemon has acknowledged.
#[derive(Default)]
struct Acknowledged {
    keys: Vec<(String, u32)>,
    sealed: Vec<Sealed>,
}

struct Sealed {
    header: bytes::Bytes,
    items: Vec<bytes::Bytes>,
    plaintext: String,
}

#[test]
fn nothing_acknowledged_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let known = Arc::new(Mutex::new(Acknowledged::default()));
    let kills = Kills {
        count: Kills::count("KEYWRIGHT_KILLS", 100),
        starts: 4,
        least_ms: 20,
        work_ms: 200,
        seed: 0x5eed_1234_abcd_0001,
    };
    kills.run(
        &data,
        |daemon, round| runtime.spawn(work(daemon.settings(), round, Arc::clone(&known))),
        |work| runtime.block_on(work).unwrap(),
    );
    let kills = kills.count;
    let known = Arc::into_inner(known).unwrap().into_inner().unwrap();
    println!(
        "{kills} kills, {} keys and {} envelopes acknowledged",
        known.keys.len(),
        known.sealed.len()
    );
    assert!(
        known.keys.len() as u64 > kills / 4,
        "the test did too little to say anything"
    );
    assert!(
        known.sealed.len() as u64 > kills,
        "the test did too little to say anything"
    );

    let daemon = Daemon::start(&data);
    runtime.block_on(check(&daemon.settings(), &known));
    let log = daemon.log();
    assert!(daemon.stop().success());
    verify(&data);
    println!(
        "orphans reported at the last start: {}",
        log.matches("was generated and never recorded").count()
            + log.matches("belongs to no key here").count()
    );
}

/// Creates, rotates and encrypts from several callers until the connection breaks.
async fn work(settings: Settings, round: u64, known: Arc<Mutex<Acknowledged>>) {
    let Ok(client) = Client::connect(&settings).await else {
        return;
    };
    let callers: Vec<_> = (0..4)
        .map(|caller| {
            tokio::spawn(one_caller(
                client.clone(),
                round,
                caller,
                Arc::clone(&known),
            ))
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
}

async fn one_caller(client: Client, round: u64, caller: u64, known: Arc<Mutex<Acknowledged>>) {
    let own = format!("crash/r{round}-c{caller}");
    let request = CreateKeyRequest {
        name: own.clone(),
        spec: KeySpec::Aes256.into(),
        ..Default::default()
    };
    if client.keys().create_key(request).await.is_err() {
        return;
    }
    known.lock().unwrap().keys.push((own.clone(), 1));
    for n in 0.. {
        let plaintext = format!("{own} item {n}");
        let request = EncryptRequest {
            key: own.clone(),
            plaintexts: vec![plaintext.clone().into()],
            ..Default::default()
        };
        match client.crypto().encrypt(request).await {
            Ok(response) => {
                let response = response.into_inner();
                known.lock().unwrap().sealed.push(Sealed {
                    header: response.header,
                    items: response.items,
                    plaintext,
                });
            }
            Err(_) => return,
        }
        if n % 10 == 9 {
            match client
                .keys()
                .rotate_key(RotateKeyRequest { name: own.clone() })
                .await
            {
                Ok(response) => {
                    let version = response.into_inner().key.unwrap().primary_version;
                    known.lock().unwrap().keys.push((own.clone(), version));
                }
                Err(_) => return,
            }
        }
    }
}

async fn check(settings: &Settings, known: &Acknowledged) {
    let client = Client::connect(settings).await.unwrap();
    for (name, version) in &known.keys {
        let request = GetKeyRequest { name: name.clone() };
        let key = client
            .keys()
            .get_key(request)
            .await
            .unwrap()
            .into_inner()
            .key
            .unwrap();
        assert!(
            key.versions.iter().any(|v| v.number == *version),
            "{name} lost version {version}"
        );
        let request = EncryptRequest {
            key: name.clone(),
            plaintexts: vec!["usable".into()],
            ..Default::default()
        };
        client.crypto().encrypt(request).await.unwrap();
    }
    for sealed in &known.sealed {
        let request = DecryptRequest {
            header: sealed.header.clone(),
            items: sealed.items.clone(),
            ..Default::default()
        };
        let opened = client.crypto().decrypt(request).await.unwrap().into_inner();
        assert_eq!(opened.plaintexts[0], sealed.plaintext.as_bytes());
    }
}

fn verify(data: &Path) {
    let report = audit::verify(data, None).unwrap();
    assert_eq!(report.unfinished_bytes, 0, "the last start cut it off");
    println!("the audit log holds together: {} records", report.records);
}
