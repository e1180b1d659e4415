//! `keywright pki list`, `show`, `crl`, `bundle`: what is on record and published.

use std::path::Path;

use keywright_client::{
    Client, Failure,
    proto::{self, CertificateState, RevocationReason, SearchRequest},
};
use serde_json::{Value, json};

use super::{files, readable};
use crate::{
    args::{Output, pki::Find},
    command::key::{table, time},
    output::{self, Sink, print},
};

const PAGE: u32 = 500;

pub(super) async fn list(client: &Client, what: Find, output: Output) -> Result<(), Failure> {
    let before = what.expiring.map(|span| {
        let millis = i64::try_from(span.seconds).unwrap_or(i64::MAX);
        let now = jiff::Timestamp::now().as_millisecond();
        now.saturating_add(millis.saturating_mul(1000))
    });
    let mut request = SearchRequest {
        name: what.name.unwrap_or_default(),
        profile: what.profile.unwrap_or_default(),
        issuer: what.issuer.unwrap_or_default(),
        state: what.state.map_or(0, |s| s.wire().into()),
        expires_before_unix_ms: before.unwrap_or(0),
        page_size: PAGE,
        ..Default::default()
    };
    let mut records = Vec::new();
    loop {
        let (page, next) = client.search(request.clone()).await?;
        records.extend(page);
        if next.is_empty() {
            break;
        }
        request.page_token = next;
    }
    if output == Output::Json {
        return output::json(&Value::Array(records.iter().map(facts).collect()));
    }
    let mut table = table(&["names", "state", "issuer", "serial", "profile", "not after"]);
    for record in &records {
        let (issuer, serial) = label(record.r#ref.as_ref());
        table.add_row([
            names(record),
            state(record).into(),
            issuer,
            serial,
            record.profile.clone(),
            time(record.not_after_unix_ms),
        ]);
    }
    print(&format!("{table}\n"))
}

pub(super) async fn show(
    client: &Client,
    issuer: &str,
    serial: &[u8],
    output: Output,
) -> Result<(), Failure> {
    let (record, chain) = client.certificate(issuer, serial).await?;
    let der = Some(&record.certificate_der).filter(|der| !der.is_empty());
    let reading = der.map(|der| readable::certificate(der)).transpose()?;
    if output == Output::Json {
        let mut all = facts(&record);
        if let Value::Object(map) = &mut all {
            let pem = der.map(|der| files::pem(files::CERTIFICATE, der));
            map.insert("certificate_pem".into(), json!(pem));
            map.insert("chain_pem".into(), json!(pem_list(&chain)));
            map.insert("certificate".into(), json!(reading.map(|r| r.json())));
        }
        return output::json(&all);
    }
    let (issuer, serial) = label(record.r#ref.as_ref());
    let mut table = table(&["certificate", &serial]);
    table.add_row(["issuer", &issuer]);
    table.add_row(["state", state(&record)]);
    if let Some(revoked) = when(record.revoked_unix_ms) {
        table.add_row(["revoked", &format!("{revoked}, {}", reason(&record))]);
    }
    table.add_row(["names", &names(&record)]);
    table.add_row(["profile", &record.profile]);
    table.add_row(["requested by", &record.requested_by]);
    table.add_row(["not before", &time(record.not_before_unix_ms)]);
    table.add_row(["not after", &time(record.not_after_unix_ms)]);
    table.add_row(["key SHA-256", &hex::encode(&record.spki_sha256)]);
    table.add_row(["lineage", &hex::encode(&record.lineage)]);
    print(&format!("{table}\n"))?;
    match reading {
        Some(reading) => print(&reading.table()),
        None => Ok(()),
    }
}

pub(super) async fn crl(
    client: &Client,
    issuer: &str,
    shard: u32,
    to: Option<&Path>,
    output: Output,
) -> Result<(), Failure> {
    let sink = to.map(|path| Sink::open(Some(path), false)).transpose()?;
    let crl = client.crl(issuer, shard).await?;
    let bytes = files::form(to, "X509 CRL", &crl.crl_der);
    let mut facts = json!({
        "issuer": issuer,
        "shard": shard,
        "number": crl.number,
        "entries": crl.entries,
        "this_update": time(crl.this_update_unix_ms),
        "next_update": time(crl.next_update_unix_ms),
    });
    match (sink, output) {
        (Some(sink), _) => files::fill(sink, &bytes)?,
        (None, Output::Json) => {
            if let Value::Object(map) = &mut facts {
                map.insert("crl_pem".into(), json!(String::from_utf8_lossy(&bytes)));
            }
        }
        (None, Output::Table) => print(&String::from_utf8_lossy(&bytes))?,
    }
    if output == Output::Json {
        return output::json(&facts);
    }
    anstream::eprintln!(
        "CRL {} of {issuer}: {} entries, the next one by {}",
        crl.number,
        crl.entries,
        time(crl.next_update_unix_ms)
    );
    Ok(())
}

pub(super) async fn bundle(
    client: &Client,
    only_roots: bool,
    to: Option<&Path>,
    output: Output,
) -> Result<(), Failure> {
    let sink = to.map(|path| Sink::open(Some(path), false)).transpose()?;
    let bundle = client.bundle().await?;
    let between = bundle.intermediates.iter().filter(|_| !only_roots);
    let pems = files::pems(bundle.roots.iter().chain(between));
    match (sink, output) {
        (Some(sink), _) => files::fill(sink, pems.as_bytes())?,
        (None, Output::Table) => print(&pems)?,
        (None, Output::Json) => {}
    }
    match output {
        Output::Table => Ok(()),
        Output::Json => output::json(&json!({
            "roots_pem": pem_list(&bundle.roots),
            "intermediates_pem": pem_list(&bundle.intermediates),
        })),
    }
}

pub(super) fn pem_list(ders: &[bytes::Bytes]) -> Vec<String> {
    ders.iter()
        .map(|der| files::pem(files::CERTIFICATE, der))
        .collect()
}

/// Issuer and serial, for people.
pub(super) fn label(name: Option<&proto::CertificateRef>) -> (String, String) {
    name.map_or_else(Default::default, |name| {
        (name.issuer.clone(), hex::encode(&name.serial))
    })
}

fn names(record: &proto::CertificateRecord) -> String {
    let names: Vec<_> = record.names.iter().map(|n| readable::plain(n)).collect();
    names.join(", ")
}

fn state(record: &proto::CertificateRecord) -> &'static str {
    match record.state() {
        CertificateState::Intended => "intended",
        CertificateState::Issued => "issued",
        CertificateState::Revoked => "revoked",
        CertificateState::Failed => "failed",
        CertificateState::Unspecified => "unknown",
    }
}

fn reason(record: &proto::CertificateRecord) -> &'static str {
    match record.reason() {
        RevocationReason::Unspecified => "unspecified",
        RevocationReason::KeyCompromise => "key-compromise",
        RevocationReason::CaCompromise => "ca-compromise",
        RevocationReason::AffiliationChanged => "affiliation-changed",
        RevocationReason::Superseded => "superseded",
        RevocationReason::CessationOfOperation => "cessation-of-operation",
        RevocationReason::PrivilegeWithdrawn => "privilege-withdrawn",
    }
}

fn when(unix_ms: i64) -> Option<String> {
    (unix_ms != 0).then(|| time(unix_ms))
}

fn facts(record: &proto::CertificateRecord) -> Value {
    let (issuer, serial) = label(record.r#ref.as_ref());
    let revoked = when(record.revoked_unix_ms);
    json!({
        "issuer": issuer,
        "serial": serial,
        "state": state(record),
        "names": record.names,
        "profile": record.profile,
        "not_before": time(record.not_before_unix_ms),
        "not_after": time(record.not_after_unix_ms),
        "requested_by": record.requested_by,
        "spki_sha256": hex::encode(&record.spki_sha256),
        "lineage": hex::encode(&record.lineage),
        "reason": revoked.as_ref().map(|_| reason(record)),
        "revoked": revoked,
    })
}
