//! Decrypt a batch.

use std::sync::Arc;

use super::{
    App, Call, Output,
    open::{Envelopes, open},
};
use crate::{error::Result, policy::act};

/// What to decrypt.
pub type Decrypt = Envelopes;

/// Opens a batch; envelopes name their keys themselves.
///
/// # Errors
/// When every item failed alike; else failures stand in the output.
pub async fn decrypt(app: &Arc<App>, call: &mut Call, request: Decrypt) -> Result<Output> {
    // The permits are opened inside, one for each key the envelopes name.
    let output = open::<act::Decrypt>(app, call, &request).await;
    let (items, failed) = (request.items.len(), output.failures.len());
    call.items(items - failed, failed, request.items.total_bytes());
    output.failures.unless_all_alike(items)?;
    Ok(output)
}
