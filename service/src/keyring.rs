//! All keys in memory, and the one way to them: [`Keyring::open`] finds a key and asks
//! the policies in one step, and gives a [`Permit`] or nothing.
//!
//! Readers take a snapshot without a lock; a change puts a new snapshot in its place.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ops::Bound,
    sync::Arc,
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::{
    audit::{Decision, Entry, KeyNote},
    authority::Profile,
    error::{Error, Reason, Result},
    key::{Key, KeyId, KeyName, TenantId},
    membership::Membership,
    policy::{
        Action, Asking, Engine, Grant, KeyAction, Permit, ProfileAction, ProfilePermit, Proposal,
        TenantAction, Verdict,
    },
};

/// Keys and the policies that guard them.
#[derive(Debug)]
pub struct Keyring {
    keys: ArcSwap<Snapshot>,
    engine: ArcSwap<Engine>,
    membership: Arc<Membership>,
    changing: Mutex<HashSet<(TenantId, KeyName)>>,
}

#[derive(Debug, Default, Clone)]
struct Snapshot {
    by_name: HashMap<TenantId, BTreeMap<KeyName, Arc<Key>>>,
    by_id: HashMap<(TenantId, KeyId), Arc<Key>>,
}

impl Keyring {
    /// A key ring with these keys and policies, on this node.
    #[must_use]
    pub fn new(keys: Vec<Key>, engine: Engine, membership: Arc<Membership>) -> Self {
        let mut snapshot = Snapshot::default();
        for key in keys {
            snapshot.put(Arc::new(key));
        }
        Self {
            keys: ArcSwap::from_pointee(snapshot),
            engine: ArcSwap::from_pointee(engine),
            membership,
            changing: Mutex::default(),
        }
    }

    /// Finds a key by name for one action.
    ///
    /// # Errors
    /// [`Reason::KeyNotFound`] when there is none or the caller may not see it,
    /// [`Reason::PermissionDenied`] when the caller may see it and may not do this.
    pub fn open<A: KeyAction>(
        &self,
        asking: &Asking<'_>,
        name: &KeyName,
        entry: &mut Entry,
    ) -> Result<Permit<A>> {
        let keys = self.keys.load();
        let found = keys
            .by_name
            .get(&asking.caller.tenant)
            .and_then(|own| own.get(name));
        self.permit(asking, found, entry)
    }

    /// The same by the id an envelope carries.
    ///
    /// # Errors
    /// As for [`Keyring::open`].
    pub fn open_id<A: KeyAction>(
        &self,
        asking: &Asking<'_>,
        id: KeyId,
        entry: &mut Entry,
    ) -> Result<Permit<A>> {
        let keys = self.keys.load();
        let found = keys.by_id.get(&(asking.caller.tenant, id));
        self.permit(asking, found, entry)
    }

    fn permit<A: KeyAction>(
        &self,
        asking: &Asking<'_>,
        found: Option<&Arc<Key>>,
        entry: &mut Entry,
    ) -> Result<Permit<A>> {
        self.membership.must_serve()?;
        let Some(key) = found else {
            entry.decide(Decision::Deny, &[]);
            return Err(Error::no_such_key());
        };
        let engine = self.engine.load();
        match engine.permit(asking, key) {
            Ok(permit) => {
                entry.decide(Decision::Allow, permit.verdict().policies());
                Ok(permit)
            }
            Err(verdict) => {
                note(entry, key, &verdict);
                if engine.about_key(asking, Action::GetKey, key).allowed() {
                    Err(denied(A::ACTION, &verdict))
                } else {
                    Err(Error::no_such_key())
                }
            }
        }
    }

