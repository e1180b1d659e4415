//! Certificates, requests and CRLs in files: PEM (RFC 7468) or DER in, PEM or DER out.

use std::{
    ffi::OsStr,
    io::{Read, Write},
    path::{Path, PathBuf},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use keywright_client::{Failure, FailureKind};
use rcgen::KeyPair;
use rustls_pki_types::{
    CertificateDer, CertificateRevocationListDer, CertificateSigningRequestDer, PrivateKeyDer,
    pem::PemObject,
};

use super::readable;
use crate::output::{Sink, input};

/// More than any bundle or CRL that is read here.
const FILE_BYTES: u64 = 64 << 20;

/// A whole file; `-` is standard input.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    input(Some(path))?
        .0
        .take(FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| Failure::io(path.display(), &e))?;
    if bytes.len() as u64 > FILE_BYTES {
        return Err(bad(path, format!("more than {FILE_BYTES} bytes")));
    }
    Ok(bytes)
}

/// A text that goes to the server as it is.
pub(super) fn text(path: &Path) -> Result<String, Failure> {
    String::from_utf8(read(path)?).map_err(|_| bad(path, "not UTF-8"))
}

/// One or more certificates, each of them whole.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let found = parts::<CertificateDer<'static>>(&read(path)?, "certificate")
        .map_err(|why| bad(path, why))?;
    for certificate in &found {
        readable::certificate(certificate).map_err(|e| e.at(path.display()))?;
    }
    Ok(found)
}

/// The certificate a file is about: the first one.
pub(super) fn certificate(path: &Path) -> Result<CertificateDer<'static>, Failure> {
    let mut found = certificates(path)?.into_iter();
    found.next().ok_or_else(|| bad(path, "no certificate"))
}

/// One request (RFC 2986).
pub(super) fn csr(path: &Path) -> Result<CertificateSigningRequestDer<'static>, Failure> {
    let found = parts::<CertificateSigningRequestDer<'static>>(&read(path)?, "certificate request")
        .map_err(|why| bad(path, why))?;
    let [csr] = <[_; 1]>::try_from(found).map_err(|all: Vec<_>| {
        let why = format!("{} requests; give one, the others were left out", all.len());
        bad(path, why)
    })?;
    readable::request(&csr).map_err(|e| e.at(path.display()))?;
    Ok(csr)
}

/// One or more CRLs.
pub(super) fn crls(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, Failure> {
    parts(&read(path)?, "CRL").map_err(|why| bad(path, why))
}

/// A private key: PKCS#8, PKCS#1 or SEC1, not encrypted.
pub(super) fn private_key(path: &Path) -> Result<KeyPair, Failure> {
    let bytes = read(path)?;
    let der = PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| {
        let encrypted = bytes.windows(9).any(|w| w == b"ENCRYPTED");
        let why = if encrypted {
            "the key is encrypted; decrypt it first: openssl pkey -in FILE -out PLAIN"
        } else {
            "no private key in PEM"
        };
        bad(path, why)
    })?;
    KeyPair::try_from(&der).map_err(|_| {
        let why = "a private key of a kind that is not known here: EC on P-256, P-384 or P-521, Ed25519, RSA";
        bad(path, why)
    })
}

/// A certificate never takes the place of a private key: `--out` for `--key-out`.
pub(super) fn no_key_is_lost(path: &Path) -> Result<(), Failure> {
    const PEM_KEY: &[u8] = b"PRIVATE KEY-----";
    let Ok(file) = std::fs::File::open(path) else {
        return Ok(());
    };
    if !file.metadata().is_ok_and(|m| m.is_file()) {
        return Ok(());
    }
    let mut bytes = Vec::new();
    let read = file.take(FILE_BYTES).read_to_end(&mut bytes);
    if read.is_ok() && bytes.windows(PEM_KEY.len()).any(|w| w == PEM_KEY) {
        let text = format!(
            "{} holds a private key, which would be lost; name another file",
            path.display()
        );
        return Err(Failure::new(FailureKind::State, text));
    }
    Ok(())
}

/// DER begins with a SEQUENCE; anything else should be PEM.
fn parts<T: PemObject + From<Vec<u8>>>(bytes: &[u8], what: &str) -> Result<Vec<T>, String> {
    if bytes.first() == Some(&0x30) {
        return Ok(vec![bytes.to_vec().into()]);
    }
    let found: Vec<T> = T::pem_slice_iter(bytes)
        .collect::<Result<_, _>>()
        .map_err(|e| format!("broken PEM: {e}"))?;
    if found.is_empty() {
        return Err(format!("no {what} in it, neither PEM nor DER"));
    }
    Ok(found)
}

fn bad(path: &Path, why: impl std::fmt::Display) -> Failure {
    Failure::new(FailureKind::Data, format!("{}: {why}", path.display()))
}

