//! `keywright pki verify`: is a certificate good, by what lies here? Path, validity, names
//! and constraints (RFC 5280 §6.1), and CRLs (§6.3), judged by rustls-webpki: other code
//! than the one that issued it.

use keywright_client::{Failure, FailureKind};
use rustls_pki_types::{
    CertificateDer, CertificateRevocationListDer, ServerName, TrustAnchor, UnixTime,
};
use serde_json::json;
use webpki::{
    ALL_VERIFICATION_ALGS, CertRevocationList, EndEntityCert, Error, ExpirationPolicy,
    ExtendedKeyUsageValidator, KeyPurposeIdIter, KeyUsage, OwnedCertRevocationList,
    RevocationCheckDepth, RevocationOptionsBuilder, UnknownStatusPolicy, anchor_from_trusted_cert,
};

use super::{files, readable};
use crate::{
    args::{Output, pki::Verify},
    output::{self, print},
};

/// A word of ours, as `keywright verify` has it.
const NOT_VALID: &str = "NOT_VALID";

/// What is judged, and by what.
pub(super) struct Case<'a> {
    pub(super) certificate: &'a CertificateDer<'a>,
    pub(super) between: &'a [CertificateDer<'a>],
    pub(super) roots: &'a [CertificateDer<'a>],
    pub(super) crls: &'a [CertificateRevocationListDer<'a>],
    pub(super) name: Option<&'a ServerName<'a>>,
    pub(super) now: UnixTime,
}

/// Any purpose: whoever uses it must check.
struct AnyPurpose;

impl ExtendedKeyUsageValidator for AnyPurpose {
    fn validate(&self, _: KeyPurposeIdIter<'_, '_>) -> Result<(), Error> {
        Ok(())
    }
}

pub(super) fn run(what: &Verify, output: Output) -> Result<(), Failure> {
    let mut all = files::certificates(&what.cert)?.into_iter();
    let certificate = all.next().ok_or_else(|| why_not("no certificate"))?;
    let mut between: Vec<_> = all.collect();
    if let Some(chain) = &what.chain {
        between.extend(files::certificates(chain)?);
    }
    let roots = files::certificates(&what.root)?;
    let mut crls = Vec::new();
    for file in &what.crl {
        crls.extend(files::crls(file)?);
    }
    let name = what.dns.as_deref().map(server_name).transpose()?;
    let case = Case {
        certificate: &certificate,
        between: &between,
        roots: &roots,
        crls: &crls,
        name: name.as_ref(),
        now: UnixTime::now(),
    };
    let verdict = check(&case);
    let reading = readable::certificate(&certificate)?;
    match output {
        Output::Json => output::json(&json!({
            "valid": verdict.is_ok(),
            "why_not": verdict.as_ref().err(),
            "revocation_checked": !crls.is_empty(),
            "certificate": reading.json(),
        }))?,
        Output::Table if verdict.is_ok() => {
            print(&reading.table())?;
            let revocation = match crls.is_empty() {
                true => "revocation was not checked: no --crl",
                false => {
                    "not on its issuer's list; authorities above it only as far as their lists were given"
                }
            };
            print(&format!("valid; {revocation}\n"))?;
        }
        Output::Table => {}
    }
    verdict.map_err(|why| why_not(&why))
}

fn server_name(text: &str) -> Result<ServerName<'static>, Failure> {
    ServerName::try_from(text.to_owned()).map_err(|_| {
        let text = format!("--dns {text:?} is neither a host name nor an address");
        Failure::new(FailureKind::Usage, text)
    })
}

fn why_not(why: &str) -> Failure {
    Failure::new(FailureKind::Data, format!("not valid: {why}")).because(NOT_VALID)
}

/// Says why not.
pub(super) fn check(case: &Case<'_>) -> Result<(), String> {
    let anchors = case
        .roots
        .iter()
        .map(|root| anchor_from_trusted_cert(root).map_err(|e| format!("a root: {}", words(&e))))
        .collect::<Result<Vec<_>, _>>()?;
    let end = EndEntityCert::try_from(case.certificate).map_err(|e| words(&e))?;
    let crls = case
        .crls
        .iter()
        .map(|crl| OwnedCertRevocationList::from_der(crl).map(CertRevocationList::from))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| format!("a CRL: {}", words(&e)))?;
    let crls: Vec<&CertRevocationList<'_>> = crls.iter().collect();
    // A CRL must speak for the certificate itself; for those above it, it may.
    let (leaf, above) = (RevocationCheckDepth::EndEntity, RevocationCheckDepth::Chain);
    let (must, may) = (UnknownStatusPolicy::Deny, UnknownStatusPolicy::Allow);
    path(case, &end, &anchors, &crls, (leaf, must))?;
    path(case, &end, &anchors, &crls, (above, may))?;
    match case.name {
        Some(name) => end
            .verify_is_valid_for_subject_name(name)
            .map_err(|e| words(&e)),
        None => Ok(()),
    }
}

