//! Decrypt a batch.

use std::sync::Arc;

use super::{
    App, Call, Output,
    open::{Envelopes, open},
};
use crate::{error::Result, policy::act};

/// What to decrypt.
pub type Decrypt = Envelopes;

/// What was opened.
#[derive(Debug)]
pub struct Decrypted {
    /// The plaintexts.
    pub output: Output,
    /// Positions of what stands under an old version.
    pub rewrap_due: Vec<usize>,
}

/// Opens a batch; envelopes name their keys themselves.
///
/// # Errors
/// When every item failed alike; else failures stand in the output.
pub async fn decrypt(app: &Arc<App>, call: &mut Call, request: Decrypt) -> Result<Decrypted> {
    // The permits are opened inside, one for each key the envelopes name.
    let (output, rewrap_due) = open::<act::Decrypt>(app, call, &request).await;
    let (items, failed) = (request.items.len(), output.failures.len());
    call.items(items - failed, failed, request.items.total_bytes());
    output.failures.unless_all_alike(items)?;
    Ok(Decrypted { output, rewrap_due })
}
