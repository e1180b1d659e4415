//! Encrypt a batch: permit, primary version, one DEK, items in order.

use std::sync::Arc;

use super::{
    App, Call, Output, Strings,
    seal::{self, Item, Plain},
};
use crate::{
    envelope::{Context, Header},
    error::Result,
    key::KeyName,
    policy::act,
};

/// What to encrypt.
#[derive(Debug)]
pub struct Encrypt {
    /// Under which key.
    pub key: KeyName,
    /// Bound to every item.
    pub context: Context,
    /// In order.
    pub plaintexts: Strings,
    /// One for each plaintext, or none.
    pub aads: Option<Strings>,
    /// Each item carries the header in front.
    pub attached: bool,
}

/// A sealed batch.
#[derive(Debug)]
pub struct Sealed {
    /// Of the batch.
    pub header: Header,
    /// The version that protected it.
    pub version: u32,
    /// The items.
    pub output: Output,
}

/// Seals a batch under the primary version of a key.
///
/// # Errors
/// Permission, state and exhaustion of the key, HSM and store; items that are too large
/// fail by themselves.
pub async fn encrypt(app: &Arc<App>, call: &mut Call, request: Encrypt) -> Result<Sealed> {
    let Encrypt {
        key,
        context,
        plaintexts,
        aads,
        attached,
    } = &request;
    call.bind(context);
    let permit = call.open::<act::Encrypt>(app, key)?;
    let no_aad: &[u8] = &[];
    let mut items = (0..plaintexts.len()).map(|i| {
        let aad = aads.as_ref().map_or(no_aad, |a| a.get(i));
        Item::new(&app.limits, aad, plaintexts.get(i))
    });
    let plain = Plain {
        key: permit.key(),
        context,
        attached: *attached,
        items: &mut items,
        bytes: plaintexts.total_bytes(),
    };
    let sealed = seal::seal(app, call, plain).await?;
    let failed = sealed.output.failures.len();
    call.items(plaintexts.len() - failed, failed, plaintexts.total_bytes());
    sealed.output.failures.unless_all_alike(plaintexts.len())?;
    Ok(Sealed {
        header: sealed.header,
        version: sealed.version,
        output: sealed.output,
    })
}