fn path(
    case: &Case<'_>,
    end: &EndEntityCert<'_>,
    anchors: &[TrustAnchor<'_>],
    crls: &[&CertRevocationList<'_>],
    (depth, unknown): (RevocationCheckDepth, UnknownStatusPolicy),
) -> Result<(), String> {
    // Without CRLs there is nothing to ask.
    let revocation = RevocationOptionsBuilder::new(crls).ok().map(|options| {
        options
            .with_depth(depth)
            .with_status_policy(unknown)
            .with_expiration_policy(ExpirationPolicy::Enforce)
            .build()
    });
    let usage: &dyn ExtendedKeyUsageValidator = match case.name {
        Some(_) => &KeyUsage::server_auth(),
        None => &AnyPurpose,
    };
    end.verify_for_usage(
        ALL_VERIFICATION_ALGS,
        anchors,
        case.between,
        case.now,
        Purpose(usage),
        revocation,
        None,
    )
    .map(|_| ())
    .map_err(|e| words(&e))
}

/// One of two, chosen when it runs.
struct Purpose<'a>(&'a dyn ExtendedKeyUsageValidator);

impl ExtendedKeyUsageValidator for Purpose<'_> {
    fn validate(&self, purposes: KeyPurposeIdIter<'_, '_>) -> Result<(), Error> {
        self.0.validate(purposes)
    }
}

fn words(e: &Error) -> String {
    let known = match e {
        Error::CertExpired { time, not_after } => {
            return format!("it expired at {}, and it is {}", at(*not_after), at(*time));
        }
        Error::CertNotValidYet { time, not_before } => {
            return format!(
                "it begins at {}, and it is {}; check the clock",
                at(*not_before),
                at(*time)
            );
        }
        Error::CertRevoked => "it is revoked",
        Error::CrlExpired { .. } => "the CRL has expired; get the newest one",
        Error::UnknownRevocationStatus => {
            "no CRL that was given speaks for it; give the one of its issuer, and of its shard or the full one"
        }
        Error::UnknownIssuer => {
            "no path leads to a root that was given; is an intermediate missing in --chain, or is it another --root?"
        }
        Error::CaUsedAsEndEntity => {
            "it is the certificate of an authority; here only those are checked that authorities issue"
        }
        Error::InvalidSignatureForPublicKey => "a signature on the path is wrong",
        Error::InvalidCrlSignatureForPublicKey => "the signature of the CRL is wrong",
        Error::NameConstraintViolation => {
            "it has a name that the authorities above it may not give"
        }
        Error::PathLenConstraintViolated => "too many authorities are on the path",
        Error::RequiredEkuNotFoundContext(_) => "it is not for TLS servers",
        Error::CertNotValidForName(names) => {
            // As webpki writes them: DnsName("a.example").
            let name = |n: &String| readable::plain(n.split('"').nth(1).unwrap_or(n));
            let names: Vec<_> = names.presented.iter().map(name).collect();
            return format!("it is not for this name, but for: {}", names.join(", "));
        }
        other => return other.to_string(),
    };
    known.to_owned()
}

fn at(t: UnixTime) -> String {
    let seconds = i64::try_from(t.as_secs()).unwrap_or(i64::MAX);
    crate::command::key::time(seconds.saturating_mul(1000))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{
        BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer,
        IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
    };

    use super::*;

    fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    fn crl(
        root: &CertifiedIssuer<'_, KeyPair>,
        serial: u64,
    ) -> CertificateRevocationListDer<'static> {
        let now = std::time::SystemTime::from(jiff::Timestamp::now());
        let params = CertificateRevocationListParams {
            this_update: (now - Duration::from_secs(60)).into(),
            next_update: (now + Duration::from_secs(3600)).into(),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![RevokedCertParams {
                serial_number: SerialNumber::from(serial),
                revocation_time: now.into(),
                reason_code: None,
                invalidity_date: None,
            }],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(root).unwrap().der().clone()
    }

    #[test]
    fn a_certificate_is_good_until_something_is_wrong() {
        let (root, other, namesake) = (authority("a"), authority("b"), authority("a"));
        let mut params = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        params.serial_number = Some(SerialNumber::from(77));
        let leaf = params
            .signed_by(&KeyPair::generate().unwrap(), &root)
            .unwrap();
        let judge = |root: &CertificateDer<'_>, crls: &[_], dns: &str, now| {
            let name = ServerName::try_from(dns).unwrap();
            check(&Case {
                certificate: leaf.der(),
                between: &[],
                roots: std::slice::from_ref(root),
                crls,
                name: Some(&name),
                now,
            })
        };
        let now = UnixTime::now();
        let says = |verdict: Result<(), String>, what: &str| {
            let why = verdict.unwrap_err();
            assert!(why.contains(what), "{why}");
        };
        judge(root.der(), &[], "a.example", now).unwrap();
        judge(root.der(), &[crl(&root, 78)], "a.example", now).unwrap();
        says(
            judge(root.der(), &[crl(&root, 77)], "a.example", now),
            "revoked",
        );
        says(
            judge(root.der(), &[crl(&other, 1)], "a.example", now),
            "no CRL that was given speaks for it",
        );
        says(
            judge(root.der(), &[crl(&namesake, 1)], "a.example", now),
            "the signature of the CRL is wrong",
        );
        says(
            judge(root.der(), &[], "b.example", now),
            "but for: a.example",
        );
        let never = UnixTime::since_unix_epoch(Duration::from_secs(1));
        says(judge(root.der(), &[], "a.example", never), "begins at");
        assert!(judge(other.der(), &[], "a.example", now).is_err());
    }
}
