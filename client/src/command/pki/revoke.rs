//! `keywright pki revoke` and `block-key`.

use bytes::Bytes;
use keywright_client::{
    Client, Failure, FailureKind, Settings,
    proto::{self, CertificateRef, RevokeRequest, revoke_request},
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{files, find, readable, request};
use crate::{
    args::{
        Output,
        pki::{Block, Cause, Revoke},
    },
    command::key::table,
    output::{self, print},
};

pub(super) async fn revoke(
    settings: &Settings,
    what: Revoke,
    output: Output,
) -> Result<(), Failure> {
    let request = message(&what)?;
    let client = Client::connect(settings).await?;
    // Of a certificate that is only named nobody can see what it is. Who proves to hold the
    // key holds no authority's.
    if !what.yes
        && what.key.is_none()
        && let Some(revoke_request::Target::Ref(name)) = &request.target
    {
        let (record, _) = client.certificate(&name.issuer, &name.serial).await?;
        // One that was begun and never finished can be revoked too.
        if !record.certificate_der.is_empty() {
            not_an_authoritys(&readable::certificate(&record.certificate_der)?)?;
        }
    }
    let answer = client.revoke(request).await?;
    said(&answer.revoked, Some(answer.already), output)
}

fn not_an_authoritys(certificate: &readable::Reading) -> Result<(), Failure> {
    if certificate.is_ca {
        return Err(Failure::new(
            FailureKind::Usage,
            "this is the certificate of an authority: it and what is below it never issue again; say --yes",
        ));
    }
    Ok(())
}

fn message(what: &Revoke) -> Result<RevokeRequest, Failure> {
    let usage = |text| Failure::new(FailureKind::Usage, text);
    if what.reason == Cause::KeyCompromise && !what.yes {
        return Err(usage(
            "key-compromise revokes every certificate of this key and blocks the key, for ever: say --yes",
        ));
    }
    let (target, serial, spki) = match (&what.target.cert, &what.target.issuer, &what.target.serial)
    {
        (Some(path), _, _) => {
            let der = files::certificate(path)?;
            let reading = readable::certificate(&der)?;
            if !what.yes {
                not_an_authoritys(&reading)?;
            }
            let target = revoke_request::Target::CertificateDer(der.to_vec().into());
            (target, reading.serial, Some(reading.spki_sha256))
        }
        (None, Some(issuer), Some(serial)) => {
            let name = CertificateRef {
                issuer: issuer.clone(),
                serial: Bytes::copy_from_slice(&serial.0),
            };
            (revoke_request::Target::Ref(name), serial.0.clone(), None)
        }
        (None, _, _) => return Err(usage("which certificate: --cert, or --issuer and --serial")),
    };
    let proof = match &what.key {
        None => Vec::new(),
        Some(path) => {
            let key = files::private_key(path)?;
            let public = rcgen::PublicKeyData::subject_public_key_info(&key);
            if spki.is_some_and(|spki| spki != *Sha256::digest(&public)) {
                let text = format!("{}: not the key of this certificate", path.display());
                return Err(Failure::new(FailureKind::Data, text));
            }
            request::revocation_proof(&key, &serial)?
        }
    };
    Ok(RevokeRequest {
        target: Some(target),
        reason: what.reason.wire().into(),
        invalidity_unix_ms: what.lost.map_or(0, jiff::Timestamp::as_millisecond),
        key_proof_csr_der: proof.into(),
    })
}

pub(super) async fn block_key(
    settings: &Settings,
    what: Block,
    output: Output,
) -> Result<(), Failure> {
    let spki = match (&what.cert, what.spki_sha256) {
        (Some(path), _) => readable::certificate(&files::certificate(path)?)?
            .spki_sha256
            .to_vec(),
        (None, spki) => spki.map(|bytes| bytes.0).unwrap_or_default(),
    };
    let client = Client::connect(settings).await?;
    let revoked = client.block_key(&spki, &what.why).await?;
    said(&revoked, None, output)
}

/// What is revoked now; `already`: it was before, for a command about one certificate.
fn said(
    revoked: &[proto::CertificateRef],
    already: Option<bool>,
    output: Output,
) -> Result<(), Failure> {
    if output == Output::Json {
        let all: Vec<Value> = revoked
            .iter()
            .map(|name| json!({ "issuer": name.issuer, "serial": hex::encode(&name.serial) }))
            .collect();
        return output::json(&json!({ "revoked": all, "already": already }));
    }
    if already == Some(true) {
        print("it was revoked before\n")?;
    }
    if revoked.is_empty() {
        return print("nothing more is revoked by this\n");
    }
    let mut table = table(&["revoked now: issuer", "serial"]);
    for name in revoked {
        let (issuer, serial) = find::label(Some(name));
        table.add_row([issuer, serial]);
    }
    print(&format!("{table}\n"))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use rcgen::{CertificateParams, KeyPair};

    use super::*;
    use crate::args::pki::{Bytes as Octets, Target};

    fn file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    fn by_serial(reason: Cause) -> Revoke {
        Revoke {
            target: Target {
                cert: None,
                issuer: Some("int-a".into()),
                serial: Some(Octets(vec![0x3a])),
            },
            reason,
            key: None,
            lost: None,
            yes: false,
        }
    }

    #[test]
    fn a_compromise_needs_a_yes() {
        let mut what = by_serial(Cause::KeyCompromise);
        assert_eq!(message(&what).unwrap_err().kind(), FailureKind::Usage);
        what.yes = true;
        let request = message(&what).unwrap();
        assert_eq!(request.reason, 1);
        assert!(request.key_proof_csr_der.is_empty());
        assert!(message(&by_serial(Cause::Superseded)).is_ok());
    }

    #[test]
    fn an_authority_needs_a_yes() {
        let mut params = CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let cert = file(&ca.pem());
        let mut what = by_serial(Cause::Superseded);
        what.target.cert = Some(cert.path().to_owned());
        assert_eq!(message(&what).unwrap_err().kind(), FailureKind::Usage);
        what.yes = true;
        assert!(message(&what).is_ok());
    }

    #[test]
    fn the_proof_is_of_the_certificates_key() {
        let (key, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let certificate = CertificateParams::default().self_signed(&key).unwrap();
        let cert = file(&certificate.pem());
        let (good, bad) = (file(&key.serialize_pem()), file(&other.serialize_pem()));
        let mut what = by_serial(Cause::Superseded);
        what.target = Target {
            cert: Some(cert.path().to_owned()),
            issuer: None,
            serial: None,
        };
        what.key = Some(good.path().to_owned());
        let request = message(&what).unwrap();
        let proof = readable::request(&request.key_proof_csr_der).unwrap();
        let serial = readable::certificate(certificate.der()).unwrap().serial;
        let name = format!("CN=keywright revoke {}", hex::encode(serial));
        assert_eq!(proof.json()["subject"], name);
        what.key = Some(bad.path().to_owned());
        assert_eq!(message(&what).unwrap_err().kind(), FailureKind::Data);
    }
}
