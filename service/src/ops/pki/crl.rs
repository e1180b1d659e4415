//! Lists of revoked certificates: a full one of each issuer, and shards beside it.
//!
//! A list is made from the store and held against the one before: what was on it and has
//! not expired must be on the next one too, or a restored store would make revoked
//! certificates good again (CVE-2021-29653). Its number comes from the time, so it rises
//! also after a restore.
//!
//! Of many nodes one makes the lists; the others take them from the store, into files of
//! their own, and hold them against those before all the same.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use keywright_pki::{self as x509, CrlDraft, CrlPlan, Scope, Serial};
use sha2::{Digest, Sha256};
use tracing::{error, info};

use super::{issuers::raise_alarm, no_such_issuer, seconds, signer, signer::NotSigned};
use crate::{
    authorities::{Authority, CrlsDue},
    authority::{AuthorityName, CertificateRef, CrlRecord, Issuer, IssuerId, Reason as Why},
    error::{Error, Reason, Result},
    membership::LEASE,
    metrics,
    ops::{App, Call, nodes::is_ours},
    policy::act,
    store::{Revoked, StoreError},
};

/// A list, and what is on record about it.
#[derive(Debug, Clone)]
pub struct Crl {
    /// DER.
    pub der: Vec<u8>,
    /// Number, times, entries.
    pub record: CrlRecord,
}

/// The newest list of an issuer; shard 0 is the full one.
///
/// # Errors
/// [`Reason::IssuerNotFound`], [`Reason::IssuerState`] when there is none yet, permission.
pub async fn get_crl(
    app: &App,
    call: &mut Call,
    issuer: &AuthorityName,
    shard: u32,
) -> Result<Crl> {
    let grant = call.grant::<act::GetAuthority>(app, None)?;
    let authority = app
        .authorities
        .issuer(grant.tenant(), issuer)
        .ok_or_else(|| no_such_issuer(issuer.as_str()))?;
    if shard > authority.spec.shards {
        return Err(Error::field(
            Reason::InvalidArgument,
            "shard",
            match authority.spec.shards {
                0 => format!("issuer {issuer} has no shards, only the full list: 0"),
                n => format!("issuer {issuer} has {n} shards: 1 to {n}, or 0 for the full list"),
            },
        ));
    }
    published(app, &authority.issuer, shard).await
}

/// The same for whoever reads it over HTTP: lists are public.
///
/// # Errors
/// [`Reason::IssuerState`] when there is none yet.
pub async fn published(app: &App, issuer: &Issuer, shard: u32) -> Result<Crl> {
    let none = || {
        Error::new(
            Reason::IssuerState,
            format!("issuer {} has no CRL {shard} yet", issuer.name),
        )
    };
    let record = app.authorities.crl(issuer.id, shard).ok_or_else(none)?;
    let der = tokio::fs::read(path(&app.crl_dir, issuer, shard))
        .await
        .map_err(|e| none().because(e.to_string()))?;
    Ok(Crl { der, record })
}

/// Keeps lists for ever: takes those that another node made, and on the first of all nodes
/// makes new ones when something was revoked, and when a list gets old.
pub async fn publish_crls(app: Arc<App>) {
    // After a start everything: what was revoked just before it ended may be on no list.
    for authority in app.authorities.all_issuers() {
        app.authorities.crl_is_due(authority.issuer.id);
    }
    // The node that makes them may go, and only who looks knows that it is the next one.
    let look = if app.store.is_shared() {
        LEASE
    } else {
        Duration::from_secs(60)
    };
    let pause = look.min(Duration::from_millis(app.limits.crl_every_ms));
    let mut round = tokio::time::interval_at(tokio::time::Instant::now() + pause, pause);
    let mut first = false;
    loop {
        let due = tokio::select! {
            due = app.authorities.crls_due() => due,
            _ = round.tick() => CrlsDue { make: old(&app), ..CrlsDue::default() },
        };
        let was_first = std::mem::replace(&mut first, is_ours(&app).await);
        // What was due to the one before may have gone with it.
        let all = first && !was_first;
        for authority in app.authorities.all_issuers() {
            let make = all || due.make.contains(&authority.issuer.id);
            if make || due.take.contains(&authority.issuer.id) {
                renew(&app, &authority, first && make).await;
            }
        }
    }
}

/// Takes what is newer, and may make what comes after it. What fails is tried again.
async fn renew(app: &Arc<App>, authority: &Authority, make: bool) {
    let issuer = &authority.issuer;
    let done = async {
        take(app, authority).await?;
        if make && issuer.usage.crl {
            publish(app, authority).await?;
        }
        Ok::<_, Error>(())
    };
    match done.await {
        Ok(()) => return,
        Err(e) if e.reason() == Reason::Conflict => {
            info!(issuer = %issuer.name, "another node has made a newer CRL");
        }
        Err(e) => {
            metrics::crl(false);
            error!(issuer = %issuer.name, error = ?e, "no new CRL; it is tried again");
        }
    }
    // Not at once: the HSM may be away for a while. Others do not wait for it.
    let (app, id) = (Arc::clone(app), issuer.id);
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(1)).await;
        app.authorities.crl_is_due(id);
    });
}

