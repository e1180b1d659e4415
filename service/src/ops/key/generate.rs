//! One version of a key in the HSM: intent, generate. The caller stores the record.

use std::{sync::Arc, time::Instant};

use keywright_hsm::{Kind, ObjectId};
use tracing::warn;

use crate::{
    error::Result,
    key::{KeyId, KeyName, KeySpec, KeyState, KeyVersion, TenantId, VersionNumber, WrapCounter},
    ops::App,
    store::Intent,
};

pub(in crate::ops) struct Wanted<'a> {
    pub(in crate::ops) tenant: TenantId,
    pub(in crate::ops) tenant_name: &'a str,
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
        tenant_name,
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
        wraps: Arc::new(WrapCounter::new(0)),
        used: Arc::default(),
    })
}

/// The token refused before it made anything, or took it back at once. After anything
/// else the intent stays, and with it the report.
fn made_nothing(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Busy | Kind::Unsupported | Kind::Unsafe | Kind::Blocked
    )
}
