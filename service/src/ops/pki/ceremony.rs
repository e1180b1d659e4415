//! The making of an authority: planned by one, approved by several, carried out once.
//!
//! The plan makes the key in the HSM and says every byte that will be signed; approvals
//! name the digest of those bytes; the commit drafts and lints them again and signs only
//! if they are the same. The row of the issuer is there from the plan on, so a crash
//! leaves nothing unknown.

use std::sync::Arc;

use keywright_hsm::KeySpec;
use keywright_pki::{CaRequest, Certificate, Draft, KeyReuse, Serial, SubjectKey, Unsigned, Urls};
use sha2::{Digest, Sha256};
use tracing::info;

use super::{last_ms, lineage, no_such_issuer, seconds, signer, signer::NotSigned};
use crate::{
    authorities::Authority,
    authority::{
        AuthorityName, Ceremony, CertificateRef, Intended, Issuer, IssuerId, Parent, Stage, Usage,
    },
    error::{Error, Reason, Result},
    key::{KeyId, KeyName, Revision, TenantId, VersionNumber},
    ops::{
        App, Call,
        key::generate::{Wanted, generate},
    },
    policy::act,
    store::{Write, Written},
};

/// A plan, and the bytes that would be signed.
#[derive(Debug)]
pub struct Planned {
    /// What is on record.
    pub authority: Arc<Authority>,
    /// TBSCertificate, or the CSR's info for an external root.
    pub tbs: Vec<u8>,
    /// How many must say yes.
    pub approvals: u32,
}

/// One more yes.
#[derive(Debug)]
pub struct ApproveCeremony {
    /// Which plan.
    pub id: IssuerId,
    /// SHA-256 of what the approver has seen.
    pub digest: Vec<u8>,
}

/// What came of a ceremony.
#[derive(Debug)]
pub struct Committed {
    /// The authority.
    pub authority: Arc<Authority>,
    /// For an external root.
    pub csr: Option<Vec<u8>>,
}

/// Profile under which authorities' own certificates are on record; no profile can have
/// this name.
pub(super) const CEREMONY: &str = "ceremony";

/// Plans an authority: its key is made, nothing is signed.
///
/// # Errors
/// [`Reason::TextRefused`], [`Reason::AuthorityExists`], [`Reason::LintRefused`] with
/// every finding, permission, HSM, store.
pub async fn plan_ceremony(app: &Arc<App>, call: &mut Call, text: String) -> Result<Planned> {
    let grant = call.grant::<act::PlanCeremony>(app, None)?;
    let tenant = grant.tenant();
    let spec = Ceremony::parse(&text, app.limits.pki_approvals)
        .map_err(|e| Error::field(Reason::TextRefused, "text", e.to_string()))?;
    call.entry.detail.insert("issuer", spec.name.to_string());
    let change = app.authorities.begin_change().await;
    if app.authorities.issuer(tenant, &spec.name).is_some() {
        let text = format!("an issuer named {} exists already", spec.name);
        return Err(Error::field(Reason::AuthorityExists, "name", text));
    }
    let parent = parent(app, tenant, &spec)?;
    let now_ms = app.authorities.signing_time(call.now_ms)?;
    let mut issuer = new_issuer(app, call, tenant, &spec, text, now_ms).await?;
    // From here on an object is on the token: what is refused now takes it away again.
    let document = match document(&issuer, &spec, parent.as_deref(), now_ms) {
        Ok(document) => document,
        Err(e) => {
            take_back(app, call, &issuer).await;
            return Err(e);
        }
    };
    issuer.digest = Sha256::digest(document.tbs()).into();
    call.entry
        .detail
        .insert("digest", hex::encode(issuer.digest));
    app.store.add_issuer(&issuer).await.map_err(taken)?;
    let authority = change.publish_issuer(issuer)?;
    Ok(Planned {
        authority,
        tbs: document.tbs().to_vec(),
        approvals: spec.approvals,
    })
}

