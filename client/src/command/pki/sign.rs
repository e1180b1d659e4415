//! `keywright pki sign` and `issue`.

use keywright_client::{
    Client, Failure, FailureKind, Settings,
    proto::{self, San, SignCsrRequest, san},
};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::{files, readable, request, written::Outputs};
use crate::{
    args::{
        Output,
        pki::{Issue, Request, Sign},
    },
    command::key::{table, time},
    output::{self, Sink, print},
};

pub(super) async fn sign(settings: &Settings, what: Sign, output: Output) -> Result<(), Failure> {
    let named = &what.written;
    files::all_different(&[
        named.output_file.as_ref(),
        named.chain.as_ref(),
        named.full_chain.as_ref(),
        named.root.as_ref(),
        Some(&what.csr),
    ])?;
    let csr = files::csr(&what.csr)?.to_vec();
    let dry = what.request.dry_run;
    let request = message(what.request, csr)?;
    if dry {
        return dry_run(&Client::connect(settings).await?, request, output).await;
    }
    let outputs = Outputs::open(what.written, None)?;
    ask(settings, request, outputs, output).await
}

pub(super) async fn issue(settings: &Settings, what: Issue, output: Output) -> Result<(), Failure> {
    let named = &what.written;
    files::all_different(&[
        what.key_out.as_ref(),
        named.output_file.as_ref(),
        named.chain.as_ref(),
        named.full_chain.as_ref(),
        named.root.as_ref(),
    ])?;
    let key = request::new_key(what.key_type)?;
    let dry = what.request.dry_run;
    let request = message(what.request, request::csr(&key)?)?;
    if dry {
        return dry_run(&Client::connect(settings).await?, request, output).await;
    }
    let sink = match what.key_out {
        Some(path) => Sink::key(&path, what.force)?,
        None => return Err(Failure::new(FailureKind::Usage, "where to: --key-out FILE")),
    };
    let outputs = Outputs::open(what.written, Some((sink, request::private_pem(&key)?)))?;
    ask(settings, request, outputs, output).await
}

async fn ask(
    settings: &Settings,
    request: SignCsrRequest,
    outputs: Outputs,
    output: Output,
) -> Result<(), Failure> {
    let spki = readable::request(&request.csr_der)?.spki_sha256;
    let client = Client::connect(settings).await?;
    let roots = outputs.roots(&client).await?;
    let issued = client.sign_csr(request).await?;
    outputs.write(&issued, &roots, spki, output)
}

fn message(what: Request, csr: Vec<u8>) -> Result<SignCsrRequest, Failure> {
    let dns = what.dns.into_iter().map(san::Name::Dns);
    let ip = what.ip.into_iter().map(|ip| match ip {
        std::net::IpAddr::V4(a) => san::Name::Ip(a.octets().to_vec().into()),
        std::net::IpAddr::V6(a) => san::Name::Ip(a.octets().to_vec().into()),
    });
    let uri = what.uri.into_iter().map(san::Name::Uri);
    let sans = dns.chain(ip).chain(uri);
    let mut request = SignCsrRequest {
        profile: what.profile,
        csr_der: csr.into(),
        ttl_seconds: what.ttl.map_or(0, |ttl| ttl.seconds),
        sans: sans.map(|name| San { name: Some(name) }).collect(),
        idempotency_key: String::new(),
    };
    request.idempotency_key = match what.idempotency_key {
        Some(key) => idempotency_key(key)?,
        None => derived(&request),
    };
    Ok(request)
}

pub(super) fn idempotency_key(key: String) -> Result<String, Failure> {
    if (16..=64).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_graphic()) {
        return Ok(key);
    }
    Err(Failure::new(
        FailureKind::Usage,
        "--idempotency-key takes 16 to 64 printable ASCII characters without spaces",
    ))
}