    /// Asks for an action on the caller's tenant, or on a key as it would be.
    ///
    /// # Errors
    /// [`Reason::PermissionDenied`].
    pub fn grant<A: TenantAction>(
        &self,
        asking: &Asking<'_>,
        proposal: Option<&Proposal>,
        entry: &mut Entry,
    ) -> Result<Grant<A>> {
        self.membership.must_serve()?;
        match self.engine.load().grant(asking, proposal) {
            Ok(grant) => {
                entry.decide(Decision::Allow, grant.verdict().policies());
                Ok(grant)
            }
            Err(verdict) => {
                entry.decide(Decision::Deny, verdict.policies());
                Err(denied(A::ACTION, &verdict))
            }
        }
    }

    /// A permit for one action under a profile that was found, or not.
    ///
    /// # Errors
    /// [`Reason::ProfileNotFound`]: also when the caller may not use it.
    pub fn permit_profile<A: ProfileAction>(
        &self,
        asking: &Asking<'_>,
        found: Option<&Arc<Profile>>,
        entry: &mut Entry,
    ) -> Result<ProfilePermit<A>> {
        self.membership.must_serve()?;
        let no_such = || {
            Error::new(
                Reason::ProfileNotFound,
                "no such profile in use, or you may not have certificates under it",
            )
        };
        let Some(profile) = found else {
            entry.decide(Decision::Deny, &[]);
            return Err(no_such());
        };
        match self.engine.load().profile_permit(asking, profile) {
            Ok(permit) => {
                entry.decide(Decision::Allow, permit.verdict().policies());
                Ok(permit)
            }
            Err(verdict) => {
                entry.decide(Decision::Deny, verdict.policies());
                Err(no_such())
            }
        }
    }

    /// The keys of a tenant the caller may see, by name, after `after`; and whether
    /// there are more.
    #[must_use]
    pub fn visible(
        &self,
        asking: &Asking<'_>,
        prefix: &str,
        after: Option<&KeyName>,
        limit: usize,
    ) -> (Vec<Arc<Key>>, bool) {
        let keys = self.keys.load();
        let engine = self.engine.load();
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let Some(own) = keys.by_name.get(&asking.caller.tenant) else {
            return (Vec::new(), false);
        };
        let mut seen = own
            .range::<KeyName, _>((from, Bound::Unbounded))
            .filter(|(name, _)| name.as_str().starts_with(prefix))
            .filter(|(_, key)| engine.about_key(asking, Action::GetKey, key).allowed())
            .map(|(_, key)| Arc::clone(key));
        let page: Vec<_> = seen.by_ref().take(limit).collect();
        let more = seen.next().is_some();
        (page, more)
    }

    /// Would the caller have been allowed an action on a key as it is about to be? So that
    /// nobody moves a key to where they could not have touched it.
    ///
    /// # Errors
    /// [`Reason::PermissionDenied`].
    pub fn still_allowed<A: KeyAction>(
        &self,
        asking: &Asking<'_>,
        next: &Key,
        entry: &mut Entry,
    ) -> Result<()> {
        let verdict = self.engine.load().about_proposal(asking, A::ACTION, next);
        if verdict.allowed() {
            return Ok(());
        }
        entry.decide(Decision::Deny, verdict.policies());
        Err(Error::new(
            Reason::PermissionDenied,
            format!(
                "no policy would allow you to {} the key as it would be then",
                A::ACTION.name()
            ),
        ))
    }

    /// What the policies say and the roles that come into it. Nothing is decided by this,
    /// and nothing of it remembered.
    #[must_use]
    pub fn explain(
        &self,
        asking: &Asking<'_>,
        action: Action,
        key: &Key,
    ) -> (Verdict, Vec<String>) {
        let engine = self.engine.load();
        let roles = engine.roles_of(asking.caller);
        (engine.about_proposal(asking, action, key), roles)
    }

    /// Announces a change of a key, or of a name that is to become one.
    ///
    /// # Errors
    /// [`Reason::Conflict`] while another change of it is under way.
    pub fn begin_change(self: &Arc<Self>, tenant: TenantId, name: &KeyName) -> Result<Change> {
        let what = (tenant, name.clone());
        if !self.changing.lock().insert(what.clone()) {
            return Err(Error::new(
                Reason::Conflict,
                "another change of this key is under way; try again",
            ));
        }
        Ok(Change {
            keyring: Arc::clone(self),
            what,
        })
    }

