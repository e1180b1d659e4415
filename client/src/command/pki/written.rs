//! Where a new certificate goes: opened before it is asked for, visible when all is well.

use bytes::Bytes;
use keywright_client::{Bundle, Client, Failure, FailureKind, proto};
use rustls_pki_types::{CertificateDer, UnixTime};
use serde_json::json;

use super::{files, find, readable, verify};
use crate::{
    args::{Output, pki::Written},
    command::key::{table, time},
    output::{self, Sink, print},
};

/// The files, still without their names.
pub(super) struct Outputs {
    named: Written,
    leaf: Option<Sink>,
    chain: Option<Sink>,
    full_chain: Option<Sink>,
    root: Option<Sink>,
    key: Option<(Sink, String)>,
}

impl Outputs {
    /// `key`: the private key in PEM, and where it goes.
    pub(super) fn open(named: Written, key: Option<(Sink, String)>) -> Result<Self, Failure> {
        let open = |path: &Option<std::path::PathBuf>| {
            path.as_deref()
                .map(|path| {
                    files::no_key_is_lost(path)?;
                    Sink::open(Some(path), false)
                })
                .transpose()
        };
        Ok(Self {
            leaf: open(&named.output_file)?,
            chain: open(&named.chain)?,
            full_chain: open(&named.full_chain)?,
            root: open(&named.root)?,
            key,
            named,
        })
    }

    /// The roots, if one of them is asked for: before anything is signed, because whoever
    /// may have a certificate may not always read the bundle.
    pub(super) async fn roots(&self, client: &Client) -> Result<Vec<Bytes>, Failure> {
        match self.root {
            Some(_) => client.bundle().await.map(|Bundle { roots, .. }| roots),
            None => Ok(Vec::new()),
        }
    }

    /// The key first: a certificate without its key is of no use. `spki` is what was asked
    /// for.
    pub(super) fn write(
        self,
        issued: &proto::IssuedCertificate,
        roots: &[Bytes],
        spki: [u8; 32],
        output: Output,
    ) -> Result<(), Failure> {
        let der = &issued.certificate_der;
        if readable::certificate(der)?.spki_sha256 != spki {
            return Err(Failure::new(
                FailureKind::Other,
                "the server's certificate is for another key than the request; nothing was written",
            ));
        }
        let root = match self.root {
            Some(sink) => Some((sink, root_of(issued, roots)?)),
            None => None,
        };
        if let Some((sink, pem)) = self.key {
            files::fill(sink, pem.as_bytes())?;
        }
        if let Some((sink, root)) = root {
            let path = self.named.root.as_deref();
            files::fill(sink, &files::form(path, files::CERTIFICATE, &root))?;
        }
        if let Some(sink) = self.chain {
            files::fill(sink, files::pems(&issued.chain_der).as_bytes())?;
        }
        if let Some(sink) = self.full_chain {
            let all = std::iter::once(der).chain(&issued.chain_der);
            files::fill(sink, files::pems(all).as_bytes())?;
        }
        let leaf_written = self.leaf.is_some();
        if let Some(sink) = self.leaf {
            let path = self.named.output_file.as_deref();
            files::fill(sink, &files::form(path, files::CERTIFICATE, der))?;
        }
        said(issued, leaf_written, output)
    }
}

/// The root that the path of the certificate really ends in.
fn root_of(issued: &proto::IssuedCertificate, roots: &[Bytes]) -> Result<Bytes, Failure> {
    let certificate = CertificateDer::from(issued.certificate_der.as_ref());
    let between: Vec<_> = issued
        .chain_der
        .iter()
        .map(|der| CertificateDer::from(der.as_ref()))
        .collect();
    let leads_to = |root: &&Bytes| {
        let case = verify::Case {
            certificate: &certificate,
            between: &between,
            roots: &[CertificateDer::from(root.as_ref())],
            crls: &[],
            name: None,
            now: UnixTime::now(),
        };
        verify::check(&case).is_ok()
    };
    roots.iter().find(leads_to).cloned().ok_or_else(|| {
        Failure::new(
            FailureKind::Data,
            "no root of the bundle leads to this certificate; nothing was written; see: keywright pki bundle",
        )
    })
}

/// Prints what was issued; without a file also the certificate itself.
fn said(
    issued: &proto::IssuedCertificate,
    leaf_written: bool,
    output: Output,
) -> Result<(), Failure> {
    let (issuer, serial) = find::label(issued.r#ref.as_ref());
    let pem = files::pem(files::CERTIFICATE, &issued.certificate_der);
    if output == Output::Json {
        return output::json(&json!({
            "issuer": issuer,
            "serial": serial,
            "profile": issued.profile,
            "not_before": time(issued.not_before_unix_ms),
            "not_after": time(issued.not_after_unix_ms),
            "renew_from": time(issued.renew_from_unix_ms),
            "replayed": issued.replayed,
            "certificate_pem": pem,
            "chain_pem": find::pem_list(&issued.chain_der),
        }));
    }
    let mut table = table(&["certificate", &serial]);
    table.add_row(["issuer", &issuer]);
    table.add_row(["profile", &issued.profile]);
    table.add_row(["not before", &time(issued.not_before_unix_ms)]);
    table.add_row(["not after", &time(issued.not_after_unix_ms)]);
    table.add_row(["renew from", &time(issued.renew_from_unix_ms)]);
    if issued.replayed {
        table.add_row(["made", "by an earlier call with this idempotency key"]);
    }
    if leaf_written {
        return print(&format!("{table}\n"));
    }
    anstream::eprintln!("{table}");
    print(&pem)
}
