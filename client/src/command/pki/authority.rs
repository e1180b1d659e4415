//! `keywright pki issuer …`.

use keywright_client::{Client, Failure, FailureKind, proto};
use serde_json::{Value, json};

use super::{files, readable};
use crate::{
    args::{
        Output,
        pki::{Issuer, Usage},
    },
    command::key::{table, time},
    output::{self, print},
};

pub(super) async fn run(client: &Client, command: Issuer, output: Output) -> Result<(), Failure> {
    match command {
        Issuer::List => list(&client.issuers().await?, output),
        Issuer::Show { name } => show(&named(client, &name).await?, output),
        Issuer::Stop(what) => {
            let now = named(client, &what.name).await?;
            let (issue, crl) = after_stop(&what, (now.may_issue, now.may_sign_crls));
            show(
                &client.set_issuer_usage(&what.name, issue, crl).await?,
                output,
            )
        }
        Issuer::Start(what) => {
            let now = named(client, &what.name).await?;
            let (issue, crl) = after_start(&what, (now.may_issue, now.may_sign_crls));
            show(
                &client.set_issuer_usage(&what.name, issue, crl).await?,
                output,
            )
        }
    }
}

/// What it may do afterwards: issue, sign CRLs.
fn after_stop(what: &Usage, (issues, crls): (bool, bool)) -> (bool, bool) {
    let stop_issuing = what.issue || !what.crl;
    (issues && !stop_issuing, crls && !what.crl)
}

fn after_start(what: &Usage, (issues, crls): (bool, bool)) -> (bool, bool) {
    let both = !what.issue && !what.crl;
    (issues || what.issue || both, crls || what.crl || both)
}

/// An authority by its name, or by the id of its ceremony in hexadecimal.
pub(super) async fn named(client: &Client, which: &str) -> Result<proto::Issuer, Failure> {
    let issuers = client.issuers().await?;
    let is = |i: &proto::Issuer| i.name == which || hex::encode(&i.id) == which;
    issuers.into_iter().find(is).ok_or_else(|| {
        let text = format!("there is no issuer {which:?}; see: keywright pki issuer list");
        Failure::new(FailureKind::NotFound, text)
    })
}

fn list(issuers: &[proto::Issuer], output: Output) -> Result<(), Failure> {
    if output == Output::Json {
        let all = issuers.iter().map(facts).collect();
        return output::json(&Value::Array(all));
    }
    let mut table = table(&[
        "name",
        "stage",
        "kind",
        "key",
        "issues",
        "CRLs",
        "shards",
        "not after",
        "alarm",
    ]);
    for issuer in issuers {
        table.add_row([
            issuer.name.clone(),
            issuer.stage.clone(),
            kind(issuer).into(),
            issuer.key_spec.clone(),
            yes(issuer.may_issue),
            yes(issuer.may_sign_crls),
            issuer.shards.to_string(),
            end(issuer).unwrap_or_default(),
            issuer.alarm.clone(),
        ]);
    }
    print(&format!("{table}\n"))
}

/// An authority, and its certificate when it has one.
pub(super) fn show(issuer: &proto::Issuer, output: Output) -> Result<(), Failure> {
    let certificate = Some(&issuer.certificate_der).filter(|der| !der.is_empty());
    let reading = certificate
        .map(|der| readable::certificate(der))
        .transpose()?;
    if output == Output::Json {
        let mut all = facts(issuer);
        let pem = certificate.map(|der| files::pem(files::CERTIFICATE, der));
        let chain = issuer.chain_der.iter();
        let chain: Vec<_> = chain
            .map(|der| files::pem(files::CERTIFICATE, der))
            .collect();
        if let Value::Object(map) = &mut all {
            map.insert("certificate".into(), json!(reading.map(|r| r.json())));
            map.insert("certificate_pem".into(), json!(pem));
            map.insert("chain_pem".into(), json!(chain));
        }
        return output::json(&all);
    }
    let mut facts = table(&["issuer", &issuer.name]);
    facts.add_row(["ceremony", &hex::encode(&issuer.id)]);
    facts.add_row(["digest", &hex::encode(&issuer.digest)]);
    facts.add_row(["approved by", &issuer.approved_by.join("\n")]);
    facts.add_row(["stage", &issuer.stage]);
    facts.add_row(["kind", kind(issuer)]);
    facts.add_row(["key", &issuer.key_spec]);
    facts.add_row(["issues certificates", &yes(issuer.may_issue)]);
    facts.add_row(["signs CRLs", &yes(issuer.may_sign_crls)]);
    facts.add_row(["shards", &issuer.shards.to_string()]);
    if !issuer.alarm.is_empty() {
        facts.add_row(["alarm", &issuer.alarm]);
    }
    print(&format!("{facts}\n"))?;
    match reading {
        Some(reading) => print(&reading.table()),
        None => Ok(()),
    }
}

fn facts(issuer: &proto::Issuer) -> Value {
    json!({
        "name": issuer.name,
        "ceremony": hex::encode(&issuer.id),
        "digest": hex::encode(&issuer.digest),
        "approved_by": issuer.approved_by,
        "stage": issuer.stage,
        "root": issuer.root,
        "key": issuer.key_spec,
        "may_issue": issuer.may_issue,
        "may_sign_crls": issuer.may_sign_crls,
        "shards": issuer.shards,
        "alarm": Some(&issuer.alarm).filter(|a| !a.is_empty()),
        "not_after": end(issuer),
    })
}

fn kind(issuer: &proto::Issuer) -> &'static str {
    match issuer.root {
        true => "root",
        false => "intermediate",
    }
}

fn yes(may: bool) -> String {
    if may { "yes" } else { "no" }.into()
}

fn end(issuer: &proto::Issuer) -> Option<String> {
    Some(issuer.not_after_unix_ms)
        .filter(|ms| *ms != 0)
        .map(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_leaves_crls_alone_unless_they_are_named() {
        let usage = |issue, crl| Usage {
            name: "int-a".into(),
            issue,
            crl,
        };
        let both = (true, true);
        assert_eq!(after_stop(&usage(false, false), both), (false, true));
        assert_eq!(after_stop(&usage(true, false), both), (false, true));
        assert_eq!(after_stop(&usage(false, true), both), (true, false));
        assert_eq!(after_stop(&usage(true, true), both), (false, false));
        let none = (false, false);
        assert_eq!(after_stop(&usage(false, false), none), none);
        assert_eq!(after_start(&usage(false, false), none), both);
        assert_eq!(after_start(&usage(true, false), none), (true, false));
        assert_eq!(after_start(&usage(false, true), (true, false)), both);
    }
}
