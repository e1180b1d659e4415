//! One certificate: grant, plan, lint, intent, signature, self-check, record.
//!
//! What is not on record is not signed, and what was begun runs to its end even if nobody
//! waits for it any more.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use keywright_pki::{
    Certificate, Csr, Draft, Identity, IssuerFacts, Plan, Refusal, Request, San, Serial, Unsigned,
};
use sha2::{Digest, Sha256};

use super::{
    issuers::raise_alarm,
    last_ms, lineage, seconds,
    signer::{self, NotSigned},
};
use crate::{
    authorities::Authority,
    authority::{
        AuthorityName, CertificateRecord, CertificateRef, CertificateState, Intended, Profile,
    },
    error::{Error, Reason, Result},
    key::TenantId,
    ops::{App, Call},
    policy::{Caller, act},
    store::{Write, Written},
};

/// What a service asks for.
#[derive(Debug)]
pub struct SignCsr {
    /// Under which profile.
    pub profile: AuthorityName,
    /// Which version of it; none: the newest.
    pub version: Option<u32>,
    /// PKCS#10, DER.
    pub csr: Vec<u8>,
    /// How long, in seconds; none: the profile's default.
    pub ttl: Option<u64>,
    /// Empty: those of the CSR, where the profile allows it.
    pub sans: Vec<San>,
    /// Idempotency key.
    pub request_key: String,
}

/// What came of it.
#[derive(Debug)]
pub struct Issued {
    /// What is on record.
    pub record: CertificateRecord,
    /// Who signed, up to and without the root.
    pub chain: Vec<Vec<u8>>,
    /// An earlier request with this idempotency key made it.
    pub replayed: bool,
}

/// A request that has a permit.
pub(super) struct Wanted {
    pub(super) tenant: TenantId,
    pub(super) profile: Arc<Profile>,
    pub(super) csr: Csr,
    pub(super) sans: Vec<San>,
    pub(super) ttl: Option<u64>,
    pub(super) identity: Identity,
    pub(super) requested_by: String,
    pub(super) request_key: String,
    pub(super) request_sha256: [u8; 32],
    /// For a renewal: that of the certificate before.
    pub(super) lineage: Option<Vec<u8>>,
}

/// Idempotency keys are remembered this long.
const REQUEST_KEY_MS: i64 = 24 * 60 * 60 * 1000;
/// Two random serials of 128 bits never meet; a broken generator is not asked for ever.
const SERIALS: usize = 3;
/// How often a certificate that another request is making is looked for.
pub(super) const KEY_USED: &str = "this public key was certified before: that certificate is revoked, or the profile wants a new key each time; make another key";
pub(super) const KEY_BLOCKED: &str =
    "this public key is blocked and never certified again; make another key";
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Signs one CSR.
///
/// # Errors
/// [`Reason::CsrRefused`], [`Reason::ProfileRefused`] with every name that is not
/// allowed, [`Reason::LintRefused`], [`Reason::RequestKeyReused`],
/// [`Reason::IssuerState`], permission, HSM, store.
pub async fn sign_csr(app: &Arc<App>, call: &mut Call, request: SignCsr) -> Result<Issued> {
    let permit =
        call.open_profile::<act::IssueCertificate>(app, &request.profile, request.version)?;
    let profile = Arc::clone(permit.profile());
    let wanted = wanted(&call.caller, profile, request)?;
    issue(app, call, wanted).await
}

/// [`sign_csr`] for who asks through another door under the caller's identity:
/// `requested_by` stands on the record, and its idempotency keys are its own.
pub(in crate::ops) async fn sign_csr_as(
    app: &Arc<App>,
    call: &mut Call,
    request: SignCsr,
    requested_by: String,
) -> Result<Issued> {
    let permit =
        call.open_profile::<act::IssueCertificate>(app, &request.profile, request.version)?;
    let profile = Arc::clone(permit.profile());
    let wanted = Wanted {
        requested_by,
        ..wanted(&call.caller, profile, request)?
    };
    issue(app, call, wanted).await
}

