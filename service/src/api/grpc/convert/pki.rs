//! Certificates, issuers and profiles on the wire.

use bytes::Bytes;
use keywright_pki::{San, Serial, SpiffeId};
use keywright_proto::v1 as proto;

use super::code;
use crate::{
    authorities::Authority,
    authority::{
        AuthorityName, CertificateRef, CertificateState, IssuerId, Parent, Profile, Reason as Why,
        Spki, Usage,
    },
    config::Limits,
    error::{Error, Reason, Result},
    ops::{App, acme::CreateAcmeKey, pki},
};

fn wrong(field: &'static str, text: impl Into<String>) -> Error {
    Error::field(Reason::InvalidArgument, field, text)
}

pub(in super::super) fn authority_name(field: &'static str, text: &str) -> Result<AuthorityName> {
    AuthorityName::parse(text).map_err(|e| wrong(field, format!("{text:?}: {e}")))
}

/// `name` or `name@version`.
pub(in super::super) fn profile_name(
    field: &'static str,
    text: &str,
) -> Result<(AuthorityName, Option<u32>)> {
    let Some((name, version)) = text.split_once('@') else {
        return Ok((authority_name(field, text)?, None));
    };
    let number = version.parse().ok().filter(|n: &u32| *n > 0);
    let number = number.ok_or_else(|| wrong(field, format!("{text:?}: NAME or NAME@VERSION")))?;
    Ok((authority_name(field, name)?, Some(number)))
}

pub(in super::super) fn issuer_id(bytes: &[u8]) -> Result<IssuerId> {
    bytes
        .try_into()
        .map(IssuerId)
        .map_err(|_| wrong("id", "the id of a ceremony has 16 bytes"))
}

pub(in super::super) fn spki_sha256(field: &'static str, bytes: &[u8]) -> Result<Spki> {
    bytes
        .try_into()
        .map_err(|_| wrong(field, "SHA-256 of a SubjectPublicKeyInfo has 32 bytes"))
}

pub(in super::super) fn acme_key(m: proto::CreateAcmeKeyRequest) -> Result<CreateAcmeKey> {
    let profiles = m.profiles.iter().map(|p| authority_name("profiles", p));
    Ok(CreateAcmeKey {
        identity: SpiffeId::parse(&m.identity).map_err(|e| wrong("identity", e.to_string()))?,
        profiles: profiles.collect::<Result<_>>()?,
    })
}

/// For the record; not a place for novels.
const WHY_BYTES: usize = 200;

pub(in super::super) fn why(text: String) -> Result<String> {
    if text.len() > WHY_BYTES || text.chars().any(char::is_control) {
        return Err(wrong(
            "why",
            format!("at most {WHY_BYTES} bytes on one line"),
        ));
    }
    Ok(text)
}

fn san(san: proto::San) -> Result<San> {
    use proto::san::Name;
    let refused = |text: String| wrong("sans", text);
    match san.name {
        Some(Name::Dns(text)) => San::dns(&text).map_err(|e| refused(format!("{text:?} {e}"))),
        Some(Name::Ip(octets)) => San::ip(&octets).map_err(|e| refused(format!("address {e}"))),
        Some(Name::Uri(text)) => San::uri(&text).map_err(|e| refused(format!("{text:?} {e}"))),
        None => Err(refused("a name is empty".into())),
    }
}