/// Says yes to a plan.
///
/// # Errors
/// [`Reason::IssuerState`] for what is not planned or approved by this caller already,
/// [`Reason::Conflict`] when the digest is of something else, permission, store.
pub async fn approve_ceremony(
    app: &Arc<App>,
    call: &mut Call,
    request: ApproveCeremony,
) -> Result<Planned> {
    let grant = call.grant::<act::ApproveCeremony>(app, None)?;
    let change = app.authorities.begin_change().await;
    let planned = planned(app, grant.tenant(), request.id)?;
    let spec = &planned.spec;
    call.entry.detail.insert("issuer", spec.name.to_string());
    call.entry
        .detail
        .insert("digest", hex::encode(&request.digest));
    if request.digest != planned.issuer.digest {
        return Err(Error::field(
            Reason::Conflict,
            "digest",
            format!(
                "this is not what would be signed; the plan's digest is {}",
                hex::encode(planned.issuer.digest)
            ),
        ));
    }
    let me = call.caller.id.to_string();
    if planned.issuer.approvals.contains(&me) {
        return Err(Error::new(
            Reason::IssuerState,
            "you have approved this plan already; another identity must",
        ));
    }
    let mut next = planned.issuer.clone();
    next.approvals.push(me);
    next.revision = Revision(next.revision.0 + 1);
    app.store.change_issuer(&next).await.map_err(changed)?;
    let authority = change.publish_issuer(next)?;
    let parent = parent(app, grant.tenant(), spec)?;
    let now_ms = app.clock.now_ms();
    let document = document(&authority.issuer, spec, parent.as_deref(), now_ms)?;
    Ok(Planned {
        authority,
        tbs: document.tbs().to_vec(),
        approvals: spec.approvals,
    })
}

/// What a planned authority's ceremony would sign; empty when there is nothing to sign.
#[must_use]
pub fn to_be_signed(app: &App, authority: &Authority) -> Vec<u8> {
    if authority.issuer.stage != Stage::Planned {
        return Vec::new();
    }
    let spec = &authority.spec;
    parent(app, authority.issuer.tenant, spec)
        .and_then(|parent| {
            let now_ms = app.clock.now_ms();
            document(&authority.issuer, spec, parent.as_deref(), now_ms)
        })
        .map_or_else(|_| Vec::new(), |document| document.tbs().to_vec())
}

/// Signs what was approved.
///
/// # Errors
/// [`Reason::IssuerState`] when approvals are missing or the issuer above does not sign,
/// [`Reason::LintRefused`], [`Reason::Conflict`] when the bytes are not those that were
/// approved, permission, HSM, store.
pub async fn commit_ceremony(app: &Arc<App>, call: &mut Call, id: IssuerId) -> Result<Committed> {
    let grant = call.grant::<act::CommitCeremony>(app, None)?;
    let tenant = grant.tenant();
    let change = app.authorities.begin_change().await;
    let planned = planned(app, tenant, id)?;
    let spec = &planned.spec;
    call.entry.detail.insert("issuer", spec.name.to_string());
    let have = u32::try_from(planned.issuer.approvals.len()).unwrap_or(u32::MAX);
    if have < spec.approvals {
        return Err(Error::new(
            Reason::IssuerState,
            format!(
                "{have} of {} approvals; each by another identity: keywright pki ceremony approve",
                spec.approvals
            ),
        ));
    }
    let parent = parent(app, tenant, spec)?;
    let now_ms = app.authorities.signing_time(call.now_ms)?;
    let document = document(&planned.issuer, spec, parent.as_deref(), now_ms)?;
    if planned.issuer.digest != <[u8; 32]>::from(Sha256::digest(document.tbs())) {
        return Err(Error::new(
            Reason::Conflict,
            "what would be signed is not what was approved; plan again",
        ));
    }
    let mut next = planned.issuer.clone();
    next.revision = Revision(next.revision.0 + 1);
    let csr = match document {
        Drafted::Request(unsigned) => {
            let csr = signer::sign(app, &next.key, unsigned, call.deadline)
                .await
                .map_err(NotSigned::error)?;
            next.stage = Stage::Waiting;
            Some(csr.der().to_vec())
        }
        Drafted::Certificate(unsigned) => {
            let above = parent.as_deref();
            next.certificate = certify(app, call, &next, spec, above, *unsigned).await?;
            next.chain = above.map(chain_from).unwrap_or_default();
            next.stage = Stage::Active;
            next.usage = Usage {
                issue: true,
                crl: true,
            };
            None
        }
    };
    app.store.change_issuer(&next).await.map_err(changed)?;
    let authority = change.publish_issuer(next)?;
    app.authorities.crl_is_due(authority.issuer.id);
    info!(issuer = %spec.name, stage = authority.issuer.stage.name(), "ceremony carried out");
    Ok(Committed { authority, csr })
}

