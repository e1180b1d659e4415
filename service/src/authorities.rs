//! Issuers and profiles in memory, and the way to the certificates on disk.
//!
//! Readers take a snapshot without a lock; changes go one after the other and are stored
//! before they are shown.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use keywright_pki::{CertificateInfo, IssuerCert, Serial};
use tokio::sync::{Mutex, MutexGuard, Notify};

use crate::{
    authority::{
        AuthorityName, Ceremony, CertificateRef, CrlRecord, Issuer, IssuerId, Profile,
        ProfileRecord, Stage,
    },
    error::{Error, Reason, Result},
    key::TenantId,
    ledger::Ledger,
    store::{self, StoreError},
};

/// An issuer, and its certificate as it is read when something is signed.
#[derive(Debug)]
pub struct Authority {
    /// What is on record.
    pub issuer: Issuer,
    /// The text it came from, read.
    pub spec: Ceremony,
    /// Its certificate; `None` until it has one.
    pub certificate: Option<IssuerCert>,
}

/// Everything that is not one certificate.
#[derive(Debug)]
pub struct Authorities {
    snapshot: ArcSwap<Snapshot>,
    changing: Mutex<()>,
    latest_ms: AtomicI64,
    ledger: Ledger,
    crls: parking_lot::Mutex<BTreeMap<(IssuerId, u32), CrlRecord>>,
    crls_due: parking_lot::Mutex<CrlsDue>,
    crl_due: Notify,
    /// Since the start, by any node; what was revoked before stands in the store.
    revoked: parking_lot::RwLock<HashSet<CertificateRef>>,
    changes: Box<[AtomicU64]>,
}

/// Issuers whose CRLs need something.
#[derive(Debug, Default)]
pub struct CrlsDue {
    /// They are to be made anew, by whoever makes them.
    pub make: BTreeSet<IssuerId>,
    /// Newer ones are stored. Not a reason to make one: two would answer each other for ever.
    pub take: BTreeSet<IssuerId>,
}

#[derive(Debug, Default, Clone)]
struct Snapshot {
    issuers: BTreeMap<(TenantId, AuthorityName), Arc<Authority>>,
    profiles: BTreeMap<(TenantId, AuthorityName), BTreeMap<u32, Arc<Profile>>>,
}

/// How far the clock may stand before the last certificate: two nodes, one NTP.
const CLOCK_TOLERANCE_MS: i64 = 5_000;
/// Certificates share so many numbers of [`Authorities::status_version`].
const CHANGES: usize = 4096;

impl Authorities {
    /// What the store holds. Of a `shared` store no lists: another node may have made them,
    /// and none is shown before its bytes lie with this node.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when a certificate or a profile on record cannot be read.
    pub fn new(contents: store::Authorities, ledger: Ledger, shared: bool) -> store::Result<Self> {
        let mut snapshot = Snapshot::default();
        for issuer in contents.issuers {
            snapshot.put_issuer(Arc::new(Authority::read(issuer)?));
        }
        for record in contents.profiles {
            snapshot.put_profile(Arc::new(read(record)?));
        }
        let crls = contents.crls.into_iter().filter(|_| !shared);
        let crls = crls.map(|c| ((c.issuer, c.shard), c));
        Ok(Self {
            snapshot: ArcSwap::from_pointee(snapshot),
            changing: Mutex::default(),
            latest_ms: AtomicI64::new(contents.latest_ms),
            ledger,
            crls: parking_lot::Mutex::new(crls.collect()),
            crls_due: parking_lot::Mutex::default(),
            crl_due: Notify::new(),
            revoked: parking_lot::RwLock::default(),
            changes: (0..CHANGES).map(|_| AtomicU64::new(0)).collect(),
        })
    }

    /// Takes in issuers and profiles as they are stored, also by other nodes. What this
    /// node knows newer stays. Lists are looked at where there are newer ones, or where an
    /// issuer has changed.
    ///
    /// # Errors
    /// As for [`Authorities::new`].
    pub fn adopt(&self, stored: store::Authorities) -> store::Result<()> {
        let newer = |crl: &&CrlRecord| {
            let known = self.crl(crl.issuer, crl.shard);
            known.is_none_or(|known| known.number < crl.number)
        };
        let take = stored.crls.iter().filter(newer).map(|crl| crl.issuer);
        let mut due = CrlsDue {
            take: take.collect(),
            ..CrlsDue::default()
        };
        let mut issuers = Vec::new();
        for issuer in stored.issuers {
            let known = self.issuer(issuer.tenant, &issuer.name);
            if known.is_none_or(|known| known.issuer.revision < issuer.revision) {
                due.make.insert(issuer.id);
                issuers.push(Arc::new(Authority::read(issuer)?));
            }
        }
        let mut profiles = Vec::new();
        for record in stored.profiles {
            let known = self.any_profile(record.tenant, &record.name, Some(record.version));
            if known.is_none_or(|known| known.record.retired_ms < record.retired_ms) {
                profiles.push(Arc::new(read(record)?));
            }
        }
        self.snapshot.rcu(|old| {
            let mut next = Snapshot::clone(old);
            issuers.iter().cloned().for_each(|a| next.put_issuer(a));
            profiles.iter().cloned().for_each(|p| next.put_profile(p));
            next
        });
        self.latest_ms.fetch_max(stored.latest_ms, Ordering::AcqRel);
        // Who looks at them looks for their issuers first.
        self.add_due(due);
        Ok(())
    }

