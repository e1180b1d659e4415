//! What the token itself says about a key and about the module: read back, never
//! remembered.

use crate::{KeySpec, ObjectId};

/// Attributes of one key as the token reports them now. `None`: the token does not
/// know the attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyEvidence {
    /// CKA_ID.
    pub object: ObjectId,
    /// What it was made as.
    pub spec: KeySpec,
    /// CKA_LOCAL: generated inside the token.
    pub local: Option<bool>,
    /// CKA_PRIVATE: invisible without login.
    pub private: Option<bool>,
    /// CKA_SENSITIVE.
    pub sensitive: Option<bool>,
    /// CKA_ALWAYS_SENSITIVE.
    pub always_sensitive: Option<bool>,
    /// CKA_EXTRACTABLE.
    pub extractable: Option<bool>,
    /// CKA_NEVER_EXTRACTABLE.
    pub never_extractable: Option<bool>,
    /// CKA_MODIFIABLE.
    pub modifiable: Option<bool>,
    /// CKA_COPYABLE.
    pub copyable: Option<bool>,
    /// CKA_ENCRYPT.
    pub encrypt: Option<bool>,
    /// CKA_DECRYPT.
    pub decrypt: Option<bool>,
    /// CKA_SIGN.
    pub sign: Option<bool>,
    /// CKA_VERIFY.
    pub verify: Option<bool>,
    /// CKA_WRAP.
    pub wrap: Option<bool>,
    /// CKA_UNWRAP.
    pub unwrap: Option<bool>,
    /// CKA_DERIVE.
    pub derive: Option<bool>,
    /// CKA_ALLOWED_MECHANISMS by name.
    pub allowed_mechanisms: Vec<String>,
    /// CKA_KEY_GEN_MECHANISM by name.
    pub generated_by: String,
    /// Optional attributes this token refused in the template.
    pub not_supported: Vec<String>,
}

impl KeyEvidence {
    /// What is not as it must be for a key that cannot leave; empty when all is well.
    #[must_use]
    pub fn findings(&self) -> Vec<&'static str> {
        // Destructured in full: a new attribute cannot be forgotten here.
        let Self {
            object: _,
            spec,
            local,
            private,
            sensitive,
            always_sensitive,
            extractable,
            never_extractable,
            modifiable,
            copyable,
            // For `rights`.
            encrypt: _,
            decrypt: _,
            sign: _,
            verify: _,
            wrap: _,
            unwrap: _,
            derive,
            allowed_mechanisms: _,
            generated_by,
            not_supported,
        } = self;
        let waived = |name: &str| not_supported.iter().any(|n| n == name);
        let must_be_true = [
            (*local, "CKA_LOCAL is not true"),
            (*private, "CKA_PRIVATE is not true"),
            (*sensitive, "CKA_SENSITIVE is not true"),
            (*always_sensitive, "CKA_ALWAYS_SENSITIVE is not true"),
            (*never_extractable, "CKA_NEVER_EXTRACTABLE is not true"),
        ];
        let must_be_false = [
            (*extractable, "CKA_EXTRACTABLE is not false"),
            (*modifiable, "CKA_MODIFIABLE is not false"),
        ];
        let must_not_be_true = [
            (*copyable, "CKA_COPYABLE", "CKA_COPYABLE is not false"),
            (*derive, "CKA_DERIVE", "CKA_DERIVE is not false"),
        ];
        let mut found: Vec<&'static str> = Vec::new();
        found.extend(
            must_be_true
                .iter()
                .filter(|(v, _)| *v != Some(true))
                .map(|(_, t)| *t),
        );
        found.extend(
            must_be_false
                .iter()
                .filter(|(v, _)| *v != Some(false))
                .map(|(_, t)| *t),
        );
        found.extend(
            must_not_be_true
                .iter()
                .filter(|(v, name, _)| *v == Some(true) || (v.is_none() && !waived(name)))
                .map(|(_, _, t)| *t),
        );
        found.extend(self.rights());
        if generated_by != Uses::of(*spec).generated_by {
            found.push("CKA_KEY_GEN_MECHANISM is not that of the key's spec");
        }
        found
    }

    /// What is wrong with what the key may do.
    fn rights(&self) -> impl Iterator<Item = &'static str> {
        let uses = Uses::of(self.spec);
        // A private key has no ENCRYPT, VERIFY and WRAP at all; a secret key must have
        // each of them and have it off.
        let pair = self.spec.is_pair();
        let of_all = |want: bool, value: Option<bool>| value == Some(want);
        let of_secrets = |want: bool, value: Option<bool>| match value {
            Some(value) => value == want,
            None => !want && pair,
        };
        [
            (
                of_secrets(uses.encrypt, self.encrypt),
                "CKA_ENCRYPT is not as it must be",
            ),
            (
                of_all(uses.decrypt, self.decrypt),
                "CKA_DECRYPT is not as it must be",
            ),
            (
                of_all(uses.sign, self.sign),
                "CKA_SIGN is not as it must be",
            ),
            (of_secrets(false, self.verify), "CKA_VERIFY is not false"),
            (of_secrets(false, self.wrap), "CKA_WRAP is not false"),
            (of_all(false, self.unwrap), "CKA_UNWRAP is not false"),
        ]
        .into_iter()
        .filter(|(well, _)| !well)
        .map(|(_, finding)| finding)
    }

    /// True when nothing was found that could let the key leave the token.
    #[must_use]
    pub fn cannot_leave(&self) -> bool {
        self.findings().is_empty()
    }
}

