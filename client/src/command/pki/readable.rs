//! What stands in a certificate, in a certificate to be signed and in a request, for
//! people who must say yes to it. Nothing here decides anything.

use std::net::IpAddr;

use keywright_client::{Failure, FailureKind};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use x509_parser::{
    certification_request::{X509CertificationRequest, X509CertificationRequestInfo},
    extensions::{DistributionPointName, GeneralName, ParsedExtension, X509Extension},
    objects::{oid_registry, oid2sn},
    prelude::{FromDer, TbsCertificate, X509Certificate, X509Name},
    public_key::PublicKey,
    time::ASN1Time,
    x509::SubjectPublicKeyInfo,
};

use crate::command::key::{table, time};

/// What stands there, line by line.
#[derive(Debug)]
pub(super) struct Reading {
    lines: Vec<(String, String)>,
    /// As in the certificate, big-endian; empty for a request.
    pub(super) serial: Vec<u8>,
    /// A certificate of an authority (RFC 5280 §4.2.1.9).
    pub(super) is_ca: bool,
    /// SHA-256 of the SubjectPublicKeyInfo.
    pub(super) spki_sha256: [u8; 32],
}

impl Reading {
    /// Two columns.
    pub(super) fn table(&self) -> String {
        let mut table = table(&["field", "value"]);
        for (field, value) in &self.lines {
            table.add_row([field, value]);
        }
        format!("{table}\n")
    }

    pub(super) fn json(&self) -> Value {
        let pair = |(field, value): &(String, String)| (field.clone(), Value::from(value.clone()));
        Value::Object(self.lines.iter().map(pair).collect::<Map<_, _>>())
    }
}

/// A certificate, whole.
pub(super) fn certificate(der: &[u8]) -> Result<Reading, Failure> {
    match X509Certificate::from_der(der) {
        Ok(([], read)) => Ok(tbs_lines(&read.tbs_certificate)),
        _ => Err(unreadable("no certificate (X.509), or not a whole one")),
    }
}

/// A request (RFC 2986), whole.
pub(super) fn request(der: &[u8]) -> Result<Reading, Failure> {
    match X509CertificationRequest::from_der(der) {
        Ok(([], read)) => Ok(info_lines(&read.certification_request_info)),
        _ => Err(unreadable(
            "no certificate request (PKCS#10), or not a whole one",
        )),
    }
}

/// What a ceremony would sign: a certificate's content, or a request's.
pub(super) fn to_be_signed(der: &[u8]) -> Result<Reading, Failure> {
    if let Ok(([], read)) = TbsCertificate::from_der(der) {
        return Ok(tbs_lines(&read));
    }
    match X509CertificationRequestInfo::from_der(der) {
        Ok(([], read)) => Ok(info_lines(&read)),
        _ => Err(unreadable(
            "what would be signed is neither a certificate nor a request; do not approve it",
        )),
    }
}

fn unreadable(text: &str) -> Failure {
    Failure::new(FailureKind::Data, text)
}

fn tbs_lines(tbs: &TbsCertificate<'_>) -> Reading {
    let mut lines = vec![
        line("subject", name(tbs.subject())),
        line("issuer", name(tbs.issuer())),
        line("serial", hex::encode(tbs.raw_serial())),
        line("not before", date(tbs.validity().not_before)),
        line("not after", date(tbs.validity().not_after)),
        line("signature", oid(&tbs.signature.algorithm)),
    ];
    let spki_sha256 = key_lines(&mut lines, tbs.public_key());
    lines.extend(tbs.extensions().iter().map(extension));
    Reading {
        lines,
        serial: tbs.raw_serial().to_vec(),
        is_ca: tbs.is_ca(),
        spki_sha256,
    }
}

fn info_lines(info: &X509CertificationRequestInfo<'_>) -> Reading {
    use x509_parser::cri_attributes::ParsedCriAttribute;
    let mut lines = vec![line("subject", name(&info.subject))];
    let spki_sha256 = key_lines(&mut lines, &info.subject_pki);
    for attribute in info.iter_attributes() {
        match attribute.parsed_attribute() {
            ParsedCriAttribute::ExtensionRequest(asked) => {
                lines.extend(asked.extensions.iter().map(extension));
            }
            _ => lines.push((oid(&attribute.oid), hex::encode(attribute.value))),
        }
    }
    Reading {
        lines,
        serial: Vec::new(),
        is_ca: false,
        spki_sha256,
    }
}

fn line(field: &str, value: String) -> (String, String) {
    (field.to_owned(), value)
}

