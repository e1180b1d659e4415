//! Open and seal again: a new DEK, a new payload, on request another key or context.

use std::sync::Arc;

use super::{
    App, Call, Sealed,
    open::{Envelopes, open},
    seal::{self, Item, Plain},
};
use crate::{envelope::Context, error::Result, key::KeyName, policy::act};

/// What to re-encrypt.
#[derive(Debug)]
pub struct Reencrypt {
    /// What to open.
    pub from: Envelopes,
    /// Under which key to seal.
    pub to: KeyName,
    /// The new context; none: the old one.
    pub new_context: Option<Context>,
}

/// Re-encrypts a batch into one new envelope. AADs stay as they are.
///
/// # Errors
/// As for encrypt; items that cannot be opened fail by themselves.
pub async fn reencrypt(app: &Arc<App>, call: &mut Call, request: Reencrypt) -> Result<Sealed> {
    let from = &request.from;
    let new_context = request.new_context.as_ref().unwrap_or(&from.context);
    call.bind(new_context);
    let permit = call.open::<act::ReencryptTo>(app, &request.to)?;
    let (opened, _) = open::<act::ReencryptFrom>(app, call, from).await;
    let count = from.items.len();
    let failed = opened.failures.len();
    call.items(count - failed, failed, from.items.total_bytes());
    opened.failures.unless_all_alike(count)?;

    let mut failures = opened.failures.iter().peekable();
    let no_aad: &[u8] = &[];
    let mut items = (0..count).map(|i| match failures.next_if(|(index, _)| *index == i) {
        Some((_, e)) => Err(e.clone()),
        None => {
            let aad = from.aads.as_ref().map_or(no_aad, |a| a.get(i));
            Item::new(&app.limits, aad, opened.get(i))
        }
    });
    let plain = Plain {
        key: permit.key(),
        context: new_context,
        attached: from.header.is_none(),
        items: &mut items,
        bytes: opened.data.len(),
    };
    let sealed = seal::seal(app, call, plain).await?;
    Ok(Sealed {
        header: sealed.header,
        version: sealed.version,
        output: sealed.output,
    })
}
