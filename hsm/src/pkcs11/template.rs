//! The only place with CKA names: what we ask for when a key is made, and what the
//! token says about it afterwards (PKCS#11 v3.0 §4.9, `docs/attacks.md`).

use cryptoki::{
    mechanism::{Mechanism, MechanismType},
    object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle},
    session::Session,
};
use cryptoki_sys as ck;

use super::{
    attack,
    classify::{self, Class},
    mechanism,
    raw::Raw,
};
use crate::{
    KeyEvidence, ObjectId, Result,
    error::{Error, Kind},
};

/// Attributes some tokens do not know. They make a key harder to misuse, but none of
/// them is what keeps it inside; what was left out stands in the evidence.
const OPTIONAL: [AttributeType; 3] = [
    AttributeType::AllowedMechanisms,
    AttributeType::Copyable,
    AttributeType::Derive,
];

/// Which optional attributes this token refuses.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fit {
    dropped: Vec<AttributeType>,
}

impl Fit {
    /// Names of what was left out.
    pub(crate) fn not_supported(&self) -> Vec<String> {
        self.dropped
            .iter()
            .map(|a| attribute_name(*a).to_owned())
            .collect()
    }

    /// Finds what this token accepts by making a throw-away token key, which is handed
    /// on to be attacked. A session key would not do: some tokens are stricter with
    /// what they have to store.
    pub(crate) fn find(session: &Session) -> Result<(Self, Victim)> {
        let mut candidates = vec![Vec::new()];
        candidates.extend(OPTIONAL.iter().map(|a| vec![*a]));
        candidates.push(OPTIONAL.to_vec());
        let mut last = None;
        for dropped in candidates {
            let fit = Self { dropped };
            let id = ObjectId::random()?;
            let template = kek(id, attack::LABEL, &fit);
            match session.generate_key(&Mechanism::AesKeyGen, &template) {
                Ok(handle) => return Ok((fit, Victim { id, handle })),
                Err(e) => {
                    let class = classify::return_value(&e).map(classify::classify);
                    if !matches!(class, Some(Class::Policy | Class::Ambiguous)) {
                        return Err(classify::from_cryptoki(&e));
                    }
                    last = Some(e);
                }
            }
        }
        let why = last.map_or_else(String::new, |e| classify::from_cryptoki(&e).to_string());
        Err(Error::new(
            Kind::Unsupported,
            format!("this token cannot make an AES-256 key that stays inside: {why}"),
        ))
    }
}

/// A throw-away key on the token.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Victim {
    pub(crate) id: ObjectId,
    pub(crate) handle: ObjectHandle,
}

/// Template of a key-encrypting key: generated here, sensitive, not extractable, not
/// copyable, not modifiable, AES-GCM encrypt and decrypt and nothing else.
///
/// No WRAP and no UNWRAP: a key that decrypts must never wrap (Clulow 2003).
/// MODIFIABLE comes last, because some tokens apply the template in order.
pub(crate) fn kek(id: ObjectId, label: &str, fit: &Fit) -> Vec<Attribute> {
    let mut template = vec![
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::AES),
        Attribute::ValueLen(32.into()),
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Encrypt(true),
        Attribute::Decrypt(true),
        Attribute::Sign(false),
        Attribute::Verify(false),
        Attribute::Wrap(false),
        Attribute::Unwrap(false),
        Attribute::Derive(false),
        Attribute::AllowedMechanisms(vec![MechanismType::AES_GCM]),
        Attribute::Id(id.0.to_vec()),
        Attribute::Label(label.as_bytes().to_vec()),
        Attribute::Copyable(false),
        Attribute::Modifiable(false),
    ];
    template.retain(|a| !fit.dropped.contains(&a.attribute_type()));
    template
}

/// How our keys are found: by CKA_ID, class and type; never by label.
pub(crate) fn by_id(id: ObjectId) -> [Attribute; 3] {
    [
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::AES),
        Attribute::Id(id.0.to_vec()),
    ]
}

/// Every secret key the session can see.
pub(crate) fn secret_keys() -> [Attribute; 1] {
    [Attribute::Class(ObjectClass::SECRET_KEY)]
}

/// Reads the attributes back. Each is asked for alone: tokens differ in what they do
/// when one of many is unknown to them.
pub(crate) fn evidence(
    raw: &Raw,
    session: &Session,
    handle: ObjectHandle,
    id: ObjectId,
    fit: &Fit,
) -> KeyEvidence {
    let value = |attribute| {
        let (rv, len, bytes) = raw.read_attribute(session, handle, attribute);
        let len = usize::try_from(len).ok().filter(|n| *n <= bytes.len())?;
        (rv == ck::CKR_OK).then(|| bytes.into_iter().take(len).collect::<Vec<u8>>())
    };
    let flag = |attribute| value(attribute).and_then(|v| v.first().map(|b| *b == ck::CK_TRUE));
    let numbers = |attribute| -> Vec<u64> {
        value(attribute)
            .map(|v| {
                v.chunks_exact(8)
                    .filter_map(|c| c.try_into().ok())
                    .map(u64::from_ne_bytes)
                    .collect()
            })
            .unwrap_or_default()
    };
    KeyEvidence {
        object: id,
        local: flag(ck::CKA_LOCAL),
        private: flag(ck::CKA_PRIVATE),
        sensitive: flag(ck::CKA_SENSITIVE),
        always_sensitive: flag(ck::CKA_ALWAYS_SENSITIVE),
        extractable: flag(ck::CKA_EXTRACTABLE),
        never_extractable: flag(ck::CKA_NEVER_EXTRACTABLE),
        modifiable: flag(ck::CKA_MODIFIABLE),
        copyable: flag(ck::CKA_COPYABLE),
        encrypt: flag(ck::CKA_ENCRYPT),
        decrypt: flag(ck::CKA_DECRYPT),
        sign: flag(ck::CKA_SIGN),
        verify: flag(ck::CKA_VERIFY),
        wrap: flag(ck::CKA_WRAP),
        unwrap: flag(ck::CKA_UNWRAP),
        derive: flag(ck::CKA_DERIVE),
        allowed_mechanisms: numbers(ck::CKA_ALLOWED_MECHANISMS)
            .into_iter()
            .map(mechanism::name)
            .collect(),
        generated_by: numbers(ck::CKA_KEY_GEN_MECHANISM)
            .first()
            .map_or_else(String::new, |m| mechanism::name(*m)),
        not_supported: fit.not_supported(),
    }
}

fn attribute_name(attribute: AttributeType) -> &'static str {
    match attribute {
        AttributeType::AllowedMechanisms => "CKA_ALLOWED_MECHANISMS",
        AttributeType::Copyable => "CKA_COPYABLE",
        AttributeType::Derive => "CKA_DERIVE",
        _ => "CKA_OTHER",
    }
}