/// What will be signed.
enum Drafted {
    Certificate(Box<Unsigned<Certificate>>),
    Request(Unsigned<CaRequest>),
}

impl Drafted {
    fn tbs(&self) -> &[u8] {
        match self {
            Self::Certificate(unsigned) => unsigned.tbs(),
            Self::Request(unsigned) => unsigned.tbs(),
        }
    }
}

/// The same bytes whenever it is asked for.
fn document(
    issuer: &Issuer,
    spec: &Ceremony,
    parent: Option<&Authority>,
    now_ms: i64,
) -> Result<Drafted> {
    let spki = issuer.key.public().map_or(&[][..], |key| key.spki());
    let key = SubjectKey::from_spki(spki)
        .map_err(|e| Error::internal(format!("the token's new key: {e}")))?;
    if spec.parent == Parent::External {
        return CaRequest::draft(spec.subject(), &key)
            .map(Drafted::Request)
            .map_err(|e| Error::new(Reason::LintRefused, e.to_string()));
    }
    let urls = match parent {
        Some(parent) => parent.spec.urls(0),
        None => Urls::default(),
    };
    let algorithm = keywright_pki::Algorithm::for_key(key.kind());
    let plan = spec.plan(key, issuer.serial, issuer.created_ms, urls);
    let above = parent.and_then(|p| p.certificate.as_ref());
    let draft = match above {
        Some(above) => Draft::new(plan, above),
        None => Draft::self_signed(plan, algorithm),
    }
    .map_err(|e| Error::new(Reason::TextRefused, e.to_string()))?;
    let unsigned = draft
        .lint(seconds(now_ms))
        .map_err(|e| Error::new(Reason::LintRefused, e.to_string()))?;
    Ok(Drafted::Certificate(Box::new(unsigned)))
}

/// An intermediate's certificate is a certificate of its parent, a root's one of itself:
/// on record before it is signed, and revocable like any other.
async fn certify(
    app: &App,
    call: &Call,
    issuer: &Issuer,
    spec: &Ceremony,
    parent: Option<&Authority>,
    unsigned: Unsigned<Certificate>,
) -> Result<Vec<u8>> {
    let signer = parent.map_or(issuer, |p| &p.issuer);
    let name = CertificateRef {
        issuer: signer.id,
        serial: issuer.serial,
    };
    let plan_end = spec.end(issuer.created_ms);
    let intended = Intended {
        name: name.clone(),
        tenant: issuer.tenant,
        profile: AuthorityName::parse(CEREMONY).map_err(Error::internal)?,
        profile_version: 0,
        tbs: unsigned.tbs().to_vec(),
        spki: unsigned_spki(issuer),
        names: vec![issuer.name.to_string()],
        not_before_ms: issuer.created_ms,
        not_after_ms: last_ms(plan_end),
        shard: 0,
        requested_by: call.caller.id.to_string(),
        request_key: String::new(),
        request_sha256: issuer.digest,
        lineage: lineage(&name),
        created_ms: call.now_ms,
    };
    let begun = app
        .authorities
        .ledger()
        .write(Write::Begin {
            intended: Box::new(intended),
            requests_since_ms: 0,
            reuse: KeyReuse::Forbid,
        })
        .await?;
    // A plan is signed once: an earlier attempt of which nothing is known may have been.
    if begun != Written::Done {
        return Err(Error::new(
            Reason::IssuerState,
            "this plan was begun to be signed before and did not come to an end; plan again under another name",
        ));
    }
    let signed = signer::sign(app, &signer.key, unsigned, call.deadline).await;
    let certificate = signed.map_err(NotSigned::error)?.der().to_vec();
    app.authorities
        .ledger()
        .write(Write::Finish {
            name,
            certificate: certificate.clone(),
        })
        .await?;
    Ok(certificate)
}