/// Many at once, each by itself: one durable write serves many of them.
///
/// # Errors
/// Never as a whole.
pub async fn sign_csr_batch(
    app: &Arc<App>,
    call: &mut Call,
    requests: Vec<Result<SignCsr>>,
) -> Result<Vec<Result<Issued>>> {
    let mut wanted_all = Vec::with_capacity(requests.len());
    for request in requests {
        wanted_all.push(request.and_then(|request| {
            let permit =
                call.open_profile::<act::IssueCertificate>(app, &request.profile, request.version)?;
            let profile = Arc::clone(permit.profile());
            wanted(&call.caller, profile, request)
        }));
    }
    let deadline = call.deadline;
    let jobs = wanted_all.into_iter().map(|wanted| async move {
        let mut detail = Detail::new();
        let issued = issue_within(app, deadline, &mut detail, wanted?).await?;
        Ok(issued)
    });
    let outcomes: Vec<Result<Issued>> = futures_util::future::join_all(jobs).await;
    call.entry.items_ok = outcomes.iter().filter(|o| o.is_ok()).count();
    call.entry.items_failed = outcomes.len() - call.entry.items_ok;
    let serials: Vec<String> = outcomes
        .iter()
        .flatten()
        .map(|issued| issued.record.intended.name.serial.to_string())
        .collect();
    call.entry.detail.insert("serials", serials.join(" "));
    Ok(outcomes)
}

pub(super) fn wanted(caller: &Caller, profile: Arc<Profile>, request: SignCsr) -> Result<Wanted> {
    let csr = Csr::from_der(&request.csr)
        .map_err(|e| Error::field(Reason::CsrRefused, "csr_der", e.to_string()))?;
    Ok(Wanted {
        tenant: caller.tenant,
        request_sha256: digest(&request),
        profile,
        csr,
        sans: request.sans,
        ttl: request.ttl,
        identity: identity(caller),
        requested_by: caller.id.to_string(),
        request_key: request.request_key,
        lineage: None,
    })
}

/// What placeholders in profiles stand for: parts of the caller's verified identity.
pub(super) fn identity(caller: &Caller) -> Identity {
    Identity::new(&caller.id, &caller.tenant_name)
}

/// The same request gives the same digest.
fn digest(request: &SignCsr) -> [u8; 32] {
    let mut hash = Sha256::new();
    let mut part = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    };
    part(request.profile.as_str().as_bytes());
    part(&request.version.unwrap_or(0).to_be_bytes());
    part(&request.csr);
    part(&request.ttl.unwrap_or(0).to_be_bytes());
    for san in &request.sans {
        part(san.to_string().as_bytes());
    }
    hash.finalize().into()
}

/// Issues what has a permit.
pub(super) async fn issue(app: &Arc<App>, call: &mut Call, wanted: Wanted) -> Result<Issued> {
    issue_within(app, call.deadline, &mut call.entry.detail, wanted).await
}

/// What the audit record will say of it.
type Detail = std::collections::BTreeMap<&'static str, String>;

async fn issue_within(
    app: &App,
    deadline: Instant,
    detail: &mut Detail,
    wanted: Wanted,
) -> Result<Issued> {
    detail.insert("profile", profile_label(&wanted.profile));
    let now_ms = app.authorities.signing_time(app.clock.now_ms())?;
    let authority = issuer(app, &wanted)?;
    detail.insert("issuer", authority.issuer.name.to_string());
    for _ in 0..SERIALS {
        let plan = plan(app, &authority, &wanted, now_ms)?.map_err(refused)?;
        let unsigned = draft(&authority, plan.clone())?
            .lint(seconds(now_ms))
            .map_err(|e| Error::new(Reason::LintRefused, e.to_string()))?;
        let intended = intended(&authority, &wanted, &plan, &unsigned, now_ms)?;
        detail.insert("serial", plan.serial.to_string());
        let begin = Write::Begin {
            intended: Box::new(intended.clone()),
            requests_since_ms: now_ms - REQUEST_KEY_MS,
            reuse: wanted.profile.rules.key_reuse(),
        };
        return match app.authorities.ledger().write(begin).await? {
            Written::Done => finish(app, deadline, &authority, intended, unsigned).await,
            Written::SerialTaken => continue,
            Written::Known(record) => replay(app, deadline, detail, &wanted, *record).await,
            Written::KeyUsed => Err(Error::field(Reason::KeyBlocked, "csr_der", KEY_USED)),
            Written::Blocked => Err(Error::field(Reason::KeyBlocked, "csr_der", KEY_BLOCKED)),
            Written::NotThere => Err(Error::internal("an intent was answered with 'not there'")),
        };
    }
    Err(Error::internal(
        "three random serial numbers were taken already: the generator of randomness is broken",
    ))
}