/// `-----BEGIN …-----`, 64 characters on a line (RFC 7468 §3).
pub(super) fn pem(label: &str, der: &[u8]) -> String {
    let mut text = format!("-----BEGIN {label}-----\n");
    for line in der.chunks(48) {
        text.push_str(&BASE64_STANDARD.encode(line));
        text.push('\n');
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

/// What a file holds, by its name: DER or PEM.
pub(super) fn form(path: Option<&Path>, label: &str, der: &[u8]) -> Vec<u8> {
    match path.and_then(Path::extension).and_then(OsStr::to_str) {
        Some("der" | "cer" | "crl" | "p10") => der.to_vec(),
        _ => pem(label, der).into_bytes(),
    }
}

/// The certificates one behind the other.
pub(super) fn pems<'a>(ders: impl IntoIterator<Item = &'a bytes::Bytes>) -> String {
    ders.into_iter().map(|der| pem(CERTIFICATE, der)).collect()
}

/// The label of a certificate.
pub(super) const CERTIFICATE: &str = "CERTIFICATE";

/// Fills what was opened before, and makes it visible.
pub(super) fn fill(mut sink: Sink, bytes: &[u8]) -> Result<(), Failure> {
    sink.write_all(bytes)
        .map_err(|e| Failure::io("output", &e))?;
    sink.finish()
}

/// Two outputs in one file: the second would destroy the first.
pub(super) fn all_different(paths: &[Option<&PathBuf>]) -> Result<(), Failure> {
    let mut seen = Vec::new();
    for path in paths.iter().flatten() {
        let real = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
        if seen.contains(&real) {
            let text = format!("{} is named for two outputs", path.display());
            return Err(Failure::new(FailureKind::Usage, text));
        }
        seen.push(real);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn file(bytes: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    fn made() -> (KeyPair, rcgen::Certificate) {
        let key = KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        (key, certificate)
    }

    #[test]
    fn certificates_are_read_as_pem_and_as_der() {
        let (_, cert) = made();
        let der = cert.der().to_vec();
        let text = pem(CERTIFICATE, &der);
        assert_eq!(text.replace('\r', ""), cert.pem().replace("\r\n", "\n"));
        let with_words = format!("subject=a\n{text}\n{text}");
        for (bytes, count) in [
            (text.as_bytes(), 1),
            (der.as_slice(), 1),
            (with_words.as_bytes(), 2),
        ] {
            let found = certificates(file(bytes).path()).unwrap();
            assert_eq!(found.len(), count);
            assert!(found.iter().all(|c| c.as_ref() == der));
        }
        assert_eq!(form(Some(Path::new("a.der")), CERTIFICATE, &der), der);
        assert_eq!(
            form(Some(Path::new("a.pem")), CERTIFICATE, &der),
            text.into_bytes()
        );
    }

    #[test]
    fn what_is_no_certificate_is_refused_with_the_file_named() {
        let (key, cert) = made();
        let der = cert.der().to_vec();
        let whole = pem(CERTIFICATE, &der);
        let cut = whole.get(..whole.len() - 40).unwrap();
        let longer = [der.as_slice(), &[0]].concat();
        let key_pem = key.serialize_pem();
        for bytes in [
            b"".as_slice(),
            b"hello",
            &[0x30],
            &longer,
            der.get(..der.len() - 1).unwrap(),
            cut.as_bytes(),
            whole.replace('M', "!").as_bytes(),
            pem(CERTIFICATE, b"no DER").as_bytes(),
            key_pem.as_bytes(),
        ] {
            let file = file(bytes);
            let failure = certificates(file.path()).unwrap_err();
            assert_eq!(failure.kind(), FailureKind::Data);
            let name = file.path().display().to_string();
            assert!(failure.to_string().contains(&name), "{failure}");
            assert!(csr(file.path()).is_err());
        }
        let failure = certificates(Path::new("/nowhere/a.pem")).unwrap_err();
        assert_eq!(failure.kind(), FailureKind::Other);
    }

    #[test]
    fn a_private_key_is_never_written_over() {
        let (key, cert) = made();
        let failure = no_key_is_lost(file(key.serialize_pem().as_bytes()).path()).unwrap_err();
        assert_eq!(failure.kind(), FailureKind::State);
        assert!(no_key_is_lost(file(cert.pem().as_bytes()).path()).is_ok());
        assert!(no_key_is_lost(Path::new("/nowhere")).is_ok());
    }

    #[test]
    fn private_keys_are_read_and_encrypted_ones_are_named() {
        let (key, cert) = made();
        let read = private_key(file(key.serialize_pem().as_bytes()).path()).unwrap();
        assert_eq!(read.serialize_der(), key.serialize_der());
        let encrypted = pem("ENCRYPTED PRIVATE KEY", b"secret");
        let failure = private_key(file(encrypted.as_bytes()).path()).unwrap_err();
        assert!(
            failure.to_string().contains("decrypt it first"),
            "{failure}"
        );
        let none = private_key(file(cert.pem().as_bytes()).path()).unwrap_err();
        assert!(none.to_string().contains("no private key"), "{none}");
        assert!(private_key(file(pem("PRIVATE KEY", b"x").as_bytes()).path()).is_err());
    }

    #[test]
    fn one_file_is_one_output() {
        let (a, b) = (PathBuf::from("a"), PathBuf::from("b"));
        assert!(all_different(&[Some(&a), None, Some(&b), None]).is_ok());
        assert!(all_different(&[Some(&a), Some(&b), Some(&a)]).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let der = [&[0x30], bytes.as_slice()].concat();
            for bytes in [bytes.clone(), der, pem(CERTIFICATE, &bytes).into_bytes()] {
                let file = file(&bytes);
                prop_assert!(certificates(file.path()).is_err());
                let _ = csr(file.path());
                let _ = crls(file.path());
                let _ = private_key(file.path());
            }
        }
    }
}