/// 16 to 64 printable bytes.
fn request_key(text: String) -> Result<String> {
    let legal = (16..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    if !legal {
        return Err(wrong(
            "idempotency_key",
            "16 to 64 printable ASCII characters of your choice, the same for every try of one request",
        ));
    }
    Ok(text)
}

fn ttl(seconds: u64) -> Option<u64> {
    (seconds != 0).then_some(seconds)
}

pub(in super::super) fn sign_csr(m: proto::SignCsrRequest) -> Result<pki::SignCsr> {
    let (profile, version) = profile_name("profile", &m.profile)?;
    Ok(pki::SignCsr {
        profile,
        version,
        csr: m.csr_der.to_vec(),
        ttl: ttl(m.ttl_seconds),
        sans: m.sans.into_iter().map(san).collect::<Result<_>>()?,
        request_key: request_key(m.idempotency_key)?,
    })
}

pub(in super::super) fn sign_csr_batch(
    m: proto::SignCsrBatchRequest,
    limits: &Limits,
) -> Result<Vec<Result<pki::SignCsr>>> {
    if m.requests.is_empty() {
        return Err(Error::field(Reason::BatchEmpty, "requests", "no requests"));
    }
    if m.requests.len() > limits.pki_batch_items {
        return Err(Error::field(
            Reason::BatchTooLarge,
            "requests",
            format!(
                "{} requests; at most {} in one call",
                m.requests.len(),
                limits.pki_batch_items
            ),
        ));
    }
    Ok(m.requests.into_iter().map(sign_csr).collect())
}

pub(in super::super) fn renew(m: proto::RenewRequest) -> Result<pki::Renew> {
    Ok(pki::Renew {
        csr: m.csr_der.to_vec(),
        request_key: request_key(m.idempotency_key)?,
        ttl: ttl(m.ttl_seconds),
    })
}

pub(in super::super) fn certificate_ref(
    m: Option<proto::CertificateRef>,
) -> Result<(AuthorityName, Serial)> {
    let m = m.ok_or_else(|| wrong("ref", "which certificate: issuer and serial"))?;
    let serial = Serial::from_bytes(&m.serial).map_err(|e| wrong("ref.serial", e.to_string()))?;
    Ok((authority_name("ref.issuer", &m.issuer)?, serial))
}

pub(in super::super) fn named((issuer, serial): (AuthorityName, Serial)) -> proto::CertificateRef {
    proto::CertificateRef {
        issuer: issuer.to_string(),
        serial: Bytes::copy_from_slice(serial.as_bytes()),
    }
}

fn issuer_name(app: &App, issued: &pki::Issued) -> Result<AuthorityName> {
    let first = &issued.record.intended;
    app.authorities
        .issuer_by_id(first.tenant, first.name.issuer)
        .map(|a| a.issuer.name.clone())
        .ok_or_else(|| Error::internal("a certificate of an unknown issuer"))
}

pub(in super::super) fn issued(app: &App, issued: pki::Issued) -> Result<proto::IssuedCertificate> {
    let name = issuer_name(app, &issued)?;
    let first = &issued.record.intended;
    // The last third of its life: what ARI suggests by default.
    let life = first.not_after_ms - first.not_before_ms;
    Ok(proto::IssuedCertificate {
        r#ref: Some(named((name, first.name.serial))),
        profile: format!("{}@{}", first.profile, first.profile_version),
        not_before_unix_ms: first.not_before_ms,
        not_after_unix_ms: first.not_after_ms,
        renew_from_unix_ms: first.not_after_ms - life / 3,
        replayed: issued.replayed,
        certificate_der: issued.record.certificate.into(),
        chain_der: ders(issued.chain),
    })
}

pub(in super::super) fn issued_batch(
    app: &App,
    outcomes: Vec<Result<pki::Issued>>,
) -> Result<proto::SignCsrBatchResponse> {
    let mut out = proto::SignCsrBatchResponse::default();
    for (index, outcome) in outcomes.into_iter().enumerate() {
        match outcome.and_then(|i| issued(app, i)) {
            Ok(certificate) => out.certificates.push(certificate),
            Err(e) => {
                out.certificates.push(proto::IssuedCertificate::default());
                out.errors.push(proto::CsrError {
                    index: u32::try_from(index).unwrap_or(u32::MAX),
                    code: code(e.reason().kind()).into(),
                    reason: e.reason().name().to_owned(),
                    message: e.text().to_owned(),
                });
            }
        }
    }
    Ok(out)
}

pub(in super::super) fn renewed(app: &App, renewed: pki::Renewed) -> Result<proto::RenewResponse> {
    Ok(proto::RenewResponse {
        certificate: Some(issued(app, renewed.issued)?),
        renewed: Some(named(renewed.before)),
    })
}

fn ms(seconds: u64) -> i64 {
    i64::try_from(seconds).unwrap_or(0).saturating_mul(1000)
}

pub(in super::super) fn dry(dry: pki::Dry) -> proto::DryRunResponse {
    proto::DryRunResponse {
        would_issue: dry.violations.is_empty(),
        profile: dry.profile,
        issuer: dry.issuer,
        names: dry.names,
        violations: dry.violations,
        not_before_unix_ms: ms(dry.not_before),
        not_after_unix_ms: ms(dry.not_after),
        tbs_der: dry.tbs.into(),
    }
}

pub(in super::super) fn ders(list: Vec<Vec<u8>>) -> Vec<Bytes> {
    list.into_iter().map(Bytes::from).collect()
}

fn wire_state(state: CertificateState) -> proto::CertificateState {
    match state {
        CertificateState::Intended => proto::CertificateState::Intended,
        CertificateState::Issued => proto::CertificateState::Issued,
        CertificateState::Revoked => proto::CertificateState::Revoked,
        CertificateState::Failed => proto::CertificateState::Failed,
    }
}

fn reason(field: &'static str, value: i32) -> Result<Why> {
    u8::try_from(value)
        .ok()
        .and_then(Why::from_code)
        .ok_or_else(|| wrong(field, format!("{value} is no reason for a revocation here")))
}

pub(in super::super) fn record(found: &pki::Found) -> proto::CertificateRecord {
    let record = &found.record;
    let first = &record.intended;
    let revocation = record.revocation;
    proto::CertificateRecord {
        r#ref: Some(named((
            found.authority.issuer.name.clone(),
            first.name.serial,
        ))),
        state: wire_state(record.state).into(),
        profile: format!("{}@{}", first.profile, first.profile_version),
        names: first.names.clone(),
        not_before_unix_ms: first.not_before_ms,
        not_after_unix_ms: first.not_after_ms,
        requested_by: first.requested_by.clone(),
        spki_sha256: Bytes::copy_from_slice(&first.spki),
        certificate_der: Bytes::copy_from_slice(&record.certificate),
        lineage: Bytes::copy_from_slice(&first.lineage),
        revoked_unix_ms: revocation.map_or(0, |r| r.revoked_ms),
        reason: revocation.map_or(0, |r| i32::from(r.reason.code())),
    }
}