/// The same request has the same key: every part with its length in front.
fn derived(request: &SignCsrRequest) -> String {
    let mut hash = Sha256::new();
    let mut part = |kind: u8, bytes: &[u8]| {
        hash.update([kind]);
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    };
    part(0, request.profile.as_bytes());
    part(1, &request.csr_der);
    part(2, &request.ttl_seconds.to_be_bytes());
    for san in &request.sans {
        match &san.name {
            Some(san::Name::Dns(name)) => part(3, name.as_bytes()),
            Some(san::Name::Ip(octets)) => part(4, octets),
            Some(san::Name::Uri(uri)) => part(5, uri.as_bytes()),
            None => part(6, &[]),
        }
    }
    hex::encode(hash.finalize())
}

/// Exit code 6 when it would not be issued, as if it had been asked for.
async fn dry_run(client: &Client, request: SignCsrRequest, output: Output) -> Result<(), Failure> {
    let answer = client.dry_run(request).await?;
    let tbs = Some(&answer.tbs_der).filter(|der| !der.is_empty());
    let reading = tbs.map(|der| readable::to_be_signed(der)).transpose()?;
    match output {
        Output::Json => output::json(&json!({
            "would_issue": answer.would_issue,
            "profile": answer.profile,
            "issuer": answer.issuer,
            "names": answer.names,
            "violations": answer.violations,
            "not_before": date(answer.not_before_unix_ms),
            "not_after": date(answer.not_after_unix_ms),
            "to_be_signed": reading.map(|r| r.json()),
        }))?,
        Output::Table => {
            print(&facts(&answer))?;
            if let Some(reading) = reading {
                print(&reading.table())?;
            }
        }
    }
    match answer.would_issue {
        true => Ok(()),
        false => Err(Failure::new(
            FailureKind::Data,
            format!("it would not be issued: {}", answer.violations.join("; ")),
        )),
    }
}

fn facts(answer: &proto::DryRunResponse) -> String {
    let mut table = table(&[
        "would be issued",
        if answer.would_issue { "yes" } else { "no" },
    ]);
    table.add_row(["profile", &answer.profile]);
    table.add_row(["issuer", &answer.issuer]);
    table.add_row(["names", &readable::plain(&answer.names.join(", "))]);
    for violation in &answer.violations {
        table.add_row(["violation", &readable::plain(violation)]);
    }
    format!("{table}\n")
}

fn date(unix_ms: i64) -> Option<String> {
    (unix_ms != 0).then(|| time(unix_ms))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::pki::Span;

    fn asked(dns: &[&str], ttl: Option<u64>) -> SignCsrRequest {
        let what = Request {
            profile: "p".into(),
            dns: dns.iter().map(ToString::to_string).collect(),
            ip: vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
            uri: vec!["spiffe://a/b".into()],
            ttl: ttl.map(|seconds| Span { seconds }),
            idempotency_key: None,
            dry_run: false,
        };
        message(what, vec![1, 2, 3]).unwrap()
    }

    #[test]
    fn the_same_request_has_the_same_key_and_another_has_another() {
        let first = asked(&["a", "b"], None);
        assert_eq!(first.idempotency_key.len(), 64);
        assert_eq!(first, asked(&["a", "b"], None));
        for other in [
            asked(&["ab"], None),
            asked(&["b", "a"], None),
            asked(&["a", "b"], Some(60)),
        ] {
            assert_ne!(first.idempotency_key, other.idempotency_key);
        }
        let octets: Vec<usize> = first
            .sans
            .iter()
            .filter_map(|san| match &san.name {
                Some(san::Name::Ip(octets)) => Some(octets.len()),
                _ => None,
            })
            .collect();
        assert_eq!(octets, [4, 16]);
    }

    #[test]
    fn an_idempotency_key_is_checked_before_the_server_is_asked() {
        assert!(idempotency_key("a".repeat(16)).is_ok());
        for bad in [
            "a".repeat(15),
            "a".repeat(65),
            "a b".repeat(8),
            "é".repeat(16),
        ] {
            assert!(idempotency_key(bad).is_err());
        }
    }
}