/// Issuers whose list is as old as a list should get.
fn old(app: &App) -> BTreeSet<IssuerId> {
    let oldest = app.clock.now_ms() - i64::try_from(app.limits.crl_every_ms).unwrap_or(i64::MAX);
    let is_old = |a: &Arc<Authority>| {
        let crl = app.authorities.crl(a.issuer.id, 0);
        crl.is_none_or(|crl| crl.this_update_ms <= oldest)
    };
    let all = app.authorities.all_issuers();
    all.iter()
        .filter(|a| is_old(a))
        .map(|a| a.issuer.id)
        .collect()
}

/// Makes all lists of an issuer.
///
/// # Errors
/// [`Reason::LintRefused`], clock, HSM, disk, store.
pub async fn publish(app: &App, authority: &Authority) -> Result<()> {
    let issuer = &authority.issuer;
    let Some(certificate) = &authority.certificate else {
        return Ok(());
    };
    let spec = &authority.spec;
    let revoked = app.store.revoked(issuer.id).await?;
    let now_ms = app.authorities.signing_time(app.clock.now_ms())?;
    for shard in shards(authority) {
        let scope = match shard {
            0 => Scope::Full,
            n => match spec.shard_url(n) {
                Some(url) => Scope::Shard { url },
                None => continue,
            },
        };
        let before = app.authorities.crl(issuer.id, shard);
        let entries: Vec<&Revoked> = revoked
            .iter()
            .filter(|r| shard == 0 || r.shard == shard)
            .filter(|r| stays(r, before.as_ref()))
            .collect();
        let number = before.as_ref().map_or(0, |b| b.number);
        let plan = CrlPlan {
            number: u64::try_from(now_ms).unwrap_or(0).max(number + 1),
            this_update: seconds(now_ms),
            // Inclusive (R7).
            next_update: seconds(now_ms) + app.limits.crl_life_ms / 1000 - 1,
            scope,
        };
        if let Some(before) = &before {
            let listed: Vec<_> = entries.iter().map(|r| r.serial).collect();
            nothing_lost(app, authority, shard, &listed, before.this_update_ms).await?;
        }
        let record = CrlRecord {
            issuer: issuer.id,
            shard,
            number: plan.number,
            this_update_ms: now_ms,
            next_update_ms: super::last_ms(plan.next_update),
            entries: entries.len() as u64,
            sha256: [0; 32],
        };
        let unsigned = CrlDraft::new(plan, certificate, entries.iter().map(|r| entry(r, now_ms)))
            .lint(seconds(now_ms))
            .map_err(|e| Error::new(Reason::LintRefused, e.to_string()))?;
        let deadline = Instant::now() + Duration::from_millis(app.limits.request_ms);
        let crl = match signer::sign(app, &issuer.key, unsigned, deadline).await {
            Ok(crl) => crl,
            Err(e) => {
                if let NotSigned::SelfCheck(why) = &e {
                    raise_alarm(app, authority, &why.to_string()).await;
                }
                return Err(e.error());
            }
        };
        put(app, issuer, number, record, crl.der()).await?;
    }
    metrics::crl(true);
    info!(issuer = %issuer.name, entries = revoked.len(), "CRL published");
    Ok(())
}

/// The full one last: who sees it may rely on the shards.
fn shards(authority: &Authority) -> impl Iterator<Item = u32> + use<> {
    (1..=authority.spec.shards).chain([0])
}

/// Takes the lists that another node has made.
async fn take(app: &App, authority: &Authority) -> Result<()> {
    let issuer = &authority.issuer;
    let mut taken = false;
    for shard in shards(authority) {
        let known = app.authorities.crl(issuer.id, shard);
        let known = known.map_or(0, |crl| crl.number);
        let newer = app.store.newer_crl(issuer.id, shard, known).await?;
        let Some((record, der)) = newer else {
            continue;
        };
        // Without bytes it was made on an embedded store: its file is here, or lost.
        if let Some(der) = der {
            let corrupt = |what: &str| {
                let text = format!("CRL {shard} of issuer {}: {what}", issuer.name);
                Error::from(StoreError::Corrupt(text))
            };
            if <[u8; 32]>::from(Sha256::digest(&der)) != record.sha256 {
                return Err(corrupt("not the one on record"));
            }
            let listed = x509::revoked_serials(&der).map_err(|_| corrupt("no CRL"))?;
            // It may not be the next one: what ended before it was on one in between.
            nothing_lost(app, authority, shard, &listed, record.this_update_ms).await?;
            write(app, issuer, shard, der).await?;
        }
        app.authorities.publish_crl(record);
        taken = true;
    }
    if taken {
        metrics::crl(true);
        info!(issuer = %issuer.name, "CRL taken from another node");
    }
    Ok(())
}

