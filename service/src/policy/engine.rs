//! Cedar, asked the safe way: policies validated strictly when they are read, requests
//! checked against the schema, and any evaluation error a deny. (Cedar itself skips a
//! policy that errors, a forbid included.)

use std::{collections::BTreeMap, fs, path::Path, sync::Arc};

use cedar_policy::{Authorizer, Decision, PolicyId, PolicySet, Schema};
use keywright_pki::SpiffeId;
use moka::sync::Cache;
use sha2::{Digest, Sha256};

use super::{
    Action, Asking, Caller, Grant, KeyAction, Permit, ProfileAction, ProfilePermit, Proposal,
    Roles, TenantAction, Verdict,
    circumstances::{Circumstances, Looks},
    request::{Resource, Seen, SeenProfile, request},
    set::{self, BUILTIN, PolicyError},
};
use crate::{
    authority::Profile,
    key::{Key, KeyId, Revision},
};

/// A set of policies and roles in force. Immutable; a reload makes a new one, and with
/// it a new cache.
pub struct Engine {
    policies: PolicySet,
    circumstances: Circumstances,
    schema: Schema,
    roles: Roles,
    digest: [u8; 32],
    verdicts: Cache<Question, Arc<Verdict>>,
}

/// What a verdict depends on. The certificate stands for the caller.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Question {
    certificate: [u8; 32],
    action: Action,
    resource: (KeyId, u64),
    /// Digest of the context where policies look at it, else zero.
    context: [u8; 32],
}

const VERDICTS: u64 = 100_000;

