//! The certificate of the database: nodes on other machines insist on it.

use std::{
    fs,
    net::IpAddr,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};

use crate::postgres::Postgres;

/// Lines for postgresql.conf, and the file with the certificate of the authority.
pub(crate) fn certified(dir: &Path, addresses: &[IpAddr]) -> (String, PathBuf) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = addresses.iter().map(|a| SanType::IpAddress(*a)).collect();
    let key = KeyPair::generate().unwrap();
    let server = params.signed_by(&key, &authority).unwrap();
    let ca = dir.join("database-ca.pem");
    fs::write(&ca, authority.pem()).unwrap();
    let (certificate, own) = (dir.join("database.pem"), dir.join("database.key"));
    fs::write(&certificate, server.pem()).unwrap();
    fs::write(&own, key.serialize_pem()).unwrap();
    fs::set_permissions(&own, fs::Permissions::from_mode(0o600)).unwrap();
    if let Some((uid, gid)) = Postgres::owner() {
        chown(&own, Some(uid), Some(gid)).unwrap();
    }
    // Whoever the server runs as must come this far.
    fs::set_permissions(dir, fs::Permissions::from_mode(0o711)).unwrap();
    let settings = format!(
        "ssl = on\nssl_cert_file = '{}'\nssl_key_file = '{}'\nlisten_addresses = '*'",
        certificate.display(),
        own.display()
    );
    (settings, ca)
}
