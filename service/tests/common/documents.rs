//! What the appliances of the tests signed: all of it is judged by rustls-webpki, and kept
//! for other verifiers where `KEYWRIGHT_PKI_DOCUMENTS` names a directory
//! (`softhsm-tests/clients/pki_oracles.py`).
//!
//! Certificates and the last lists are taken from the store when an appliance ends: who got
//! them, and how, does not matter. Lists and OCSP answers in between are taken where a test
//! receives them.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use keywright_service::{
    authorities::Authority,
    authority::{CertificateRecord, CrlRecord},
    key::TenantId,
    ops::App,
    store::{PkiStore, Search, SqliteStore},
};
use sha2::{Digest, Sha256};
use webpki::{BorrowedCertRevocationList, Error};

use super::verify;

/// Judges and keeps when it is dropped; before the data directory is.
pub(super) struct Documents {
    pub(super) app: Arc<App>,
    pub(super) dir: PathBuf,
}

impl Drop for Documents {
    fn drop(&mut self) {
        let issuers = self.app.authorities.all_issuers();
        if std::thread::panicking() || issuers.iter().all(|i| i.certificate.is_none()) {
            return;
        }
        let (app, dir) = (Arc::clone(&self.app), self.dir.clone());
        // The runtime of the test stands still meanwhile: a connection and a thread of our own.
        let all = std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(sweep(&app, &dir));
        });
        all.join().expect("every document passes rustls-webpki");
    }
}

async fn sweep(app: &App, dir: &Path) {
    let store = SqliteStore::open(&dir.join("keywright.db")).await.unwrap();
    for authority in app.authorities.all_issuers() {
        let issuer = &authority.issuer;
        let chain = chain(&authority);
        let what = Search {
            issuer: Some(issuer.id),
            limit: 100_000,
            ..Search::default()
        };
        let mut records = store.search(issuer.tenant, &what).await.unwrap();
        records.retain(|r| !r.certificate.is_empty());
        for record in &records {
            let profile = record.intended.profile.as_str();
            let at = record.intended.created_ms;
            keep("certificate", &record.certificate, &chain, profile, at, &[]);
            if profile != "ceremony" {
                let verdict = judge(record, &chain, None, at);
                verdict.unwrap_or_else(|e| panic!("{profile}: {e:?}"));
            }
        }
        for shard in 0..=1024 {
            let Some(list) = app.authorities.crl(issuer.id, shard) else {
                continue;
            };
            let file = app.crl_dir.join(format!("{}-{shard}.crl", issuer.id));
            let der = fs::read(file).unwrap();
            // The next one was there and not on record when the test ended.
            if Sha256::digest(&der)[..] != list.sha256 {
                continue;
            }
            let kind = if shard == 0 { "crl" } else { "crl-shard" };
            keep(kind, &der, &chain, "", list.this_update_ms, &[]);
            judge_list(&records, &chain, &der, &list);
        }
    }
}

/// A list speaks for every certificate in its scope, and its signature is the issuer's.
fn judge_list(records: &[CertificateRecord], chain: &[Vec<u8>], crl: &[u8], list: &CrlRecord) {
    let shard = list.shard;
    BorrowedCertRevocationList::from_der(crl).unwrap();
    for record in records {
        let at = list.this_update_ms.max(record.intended.created_ms);
        let in_scope = shard == 0 || record.intended.shard == shard;
        // The clocks of tests jump: the two may never have been good together.
        let expired = at > record.intended.not_after_ms || at > list.next_update_ms;
        if expired || !in_scope || record.intended.profile.as_str() == "ceremony" {
            continue;
        }
        match judge(record, chain, Some(crl), at) {
            // A revocation may be newer than the list.
            Ok(()) | Err(Error::CertRevoked) => {}
            Err(e) => panic!(
                "the list {shard}, about {}: {e:?}",
                record.intended.name.serial
            ),
        }
    }
}

/// As of this millisecond.
fn judge(
    record: &CertificateRecord,
    chain: &[Vec<u8>],
    crl: Option<&[u8]>,
    at_ms: i64,
) -> Result<(), Error> {
    let chain: Vec<&[u8]> = chain.iter().map(AsRef::as_ref).collect();
    let at = Duration::from_millis(u64::try_from(at_ms).unwrap());
    verify::judge(&record.certificate, &chain, crl, verify::AnyPurpose, at)
}

/// From the issuer up to and with the root.
fn chain(authority: &Authority) -> Vec<Vec<u8>> {
    let own = std::iter::once(&authority.issuer.certificate);
    own.chain(&authority.issuer.chain).cloned().collect()
}

/// Keeps a list that a test got from issuer `name` of tenant red.
pub(crate) fn crl(app: &App, name: &str, shard: u32, der: &[u8], at_ms: i64) {
    let kind = if shard == 0 { "crl" } else { "crl-shard" };
    keep(kind, der, &chain_of(app, name), "", at_ms, &[]);
}

/// Keeps an answer that a test got from issuer `name` of tenant red.
pub(crate) fn ocsp(app: &App, name: &str, request: &[u8], answer: &[u8], at_ms: i64) {
    let beside = [("request.der", request)];
    keep("ocsp", answer, &chain_of(app, name), "", at_ms, &beside);
}

fn chain_of(app: &App, name: &str) -> Vec<Vec<u8>> {
    let issuers = app.authorities.issuers_of(TenantId([1; 16]));
    let found = issuers.iter().find(|i| i.issuer.name.as_str() == name);
    chain(found.unwrap())
}

/// One directory for each document, by its hash: `document.der`, `chain-0.der` (its issuer)
/// up to the root, and `about.json`.
fn keep(
    kind: &str,
    der: &[u8],
    chain: &[Vec<u8>],
    profile: &str,
    at_ms: i64,
    beside: &[(&str, &[u8])],
) {
    let Some(all) = std::env::var_os("KEYWRIGHT_PKI_DOCUMENTS") else {
        return;
    };
    let name: String = Sha256::digest(der)[..8]
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    let whole = PathBuf::from(all).join(name);
    if whole.exists() {
        return;
    }
    let test = std::thread::current();
    let about = serde_json::json!({
        "kind": kind,
        "profile": profile,
        "at": at_ms / 1000,
        "from": test.name().unwrap_or("the end of a test"),
    });
    // Never half a document, and of two that come at once, one.
    let half = tempfile::tempdir_in(whole.parent().unwrap()).unwrap();
    let write = |name: &str, bytes: &[u8]| fs::write(half.path().join(name), bytes).unwrap();
    write("document.der", der);
    for (n, der) in chain.iter().enumerate() {
        write(&format!("chain-{n}.der"), der);
    }
    for (name, bytes) in beside {
        write(name, bytes);
    }
    write("about.json", about.to_string().as_bytes());
    let _ = fs::rename(half.path(), whole);
}