    /// A permit for a key that nobody else can change until the [`Change`] is dropped. It is
    /// opened twice: before, so that nobody stops the changes of a key they may not touch,
    /// and after, for key and policies may have changed until the door was shut.
    ///
    /// # Errors
    /// As for [`Keyring::open`] and [`Keyring::begin_change`].
    pub fn open_alone<A: KeyAction>(
        self: &Arc<Self>,
        asking: &Asking<'_>,
        name: &KeyName,
        entry: &mut Entry,
    ) -> Result<(Permit<A>, Change)> {
        let before = self.open::<A>(asking, name, entry)?;
        let change = self.begin_change(before.key().tenant, name)?;
        Ok((self.open(asking, name, entry)?, change))
    }

    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.load().by_id.len()
    }

    /// No keys at all?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many keys should be rotated.
    #[must_use]
    pub fn rotation_due(&self, now_ms: i64) -> usize {
        let due = |key: &&Arc<Key>| {
            key.version(key.primary.get())
                .is_some_and(|v| key.rotation_due(v, now_ms).is_some())
        };
        self.keys.load().by_id.values().filter(due).count()
    }

    /// The newest picture of a key.
    #[must_use]
    pub fn current(&self, key: &Key) -> Option<Arc<Key>> {
        self.get(key.tenant, key.id)
    }

    /// A key by its id, for what the appliance does by itself.
    #[must_use]
    pub fn get(&self, tenant: TenantId, id: KeyId) -> Option<Arc<Key>> {
        let keys = self.keys.load();
        keys.by_id.get(&(tenant, id)).map(Arc::clone)
    }

    /// Every key, for what the appliance does by itself.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Key>> {
        self.keys.load().by_id.values().map(Arc::clone).collect()
    }

    /// Takes in keys as they are stored, also by other nodes. What this node knows better,
    /// newer pictures and its own counters, stays.
    pub fn adopt(&self, stored: &[Key]) {
        if stored.is_empty() {
            return;
        }
        self.keys.rcu(|old| {
            let mut next = Snapshot::clone(old);
            for key in stored {
                let known = old.by_id.get(&(key.tenant, key.id));
                let key = match known {
                    Some(known) => known.heard(key.clone()),
                    None => key.clone(),
                };
                next.put(Arc::new(key));
            }
            next
        });
    }

    /// Is the name taken? For deciding what to do after a grant, never before one.
    #[must_use]
    pub fn has(&self, tenant: TenantId, name: &KeyName) -> bool {
        self.keys
            .load()
            .by_name
            .get(&tenant)
            .is_some_and(|own| own.contains_key(name))
    }

    /// Other policies from now on.
    pub fn enforce(&self, engine: Engine) {
        self.engine.store(Arc::new(engine));
    }

    /// SHA-256 of the policies in force.
    #[must_use]
    pub fn policy_digest(&self) -> [u8; 32] {
        *self.engine.load().digest()
    }
}

impl Snapshot {
    /// Unless there is a newer picture: another node may have been quicker.
    fn put(&mut self, key: Arc<Key>) {
        let known = self.by_id.get(&(key.tenant, key.id));
        if known.is_some_and(|known| known.revision > key.revision) {
            return;
        }
        let own = self.by_name.entry(key.tenant).or_default();
        own.insert(key.name.clone(), Arc::clone(&key));
        self.by_id.insert((key.tenant, key.id), key);
    }
}

/// The right to change one key in memory, for as long as it lives.
#[derive(Debug)]
pub struct Change {
    keyring: Arc<Keyring>,
    what: (TenantId, KeyName),
}

