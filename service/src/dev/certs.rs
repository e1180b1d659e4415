//! The dev CA and its certificates: server and identities, on P-256, for a year.

use std::{fs, time::Duration};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

use super::{Dev, IDENTITIES, TRUST_DOMAIN};
use crate::{
    app::StartError,
    clock::{Clock, System},
};

const DAY: Duration = Duration::from_secs(86_400);
const YEARS_OF_CA: u32 = 10;

/// Makes what is missing.
pub(super) fn make(dev: &Dev) -> Result<(), StartError> {
    let error = |e: rcgen::Error| StartError::Setup(format!("dev certificates: {e}"));
    if !dev.path("ca.pem").exists() || !dev.path("ca.key").exists() {
        let key = KeyPair::generate().map_err(error)?;
        let ca = authority().self_signed(&key).map_err(error)?;
        dev.write("ca.key", &key.serialize_pem())?;
        dev.write("ca.pem", &ca.pem())?;
    }
    let read = |name: &str| {
        let path = dev.path(name);
        fs::read_to_string(&path).map_err(|e| StartError::Setup(format!("{}: {e}", path.display())))
    };
    let key = KeyPair::from_pem(&read("ca.key")?).map_err(error)?;
    // Name and key are all that goes from a CA into what it issues.
    let params = authority();
    let issuer = Issuer::from_params(&params, key);
    let mut wanted = vec![("server".to_owned(), server_names().map_err(error)?)];
    for name in IDENTITIES {
        let uri = format!("spiffe://{TRUST_DOMAIN}/{name}");
        let uri = uri.try_into().map_err(error)?;
        wanted.push((name.to_owned(), vec![SanType::URI(uri)]));
    }
    for (name, names) in wanted {
        let (certificate, key) = (format!("certs/{name}.pem"), format!("certs/{name}.key"));
        if dev.path(&certificate).exists() && dev.path(&key).exists() {
            continue;
        }
        let (pem, secret) = leaf(&name, names, &issuer).map_err(error)?;
        dev.write(&key, &secret)?;
        dev.write(&certificate, &pem)?;
    }
    Ok(())
}

fn server_names() -> Result<Vec<SanType>, rcgen::Error> {
    Ok(vec![
        SanType::DnsName("localhost".try_into()?),
        SanType::IpAddress([127, 0, 0, 1].into()),
        SanType::IpAddress(std::net::Ipv6Addr::LOCALHOST.into()),
    ])
}

fn authority() -> CertificateParams {
    let mut params = params("keywright dev CA", 365 * YEARS_OF_CA);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn leaf(
    name: &str,
    names: Vec<SanType>,
    issuer: &Issuer<'_, KeyPair>,
) -> Result<(String, String), rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = params(name, 365);
    params.subject_alt_names = names;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![if name == "server" {
        ExtendedKeyUsagePurpose::ServerAuth
    } else {
        ExtendedKeyUsagePurpose::ClientAuth
    }];
    params.use_authority_key_identifier_extension = true;
    Ok((params.signed_by(&key, issuer)?.pem(), key.serialize_pem()))
}

fn params(name: &str, days: u32) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    let now = Duration::from_millis(u64::try_from(System.now_ms()).unwrap_or(0));
    // rcgen's times count from 1975; a day back for clocks that differ.
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + (now - DAY);
    params.not_after = epoch + (now + DAY * days);
    params
}