    /// Where certificates are written down.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// An issuer of a tenant, by name.
    #[must_use]
    pub fn issuer(&self, tenant: TenantId, name: &AuthorityName) -> Option<Arc<Authority>> {
        let snapshot = self.snapshot.load();
        snapshot
            .issuers
            .get(&(tenant, name.clone()))
            .map(Arc::clone)
    }

    /// The same by its id.
    #[must_use]
    pub fn issuer_by_id(&self, tenant: TenantId, id: IssuerId) -> Option<Arc<Authority>> {
        self.issuers_of(tenant)
            .into_iter()
            .find(|a| a.issuer.id == id)
    }

    /// The issuer here that a certificate says it is from, by name and by key.
    #[must_use]
    pub fn issuer_of(
        &self,
        tenant: TenantId,
        certificate: &CertificateInfo,
    ) -> Option<Arc<Authority>> {
        let is = |a: &Arc<Authority>| {
            a.certificate.as_ref().is_some_and(|c| {
                c.subject_der() == certificate.issuer_der
                    && certificate.aki.as_deref() == Some(c.ski())
            })
        };
        self.issuers_of(tenant).into_iter().find(is)
    }

    /// All issuers of a tenant, by name.
    #[must_use]
    pub fn issuers_of(&self, tenant: TenantId) -> Vec<Arc<Authority>> {
        let all = self.all_issuers();
        all.into_iter()
            .filter(|a| a.issuer.tenant == tenant)
            .collect()
    }

    /// Every issuer, for what the appliance does by itself.
    #[must_use]
    pub fn all_issuers(&self) -> Vec<Arc<Authority>> {
        self.snapshot
            .load()
            .issuers
            .values()
            .map(Arc::clone)
            .collect()
    }

    /// One version of a profile, or its newest; only what is in use.
    #[must_use]
    pub fn profile(
        &self,
        tenant: TenantId,
        name: &AuthorityName,
        version: Option<u32>,
    ) -> Option<Arc<Profile>> {
        let found = self.any_profile(tenant, name, version)?;
        found.record.retired_ms.is_none().then_some(found)
    }

    /// The same, also when it is retired.
    #[must_use]
    pub fn any_profile(
        &self,
        tenant: TenantId,
        name: &AuthorityName,
        version: Option<u32>,
    ) -> Option<Arc<Profile>> {
        let snapshot = self.snapshot.load();
        let versions = snapshot.profiles.get(&(tenant, name.clone()))?;
        match version {
            Some(version) => versions.get(&version).map(Arc::clone),
            None => versions.values().next_back().map(Arc::clone),
        }
    }

    /// The newest version of every profile of a tenant.
    #[must_use]
    pub fn profiles_of(&self, tenant: TenantId) -> Vec<Arc<Profile>> {
        let snapshot = self.snapshot.load();
        let own = snapshot.profiles.iter().filter(|((t, _), _)| *t == tenant);
        own.filter_map(|(_, versions)| versions.values().next_back().map(Arc::clone))
            .collect()
    }

    /// The time at which something is signed: it must not lie before the last one, or
    /// serial, CRL number and validity would say different things.
    ///
    /// # Errors
    /// [`Reason::ClockSteppedBack`].
    pub fn signing_time(&self, now_ms: i64) -> Result<i64> {
        let latest = self.latest_ms.fetch_max(now_ms, Ordering::AcqRel);
        if now_ms + CLOCK_TOLERANCE_MS < latest {
            return Err(Error::new(
                Reason::ClockSteppedBack,
                "the appliance's clock stands before the last certificate it signed; the operator must set it right",
            )
            .because(format!("clock {now_ms} ms, last signed at {latest} ms")));
        }
        Ok(now_ms)
    }

    /// What is on record about the newest list of an issuer and shard.
    #[must_use]
    pub fn crl(&self, issuer: IssuerId, shard: u32) -> Option<CrlRecord> {
        self.crls.lock().get(&(issuer, shard)).cloned()
    }

    /// Shows a list that is stored.
    pub fn publish_crl(&self, crl: CrlRecord) {
        self.crls.lock().insert((crl.issuer, crl.shard), crl);
    }

