//! The database is not believed: rows that say who may do what with which key carry a MAC
//! under a key that only the HSM can unwrap. Who can write to the database, and no more,
//! cannot change such a row without being noticed when it is read.
//!
//! Sealed are tenants, keys with their versions, issuers, profiles, and the epoch of the
//! store. Not sealed is what moves without a change of a key: counters and times of use,
//! jobs, certificates, what ACME keeps. A MAC does not notice an older row that was sealed
//! then; the epoch on the token does, when the whole store is older (`app/seals.rs`).

use aws_lc_rs::hmac;
use keywright_hsm::Dek;

use super::{Result, StoreError, Tenant};
use crate::{
    authority::{Issuer, ProfileRecord},
    key::Key,
};

/// Seals rows.
pub struct Sealer(hmac::Key);

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sealer(..)")
    }
}

impl Sealer {
    /// With the key that the HSM unwrapped.
    #[must_use]
    pub fn new(key: &Dek) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key.expose()))
    }

    /// With a key that everybody knows: what it gives tells rows apart, and seals nothing.
    pub(super) fn open() -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, b"keywright rows"))
    }

    /// HMAC-SHA256 over kind and fields, each with its length before it.
    pub(super) fn seal(&self, row: &dyn Sealed) -> Vec<u8> {
        let mut fields = Fields(hmac::Context::with_key(&self.0));
        row.fields(&mut fields);
        fields.0.sign().as_ref().to_vec()
    }

    /// [`StoreError::Edited`] when somebody else wrote the row.
    pub(super) fn check(&self, row: &dyn Sealed, seal: &[u8]) -> Result<()> {
        if aws_lc_rs::constant_time::verify_slices_are_equal(&self.seal(row), seal).is_ok() {
            return Ok(());
        }
        Err(StoreError::Edited(row.called()))
    }
}

/// What goes into a seal.
pub(super) struct Fields(hmac::Context);

impl Fields {
    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.update(&(bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
        self
    }

    fn text(&mut self, text: &str) -> &mut Self {
        self.bytes(text.as_bytes())
    }

    fn number(&mut self, number: impl Into<i128>) -> &mut Self {
        self.bytes(&number.into().to_be_bytes())
    }

    fn list<T>(&mut self, list: impl ExactSizeIterator<Item = T>, one: impl Fn(&mut Self, T)) {
        self.number(list.len() as u64);
        list.for_each(|item| one(self, item));
    }
}

/// A row, or a row with those that belong to it.
pub(super) trait Sealed {
    /// For people.
    fn called(&self) -> String;
    /// All that nobody else may change, the kind of row first.
    fn fields(&self, into: &mut Fields);
}

impl Sealed for Tenant {
    fn called(&self) -> String {
        format!("tenant {}", self.name)
    }

    fn fields(&self, into: &mut Fields) {
        into.text("tenant").bytes(&self.id.0).text(&self.name);
    }
}

impl Sealed for Key {
    fn called(&self) -> String {
        format!("key {}", self.name)
    }

    fn fields(&self, into: &mut Fields) {
        into.text("key")
            .bytes(&self.id.0)
            .bytes(&self.tenant.0)
            .text(self.name.as_str())
            .text(self.spec.name())
            .text(self.spec.key_use().name())
            .text(&self.rules.to_string())
            .number(self.primary.get())
            .number(self.minimum.get())
            .number(self.created_ms)
            .number(self.promoted_ms)
            .number(self.revision.0);
        into.list(self.labels.pairs().iter(), |into, (name, value)| {
            into.text(name).text(value);
        });
        let versions: Vec<_> = self.versions().collect();
        into.list(versions.into_iter(), |into, version| {
            into.number(version.number.get())
                .text(version.state.name())
                .bytes(&version.on_token.object.0)
                .bytes(&version.on_token.proof.to_bytes())
                .text(&version.token_serial)
                .number(version.created_ms)
                .number(version.destroy_at_ms.unwrap_or(0))
                .number(version.brown_out_until_ms.unwrap_or(0));
        });
    }
}

impl Sealed for Issuer {
    fn called(&self) -> String {
        format!("issuer {}", self.name)
    }

