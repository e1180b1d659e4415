//! `kill -9` at any moment while certificates are issued and revoked: no serial twice, no
//! certificate that is not on record, no revoked certificate missing from the next CRL.
//!
//! `KEYWRIGHT_PKI_KILLS` sets how often (default 200).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "this is a test"
)]

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fs,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use keywright_client::{
    Client, Settings, audit,
    proto::{
        CertificateRef, CertificateState, GetCertificateRequest, GetCrlRequest, IssuedCertificate,
        RevocationReason, RevokeRequest, SearchRequest, SignCsrBatchRequest, SignCsrRequest,
        revoke_request::Target,
    },
};
use keywright_pki::revoked_serials;
use keywright_softhsm_tests::{daemon::Daemon, kills::Kills};
use rcgen::{CertificateParams, KeyPair};

const ISSUER: &str = "dev-issuer";

/// What was asked and answered.
#[derive(Default)]
struct Known {
    /// Asked for, not answered: nobody knows what became of it.
    open: BTreeMap<String, SignCsrRequest>,
    /// By serial.
    issued: BTreeMap<Bytes, Issued>,
    /// By idempotency key, so that a repeat can be told from another certificate.
    by_request: BTreeMap<String, Bytes>,
    /// Serials whose revocation was acknowledged.
    revoked: BTreeSet<Bytes>,
    /// Serials whose revocation was asked for.
    asked: BTreeSet<Bytes>,
    /// Of the newest CRL that was seen.
    crl_number: u64,
    repeats_answered: u64,
}

struct Issued {
    name: CertificateRef,
    der: Bytes,
}

impl Known {
    fn issued(&mut self, request_key: &str, certificate: IssuedCertificate) -> CertificateRef {
        let name = certificate.r#ref.unwrap();
        self.open.remove(request_key);
        let before = self
            .by_request
            .insert(request_key.to_owned(), name.serial.clone());
        assert!(
            before.is_none_or(|b| b == name.serial),
            "{request_key}: one request, two certificates"
        );
        let issued = Issued {
            name: name.clone(),
            der: certificate.certificate_der,
        };
        if let Some(twin) = self.issued.insert(name.serial.clone(), issued) {
            assert_eq!(
                twin.der, self.issued[&name.serial].der,
                "one serial, two certificates"
            );
        }
        name
    }
}

#[test]
fn every_certificate_is_on_record_and_every_revocation_on_the_next_list() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let known = Arc::new(Mutex::new(Known::default()));
    let kills = Kills {
        count: Kills::count("KEYWRIGHT_PKI_KILLS", 200),
        starts: 8,
        least_ms: 5,
        work_ms: 100,
        seed: 0x5eed_9a11_abcd_0004,
    };
    kills.run(
        &data,
        |daemon, round| {
            let settings = daemon.settings();
            runtime.block_on(settle(&settings, &known));
            runtime.spawn(work(settings, round, Arc::clone(&known)))
        },
        |work| runtime.block_on(work).unwrap(),
    );
    let kills = kills.count;
    let daemon = Daemon::start(&data);
    runtime.block_on(settle(&daemon.settings(), &known));
    runtime.block_on(check(&daemon.settings(), &known.lock().unwrap()));
    assert!(daemon.stop().success());
    let known = Arc::into_inner(known).unwrap().into_inner().unwrap();
    audited(&data, &known);
    println!(
        "{kills} kills: {} certificates, {} of them by asking again after a kill, {} revoked, \
         last CRL number {}",
        known.issued.len(),
        known.repeats_answered,
        known.revoked.len(),
        known.crl_number
    );
    assert!(
        known.issued.len() as u64 > kills
            && known.revoked.len() as u64 > kills / 4
            && known.repeats_answered > kills / 20,
        "the test did too little to say anything"
    );
}

