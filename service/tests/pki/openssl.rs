//! The `openssl` command: a verifier that shares no code with us.

use std::{fs, path::Path, process::Command};

use base64::{Engine, prelude::BASE64_STANDARD};

/// DER as PEM with this label.
pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(der);
    let lines: Vec<&str> = text
        .as_bytes()
        .chunks(64)
        .map(|line| std::str::from_utf8(line).unwrap())
        .collect();
    let body = lines.join("\n");
    format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
}

/// Runs it in a folder; stdout and stderr together.
pub(crate) fn run(dir: &Path, arguments: &[&str]) -> (bool, String) {
    let done = Command::new("openssl")
        .args(arguments)
        .current_dir(dir)
        .output()
        .expect("the openssl command is needed by this test");
    let said = [done.stdout, done.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    (done.status.success(), said)
}

/// `openssl verify -x509_strict` of a leaf under root and intermediates; with a CRL also
/// whether it is revoked.
pub(crate) fn verify(
    root: &[u8],
    between: &[&[u8]],
    leaf: &[u8],
    crl: Option<&[u8]>,
) -> Result<(), String> {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, label: &str, ders: &[&[u8]]| {
        let text: String = ders.iter().map(|der| pem(label, der)).collect();
        fs::write(dir.path().join(name), text).unwrap();
    };
    write("root.pem", "CERTIFICATE", &[root]);
    write("between.pem", "CERTIFICATE", between);
    write("leaf.pem", "CERTIFICATE", &[leaf]);
    let mut arguments = vec!["verify", "-x509_strict", "-CAfile", "root.pem"];
    if !between.is_empty() {
        arguments.extend(["-untrusted", "between.pem"]);
    }
    if let Some(crl) = crl {
        write("list.pem", "X509 CRL", &[crl]);
        arguments.extend(["-crl_check", "-CRLfile", "list.pem"]);
    }
    arguments.push("leaf.pem");
    match run(dir.path(), &arguments) {
        (true, _) => Ok(()),
        (false, said) => Err(said),
    }
}