fn key_lines(lines: &mut Vec<(String, String)>, key: &SubjectPublicKeyInfo<'_>) -> [u8; 32] {
    let spki_sha256 = Sha256::digest(key.raw).into();
    lines.push(line("key", key_kind(key)));
    lines.push(line("key SHA-256", hex::encode(spki_sha256)));
    spki_sha256
}

fn key_kind(key: &SubjectPublicKeyInfo<'_>) -> String {
    if let Ok(PublicKey::RSA(rsa)) = key.parsed() {
        return format!("rsa-{}", rsa.key_size());
    }
    let parameters = key.algorithm.parameters.as_ref();
    let curve = parameters.and_then(|p| p.as_oid().ok());
    // RFC 5480 §2.1.1.1, RFC 8410 §3.
    match curve.as_ref().unwrap_or(&key.algorithm.algorithm) {
        o if o.to_id_string() == "1.2.840.10045.3.1.7" => "ec-p256".into(),
        o if o.to_id_string() == "1.3.132.0.34" => "ec-p384".into(),
        o if o.to_id_string() == "1.3.132.0.35" => "ec-p521".into(),
        o if o.to_id_string() == "1.3.101.112" => "ed25519".into(),
        other => oid(other),
    }
}

fn extension(extension: &X509Extension<'_>) -> (String, String) {
    let critical = if extension.critical {
        " (critical)"
    } else {
        ""
    };
    let (field, value) = meaning(extension);
    (format!("{field}{critical}"), value)
}