const DEFAULT_PAGE: u32 = 100;
const MAX_PAGE: u32 = 1000;

pub(in super::super) fn find(m: proto::SearchRequest) -> Result<pki::Find> {
    let limit = match m.page_size {
        0 => DEFAULT_PAGE,
        n if n <= MAX_PAGE => n,
        n => return Err(wrong("page_size", format!("{n}; at most {MAX_PAGE}"))),
    };
    let state = match proto::CertificateState::try_from(m.state) {
        Ok(proto::CertificateState::Unspecified) => None,
        Ok(proto::CertificateState::Intended) => Some(CertificateState::Intended),
        Ok(proto::CertificateState::Issued) => Some(CertificateState::Issued),
        Ok(proto::CertificateState::Revoked) => Some(CertificateState::Revoked),
        Ok(proto::CertificateState::Failed) => Some(CertificateState::Failed),
        Err(_) => return Err(wrong("state", "not a state of certificates")),
    };
    let optional = |field, text: &str| {
        Some(text)
            .filter(|t| !t.is_empty())
            .map(|t| authority_name(field, t))
            .transpose()
    };
    let spki = Some(&m.spki_sha256).filter(|b| !b.is_empty());
    Ok(pki::Find {
        name: Some(m.name).filter(|n| !n.is_empty()),
        spki: spki.map(|b| spki_sha256("spki_sha256", b)).transpose()?,
        profile: optional("profile", &m.profile)?,
        issuer: optional("issuer", &m.issuer)?,
        state,
        ends_after_ms: Some(m.expires_after_unix_ms).filter(|ms| *ms != 0),
        ends_before_ms: Some(m.expires_before_unix_ms).filter(|ms| *ms != 0),
        after: after(&m.page_token)?,
        limit,
    })
}

/// `end ms - issuer id - serial`, in hex.
fn after(token: &str) -> Result<Option<(i64, CertificateRef)>> {
    if token.is_empty() {
        return Ok(None);
    }
    let read = || {
        let mut parts = token.split('-');
        let end = i64::from_str_radix(parts.next()?, 16).ok()?;
        let issuer = hex::decode(parts.next()?).ok()?.try_into().ok()?;
        let serial: Serial = parts.next()?.parse().ok()?;
        let issuer = IssuerId(issuer);
        parts
            .next()
            .is_none()
            .then_some((end, CertificateRef { issuer, serial }))
    };
    read()
        .map(Some)
        .ok_or_else(|| wrong("page_token", "not a token of ours"))
}

pub(in super::super) fn certificates(page: &pki::Certificates) -> proto::SearchResponse {
    let next = page.found.last().filter(|_| page.more).map(|last| {
        let first = &last.record.intended;
        format!(
            "{:x}-{}-{}",
            first.not_after_ms, first.name.issuer, first.name.serial
        )
    });
    proto::SearchResponse {
        certificates: page.found.iter().map(record).collect(),
        next_page_token: next.unwrap_or_default(),
    }
}

