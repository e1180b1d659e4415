//! `keywright pki ceremony …`: what is approved is shown from the bytes that would be
//! signed, and their digest is computed here.

use std::path::Path;

use keywright_client::{Client, Failure, FailureKind, Settings, proto};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::{authority, files, readable};
use crate::{
    args::{Output, pki::Ceremony},
    command::key::{table, time},
    output::{self, Sink, print},
};

pub(super) async fn run(
    settings: &Settings,
    command: Ceremony,
    output: Output,
) -> Result<(), Failure> {
    match command {
        Ceremony::Plan { file, tbs } => {
            let text = files::text(&file)?;
            let sink = tbs.map(|path| Sink::open(Some(&path), false)).transpose()?;
            let client = Client::connect(settings).await?;
            let ceremony = client.plan_ceremony(&text).await?;
            if let Some(sink) = sink {
                files::fill(sink, &ceremony.tbs_der)?;
            }
            show(&ceremony, output)
        }
        Ceremony::Approve { id, digest } => {
            let client = Client::connect(settings).await?;
            show(&client.approve_ceremony(&id.0, &digest.0).await?, output)
        }
        Ceremony::Commit { id, csr_out } => {
            commit(settings, &id.0, csr_out.as_deref(), output).await
        }
        Ceremony::Import { id, cert, chain } => {
            let certificate = files::certificate(&cert)?.to_vec().into();
            let chain = files::certificates(&chain)?;
            let chain = chain.iter().map(|c| c.to_vec().into()).collect();
            let client = Client::connect(settings).await?;
            let issuer = client.import_issuer(&id.0, certificate, chain).await?;
            authority::show(&issuer, output)
        }
        Ceremony::Show { which } => {
            let client = Client::connect(settings).await?;
            let issuer = authority::named(&client, &which).await?;
            if issuer.tbs_der.is_empty() {
                return authority::show(&issuer, output);
            }
            if output != Output::Json {
                print(&format!(
                    "the text that was planned:\n{}\n",
                    issuer.text.trim()
                ))?;
            }
            show(&planned(issuer), output)
        }
    }
}

/// As it was shown to who planned it.
fn planned(issuer: proto::Issuer) -> proto::Ceremony {
    proto::Ceremony {
        id: issuer.id,
        issuer: issuer.name,
        text: issuer.text,
        tbs_der: issuer.tbs_der,
        digest: issuer.digest,
        approvals_needed: issuer.approvals_needed,
        approved_by: issuer.approved_by,
        created_unix_ms: issuer.created_unix_ms,
        stage: issuer.stage,
    }
}

async fn commit(
    settings: &Settings,
    id: &[u8],
    csr_out: Option<&Path>,
    output: Output,
) -> Result<(), Failure> {
    let sink = csr_out
        .map(|path| Sink::open(Some(path), false))
        .transpose()?;
    let client = Client::connect(settings).await?;
    let (issuer, csr) = client.commit_ceremony(id).await?;
    if csr.is_empty() {
        return match csr_out {
            None => authority::show(&issuer, output),
            Some(path) => {
                authority::show(&issuer, output)?;
                anstream::eprintln!(
                    "its root is here, so there is no CSR; nothing was written to {}",
                    path.display()
                );
                Ok(())
            }
        };
    }
    let bytes = files::form(csr_out, "CERTIFICATE REQUEST", &csr);
    match sink {
        Some(sink) => {
            files::fill(sink, &bytes)?;
            authority::show(&issuer, output)
        }
        None if output == Output::Json => output::json(&json!({
            "issuer": issuer.name,
            "stage": issuer.stage,
            "csr_pem": String::from_utf8_lossy(&bytes),
        })),
        None => print(&String::from_utf8_lossy(&bytes)),
    }
}

fn show(ceremony: &proto::Ceremony, output: Output) -> Result<(), Failure> {
    if Sha256::digest(&ceremony.tbs_der).as_slice() != ceremony.digest.as_ref() {
        return Err(Failure::new(
            FailureKind::Other,
            "the digest the server names is not that of what would be signed; approve nothing",
        ));
    }
    let reading = readable::to_be_signed(&ceremony.tbs_der)?;
    let (id, digest) = (hex::encode(&ceremony.id), hex::encode(&ceremony.digest));
    if output == Output::Json {
        return output::json(&json!({
            "id": id,
            "issuer": ceremony.issuer,
            "stage": ceremony.stage,
            "digest": digest,
            "approvals_needed": ceremony.approvals_needed,
            "approved_by": ceremony.approved_by,
            "created": time(ceremony.created_unix_ms),
            "text": ceremony.text,
            "to_be_signed": reading.json(),
            "tbs_hex": hex::encode(&ceremony.tbs_der),
        }));
    }
    let mut facts = table(&["issuer", &ceremony.issuer]);
    facts.add_row(["ceremony", &id]);
    facts.add_row(["digest", &digest]);
    facts.add_row(["stage", &ceremony.stage]);
    facts.add_row(["planned", &time(ceremony.created_unix_ms)]);
    facts.add_row(["approvals needed", &ceremony.approvals_needed.to_string()]);
    facts.add_row(["approved by", &ceremony.approved_by.join("\n")]);
    print(&format!(
        "{facts}\nwhat would be signed:\n{}",
        reading.table()
    ))?;
    print(&next(ceremony, &id, &digest))
}

/// What is to be done now, and by whom.
fn next(ceremony: &proto::Ceremony, id: &str, digest: &str) -> String {
    let have = ceremony.approved_by.len();
    let needed = usize::try_from(ceremony.approvals_needed).unwrap_or(usize::MAX);
    match needed.saturating_sub(have) {
        0 => format!("approved; sign it: keywright pki ceremony commit {id}\n"),
        missing => format!(
            "{missing} more must approve, each as another identity: keywright pki ceremony approve {id} --digest {digest}\n"
        ),
    }
}