/// The intent is durable: sign, and put the outcome on record, whatever it is.
pub(super) async fn finish(
    app: &App,
    deadline: Instant,
    authority: &Authority,
    intended: Intended,
    unsigned: Unsigned<Certificate>,
) -> Result<Issued> {
    let name = intended.name.clone();
    let ledger = app.authorities.ledger();
    let certificate = match signer::sign(app, &authority.issuer.key, unsigned, deadline).await {
        Ok(certificate) => certificate.der().to_vec(),
        Err(e) => {
            let outcome = match &e {
                NotSigned::Refused(_) => Write::Fail { name },
                NotSigned::Unknown(_) => Write::Lose { name },
                NotSigned::SelfCheck(why) => {
                    raise_alarm(app, authority, &why.to_string()).await;
                    Write::Fail { name }
                }
            };
            ledger.write(outcome).await?;
            return Err(e.error());
        }
    };
    let finish = Write::Finish {
        name,
        certificate: certificate.clone(),
    };
    if ledger.write(finish).await? != Written::Done {
        return Err(Error::new(
            Reason::CertificateState,
            "the certificate was revoked while it was made",
        ));
    }
    Ok(Issued {
        record: CertificateRecord {
            intended: Intended {
                tbs: Vec::new(),
                ..intended
            },
            state: CertificateState::Issued,
            certificate,
            revocation: None,
        },
        chain: chain(authority),
        replayed: false,
    })
}

/// An idempotency key that was used before. What another request is just making is
/// waited for.
async fn replay(
    app: &App,
    deadline: Instant,
    detail: &mut Detail,
    wanted: &Wanted,
    mut record: CertificateRecord,
) -> Result<Issued> {
    while record.state == CertificateState::Intended && Instant::now() + LOOK_AGAIN < deadline {
        tokio::time::sleep(LOOK_AGAIN).await;
        let name = &record.intended.name;
        match app.store.certificate(wanted.tenant, name).await? {
            Some(now) if !now.intended.request_key.is_empty() => record = now,
            _ => break,
        }
    }
    let first = &record.intended;
    if first.request_sha256 != wanted.request_sha256 {
        return Err(Error::field(
            Reason::RequestKeyReused,
            "idempotency_key",
            "this idempotency key was used for another request in the last 24 hours",
        ));
    }
    detail.insert("serial", first.name.serial.to_string());
    match record.state {
        CertificateState::Issued => {}
        CertificateState::Revoked => {
            return Err(Error::new(
                Reason::CertificateState,
                "the certificate made for this idempotency key is revoked; ask with another one",
            ));
        }
        CertificateState::Intended | CertificateState::Failed => {
            return Err(Error::new(
                Reason::Busy,
                "a request with this idempotency key is being worked on; try again",
            )
            .retry_after(Duration::from_millis(200)));
        }
    }
    let authority = app
        .authorities
        .issuer_by_id(first.tenant, first.name.issuer);
    Ok(Issued {
        chain: authority.as_deref().map(chain).unwrap_or_default(),
        record,
        replayed: true,
    })
}

/// The first issuer of the profile that signs now; never a root.
pub(super) fn issuer(app: &App, wanted: &Wanted) -> Result<Arc<Authority>> {
    let names = wanted.profile.rules.issuers();
    let usable = |name: &String| {
        let name = AuthorityName::parse(name).ok()?;
        let authority = app.authorities.issuer(wanted.tenant, &name)?;
        let signs = authority.issuer.usage.issue
            && authority.certificate.is_some()
            && !authority.issuer.is_root();
        signs.then_some(authority)
    };
    names.iter().find_map(usable).ok_or_else(|| {
        Error::new(
            Reason::IssuerState,
            format!(
                "no issuer of this profile signs certificates now ({}); an operator can change that",
                names.join(", ")
            ),
        )
    })
}