fn meaning(extension: &X509Extension<'_>) -> (String, String) {
    let raw = || (oid(&extension.oid), hex::encode(extension.value));
    let (field, value) = match extension.parsed_extension() {
        ParsedExtension::BasicConstraints(b) => {
            let depth = b
                .path_len_constraint
                .map_or_else(|| "any number".to_owned(), |n| n.to_string());
            let text = match b.ca {
                true => format!("an authority; {depth} of authorities below it"),
                false => "no authority".to_owned(),
            };
            ("basic constraints", text)
        }
        ParsedExtension::KeyUsage(usage) => ("key usage", usage.to_string()),
        ParsedExtension::ExtendedKeyUsage(usage) => ("extended key usage", purposes(usage)),
        ParsedExtension::SubjectAlternativeName(names) => (
            "subject alternative names",
            general_names(&names.general_names),
        ),
        ParsedExtension::NameConstraints(limits) => {
            let bases = |subtrees: &Option<Vec<_>>| {
                let all: Vec<_> = subtrees.iter().flatten().collect();
                let list = all
                    .iter()
                    .map(|s: &&x509_parser::extensions::GeneralSubtree<'_>| general_name(&s.base));
                list.collect::<Vec<_>>().join(", ")
            };
            let permitted = bases(&limits.permitted_subtrees);
            let excluded = bases(&limits.excluded_subtrees);
            (
                "name constraints",
                format!("permitted: {permitted}; excluded: {excluded}"),
            )
        }
        ParsedExtension::SubjectKeyIdentifier(id) => ("subject key id", hex::encode(id.0)),
        ParsedExtension::AuthorityKeyIdentifier(id) => {
            let id = id.key_identifier.as_ref();
            (
                "authority key id",
                id.map_or_else(String::new, |id| hex::encode(id.0)),
            )
        }
        ParsedExtension::CRLDistributionPoints(points) => {
            let full = points
                .points
                .iter()
                .filter_map(|p| match &p.distribution_point {
                    Some(DistributionPointName::FullName(names)) => Some(general_names(names)),
                    Some(DistributionPointName::NameRelativeToCRLIssuer(_)) | None => None,
                });
            ("CRLs", full.collect::<Vec<_>>().join(", "))
        }
        ParsedExtension::AuthorityInfoAccess(access) => {
            let each = access.accessdescs.iter();
            let text = each.map(|a| {
                format!(
                    "{} {}",
                    oid(&a.access_method),
                    general_name(&a.access_location)
                )
            });
            ("authority information", text.collect::<Vec<_>>().join(", "))
        }
        _ => return raw(),
    };
    (field.to_owned(), value)
}

fn purposes(usage: &x509_parser::extensions::ExtendedKeyUsage<'_>) -> String {
    let known = [
        (usage.any, "any"),
        (usage.server_auth, "serverAuth"),
        (usage.client_auth, "clientAuth"),
        (usage.code_signing, "codeSigning"),
        (usage.email_protection, "emailProtection"),
        (usage.time_stamping, "timeStamping"),
        (usage.ocsp_signing, "OCSPSigning"),
    ];
    let named = known.iter().filter(|(set, _)| *set);
    let mut all: Vec<String> = named.map(|(_, name)| (*name).to_owned()).collect();
    all.extend(usage.other.iter().map(oid));
    all.join(", ")
}

fn general_names(names: &[GeneralName<'_>]) -> String {
    names
        .iter()
        .map(general_name)
        .collect::<Vec<_>>()
        .join(", ")
}

fn general_name(name: &GeneralName<'_>) -> String {
    match name {
        GeneralName::DNSName(name) => format!("DNS {}", plain(name)),
        GeneralName::URI(uri) => format!("URI {}", plain(uri)),
        GeneralName::IPAddress(bytes) => format!("IP {}", address(bytes)),
        other => plain(&other.to_string()),
    }
}

/// An address, or in name constraints an address and its mask (RFC 5280 §4.2.1.10).
fn address(bytes: &[u8]) -> String {
    let one = |bytes: &[u8]| -> Option<IpAddr> {
        let four = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
        four.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
            .ok()
    };
    let text = match bytes.len() {
        8 | 32 => bytes
            .split_at_checked(bytes.len() / 2)
            .and_then(|(base, mask)| Some(format!("{}/{}", one(base)?, one(mask)?))),
        _ => one(bytes).map(|ip| ip.to_string()),
    };
    text.unwrap_or_else(|| hex::encode(bytes))
}

fn name(name: &X509Name<'_>) -> String {
    match plain(&name.to_string()) {
        empty if empty.is_empty() => "(none)".to_owned(),
        text => text,
    }
}

/// Text from a certificate must not command the terminal it is shown on.
pub(super) fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || invisible(c) {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}

/// Marks that turn the direction of text or take no room (Unicode TR 36 §2.10.3).
fn invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

fn date(at: ASN1Time) -> String {
    time(at.timestamp().saturating_mul(1000))
}

fn oid(oid: &x509_parser::der_parser::oid::Oid<'_>) -> String {
    oid2sn(oid, oid_registry()).map_or_else(|_| oid.to_id_string(), ToOwned::to_owned)
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, SanType};

    use super::*;

    #[test]
    fn a_certificate_says_what_stands_in_it() {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        let mut params = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, "Root\u{1b}[2J \u{202e}evil");
        params
            .subject_alt_names
            .push(SanType::IpAddress([10, 0, 0, 1].into()));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.serial_number = Some(vec![0x3a, 0x5f].into());
        let made = params.self_signed(&key).unwrap();
        let reading = certificate(made.der()).unwrap();
        assert_eq!(reading.serial, [0x3a, 0x5f]);
        let spki = rcgen::PublicKeyData::subject_public_key_info(&key);
        assert_eq!(reading.spki_sha256, <[u8; 32]>::from(Sha256::digest(&spki)));
        let json = reading.json();
        assert_eq!(json["key"], "ec-p384");
        assert_eq!(json["serial"], "3a5f");
        assert_eq!(json["subject"], "CN=Root\\u{1b}[2J \\u{202e}evil");
        let names = &json["subject alternative names"];
        assert_eq!(names, "DNS a.example, IP 10.0.0.1");
        let ca = &json["basic constraints (critical)"];
        assert_eq!(ca, "an authority; 0 of authorities below it");
        assert!(reading.table().contains("ec-p384"));
    }

    #[test]
    fn what_would_be_signed_is_read_from_both_forms() {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let (_, read) = X509Certificate::from_der(certificate.der()).unwrap();
        let tbs = to_be_signed(read.tbs_certificate.as_ref()).unwrap();
        assert!(!tbs.serial.is_empty());
        let csr = params.serialize_request(&key).unwrap();
        let (_, read) = X509CertificationRequest::from_der(csr.der()).unwrap();
        let info = to_be_signed(read.certification_request_info.raw).unwrap();
        assert_eq!(info.json()["subject alternative names"], "DNS a.example");
        assert_eq!(info.spki_sha256, tbs.spki_sha256);
        assert!(to_be_signed(b"neither").is_err());
        assert!(to_be_signed(csr.der()).is_err());
    }

    #[test]
    fn networks_have_a_mask() {
        assert_eq!(
            address(&[10, 20, 0, 0, 255, 255, 0, 0]),
            "10.20.0.0/255.255.0.0"
        );
        assert_eq!(address(&[1, 2, 3]), "010203");
    }
}