/// What a key of a spec may do, and where it must come from.
struct Uses {
    encrypt: bool,
    decrypt: bool,
    sign: bool,
    generated_by: &'static str,
}

impl Uses {
    fn of(spec: KeySpec) -> Self {
        let none = |generated_by| Self {
            encrypt: false,
            decrypt: false,
            sign: false,
            generated_by,
        };
        let sign = |generated_by| Self {
            sign: true,
            ..none(generated_by)
        };
        match spec {
            KeySpec::Aes256 => Self {
                encrypt: true,
                decrypt: true,
                ..none("CKM_AES_KEY_GEN")
            },
            KeySpec::Hmac(_) => sign("CKM_GENERIC_SECRET_KEY_GEN"),
            KeySpec::Ec(_) => sign("CKM_EC_KEY_PAIR_GEN"),
            KeySpec::Ed25519 => sign("CKM_EC_EDWARDS_KEY_PAIR_GEN"),
            KeySpec::RsaSign(_) => sign("CKM_RSA_PKCS_KEY_PAIR_GEN"),
            KeySpec::RsaDecrypt(_) => Self {
                decrypt: true,
                ..none("CKM_RSA_PKCS_KEY_PAIR_GEN")
            },
        }
    }
}

/// The module, the token and the attacks they withstood when this process started.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ModuleEvidence {
    /// Path of the PKCS#11 library.
    pub module_path: String,
    /// CK_INFO.libraryDescription.
    pub module_description: String,
    /// CK_INFO.libraryVersion.
    pub module_version: String,
    /// CK_TOKEN_INFO.label.
    pub token_label: String,
    /// CK_TOKEN_INFO.serialNumber.
    pub token_serial: String,
    /// CK_TOKEN_INFO.model.
    pub token_model: String,
    /// CK_TOKEN_INFO.manufacturerID.
    pub token_manufacturer: String,
    /// CK_TOKEN_INFO.firmwareVersion.
    pub token_firmware: String,
    /// Template attributes this token does not know, by name.
    pub not_supported: Vec<String>,
    /// One line for each attack made on throw-away keys.
    pub attacks: Vec<AttackResult>,
}

/// One attempt to get a throw-away key out of the token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttackResult {
    /// N1 to N14, see `docs/attacks.md`.
    pub id: &'static str,
    /// What was tried.
    pub attempt: &'static str,
    /// How the token answered.
    pub outcome: String,
    /// True when no key material came out.
    pub resisted: bool,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn good(object: ObjectId) -> KeyEvidence {
        KeyEvidence {
            object,
            spec: KeySpec::Aes256,
            local: Some(true),
            private: Some(true),
            sensitive: Some(true),
            always_sensitive: Some(true),
            extractable: Some(false),
            never_extractable: Some(true),
            modifiable: Some(false),
            copyable: Some(false),
            encrypt: Some(true),
            decrypt: Some(true),
            sign: Some(false),
            verify: Some(false),
            wrap: Some(false),
            unwrap: Some(false),
            derive: Some(false),
            allowed_mechanisms: vec!["CKM_AES_GCM".into()],
            generated_by: "CKM_AES_KEY_GEN".into(),
            not_supported: Vec::new(),
        }
    }

    #[test]
    fn every_wrong_attribute_is_found() {
        let base = good(ObjectId([1; 16]));
        assert!(base.cannot_leave());
        type Break = fn(&mut KeyEvidence);
        let breaks: [Break; 16] = [
            |e| e.local = Some(false),
            |e| e.private = None,
            |e| e.sensitive = Some(false),
            |e| e.always_sensitive = Some(false),
            |e| e.extractable = Some(true),
            |e| e.never_extractable = None,
            |e| e.modifiable = Some(true),
            |e| e.copyable = Some(true),
            |e| e.encrypt = Some(false),
            |e| e.decrypt = None,
            |e| e.sign = Some(true),
            |e| e.verify = Some(true),
            |e| e.wrap = Some(true),
            |e| e.unwrap = None,
            |e| e.derive = Some(true),
            |e| e.generated_by = "CKM_UNAVAILABLE".into(),
        ];
        for (i, spoil) in breaks.iter().enumerate() {
            let mut e = base.clone();
            spoil(&mut e);
            assert_eq!(e.findings().len(), 1, "break {i} must be found");
        }
    }

    #[test]
    fn a_private_key_may_do_its_one_thing_and_lacks_what_only_secrets_have() {
        let mut e = good(ObjectId([1; 16]));
        e.spec = KeySpec::Ed25519;
        e.generated_by = "CKM_EC_EDWARDS_KEY_PAIR_GEN".into();
        (e.encrypt, e.verify, e.wrap) = (None, None, None);
        (e.decrypt, e.sign) = (Some(false), Some(true));
        assert_eq!(e.findings(), Vec::<&str>::new());
        e.decrypt = Some(true);
        assert!(!e.cannot_leave());
        (e.decrypt, e.unwrap) = (Some(false), None);
        assert!(!e.cannot_leave());
    }

    #[test]
    fn an_unknown_optional_attribute_needs_a_waiver() {
        let mut e = good(ObjectId([1; 16]));
        e.copyable = None;
        assert!(!e.cannot_leave());
        e.not_supported.push("CKA_COPYABLE".into());
        assert!(e.cannot_leave());
    }
}