/// Every field fixed, or every reason why not.
pub(super) fn plan(
    app: &App,
    authority: &Authority,
    wanted: &Wanted,
    now_ms: i64,
) -> Result<std::result::Result<Plan, Vec<String>>> {
    let Some(certificate) = &authority.certificate else {
        return Err(Error::internal(
            "an issuer without a certificate was chosen",
        ));
    };
    let mut random = [0; Serial::RANDOM_LEN];
    app.entropy.fill(&mut random)?;
    let serial = Serial::from_random(random);
    let spec = &authority.spec;
    let request = Request {
        csr: &wanted.csr,
        names: &wanted.sans,
        ttl_seconds: wanted.ttl,
        identity: &wanted.identity,
        now: seconds(now_ms),
        serial,
        issuer: &IssuerFacts {
            name: authority.issuer.name.to_string(),
            is_root: authority.issuer.is_root(),
            spki_sha256: certificate.key().spki_sha256(),
            not_before: certificate.not_before(),
            not_after: certificate.not_after(),
            urls: spec.urls(spec.shard_of(&serial)),
        },
    };
    let prepared = wanted.profile.rules.prepare(&request);
    // Who could certify the key of an authority, of whatever tenant, could speak for it.
    let key = wanted.csr.key().spki();
    let all = app.authorities.all_issuers();
    let is_an_authoritys = all
        .iter()
        .any(|a| a.issuer.key.public().is_some_and(|own| own.spki() == key));
    if !is_an_authoritys {
        return Ok(prepared.map_err(|refusal| violations(&refusal)));
    }
    let mut against = prepared.map_or_else(|refusal| violations(&refusal), |_| Vec::new());
    against.push("the CSR's key is that of an authority here; make another key".into());
    Ok(Err(against))
}

fn violations(refusal: &Refusal) -> Vec<String> {
    refusal.0.iter().map(ToString::to_string).collect()
}

pub(super) fn draft(authority: &Authority, plan: Plan) -> Result<Draft<'_>> {
    let Some(certificate) = &authority.certificate else {
        return Err(Error::internal(
            "an issuer without a certificate was chosen",
        ));
    };
    Draft::new(plan, certificate).map_err(|e| Error::new(Reason::ProfileRefused, e.to_string()))
}

fn refused(violations: Vec<String>) -> Error {
    Error::new(
        Reason::ProfileRefused,
        format!(
            "the profile does not give this to you: {}",
            violations.join("; ")
        ),
    )
}

fn intended(
    authority: &Authority,
    wanted: &Wanted,
    plan: &Plan,
    unsigned: &Unsigned<Certificate>,
    now_ms: i64,
) -> Result<Intended> {
    let name = CertificateRef {
        issuer: authority.issuer.id,
        serial: plan.serial,
    };
    let record = &wanted.profile.record;
    Ok(Intended {
        tenant: wanted.tenant,
        profile: record.name.clone(),
        profile_version: record.version,
        tbs: unsigned.tbs().to_vec(),
        spki: plan.key.spki_sha256(),
        names: plan.sans.iter().map(San::value).collect(),
        not_before_ms: i64::try_from(plan.not_before).unwrap_or(0) * 1000,
        not_after_ms: last_ms(plan.not_after),
        shard: authority.spec.shard_of(&plan.serial),
        requested_by: wanted.requested_by.clone(),
        request_key: wanted.request_key.clone(),
        request_sha256: wanted.request_sha256,
        lineage: wanted.lineage.clone().unwrap_or_else(|| lineage(&name)),
        created_ms: now_ms,
        name,
    })
}

/// The issuer and what is above it, without the root.
pub(in crate::ops) fn chain(authority: &Authority) -> Vec<Vec<u8>> {
    let issuer = &authority.issuer;
    let mut chain = Vec::new();
    if !issuer.is_root() {
        chain.push(issuer.certificate.clone());
        let above = issuer
            .chain
            .split_last()
            .map_or(&[][..], |(_, above)| above);
        chain.extend(above.iter().cloned());
    }
    chain
}

/// `name@version`.
pub(super) fn profile_label(profile: &Profile) -> String {
    format!("{}@{}", profile.record.name, profile.record.version)
}
