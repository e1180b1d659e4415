//! Who may do what. Two gates stand in a row: the tenant wall in code, then Cedar
//! policies; whatever cannot be decided is a deny.
//!
//! The look-up is the authorisation: a [`Permit`] is the only thing that carries a key
//! into an operation, only this room can make one, and it is made for one action.

mod action;
mod circumstances;
mod engine;
mod request;
mod roles;
mod set;
mod trial;

use std::{marker::PhantomData, sync::Arc};

use keywright_pki::SpiffeId;

pub use action::{About, Action, KeyAction, ProfileAction, TenantAction, act};
pub use engine::Engine;
pub use roles::{Roles, RolesError};
pub use set::{BUILTIN, DEFAULT_ROLES, DEV, Finding, Misfit, PolicyError, SCHEMA};
pub use trial::{Outcome, run as run_tests};

use crate::{
    authority::Profile,
    envelope::Context,
    key::{Key, KeyName, KeySpec, Labels, TenantId},
};

/// Who is asking. Made from a verified client certificate, once per connection.
#[derive(Debug, Clone)]
pub struct Caller {
    /// SPIFFE id of the certificate.
    pub id: SpiffeId,
    /// Whose trust domain it is.
    pub tenant: TenantId,
    /// Name of that tenant.
    pub tenant_name: Arc<str>,
    /// SHA-256 of the certificate.
    pub certificate: [u8; 32],
    /// SHA-256 of its SubjectPublicKeyInfo.
    pub spki: [u8; 32],
}

/// Who asks, and under what circumstances.
#[derive(Debug, Clone, Copy)]
pub struct Asking<'a> {
    /// Who.
    pub caller: &'a Caller,
    /// When, in milliseconds since the epoch.
    pub now_ms: i64,
    /// The context that came along.
    pub context: Option<&'a Context>,
}

/// A key as it would be, for `create_key`.
#[derive(Debug, Clone)]
pub struct Proposal {
    /// Its name.
    pub name: KeyName,
    /// Algorithm and size.
    pub spec: KeySpec,
    /// Its labels.
    pub labels: Labels,
}

/// What the policies said, and which of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    allowed: bool,
    policies: Vec<String>,
    error: Option<String>,
}

impl Verdict {
    /// No by the wall between tenants, before any policy is asked.
    fn wall() -> Self {
        Self {
            allowed: false,
            policies: vec!["tenant wall".into()],
            error: None,
        }
    }

    /// Allowed?
    #[must_use]
    pub fn allowed(&self) -> bool {
        self.allowed
    }

    /// What could not be evaluated, and so denied.
    #[must_use]
    pub fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// Ids of the policies that decided.
    #[must_use]
    pub fn policies(&self) -> &[String] {
        &self.policies
    }
}

/// Proof that the caller may do `A` with the key inside. Only the policies give one:
///
/// ```compile_fail,E0451
/// use keywright_service::policy::{Permit, act::Decrypt};
/// fn forged(from: Permit<Decrypt>) -> Permit<Decrypt> {
///     Permit { key: from.shared_key(), ..from }
/// }
/// ```
///
/// and one for encrypting is none for decrypting:
///
/// ```compile_fail,E0308
/// use keywright_service::policy::{Permit, act::{Decrypt, Encrypt}};
/// fn other(permit: Permit<Encrypt>) -> Permit<Decrypt> {
///     permit
/// }
/// ```
#[derive(Debug, Clone)]
pub struct Permit<A> {
    key: Arc<Key>,
    verdict: Arc<Verdict>,
    action: PhantomData<A>,
}

impl<A> Permit<A> {
    /// The key this permit is for.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// The key, to be kept.
    #[must_use]
    pub fn shared_key(&self) -> Arc<Key> {
        Arc::clone(&self.key)
    }

    /// Why it was given.
    #[must_use]
    pub fn verdict(&self) -> &Verdict {
        &self.verdict
    }
}

/// Proof that the caller may do `A` under the profile inside.
#[derive(Debug, Clone)]
pub struct ProfilePermit<A> {
    profile: Arc<Profile>,
    verdict: Arc<Verdict>,
    action: PhantomData<A>,
}

impl<A> ProfilePermit<A> {
    /// The profile this permit is for.
    #[must_use]
    pub fn profile(&self) -> &Arc<Profile> {
        &self.profile
    }

    /// Why it was given.
    #[must_use]
    pub fn verdict(&self) -> &Verdict {
        &self.verdict
    }
}

/// Proof that the caller may do `A` in its tenant.
#[derive(Debug, Clone)]
pub struct Grant<A> {
    tenant: TenantId,
    verdict: Arc<Verdict>,
    action: PhantomData<A>,
}

impl<A> Grant<A> {
    /// The tenant this grant is for.
    #[must_use]
    pub fn tenant(&self) -> TenantId {
        self.tenant
    }

    /// Why it was given.
    #[must_use]
    pub fn verdict(&self) -> &Verdict {
        &self.verdict
    }
}
