//! Read about the keys of a tenant, page by page.

use std::sync::Arc;

use crate::{
    error::Result,
    key::{Key, KeyName},
    ops::{App, Call},
    policy::act,
};

/// Which page.
#[derive(Debug)]
pub struct ListKeys {
    /// Only names that begin with this.
    pub prefix: String,
    /// Last name of the page before.
    pub after: Option<KeyName>,
    /// Most keys of a page.
    pub limit: usize,
}

/// A page of keys, by name.
#[derive(Debug)]
pub struct Page {
    /// In order.
    pub keys: Vec<Arc<Key>>,
    /// There are more.
    pub more: bool,
}

/// The keys the caller may see.
///
/// # Errors
/// Permission.
pub fn list_keys(app: &App, call: &mut Call, request: &ListKeys) -> Result<Page> {
    call.grant::<act::ListKeys>(app, None)?;
    let (keys, more) = app.keyring.visible(
        &call.asks().0,
        &request.prefix,
        request.after.as_ref(),
        request.limit,
    );
    call.entry.items_ok = keys.len();
    Ok(Page { keys, more })
}
