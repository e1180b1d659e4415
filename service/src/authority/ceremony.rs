//! The text of a ceremony: one reviewed TOML that says everything about an authority
//! before its key is made.

mod external;

use std::{net::IpAddr, str::FromStr};

use keywright_pki::{
    Attribute, Kind, NameConstraints, Plan, Serial, Subject, SubjectKey, Subtree, Urls,
};
use serde::Deserialize;

use super::AuthorityName;
use crate::key::{KeySpec, KeyUse};

/// Who signs the certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parent {
    /// The authority itself: a root.
    Itself,
    /// Another authority here.
    Issuer(AuthorityName),
    /// A root elsewhere: a CSR goes out, a certificate comes back.
    External,
}

/// What the text says.
#[derive(Debug, Clone)]
pub struct Ceremony {
    /// Name of the authority.
    pub name: AuthorityName,
    /// Who signs it.
    pub parent: Parent,
    /// Its key.
    pub key: KeySpec,
    /// Different people who must say yes.
    pub approvals: u32,
    /// CRLs that share its certificates; 0: only the full one.
    pub shards: u32,
    subject: Subject,
    validity_days: u32,
    path_len: Option<u8>,
    constraints: NameConstraints,
    base: Option<String>,
    ocsp: bool,
}

/// Why a text is no ceremony.
#[derive(Debug, thiserror::Error)]
pub enum CeremonyError {
    /// Not TOML, or not of this shape; says where.
    #[error("{0}")]
    Syntax(String),
    /// A value that means nothing.
    #[error("{0}")]
    Value(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: String,
    kind: FileKind,
    parent: Option<String>,
    key: String,
    validity_days: u32,
    path_len: Option<u8>,
    approvals: Option<u32>,
    #[serde(default)]
    shards: u32,
    subject: FileSubject,
    #[serde(default)]
    constraints: FileConstraints,
    #[serde(default)]
    urls: FileUrls,
}

#[derive(Deserialize, Clone, Copy, PartialEq)]
#[serde(rename_all = "lowercase")]
enum FileKind {
    Root,
    Intermediate,
    External,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileSubject {
    #[serde(rename = "CN")]
    common_name: String,
    #[serde(rename = "O")]
    organization: Option<String>,
    #[serde(rename = "OU")]
    unit: Option<String>,
    #[serde(rename = "C")]
    country: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct FileConstraints {
    permitted_dns: Vec<String>,
    excluded_dns: Vec<String>,
    permitted_ip: Vec<String>,
    excluded_ip: Vec<String>,
    permitted_uri_hosts: Vec<String>,
    excluded_uri_hosts: Vec<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct FileUrls {
    base: Option<String>,
    ocsp: bool,
}

/// Nobody plans for longer.
const MAX_VALIDITY_DAYS: u32 = 36_525;
/// More shards than that hold any CRL small.
const MAX_SHARDS: u32 = 1024;
const DEFAULT_APPROVALS: u32 = 2;
const DAY_SECONDS: u64 = 24 * 60 * 60;
/// Who relies on the certificate may have a clock that is late.
const BACKDATE_SECONDS: u64 = 5 * 60;

fn value(text: impl Into<String>) -> CeremonyError {
    CeremonyError::Value(text.into())
}

impl Ceremony {
    /// Reads a text. `least_approvals` is the appliance's own rule.
    ///
    /// # Errors
    /// The place and what is wrong there.
    pub fn parse(text: &str, least_approvals: u32) -> Result<Self, CeremonyError> {
        let file: File = toml::from_str(text).map_err(|e| CeremonyError::Syntax(e.to_string()))?;
        let authority = |what: &str, name: &str| {
            AuthorityName::parse(name).map_err(|e| value(format!("{what} {name:?}: {e}")))
        };
        let name = authority("name", &file.name)?;
        if name.as_str() == "ocsp" {
            return Err(value(
                "name = \"ocsp\": this word stands in URLs; take another name",
            ));
        }
        let parent = match (file.kind, &file.parent) {
            (FileKind::Root, None) => Parent::Itself,
            (FileKind::External, None) => Parent::External,
            (FileKind::Intermediate, Some(parent)) => Parent::Issuer(authority("parent", parent)?),
            (FileKind::Intermediate, None) => {
                return Err(value("an intermediate has a parent: parent = \"NAME\""));
            }
            (FileKind::Root | FileKind::External, Some(_)) => {
                return Err(value(
                    "only an intermediate has a parent here; leave it out",
                ));
            }
        };
        if file.path_len.is_none() && file.kind != FileKind::Root {
            return Err(value(
                "path_len is missing: how many authorities may follow below; 0 for one that issues to services",
            ));
        }
        if file.validity_days == 0 || file.validity_days > MAX_VALIDITY_DAYS {
            return Err(value(format!(
                "validity_days = {}: from 1 to {MAX_VALIDITY_DAYS}",
                file.validity_days
            )));
        }
        if file.shards > MAX_SHARDS {
            return Err(value(format!(
                "shards = {}: at most {MAX_SHARDS}",
                file.shards
            )));
        }
        let approvals = file
            .approvals
            .unwrap_or(DEFAULT_APPROVALS.max(least_approvals));
        if approvals < least_approvals {
            return Err(value(format!(
                "approvals = {approvals}: this appliance asks for {least_approvals} or more (pki.approvals)"
            )));
        }
        Ok(Self {
            name,
            parent,
            key: issuer_key(&file.key)?,
            approvals,
            shards: file.shards,
            subject: file.subject.subject()?,
            validity_days: file.validity_days,
            path_len: file.path_len,
            constraints: file.constraints.constraints()?,
            base: file.urls.base.map(base).transpose()?,
            ocsp: file.urls.ocsp,
        })
    }

    /// The authority's certificate, every field fixed. `urls` are those of who signs it.
    /// It begins at `created_ms` and is the same whenever it is asked for.
    #[must_use]
    pub fn plan(&self, key: SubjectKey, serial: Serial, created_ms: i64, urls: Urls) -> Plan {
        let not_before = begin(created_ms);
        Plan {
            serial,
            subject: self.subject.clone(),
            key,
            sans: Vec::new(),
            not_before,
            not_after: self.end(created_ms),
            kind: Kind::Ca {
                path_len: self.path_len,
                constraints: self.constraints.clone(),
            },
            urls,
            ski: true,
        }
    }

    /// The last second of its certificate: validity is inclusive (RFC 5280 §4.1.2.5).
    #[must_use]
    pub fn end(&self, created_ms: i64) -> u64 {
        begin(created_ms) + u64::from(self.validity_days) * DAY_SECONDS - 1
    }

    /// Its distinguished name.
    #[must_use]
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    /// Where others find what this authority publishes, for a certificate in this shard
    /// of its CRL (0: no shards).
    #[must_use]
    pub fn urls(&self, shard: u32) -> Urls {
        let Some(base) = &self.base else {
            return Urls::default();
        };
        let name = &self.name;
        Urls {
            crl_dp: Some(self.crl_url(base, shard)),
            ca_issuers: Some(format!("{base}/{name}.cer")),
            ocsp: self.ocsp.then(|| format!("{base}/ocsp/{name}")),
        }
    }

    /// The URL of one shard, as its CRL must name it.
    #[must_use]
    pub fn shard_url(&self, shard: u32) -> Option<String> {
        self.base.as_deref().map(|base| self.crl_url(base, shard))
    }

    fn crl_url(&self, base: &str, shard: u32) -> String {
        match shard {
            0 => format!("{base}/{}.crl", self.name),
            n => format!("{base}/{}/{n}.crl", self.name),
        }
    }

    /// In which shard a certificate is, from 1; 0 without shards.
    #[must_use]
    pub fn shard_of(&self, serial: &Serial) -> u32 {
        // The last octets of a serial are random.
        let low = serial.as_bytes().iter().rev().take(4);
        let number = low.fold(0u32, |sum, b| sum << 8 | u32::from(*b));
        if self.shards == 0 {
            0
        } else {
            1 + number % self.shards
        }
    }
}

fn begin(created_ms: i64) -> u64 {
    let created = u64::try_from(created_ms / 1000).unwrap_or(0);
    created.saturating_sub(BACKDATE_SECONDS)
}

fn issuer_key(name: &str) -> Result<KeySpec, CeremonyError> {
    const KEYS: [&str; 5] = ["ec-p256", "ec-p384", "rsa-3072", "rsa-4096", "ed25519"];
    KeySpec::parse(name, Some(KeyUse::Sign))
        .filter(|_| KEYS.contains(&name))
        .ok_or_else(|| {
            value(format!(
                "key = {name:?}: an authority has one of {}",
                KEYS.join(", ")
            ))
        })
}

/// `http`, because who checks a certificate cannot check another one first (RFC 5280 §8).
fn base(url: String) -> Result<String, CeremonyError> {
    let host = url.strip_prefix("http://").unwrap_or_default();
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"-._~:/[]".contains(&b);
    if host.is_empty() || host.ends_with('/') || !host.bytes().all(legal) {
        return Err(value(format!(
            "urls.base = {url:?}: an http:// address without / at its end, such as http://pki.example.com"
        )));
    }
    Ok(url)
}

impl FileSubject {
    fn subject(&self) -> Result<Subject, CeremonyError> {
        let mut attributes = Vec::new();
        let mut also = |attribute, text: &Option<String>| {
            attributes.extend(text.clone().map(|text| (attribute, text)));
        };
        also(Attribute::Country, &self.country);
        also(Attribute::Organization, &self.organization);
        also(Attribute::OrganizationalUnit, &self.unit);
        also(Attribute::CommonName, &Some(self.common_name.clone()));
        let attributes: Vec<_> = attributes.iter().map(|(a, t)| (*a, t.as_str())).collect();
        Subject::new(&attributes).map_err(|e| value(format!("subject: {e}")))
    }
}

impl FileConstraints {
    fn constraints(&self) -> Result<NameConstraints, CeremonyError> {
        Ok(NameConstraints {
            permitted: subtrees(
                &self.permitted_dns,
                &self.permitted_ip,
                &self.permitted_uri_hosts,
            )?,
            excluded: subtrees(
                &self.excluded_dns,
                &self.excluded_ip,
                &self.excluded_uri_hosts,
            )?,
        })
    }
}

fn subtrees(
    dns: &[String],
    ip: &[String],
    hosts: &[String],
) -> Result<Vec<Subtree>, CeremonyError> {
    let mut out: Vec<Subtree> = Vec::new();
    for name in dns {
        let name = keywright_pki::DnsName::parse(name)
            .map_err(|e| value(format!("constraints: DNS {name:?} {e}")))?;
        if name.is_wildcard() {
            return Err(value(format!(
                "constraints: {:?} is no base of names",
                name.as_str()
            )));
        }
        out.push(Subtree::Dns(name.as_str().to_owned()));
    }
    for network in ip {
        out.push(network_subtree(network)?);
    }
    for host in hosts {
        let bare = host.strip_prefix('.').unwrap_or(host);
        keywright_pki::DnsName::parse(bare)
            .map_err(|e| value(format!("constraints: URI host {host:?} {e}")))?;
        out.push(Subtree::UriHost(host.to_ascii_lowercase()));
    }
    Ok(out)
}

/// `10.0.0.0/8`; bits behind the prefix are zero.
fn network_subtree(text: &str) -> Result<Subtree, CeremonyError> {
    let wrong = || {
        value(format!(
            "constraints: {text:?} is no network such as 10.0.0.0/8"
        ))
    };
    let (address, prefix) = text.split_once('/').ok_or_else(wrong)?;
    let address = IpAddr::from_str(address).map_err(|_| wrong())?;
    let prefix: u8 = prefix.parse().map_err(|_| wrong())?;
    let (bits, width) = match address {
        IpAddr::V4(a) => (u128::from(a.to_bits()) << 96, 32),
        IpAddr::V6(a) => (a.to_bits(), 128),
    };
    let behind = bits.checked_shl(u32::from(prefix)).unwrap_or(0);
    if prefix > width || behind != 0 {
        return Err(wrong());
    }
    Ok(Subtree::Ip { address, prefix })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
name = "int-a"
kind = "intermediate"
parent = "root"
key = "ec-p256"
validity_days = 1825
path_len = 0
shards = 4

[subject]
CN = "Example Services"
O = "Example"
C = "DE"

[constraints]
permitted_dns = ["example.internal"]
permitted_ip = ["10.20.0.0/16", "fd00::/8"]
excluded_uri_hosts = [".evil.example"]

[urls]
base = "http://pki.example.internal:8480"
"#;

    fn key() -> SubjectKey {
        let pair = rcgen::KeyPair::generate().unwrap();
        SubjectKey::from_spki(&rcgen::PublicKeyData::subject_public_key_info(&pair)).unwrap()
    }

    #[test]
    fn a_good_text_says_everything() {
        let ceremony = Ceremony::parse(GOOD, 2).unwrap();
        assert_eq!(ceremony.approvals, 2);
        assert_eq!(
            ceremony.parent,
            Parent::Issuer(AuthorityName::parse("root").unwrap())
        );
        let serial = Serial::from_random([9; 17]);
        let (first, again) = (
            ceremony.plan(key(), serial, 1_800_000_000_123, Urls::default()),
            ceremony.plan(key(), serial, 1_800_000_000_123, Urls::default()),
        );
        assert_eq!(first.not_before, again.not_before);
        assert_eq!(first.not_after - first.not_before + 1, 1825 * 86_400);
        let urls = ceremony.urls(ceremony.shard_of(&serial));
        let url = urls.crl_dp.unwrap();
        assert!(
            url.starts_with("http://pki.example.internal:8480/int-a/"),
            "{url}"
        );
        assert_eq!(urls.ocsp, None);
    }

    #[test]
    fn bad_texts_say_what_is_wrong() {
        let changed = |from: &str, to: &str| {
            let text = GOOD.replace(from, to);
            assert_ne!(text, GOOD, "{from}");
            Ceremony::parse(&text, 2).unwrap_err().to_string()
        };
        for (from, to, says) in [
            ("shards = 4", "shard = 4", "shard"),
            ("parent = \"root\"", "", "parent"),
            ("path_len = 0", "", "path_len"),
            ("ec-p256", "rsa-2048", "rsa-3072"),
            ("ec-p256", "hmac-sha256", "authority"),
            ("1825", "0", "validity_days"),
            ("1825", "99999", "validity_days"),
            ("shards = 4", "shards = 4\napprovals = 1", "approvals"),
            ("\"DE\"", "\"Germany\"", "Country"),
            ("\"Example Services\"", "\"\"", "subject"),
            ("10.20.0.0/16", "10.20.0.1/16", "10.20.0.1/16"),
            ("10.20.0.0/16", "10.20.0.0/33", "33"),
            (
                "\"example.internal\"",
                "\"*.example.internal\"",
                "*.example.internal",
            ),
            (
                "\"example.internal\"",
                "\".example.internal\"",
                "constraints",
            ),
            ("http://pki", "https://pki", "http://"),
            ("int-a", "Int A", "Int A"),
            ("int-a", "ocsp", "take another name"),
        ] {
            let e = changed(from, to);
            assert!(e.contains(says), "{to}: {e}");
        }
        let root = GOOD.replace("intermediate", "root");
        assert!(
            Ceremony::parse(&root, 2)
                .unwrap_err()
                .to_string()
                .contains("leave it out")
        );
    }

    #[test]
    fn every_shard_is_reached() {
        let ceremony = Ceremony::parse(GOOD, 2).unwrap();
        let shards: std::collections::BTreeSet<u32> = (0..=255)
            .map(|n| ceremony.shard_of(&Serial::from_random([n; 17])))
            .collect();
        assert_eq!(shards, (1..=4).collect());
    }
}