/// Until it has expired and was on one list after that (R6, RFC 5280 §3.3).
fn stays(revoked: &Revoked, before: Option<&CrlRecord>) -> bool {
    before.is_none_or(|before| revoked.not_after_ms >= before.this_update_ms)
}

/// No date of one entry may keep the whole list from being made: one behind `now_ms`, when
/// the clock was set back, is now; an invalidity behind the revocation says nothing (R3).
fn entry(revoked: &Revoked, now_ms: i64) -> x509::Revoked {
    let revocation = revoked.revocation;
    let revoked_at = seconds(revocation.revoked_ms.min(now_ms));
    x509::Revoked {
        serial: revoked.serial,
        revoked_at,
        reason: reason(revocation.reason),
        invalidity_date: revocation
            .invalidity_ms
            .map(seconds)
            .filter(|date| *date <= revoked_at),
    }
}

/// As it is written; unspecified is left out (R3).
pub(super) fn reason(why: Why) -> Option<x509::Reason> {
    match why {
        Why::Unspecified => None,
        Why::KeyCompromise => Some(x509::Reason::KeyCompromise),
        Why::CaCompromise => Some(x509::Reason::CaCompromise),
        Why::AffiliationChanged => Some(x509::Reason::AffiliationChanged),
        Why::Superseded => Some(x509::Reason::Superseded),
        Why::CessationOfOperation => Some(x509::Reason::CessationOfOperation),
        Why::PrivilegeWithdrawn => Some(x509::Reason::PrivilegeWithdrawn),
    }
}

/// Every serial of the list before is on this one, or in the store as one that ended before
/// `ended_ms`.
async fn nothing_lost(
    app: &App,
    authority: &Authority,
    shard: u32,
    listed: &[Serial],
    ended_ms: i64,
) -> Result<()> {
    let issuer = &authority.issuer;
    let Ok(before) = tokio::fs::read(path(&app.crl_dir, issuer, shard)).await else {
        // Restored without its files: nothing to compare with.
        return Ok(());
    };
    let now: BTreeSet<&Serial> = listed.iter().collect();
    let before = x509::revoked_serials(&before)
        .map_err(|e| Error::internal(format!("the CRL on disk cannot be read: {e}")))?;
    for serial in before.iter().filter(|s| !now.contains(s)) {
        let name = CertificateRef {
            issuer: issuer.id,
            serial: *serial,
        };
        let record = app.store.certificate(issuer.tenant, &name).await?;
        let ended = record.is_some_and(|r| r.intended.not_after_ms < ended_ms);
        if !ended {
            let why = format!(
                "certificate {serial} is on the published CRL and not revoked in the store: the store is older than the CRL; restore the right one"
            );
            raise_alarm(app, authority, &why).await;
            return Err(Error::new(Reason::IssuerState, why));
        }
    }
    Ok(())
}

/// A record never speaks of bytes that are not there: they lie in the file before, or come
/// into the store with it. And what lies in the file of one of many was on record, or
/// [`take`] would hold the next list against one that nobody saw.
async fn put(
    app: &App,
    issuer: &Issuer,
    before: u64,
    mut record: CrlRecord,
    der: &[u8],
) -> Result<()> {
    record.sha256 = Sha256::digest(der).into();
    if app.store.is_shared() {
        app.store.set_crl(&record, before, Some(der)).await?;
        write(app, issuer, record.shard, der.to_vec()).await?;
    } else {
        write(app, issuer, record.shard, der.to_vec()).await?;
        app.store.set_crl(&record, before, None).await?;
    }
    app.authorities.publish_crl(record);
    Ok(())
}

async fn write(app: &App, issuer: &Issuer, shard: u32, der: Vec<u8>) -> Result<()> {
    let path = path(&app.crl_dir, issuer, shard);
    let written = tokio::task::spawn_blocking(move || write_whole(&path, &der)).await;
    written
        .map_err(|e| e.to_string())
        .and_then(|r| r.map_err(|e| e.to_string()))
        .map_err(|e| {
            Error::new(Reason::StoreUnavailable, "the CRL cannot be written now").because(e)
        })
}

/// `<dir>/<issuer id>-<shard>.crl`.
fn path(dir: &Path, issuer: &Issuer, shard: u32) -> PathBuf {
    dir.join(format!("{}-{shard}.crl", issuer.id))
}

/// Never half a file: written beside, flushed, renamed.
fn write_whole(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write;
    let beside = path.with_extension("new");
    let mut file = std::fs::File::create(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&beside, path)?;
    std::fs::File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}