    fn fields(&self, into: &mut Fields) {
        into.text("issuer")
            .bytes(&self.id.0)
            .bytes(&self.tenant.0)
            .text(self.name.as_str())
            .text(self.stage.name())
            .text(&self.text)
            .bytes(&self.key.object.0)
            .text(self.key.spec.name())
            .bytes(&self.key.proof.to_bytes())
            .text(&self.token_serial)
            .bytes(self.serial.as_bytes())
            .bytes(&self.digest)
            .text(&self.created_by)
            .number(self.created_ms)
            .bytes(&self.certificate)
            .number(u8::from(self.usage.issue))
            .number(u8::from(self.usage.crl))
            .text(&self.alarm)
            .number(self.revision.0);
        into.list(self.approvals.iter(), |into, who| {
            into.text(who);
        });
        into.list(self.chain.iter(), |into, der| {
            into.bytes(der);
        });
    }
}

impl Sealed for ProfileRecord {
    fn called(&self) -> String {
        format!("version {} of profile {}", self.version, self.name)
    }

    fn fields(&self, into: &mut Fields) {
        into.text("profile")
            .bytes(&self.tenant.0)
            .text(self.name.as_str())
            .number(self.version)
            .text(&self.text)
            .text(&self.created_by)
            .number(self.created_ms)
            .number(self.retired_ms.unwrap_or(0));
    }
}

/// How many changes there were, and which of them was the last to issuers and profiles.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Epochs {
    pub(super) epoch: u64,
    pub(super) authorities: u64,
}

impl Sealed for Epochs {
    fn called(&self) -> String {
        "the epoch of the store".into()
    }

    fn fields(&self, into: &mut Fields) {
        into.text("epoch")
            .number(self.epoch)
            .number(self.authorities);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        key::{KeyState, KeyVersion, Revision, VersionNumber},
        store::conformance::{key, tenant, version},
    };

    fn sealer(byte: u8) -> Sealer {
        Sealer::new(&Dek::take(&mut [byte; 32]))
    }

    #[test]
    fn what_was_sealed_opens_and_nothing_else_does() {
        let row = key(1, "a/b");
        let seal = sealer(1).seal(&row);
        sealer(1).check(&row, &seal).unwrap();
        let e = sealer(2).check(&row, &seal).unwrap_err();
        assert!(e.to_string().contains("key a/b"), "{e}");
        assert!(sealer(1).check(&row, &[]).is_err());
        assert!(sealer(1).check(&tenant(), &seal).is_err());
        assert_eq!(format!("{:?}", sealer(1)), "Sealer(..)");
    }

    fn with(change: fn(&mut KeyVersion)) -> Key {
        let Key {
            id,
            tenant,
            name,
            spec,
            labels,
            ..
        } = key(1, "a/b");
        let mut first = version(1, 1);
        change(&mut first);
        Key::new(id, tenant, name, spec, labels, first)
    }

    #[test]
    fn every_field_of_a_key_is_in_its_seal() {
        let of_key: [fn(&mut Key); 6] = [
            |key| key.revision = Revision(2),
            |key| key.minimum = VersionNumber::new(2).unwrap(),
            |key| key.promoted_ms += 1,
            |key| key.created_ms += 1,
            |key| key.rules.rotate_by_hand = true,
            |key| key.tenant.0[0] ^= 1,
        ];
        let of_version: [fn(&mut KeyVersion); 5] = [
            |version| version.state = KeyState::Suspended,
            |version| version.destroy_at_ms = Some(1),
            |version| version.brown_out_until_ms = Some(1),
            |version| version.on_token.object.0[0] ^= 1,
            |version| version.token_serial.push('x'),
        ];
        let seal = sealer(1).seal(&key(1, "a/b"));
        let changed = of_key.iter().map(|change| {
            let mut row = key(1, "a/b");
            change(&mut row);
            row
        });
        let changed = changed.chain(of_version.iter().map(|change| with(*change)));
        for (number, row) in changed.enumerate() {
            assert!(sealer(1).check(&row, &seal).is_err(), "change {number}");
        }
        // What a version does is no change of a key.
        let row = key(1, "a/b");
        let version = row.versions().next().unwrap();
        version.wraps.grant(version.wraps.reserved() + 1);
        sealer(1).check(&row, &seal).unwrap();
    }
}
