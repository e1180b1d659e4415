//! One version of a key in the HSM: intent, generate. The caller stores the record.

use std::{sync::Arc, time::Instant};

use keywright_hsm::{Kind, ObjectId};
use tracing::warn;

use crate::{
    error::Result,
    key::{
        Key, KeyId, KeyName, KeySpec, KeyState, KeyVersion, TenantId, VersionNumber, WrapCounter,
    },
    ops::App,
    store::Intent,
};

pub(in crate::ops) struct Wanted<'a> {
    pub(in crate::ops) tenant: TenantId,
    pub(in crate::ops) key: KeyId,
    pub(in crate::ops) name: &'a KeyName,
    pub(in crate::ops) spec: KeySpec,
    pub(in crate::ops) number: VersionNumber,
}

/// Generates a version that nobody knows of yet.
pub(in crate::ops) async fn generate(
    app: &App,
    deadline: Instant,
    wanted: &Wanted<'_>,
) -> Result<KeyVersion> {
    let Wanted {
        tenant,
        key,
        name,
        spec,
        number,
    } = *wanted;
    let created_ms = app.clock.now_ms();
    let object = ObjectId::random()?;
    let intent = Intent {
        object,
        tenant,
        key,
        name: name.clone(),
        number,
        created_ms,
    };
    app.store.begin(&intent).await?;
    let tenant_name = app.tenants.get(&tenant).map_or("", String::as_str);
    // For people who look at the token; nothing is ever found by it.
    let label = format!("keywright/{tenant_name}/{name}/v{number}");
    let new = match app.hsm.generate(object, spec, label, deadline).await {
        Ok(new) => new,
        Err(e) => {
            if made_nothing(e.kind()) {
                app.store.abandon(object).await?;
            } else {
                warn!(key = %name, %object, error = %e, "it is not known whether the token has generated; the object would be reported at the next start");
            }
            return Err(e.into());
        }
    };
    Ok(KeyVersion {
        number,
        state: KeyState::Active,
        on_token: new.key,
        token_serial: app.hsm.evidence().token_serial,
        created_ms,
        destroy_at_ms: None,
        brown_out_until_ms: None,
        wraps: Arc::new(WrapCounter::new(0)),
        used: Arc::default(),
        lease: Arc::default(),
    })
}

/// The newest version of a picture that the store has refused: it was generated just now,
/// nobody has used it, and nobody ever will. What cannot be taken back is reported at the
/// next start.
pub(super) async fn take_back(app: &App, deadline: Instant, refused: &Key) {
    let Some(version) = refused.versions().last() else {
        return;
    };
    let object = version.on_token.object;
    match app.hsm.destroy(object, refused.spec, deadline).await {
        Ok(()) => {
            if let Err(e) = app.store.abandon(object).await {
                warn!(%object, error = %e, "an intent stays whose object is gone");
            }
        }
        Err(e) => {
            warn!(%object, error = %e, "an object stays on the token that belongs to nothing")
        }
    }
}

/// The token refused before it made anything, or took it back at once. After anything
/// else the intent stays, and with it the report.
fn made_nothing(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Busy | Kind::Unsupported | Kind::Unsafe | Kind::Blocked
    )
}
