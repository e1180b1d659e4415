//! An external account binding key (RFC 8555 §7.3.4): how an operator lets a client in.
//! It carries what the client may become: an identity, and the profiles it may use.

use keywright_hsm::WrappedDek;
use keywright_pki::SpiffeId;
use sha2::{Digest, Sha256};

use super::AcmeId;
use crate::{authority::AuthorityName, key::TenantId};

/// A key on record. The MAC key itself is wrapped by the appliance's own key in the HSM.
#[derive(Debug, Clone)]
pub struct AcmeKey {
    /// Its name.
    pub kid: AcmeId,
    /// Whose.
    pub tenant: TenantId,
    /// Policies are asked, and placeholders in profiles expanded, for this identity.
    pub identity: SpiffeId,
    /// What accounts bound to it may ask for; the first is the default.
    pub profiles: Vec<AuthorityName>,
    /// The MAC key.
    pub wrapped: WrappedDek,
    /// Who made it.
    pub created_by: String,
    /// Milliseconds since the epoch.
    pub created_ms: i64,
}

impl AcmeKey {
    /// What the wrapping is bound to: use, tenant and name, so that no row opens with the
    /// MAC key of another.
    #[must_use]
    pub fn aad(tenant: TenantId, kid: &AcmeId) -> [u8; 56] {
        let mut hash = Sha256::new();
        hash.update(b"keywright acme eab v1");
        hash.update(tenant.0);
        hash.update(kid.as_str());
        let mut aad = [0; 56];
        let parts = b"keywright acme eab key\0\0"
            .iter()
            .copied()
            .chain(hash.finalize());
        aad.iter_mut().zip(parts).for_each(|(to, from)| *to = from);
        aad
    }
}