impl Engine {
    /// Reads every `*.cedar` and `roles.toml` of a directory.
    ///
    /// # Errors
    /// The file and what is wrong with it.
    pub fn read(dir: &Path) -> Result<Self, PolicyError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| PolicyError::Io { path, source }
        };
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(dir).map_err(io(dir))? {
            let path = entry.map_err(io(dir))?.path();
            if path.extension().is_some_and(|e| e == "cedar") {
                let text = fs::read_to_string(&path).map_err(io(&path))?;
                files.insert(path.display().to_string(), text);
            }
        }
        let path = dir.join("roles.toml");
        let text = fs::read_to_string(&path).map_err(io(&path))?;
        let roles = Roles::parse(&text).map_err(|source| PolicyError::Roles { path, source })?;
        Self::new(&files, &text, roles)
    }

    /// From texts: file name to policies, and the roles with the text they came from.
    ///
    /// # Errors
    /// As for [`Engine::read`].
    pub fn new(
        files: &BTreeMap<String, String>,
        roles_text: &str,
        roles: Roles,
    ) -> Result<Self, PolicyError> {
        let schema = set::schema()?;
        let mut policies = PolicySet::new();
        let mut hash = Sha256::new();
        let builtin = ("(built in)".to_owned(), BUILTIN.to_owned());
        for (file, text) in std::iter::once((&builtin.0, &builtin.1)).chain(files) {
            set::add(&mut policies, &schema, file, text)?;
            hash.update((text.len() as u64).to_be_bytes());
            hash.update(text);
        }
        hash.update(roles_text);
        set::roles_are_used(&roles, files)?;
        set::named_roles_are_known(&roles, files)?;
        Ok(Self {
            circumstances: Circumstances::of(&policies),
            policies,
            schema,
            roles,
            digest: hash.finalize().into(),
            verdicts: Cache::new(VERDICTS),
        })
    }

    /// A role's member that none of these trust domains can bring.
    #[must_use]
    pub fn stranger(&self, trust_domains: &[&str]) -> Option<&str> {
        self.roles.stranger(trust_domains)
    }

    /// The roles of a caller, in order.
    #[must_use]
    pub fn roles_of(&self, caller: &Caller) -> Vec<String> {
        self.roles.of(&caller.id).map(str::to_owned).collect()
    }

    /// Whose word counts when a store is recovered.
    #[must_use]
    pub fn is_key_admin(&self, id: &SpiffeId) -> bool {
        self.roles
            .of(id)
            .any(|role| role == super::roles::KEY_ADMIN)
    }

    /// SHA-256 over all policies and roles in force.
    #[must_use]
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// A permit for one action on one key.
    ///
    /// # Errors
    /// The verdict that denied it.
    pub fn permit<A: KeyAction>(
        &self,
        asking: &Asking<'_>,
        key: &Arc<Key>,
    ) -> Result<Permit<A>, Arc<Verdict>> {
        let verdict = self.about_key(asking, A::ACTION, key);
        if !verdict.allowed {
            return Err(verdict);
        }
        Ok(Permit {
            key: Arc::clone(key),
            verdict,
            action: std::marker::PhantomData,
        })
    }

    /// A grant for one action in the caller's tenant. With a proposal: on a key as it
    /// would be.
    ///
    /// # Errors
    /// The verdict that denied it.
    pub fn grant<A: TenantAction>(
        &self,
        asking: &Asking<'_>,
        proposal: Option<&Proposal>,
    ) -> Result<Grant<A>, Arc<Verdict>> {
        let verdict = match proposal {
            Some(p) => {
                let seen = Seen {
                    uid: "new".into(),
                    tenant: asking.caller.tenant,
                    name: p.name.as_str(),
                    spec: p.spec,
                    labels: &p.labels,
                };
                Arc::new(self.judge(asking, A::ACTION, &Resource::Key(&seen)))
            }
            None => self.about_tenant(asking, A::ACTION),
        };
        if !verdict.allowed {
            return Err(verdict);
        }
        Ok(Grant {
            tenant: asking.caller.tenant,
            verdict,
            action: std::marker::PhantomData,
        })
    }

    /// A permit for one action under one profile.
    ///
    /// # Errors
    /// The verdict that denied it.
    pub fn profile_permit<A: ProfileAction>(
        &self,
        asking: &Asking<'_>,
        profile: &Arc<Profile>,
    ) -> Result<ProfilePermit<A>, Arc<Verdict>> {
        let verdict = self.about_profile(asking, A::ACTION, profile);
        if !verdict.allowed {
            return Err(verdict);
        }
        Ok(ProfilePermit {
            profile: Arc::clone(profile),
            verdict,
            action: std::marker::PhantomData,
        })
    }

    /// What the policies say about a profile. A name means the same for ever, so the
    /// verdict is remembered by it.
    #[must_use]
    pub fn about_profile(
        &self,
        asking: &Asking<'_>,
        action: Action,
        profile: &Profile,
    ) -> Arc<Verdict> {
        let (tenant, name) = (profile.record.tenant, profile.record.name.as_str());
        if tenant != asking.caller.tenant {
            return Arc::new(Verdict::wall());
        }
        let mut id = [0; 16];
        let digest = Sha256::digest(format!("profile\0{tenant}\0{name}"));
        for (to, from) in id.iter_mut().zip(digest) {
            *to = from;
        }
        self.cached(asking, action, (KeyId(id), 0), || {
            let seen = SeenProfile { tenant, name };
            self.judge(asking, action, &Resource::Profile(&seen))
        })
    }

    /// What the policies say about a key, for deciding what a refusal may reveal.
    #[must_use]
    pub fn about_key(&self, asking: &Asking<'_>, action: Action, key: &Key) -> Arc<Verdict> {
        // The wall, before Cedar is asked and apart from it.
        if key.tenant != asking.caller.tenant {
            return Arc::new(Verdict::wall());
        }
        let Revision(revision) = key.revision;
        self.cached(asking, action, (key.id, revision), || {
            self.judge(asking, action, &Resource::Key(&Seen::of(key)))
        })
    }

    /// The same about the caller's tenant.
    #[must_use]
    pub fn about_tenant(&self, asking: &Asking<'_>, action: Action) -> Arc<Verdict> {
        let tenant = (KeyId(asking.caller.tenant.0), 0);
        self.cached(asking, action, tenant, || {
            self.judge(asking, action, &Resource::Tenant)
        })
    }

    /// The same about a key that is not there yet, or not in this picture: never
    /// remembered, for its revision may come to belong to another picture.
    #[must_use]
    pub fn about_proposal(&self, asking: &Asking<'_>, action: Action, next: &Key) -> Verdict {
        self.judge(asking, action, &Resource::Key(&Seen::of(next)))
    }

    fn cached(
        &self,
        asking: &Asking<'_>,
        action: Action,
        resource: (KeyId, u64),
        ask: impl FnOnce() -> Verdict,
    ) -> Arc<Verdict> {
        let context = match (self.circumstances.looks(action), asking.context) {
            (Looks::AtTime, _) => return Arc::new(ask()),
            (Looks::AtPairs, Some(context)) => *context.digest(),
            (Looks::AtPairs, None) | (Looks::Nowhere, _) => [0; 32],
        };
        let question = Question {
            certificate: asking.caller.certificate,
            action,
            resource,
            context,
        };
        self.verdicts.get_with(question, || Arc::new(ask()))
    }

    pub(super) fn judge(
        &self,
        asking: &Asking<'_>,
        action: Action,
        resource: &Resource<'_>,
    ) -> Verdict {
        let undecided = |why: String| {
            tracing::error!(caller = %asking.caller.id, action = action.name(), why = %why, "policy undecided, so denied");
            Verdict {
                allowed: false,
                policies: vec!["undecided".into()],
                error: Some(why),
            }
        };
        let (request, entities) = match request(&self.schema, &self.roles, asking, action, resource)
        {
            Ok(parts) => parts,
            Err(why) => return undecided(why),
        };
        let response = Authorizer::new().is_authorized(&request, &self.policies, &entities);
        if let Some(e) = response.diagnostics().errors().next() {
            return undecided(e.to_string());
        }
        let mut policies: Vec<String> = response
            .diagnostics()
            .reason()
            .map(PolicyId::to_string)
            .collect();
        policies.sort();
        Verdict {
            allowed: response.decision() == Decision::Allow,
            policies,
            error: None,
        }
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Engine({})", hex::encode(self.digest))
    }
}

#[cfg(test)]
mod tests;