/// After a start: what was asked is asked again, and the next list holds whatever was
/// revoked before.
async fn settle(settings: &Settings, known: &Mutex<Known>) {
    let client = Client::connect(settings).await.unwrap();
    let open = known.lock().unwrap().open.clone();
    for (request_key, request) in open {
        let issued = client.pki().sign_csr(request).await.unwrap().into_inner();
        let mut known = known.lock().unwrap();
        known.repeats_answered += 1;
        known.issued(&request_key, issued.certificate.unwrap());
    }
    let before = known.lock().unwrap().crl_number;
    let request = GetCrlRequest {
        issuer: ISSUER.into(),
        shard: 0,
    };
    let mut list = None;
    for _ in 0..500 {
        match client.pki().get_crl(request.clone()).await {
            Ok(crl) if crl.get_ref().number > before => {
                list = Some(crl.into_inner());
                break;
            }
            _ => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
    let list = list.expect("a new list after a start");
    let listed: HashSet<Vec<u8>> = revoked_serials(&list.crl_der)
        .unwrap()
        .iter()
        .map(|serial| serial.as_bytes().to_vec())
        .collect();
    let mut known = known.lock().unwrap();
    known.crl_number = list.number;
    for serial in &known.revoked {
        assert!(listed.contains(&serial[..]), "{serial:?} is not listed");
    }
    for serial in &listed {
        assert!(
            known.asked.contains(&serial[..]),
            "{serial:?}: nobody revoked it"
        );
    }
}

/// Issues and revokes from several callers until the connection breaks.
async fn work(settings: Settings, round: u64, known: Arc<Mutex<Known>>) {
    let Ok(client) = Client::connect(&settings).await else {
        return;
    };
    let callers: Vec<_> = (0..4)
        .map(|caller| {
            let (client, known) = (client.clone(), Arc::clone(&known));
            tokio::spawn(async move {
                for n in 0.. {
                    let label = format!("r{round}-c{caller}-n{n}");
                    let size = if caller == 0 { 5 } else { 1 };
                    if one_turn(&client, &known, &label, size, n).await.is_none() {
                        return;
                    }
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
}

/// Some certificates, and the first of them revoked every other time; nothing: the
/// connection broke.
async fn one_turn(
    client: &Client,
    known: &Mutex<Known>,
    label: &str,
    size: usize,
    n: u64,
) -> Option<()> {
    let requests: Vec<_> = (0..size).map(|i| ask(&format!("{label}-i{i}"))).collect();
    let keys: Vec<_> = requests.iter().map(|r| r.idempotency_key.clone()).collect();
    for request in &requests {
        let key = request.idempotency_key.clone();
        known.lock().unwrap().open.insert(key, request.clone());
    }
    let certificates = if let [request] = requests.as_slice() {
        let answer = client.pki().sign_csr(request.clone()).await.ok()?;
        vec![answer.into_inner().certificate.unwrap()]
    } else {
        let request = SignCsrBatchRequest { requests };
        let answer = client.pki().sign_csr_batch(request).await.ok()?;
        let answer = answer.into_inner();
        assert!(answer.errors.is_empty(), "{:?}", answer.errors);
        answer.certificates
    };
    let mut names = Vec::new();
    for (key, certificate) in keys.iter().zip(certificates) {
        names.push(known.lock().unwrap().issued(key, certificate));
    }
    if n.is_multiple_of(2) {
        let name = names.swap_remove(0);
        known.lock().unwrap().asked.insert(name.serial.clone());
        let request = RevokeRequest {
            target: Some(Target::Ref(name.clone())),
            reason: RevocationReason::Superseded.into(),
            ..Default::default()
        };
        client.pki().revoke(request).await.ok()?;
        known.lock().unwrap().revoked.insert(name.serial);
    }
    Some(())
}

fn ask(label: &str) -> SignCsrRequest {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![format!("{label}.dev.example")]).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    SignCsrRequest {
        profile: "dev-service".into(),
        csr_der: params
            .serialize_request(&key)
            .unwrap()
            .der()
            .to_vec()
            .into(),
        idempotency_key: format!("idempotent-{label}"),
        ..Default::default()
    }
}

/// The record of each certificate, and nothing on record that could be another.
async fn check(settings: &Settings, known: &Known) {
    let client = Client::connect(settings).await.unwrap();
    for (serial, issued) in &known.issued {
        let request = GetCertificateRequest {
            r#ref: Some(issued.name.clone()),
        };
        let record = client.pki().get_certificate(request).await.unwrap();
        let record = record.into_inner().certificate.unwrap();
        assert_eq!(record.certificate_der, issued.der, "another certificate");
        let revoked = record.state() == CertificateState::Revoked;
        assert!(revoked || record.state() == CertificateState::Issued);
        assert!(
            revoked || !known.revoked.contains(serial),
            "revoked no more"
        );
        assert!(!revoked || known.asked.contains(serial), "nobody asked");
    }
    let mut page_token = String::new();
    let (mut seen, mut finished) = (BTreeSet::new(), 0);
    loop {
        let request = SearchRequest {
            issuer: ISSUER.into(),
            page_size: 1000,
            page_token,
            ..Default::default()
        };
        let page = client.pki().search(request).await.unwrap().into_inner();
        for record in page.certificates {
            let serial = record.r#ref.clone().unwrap().serial;
            assert!(seen.insert(serial), "one serial, two records");
            finished += usize::from(!record.certificate_der.is_empty());
        }
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    println!(
        "{} records, {finished} of them of finished certificates",
        seen.len()
    );
    assert!(known.issued.keys().all(|serial| seen.contains(serial)));
}

/// The log holds together, and every certificate it speaks of is known.
fn audited(data: &Path, known: &Known) {
    let report = audit::verify(data, None).unwrap();
    println!("the audit log holds together: {} records", report.records);
    let serials: HashSet<String> = known.issued.keys().map(|s| hex(s)).collect();
    let mut recorded = 0;
    for file in fs::read_dir(data.join("audit")).unwrap() {
        let bytes = fs::read(file.unwrap().path()).unwrap();
        for line in String::from_utf8_lossy(&bytes).lines() {
            let Ok(record) = serde_json::from_str::<serde_json::Value>(line) else {
                continue;
            };
            if record["action"] == "SignCsr" && record["outcome"] == "OK" {
                let serial = record["detail"]["serial"].as_str().unwrap();
                assert!(serials.contains(serial), "{serial} is audited, not known");
                recorded += 1;
            }
        }
    }
    assert!(recorded > 0, "no record of an issue was read");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
