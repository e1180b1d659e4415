//! Approving what `keywrightd recover-store` would accept: a signature over a plan with the
//! key of our client certificate. No server is asked: it does not run then.

use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use sha2::{Digest, Sha256};
use tokio_rustls::rustls::{SignatureScheme, crypto::aws_lc_rs::sign::any_supported_type};

use crate::{Failure, FailureKind, Settings};

/// In front of the digest of a plan: no signature for something else is an approval.
const LABEL: &[u8] = b"keywright recovery approval 1\0";
/// How every plan begins.
const FIRST: &str = "keywright_recovery_plan = 1\n";
/// In the order in which we like them.
const SCHEMES: [SignatureScheme; 5] = [
    SignatureScheme::ED25519,
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::ECDSA_NISTP521_SHA512,
    SignatureScheme::RSA_PSS_SHA256,
];

/// Can this be shown to somebody and be what they think it is?
///
/// # Errors
/// [`FailureKind::Data`] for what is no plan, or would show something else than it says.
pub fn check_plan(plan: &str) -> Result<(), Failure> {
    let wrong = |text: &str| Err(Failure::new(FailureKind::Data, text));
    if !plan.starts_with(FIRST) {
        return wrong("this is no plan of keywrightd plan-recovery, or one of another release");
    }
    // On a terminal these could hide what is signed.
    if plan.chars().any(|c| c.is_control() && c != '\n') {
        return wrong("this plan has control characters in it: nobody should sign it");
    }
    Ok(())
}

/// The approval of a plan, as a text for `keywrightd recover-store --approval`.
///
/// # Errors
/// What is missing of our certificate and key, and as for [`check_plan`].
pub fn approve(plan: &str, settings: &Settings) -> Result<String, Failure> {
    check_plan(plan)?;
    let usage = |text: String| Failure::new(FailureKind::Usage, text);
    let missing = |name: &str| usage(format!("{name} is not set: your certificate and key sign"));
    let certificates = settings
        .cert
        .as_deref()
        .ok_or_else(|| missing("KEYWRIGHT_CERT"))?;
    let key = settings
        .key
        .as_deref()
        .ok_or_else(|| missing("KEYWRIGHT_KEY"))?;
    let chain = std::fs::read_to_string(certificates)
        .map_err(|e| usage(format!("{}: {e}", certificates.display())))?;
    let count = CertificateDer::pem_slice_iter(chain.as_bytes())
        .filter(Result::is_ok)
        .count();
    if count == 0 {
        let text = format!("{}: no certificate", certificates.display());
        return Err(usage(text));
    }
    let private = PrivateKeyDer::from_pem_file(key)
        .map_err(|e| usage(format!("{}: no private key: {e}", key.display())))?;
    let cannot = |e: &dyn std::fmt::Display| usage(format!("{}: {e}", key.display()));
    let private = any_supported_type(&private).map_err(|e| cannot(&e))?;
    let signer = private
        .choose_scheme(&SCHEMES)
        .ok_or_else(|| cannot(&"this kind of key signs nothing here"))?;
    let digest = Sha256::digest(plan);
    let signature = signer
        .sign(&[LABEL, &digest].concat())
        .map_err(|e| cannot(&e))?;
    Ok(format!(
        "keywright_recovery_approval = 1\nplan = \"{}\"\nscheme = {}\nsignature = \"{}\"\ncertificates = '''\n{}\n'''\n",
        hex::encode(digest),
        u16::from(signer.scheme()),
        hex::encode(signature),
        pem_only(&chain),
    ))
}

/// What is not between the lines of a certificate has no business in there.
fn pem_only(text: &str) -> String {
    let mut inside = false;
    let lines = text.lines().map(str::trim).filter(|line| {
        let keep = inside || *line == "-----BEGIN CERTIFICATE-----";
        inside = keep && *line != "-----END CERTIFICATE-----";
        keep
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_fool_a_reader_is_not_signed() {
        check_plan("keywright_recovery_plan = 1\nreason = \"x\"\n").unwrap();
        for text in [
            "",
            "reason = \"x\"\n",
            "keywright_recovery_plan = 2\n",
            "keywright_recovery_plan = 1\nreason = \"\u{1b}[2J\"\n",
            "keywright_recovery_plan = 1\rstate = \"\"\n",
        ] {
            assert_eq!(check_plan(text).unwrap_err().kind(), FailureKind::Data);
        }
    }

    #[test]
    fn only_certificates_go_along() {
        let pem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----";
        let key = "-----BEGIN PRIVATE KEY-----\nBBBB\n-----END PRIVATE KEY-----";
        assert_eq!(
            pem_only(&format!("x\n{key}\n{pem}\n'''\n{pem}")),
            format!("{pem}\n{pem}")
        );
    }
}