pub(in super::super) fn revoke(m: proto::RevokeRequest) -> Result<pki::Revoke> {
    use proto::revoke_request::Target;
    let target = match m.target {
        Some(Target::Ref(name)) => {
            let (issuer, serial) = certificate_ref(Some(name))?;
            pki::Target::Named(issuer, serial)
        }
        Some(Target::CertificateDer(der)) => pki::Target::Certificate(der.to_vec()),
        None => return Err(wrong("target", "which certificate: ref or certificate_der")),
    };
    Ok(pki::Revoke {
        target,
        why: reason("reason", m.reason)?,
        invalidity_ms: Some(m.invalidity_unix_ms).filter(|ms| *ms != 0),
        key_proof: Some(m.key_proof_csr_der.to_vec()).filter(|b| !b.is_empty()),
    })
}

pub(in super::super) fn revoked(revoked: pki::Revoked) -> proto::RevokeResponse {
    proto::RevokeResponse {
        revoked: revoked.revoked.into_iter().map(named).collect(),
        already: revoked.already,
    }
}

pub(in super::super) fn crl(crl: pki::Crl) -> proto::GetCrlResponse {
    proto::GetCrlResponse {
        crl_der: crl.der.into(),
        number: crl.record.number,
        this_update_unix_ms: crl.record.this_update_ms,
        next_update_unix_ms: crl.record.next_update_ms,
        entries: crl.record.entries,
    }
}

pub(in super::super) fn approve(m: proto::ApproveCeremonyRequest) -> Result<pki::ApproveCeremony> {
    Ok(pki::ApproveCeremony {
        id: issuer_id(&m.id)?,
        digest: m.digest.to_vec(),
    })
}

pub(in super::super) fn import(m: proto::ImportIssuerRequest) -> Result<pki::ImportIssuer> {
    Ok(pki::ImportIssuer {
        id: issuer_id(&m.id)?,
        certificate: m.certificate_der.to_vec(),
        chain: m.chain_der.iter().map(|der| der.to_vec()).collect(),
    })
}

pub(in super::super) fn set_usage(m: &proto::SetIssuerUsageRequest) -> Result<pki::SetUsage> {
    Ok(pki::SetUsage {
        issuer: authority_name("issuer", &m.issuer)?,
        usage: Usage {
            issue: m.may_issue,
            crl: m.may_sign_crls,
        },
    })
}

pub(in super::super) fn planned(planned: pki::Planned) -> proto::Ceremony {
    let issuer = &planned.authority.issuer;
    proto::Ceremony {
        id: Bytes::copy_from_slice(&issuer.id.0),
        issuer: issuer.name.to_string(),
        text: issuer.text.clone(),
        digest: Bytes::copy_from_slice(&issuer.digest),
        approvals_needed: planned.approvals,
        approved_by: issuer.approvals.clone(),
        created_unix_ms: issuer.created_ms,
        stage: issuer.stage.name().to_owned(),
        tbs_der: planned.tbs.into(),
    }
}

pub(in super::super) fn issuer(authority: &Authority) -> proto::Issuer {
    let issuer = &authority.issuer;
    let end = authority
        .certificate
        .as_ref()
        .map_or(0, |c| ms(c.not_after()));
    proto::Issuer {
        name: issuer.name.to_string(),
        id: Bytes::copy_from_slice(&issuer.id.0),
        certificate_der: Bytes::copy_from_slice(&issuer.certificate),
        chain_der: issuer
            .chain
            .iter()
            .map(|der| Bytes::copy_from_slice(der))
            .collect(),
        key_spec: issuer.key.spec.name().to_owned(),
        may_issue: issuer.usage.issue,
        may_sign_crls: issuer.usage.crl,
        alarm: issuer.alarm.clone(),
        not_after_unix_ms: end,
        root: authority.spec.parent == Parent::Itself,
        shards: authority.spec.shards,
        stage: issuer.stage.name().to_owned(),
        approved_by: issuer.approvals.clone(),
        digest: Bytes::copy_from_slice(&issuer.digest),
        tbs_der: Bytes::new(),
        approvals_needed: authority.spec.approvals,
        text: issuer.text.clone(),
        created_unix_ms: issuer.created_ms,
    }
}

/// With what will be signed, for who is to approve it.
pub(in super::super) fn listed(app: &App, authority: &Authority) -> proto::Issuer {
    proto::Issuer {
        tbs_der: pki::to_be_signed(app, authority).into(),
        ..issuer(authority)
    }
}

pub(in super::super) fn profile(profile: &Profile) -> proto::Profile {
    let record = &profile.record;
    proto::Profile {
        name: record.name.to_string(),
        version: record.version,
        text: record.text.clone(),
        sha256: Bytes::copy_from_slice(&profile.rules.sha256()),
        created_by: record.created_by.clone(),
        created_unix_ms: record.created_ms,
        retired_unix_ms: record.retired_ms.unwrap_or(0),
    }
}
