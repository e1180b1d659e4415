//! Token and store compared at start. What fits nothing is reported, never deleted: a
//! wrong slot, a late HSM or a restored database would otherwise cost keys.

use std::collections::HashSet;

use keywright_hsm::{KeyRef, ObjectId, TokenObject};
use tracing::{error, warn};

use crate::{
    key::KeyState,
    metrics,
    store::{Authorities, Contents},
};

/// What does not fit.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Census {
    /// Objects on the token that belong to no key.
    pub(super) orphans: usize,
    /// Versions whose object the token does not show.
    pub(super) missing: usize,
}

pub(super) fn take(
    contents: &Contents,
    pki: &Authorities,
    own: &[KeyRef],
    objects: &[TokenObject],
) -> Census {
    let on_token: HashSet<ObjectId> = objects.iter().filter_map(|o| o.id).collect();
    let versions = contents
        .keys
        .iter()
        .flat_map(|key| key.versions().map(move |v| (&key.name, v)));
    let mut known: HashSet<ObjectId> = own.iter().map(|key| key.object).collect();
    let mut missing = 0;
    for responder in &pki.responders {
        let object = responder.key.object;
        known.insert(object);
        if !on_token.contains(&object) {
            missing += 1;
            error!(issuer = %responder.issuer, %object, "the token does not show the key that signs OCSP answers of this issuer");
        }
    }
    for issuer in &pki.issuers {
        let object = issuer.key.object;
        known.insert(object);
        if !on_token.contains(&object) {
            missing += 1;
            error!(issuer = %issuer.name, %object, "the token does not show this issuer's key; nothing is signed with it until it does");
        }
    }
    for (name, version) in versions {
        let object = version.on_token.object;
        known.insert(object);
        let shown = on_token.contains(&object);
        if version.state == KeyState::Destroyed {
            if shown {
                error!(key = %name, version = version.number.get(), %object, "the token shows a key version that was destroyed: it was restored from a backup, or is another token. Destroy the object with the vendor's tool");
            }
        } else if !shown {
            missing += 1;
            error!(key = %name, version = version.number.get(), %object, "the token does not show this key version; what it protected cannot be opened until it does");
        }
    }
    let mut orphans = 0;
    for object in objects {
        if object.id.is_some_and(|id| known.contains(&id)) {
            continue;
        }
        orphans += 1;
        let intent = contents
            .intents
            .iter()
            .find(|i| Some(i.object) == object.id);
        let id = object
            .id
            .map_or_else(|| "none".to_owned(), |id| id.to_string());
        match intent {
            Some(intent) => {
                warn!(object = id, key = %intent.name, version = intent.number.get(), "a key version was generated and never recorded (a crash in between); nobody was told of it and nothing is protected by it. It may be destroyed with the vendor's tool")
            }
            None => warn!(
                object = id,
                label = object.label,
                "the token holds an object that belongs to no key here; left alone"
            ),
        }
    }
    metrics::token_census(orphans, missing);
    Census { orphans, missing }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::tests::version;

    #[test]
    fn strangers_and_gaps_are_counted() {
        let key = crate::key::tests::key("a").rotated(version(2, KeyState::Active));
        let canary = version(9, KeyState::Active).on_token;
        let contents = Contents {
            keys: vec![key],
            ..Contents::default()
        };
        let object = |id: u8| TokenObject {
            id: Some(ObjectId([id; 16])),
            label: String::new(),
        };
        let half_written = TokenObject {
            id: None,
            label: String::new(),
        };
        let found = take(
            &contents,
            &Authorities::default(),
            &[canary],
            &[object(1), object(9), object(77), half_written],
        );
        assert_eq!(
            found,
            Census {
                orphans: 2,
                missing: 1
            }
        );
    }
}
