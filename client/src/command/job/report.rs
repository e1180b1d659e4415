//! The signed report of a job: to a file, and checked without a server.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use keywright_client::{Client, Failure, FailureKind, proto::Job};
use rustls_pki_types::{SubjectPublicKeyInfoDer, pem::PemObject};
use serde_json::Value;
use x509_parser::{prelude::FromDer, x509::SubjectPublicKeyInfo};

use crate::{
    args::Output,
    output::{self, Sink, print},
};

/// Beside the report.
fn signature_path(report: &Path) -> PathBuf {
    let mut name = report.as_os_str().to_owned();
    name.push(".sig");
    name.into()
}

pub(super) async fn write(
    client: &Client,
    job: &Job,
    to: Option<&Path>,
    output: Output,
) -> Result<(), Failure> {
    let signed = client.job_report(&job.id).await?;
    let Some(to) = to else {
        return print(&format!("{}\n", String::from_utf8_lossy(&signed.report)));
    };
    let signature = signature_path(to);
    for (path, bytes) in [(to, &signed.report), (&signature, &signed.signature)] {
        let mut sink = Sink::open(Some(path), false)?;
        sink.write_all(bytes)
            .map_err(|e| Failure::io(path.display(), &e))?;
        sink.finish()?;
    }
    match output {
        Output::Json => output::json(&serde_json::json!({
            "report": to.display().to_string(),
            "signature": signature.display().to_string(),
            "public_key_pem": signed.public_key_pem,
        })),
        Output::Table => print(&format!(
            "wrote {} and {}; signed with:\n{}",
            to.display(),
            signature.display(),
            signed.public_key_pem
        )),
    }
}

/// Without a server.
pub(in crate::command) fn verify(report: &Path, key: &Path, output: Output) -> Result<(), Failure> {
    let read = |path: &Path| fs::read(path).map_err(|e| Failure::io(path.display(), &e));
    let (bytes, signature) = (read(report)?, read(&signature_path(report))?);
    let point = point(&read(key)?).map_err(|e| e.at(key.display()))?;
    check(&bytes, &signature, &point).map_err(|e| e.at(report.display()))?;
    let text = String::from_utf8_lossy(&bytes);
    let parsed = serde_json::from_slice::<Value>(&bytes)
        .map_err(|e| Failure::new(FailureKind::Data, format!("{}: {e}", report.display())))?;
    match output {
        Output::Json => print(&format!("{text}\n")),
        Output::Table => {
            anstream::eprintln!("the signature is valid");
            output::json(&parsed)
        }
    }
}

/// The point of a P-256 key in PEM.
fn point(pem: &[u8]) -> Result<Vec<u8>, Failure> {
    let wrong = |_| {
        let text = "no public key in PEM (BEGIN PUBLIC KEY)";
        Failure::new(FailureKind::Usage, text)
    };
    let der = SubjectPublicKeyInfoDer::from_pem_slice(pem).map_err(|_| wrong(()))?;
    let (_, key) = SubjectPublicKeyInfo::from_der(der.as_ref()).map_err(|_| wrong(()))?;
    Ok(key.subject_public_key.data.to_vec())
}

fn check(report: &[u8], signature: &[u8], point: &[u8]) -> Result<(), Failure> {
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point)
        .verify(report, signature)
        .map_err(|_| {
            let text = "not valid: this key did not sign this report; one of the three is another one, or was changed";
            Failure::new(FailureKind::Data, text).because("NOT_VALID")
        })
}

#[cfg(test)]
mod tests {
    use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData, SigningKey};

    use super::*;

    #[test]
    fn only_the_report_that_was_signed_is_valid() {
        let signer = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let other = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let report = br#"{"job":"4f21c0"}"#;
        fs::write(path("r.json"), report).unwrap();
        fs::write(path("r.json.sig"), signer.sign(report).unwrap()).unwrap();
        fs::write(path("key.pem"), signer.public_key_pem()).unwrap();
        fs::write(path("other.pem"), other.public_key_pem()).unwrap();
        fs::write(path("junk.pem"), "junk").unwrap();
        let checked = |key: &str| verify(&path("r.json"), &path(key), Output::Json);
        checked("key.pem").unwrap();
        assert_eq!(checked("other.pem").unwrap_err().exit_code(), 6);
        assert_eq!(checked("junk.pem").unwrap_err().exit_code(), 2);
        fs::write(path("r.json"), br#"{"job":"4f21c1"}"#).unwrap();
        assert_eq!(checked("key.pem").unwrap_err().exit_code(), 6);
        assert!(!signer.der_bytes().is_empty());
    }
}