fn unsigned_spki(issuer: &Issuer) -> [u8; 32] {
    let spki = issuer.key.public().map_or(&[][..], |key| key.spki());
    Sha256::digest(spki).into()
}

fn chain_from(parent: &Authority) -> Vec<Vec<u8>> {
    let mut chain = vec![parent.issuer.certificate.clone()];
    chain.extend(parent.issuer.chain.iter().cloned());
    chain
}

/// The issuer above, if it can sign.
fn parent(app: &App, tenant: TenantId, spec: &Ceremony) -> Result<Option<Arc<Authority>>> {
    let Parent::Issuer(name) = &spec.parent else {
        return Ok(None);
    };
    let parent = app
        .authorities
        .issuer(tenant, name)
        .ok_or_else(|| no_such_issuer(name.as_str()))?;
    if parent.certificate.is_none() || !parent.issuer.usage.issue {
        return Err(Error::new(
            Reason::IssuerState,
            format!("issuer {name} does not sign certificates now"),
        ));
    }
    Ok(Some(parent))
}

async fn new_issuer(
    app: &App,
    call: &Call,
    tenant: TenantId,
    spec: &Ceremony,
    text: String,
    now_ms: i64,
) -> Result<Issuer> {
    let mut id = [0; 16];
    app.entropy.fill(&mut id)?;
    let mut random = [0; Serial::RANDOM_LEN];
    app.entropy.fill(&mut random)?;
    let name = KeyName::parse(&format!("authority/{}", spec.name))
        .map_err(|e| Error::internal(e.to_string()))?;
    let made = generate(
        app,
        call.deadline,
        &Wanted {
            tenant,
            key: KeyId(id),
            name: &name,
            spec: spec.key,
            number: VersionNumber::FIRST,
        },
    )
    .await?;
    Ok(Issuer {
        id: IssuerId(id),
        tenant,
        name: spec.name.clone(),
        stage: Stage::Planned,
        text,
        key: made.on_token,
        token_serial: made.token_serial,
        serial: Serial::from_random(random),
        digest: [0; 32],
        approvals: Vec::new(),
        created_by: call.caller.id.to_string(),
        created_ms: now_ms,
        certificate: Vec::new(),
        chain: Vec::new(),
        usage: Usage::default(),
        alarm: String::new(),
        revision: Revision(1),
    })
}

/// The key of a plan that was refused. What cannot be taken back stays an intent, and is
/// reported at the next start.
async fn take_back(app: &App, call: &Call, issuer: &Issuer) {
    let spec: KeySpec = issuer.key.spec;
    let gone = app
        .hsm
        .destroy(issuer.key.object, spec, call.deadline)
        .await;
    if gone.is_ok() {
        // Only the report would be missing.
        let _ = app.store.abandon(issuer.key.object).await;
    }
}

pub(super) fn on_record(app: &App, tenant: TenantId, id: IssuerId) -> Result<Arc<Authority>> {
    app.authorities
        .issuer_by_id(tenant, id)
        .ok_or_else(|| Error::new(Reason::IssuerNotFound, "there is no ceremony with this id"))
}

fn planned(app: &App, tenant: TenantId, id: IssuerId) -> Result<Arc<Authority>> {
    let found = on_record(app, tenant, id)?;
    if found.issuer.stage != Stage::Planned {
        return Err(Error::new(
            Reason::IssuerState,
            format!("this ceremony is {} already", found.issuer.stage.name()),
        ));
    }
    Ok(found)
}

fn taken(e: crate::store::StoreError) -> Error {
    match e {
        crate::store::StoreError::Exists => Error::field(
            Reason::AuthorityExists,
            "name",
            "an issuer of this name exists already",
        ),
        e => e.into(),
    }
}

pub(super) fn changed(e: crate::store::StoreError) -> Error {
    match e {
        crate::store::StoreError::Conflict => Error::new(
            Reason::Conflict,
            "the ceremony was changed in between; look at it and try again",
        ),
        e => e.into(),
    }
}