impl Change {
    /// Shows the new picture of the key to everybody. It must be stored already.
    pub fn publish(&self, key: Key) -> Arc<Key> {
        let key = Arc::new(key);
        self.keyring.keys.rcu(|old| {
            let mut next = Snapshot::clone(old);
            next.put(Arc::clone(&key));
            next
        });
        key
    }
}

impl Drop for Change {
    fn drop(&mut self) {
        self.keyring.changing.lock().remove(&self.what);
    }
}

fn denied(action: Action, verdict: &Verdict) -> Error {
    let action = action.name();
    let text = if verdict.policies().is_empty() {
        format!("no policy allows you to {action} here")
    } else {
        format!("a policy forbids you to {action} here; explain says which")
    };
    Error::new(Reason::PermissionDenied, text)
}

fn note(entry: &mut Entry, key: &Key, verdict: &Verdict) {
    entry.decide(Decision::Deny, verdict.policies());
    entry.note(KeyNote {
        name: key.name.to_string(),
        id: key.id.to_string(),
        version: None,
    });
}

#[cfg(test)]
mod tests {
    use std::thread;

    use keywright_pki::SpiffeId;

    use super::*;
    use crate::{
        key::tests::key,
        policy::{Caller, Roles, act},
    };

    fn engine(policy: &str) -> Engine {
        let files = BTreeMap::from([("a.cedar".to_owned(), policy.to_owned())]);
        Engine::new(&files, "[roles]", Roles::parse("[roles]").unwrap()).unwrap()
    }

    const OPEN: &str = "permit (principal, action, resource is Key);";

    /// Asks for a change alone, and does `meanwhile` after the first check and before the
    /// door is shut.
    fn overtaken(meanwhile: impl FnOnce(&Arc<Keyring>)) -> Result<u64> {
        let alone = Arc::new(Membership::alone());
        let keyring = Arc::new(Keyring::new(vec![key("a")], engine(OPEN), alone));
        let caller = Caller {
            id: SpiffeId::parse("spiffe://a/admin").unwrap(),
            tenant: TenantId([2; 16]),
            tenant_name: "t".into(),
            certificate: [0; 32],
            spki: [0; 32],
        };
        let asking = Asking {
            caller: &caller,
            now_ms: 0,
            context: None,
        };
        let name = KeyName::parse("a").unwrap();
        let seen = keyring.current(&key("a")).unwrap();
        let idle = Arc::strong_count(&seen);
        thread::scope(|s| {
            let door = keyring.changing.lock();
            let asked = s.spawn(|| {
                let mut entry = Entry::default();
                let alone = keyring.open_alone::<act::RotateKey>(&asking, &name, &mut entry);
                alone.map(|(permit, _)| permit.key().revision.0)
            });
            // The first permit holds the key and waits at the door.
            while Arc::strong_count(&seen) == idle {
                thread::yield_now();
            }
            meanwhile(&keyring);
            drop(door);
            asked.join().unwrap()
        })
    }

    #[test]
    fn a_change_is_allowed_by_the_policies_of_now() {
        assert_eq!(overtaken(|_| {}).unwrap(), 1);
        let closed = |keyring: &Arc<Keyring>| {
            keyring.enforce(engine(&format!(
                "{OPEN} forbid (principal, action == Action::\"rotate_key\", resource is Key);"
            )));
        };
        let refused = overtaken(closed).unwrap_err();
        assert_eq!(refused.reason(), Reason::PermissionDenied);
    }

    #[test]
    fn a_change_begins_from_the_key_of_now() {
        let labelled = |keyring: &Arc<Keyring>| {
            let next = key("a").updated(None, None, None).unwrap();
            let change = Change {
                keyring: Arc::clone(keyring),
                what: (TenantId([9; 16]), next.name.clone()),
            };
            change.publish(next);
            // Its drop would wait at the door.
            std::mem::forget(change);
        };
        assert_eq!(overtaken(labelled).unwrap(), 2);
    }
}
