//! Create a key.

use std::sync::Arc;

use super::generate::{Wanted, generate, take_back};
use crate::{
    error::{Error, Reason, Result},
    key::{Key, KeyId, VersionNumber},
    ops::{App, Call, nodes::heard},
    policy::{Proposal, act},
    store::StoreError,
};

/// Creates a key with its first version.
///
/// # Errors
/// [`Reason::KeyExists`], permission, HSM, store.
pub async fn create_key(app: &Arc<App>, call: &mut Call, proposal: Proposal) -> Result<Arc<Key>> {
    let grant = call.grant::<act::CreateKey>(app, Some(&proposal))?;
    let tenant = grant.tenant();
    let change = app.keyring.begin_change(tenant, &proposal.name)?;
    if app.keyring.has(tenant, &proposal.name) {
        return Err(Error::field(
            Reason::KeyExists,
            "name",
            format!("a key named {} exists already", proposal.name),
        ));
    }
    let mut id = KeyId([0; 16]);
    app.entropy.fill(&mut id.0)?;
    let first = generate(
        app,
        call.deadline,
        &Wanted {
            tenant,
            key: id,
            name: &proposal.name,
            spec: proposal.spec,
            number: VersionNumber::FIRST,
        },
    )
    .await?;
    let Proposal { name, spec, labels } = proposal;
    let key = Key::new(id, tenant, name, spec, labels, first);
    if let Err(e) = app.store.create_key(&key).await {
        if matches!(e, StoreError::Exists) {
            // Another node was quicker.
            take_back(app, call.deadline, &key).await;
        }
        return Err(e.into());
    }
    let key = change.publish(key);
    drop(change);
    heard(app, &key).await;
    call.note(&key, Some(key.primary.get()));
    Ok(key)
}
