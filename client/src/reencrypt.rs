//! Where re-encryption goes to.

use std::collections::BTreeMap;

use crate::proto;

/// From one context to a key and, when it changes, another context.
#[derive(Debug, Clone, Copy)]
pub struct Move<'a> {
    /// The key to encrypt under.
    pub key: &'a str,
    /// What the old envelopes were made with.
    pub context: &'a BTreeMap<String, String>,
    /// What the new ones are made with; none: the same.
    pub new_context: Option<&'a BTreeMap<String, String>>,
}

impl Move<'_> {
    pub(crate) fn request(&self) -> proto::ReencryptRequest {
        proto::ReencryptRequest {
            key: self.key.to_owned(),
            context: self.context.clone(),
            new_context: self.new_context.map(|pairs| proto::NewContext {
                pairs: pairs.clone(),
            }),
            ..Default::default()
        }
    }
}