    /// A certificate was revoked: it opens no door from now on, and what was made of its
    /// status before is stale. After it is stored.
    pub fn revoked(&self, name: &CertificateRef) {
        self.revoked.write().insert(name.clone());
        if let Some(changes) = self.changes_of(&name.serial) {
            changes.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Was it revoked since the start? For who was let in before.
    #[must_use]
    pub fn is_revoked(&self, name: &CertificateRef) -> bool {
        self.revoked.read().contains(name)
    }

    /// The issuer's CRLs are to be made anew.
    pub fn crl_is_due(&self, issuer: IssuerId) {
        self.add_due(CrlsDue {
            make: BTreeSet::from([issuer]),
            ..CrlsDue::default()
        });
    }

    fn add_due(&self, more: CrlsDue) {
        let mut due = self.crls_due.lock();
        due.make.extend(more.make);
        due.take.extend(more.take);
        self.crl_due.notify_one();
    }

    /// A number that grows whenever the status of this certificate changes (and sometimes
    /// when another one's does). Read before the status is read.
    #[must_use]
    pub fn status_version(&self, serial: &Serial) -> u64 {
        self.changes_of(serial)
            .map_or(0, |changes| changes.load(Ordering::Acquire))
    }

    fn changes_of(&self, serial: &Serial) -> Option<&AtomicU64> {
        // The last octets of a serial are random.
        let low = serial.as_bytes().iter().rev().take(2);
        let number = low.fold(0usize, |sum, b| sum << 8 | usize::from(*b));
        self.changes.get(number % CHANGES)
    }

    /// Waits until a CRL is due, and takes the lists of issuers.
    pub async fn crls_due(&self) -> CrlsDue {
        loop {
            let due = std::mem::take(&mut *self.crls_due.lock());
            if !due.make.is_empty() || !due.take.is_empty() {
                return due;
            }
            self.crl_due.notified().await;
        }
    }

    /// The right to change issuers and profiles, for as long as it lives.
    pub async fn begin_change(&self) -> AuthorityChange<'_> {
        AuthorityChange {
            authorities: self,
            _alone: self.changing.lock().await,
        }
    }
}

/// One change at a time; shows what is stored already.
#[derive(Debug)]
pub struct AuthorityChange<'a> {
    authorities: &'a Authorities,
    _alone: MutexGuard<'a, ()>,
}

impl AuthorityChange<'_> {
    /// An issuer, new or changed.
    ///
    /// # Errors
    /// When its certificate cannot be read: it should not have been stored.
    pub fn publish_issuer(&self, issuer: Issuer) -> Result<Arc<Authority>> {
        let authority = Arc::new(Authority::read(issuer)?);
        self.publish(|next| next.put_issuer(Arc::clone(&authority)));
        Ok(authority)
    }

    /// A new version of a profile.
    pub fn publish_profile(&self, profile: Profile) -> Arc<Profile> {
        let profile = Arc::new(profile);
        self.publish(|next| next.put_profile(Arc::clone(&profile)));
        profile
    }

    /// Nothing is issued under this profile any more.
    pub fn retire(&self, tenant: TenantId, name: &AuthorityName, retired_ms: i64) {
        self.publish(|next| {
            let Some(versions) = next.profiles.get_mut(&(tenant, name.clone())) else {
                return;
            };
            for profile in versions
                .values_mut()
                .filter(|p| p.record.retired_ms.is_none())
            {
                *profile = Arc::new(Profile {
                    record: ProfileRecord {
                        retired_ms: Some(retired_ms),
                        ..profile.record.clone()
                    },
                    rules: profile.rules.clone(),
                });
            }
        });
    }

    fn publish(&self, change: impl Fn(&mut Snapshot)) {
        self.authorities.snapshot.rcu(|old| {
            let mut next = Snapshot::clone(old);
            change(&mut next);
            next
        });
    }
}

impl Authority {
    fn read(issuer: Issuer) -> store::Result<Self> {
        let certificate = match issuer.stage {
            Stage::Active => Some(IssuerCert::from_der(&issuer.certificate).map_err(|e| {
                StoreError::Corrupt(format!("certificate of issuer {}: {e}", issuer.name))
            })?),
            Stage::Planned | Stage::Waiting => None,
        };
        // The rule about approvals held when it was planned.
        let spec = Ceremony::parse(&issuer.text, 0)
            .map_err(|e| StoreError::Corrupt(format!("text of issuer {}: {e}", issuer.name)))?;
        Ok(Self {
            issuer,
            spec,
            certificate,
        })
    }
}

fn read(record: ProfileRecord) -> store::Result<Profile> {
    let rules = keywright_pki::Profile::parse(&record.text)
        .map_err(|e| StoreError::Corrupt(format!("profile {}: {e}", record.name)))?;
    Ok(Profile { record, rules })
}

impl Snapshot {
    /// Unless there is a newer one: another node may have been quicker.
    fn put_issuer(&mut self, authority: Arc<Authority>) {
        let name = (authority.issuer.tenant, authority.issuer.name.clone());
        let known = self.issuers.get(&name);
        if known.is_some_and(|known| known.issuer.revision > authority.issuer.revision) {
            return;
        }
        self.issuers.insert(name, authority);
    }

    fn put_profile(&mut self, profile: Arc<Profile>) {
        let record = &profile.record;
        let name = (record.tenant, record.name.clone());
        let versions = self.profiles.entry(name).or_default();
        versions.insert(record.version, profile);
    }
}
