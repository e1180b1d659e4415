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
    Curve, DataObject, KeyEvidence, KeySpec, ObjectId, PublicKey, Result,
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
    fn apply(&self, mut template: Vec<Attribute>) -> Vec<Attribute> {
        template.retain(|a| !self.dropped.contains(&a.attribute_type()));
        template
    }

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
            let template = secret(KeySpec::Aes256, id, attack::LABEL, &fit);
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

/// Template of a secret key: generated here, sensitive, not extractable, not copyable,
/// not modifiable, with the mechanism of its one use.
///
/// No WRAP and no UNWRAP: a key that decrypts must never wrap (Clulow 2003).
/// MODIFIABLE comes last, because some tokens apply the template in order.
pub(crate) fn secret(spec: KeySpec, id: ObjectId, label: &str, fit: &Fit) -> Vec<Attribute> {
    let (len, wraps) = match spec {
        KeySpec::Hmac(hash) => (hash.bytes() as u64, false),
        _ => (32, true),
    };
    let mut template = vec![
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(key_type(spec)),
        Attribute::ValueLen(len.into()),
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Encrypt(wraps),
        Attribute::Decrypt(wraps),
        Attribute::Sign(!wraps),
        Attribute::Verify(false),
        Attribute::Wrap(false),
        Attribute::Unwrap(false),
        Attribute::Derive(false),
    ];
    template.extend(tail(spec, id, label));
    fit.apply(template)
}

/// Templates of a pair, public half first. The private half is made like a secret key.
pub(crate) fn pair(
    spec: KeySpec,
    id: ObjectId,
    label: &str,
    fit: &Fit,
) -> (Vec<Attribute>, Vec<Attribute>) {
    let decrypts = matches!(spec, KeySpec::RsaDecrypt(_));
    let mut public = vec![
        Attribute::Token(true),
        Attribute::Private(false),
        Attribute::Verify(!decrypts),
        Attribute::Encrypt(decrypts),
        Attribute::Wrap(false),
    ];
    match spec {
        KeySpec::Ec(_) | KeySpec::Ed25519 => public.extend(curve(spec)),
        KeySpec::RsaSign(bits) | KeySpec::RsaDecrypt(bits) => {
            public.push(Attribute::ModulusBits((bits.bits() as u64).into()));
            public.push(Attribute::PublicExponent(vec![1, 0, 1]));
        }
        KeySpec::Aes256 | KeySpec::Hmac(_) => {}
    }
    public.push(Attribute::Id(id.0.to_vec()));
    public.push(Attribute::Label(label.as_bytes().to_vec()));
    public.push(Attribute::Modifiable(false));
    let mut private = vec![
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Sign(!decrypts),
        Attribute::Decrypt(decrypts),
        Attribute::Unwrap(false),
        Attribute::Derive(false),
    ];
    private.extend(tail(spec, id, label));
    (public, fit.apply(private))
}

/// What every key that must not leave ends with.
fn tail(spec: KeySpec, id: ObjectId, label: &str) -> [Attribute; 5] {
    let allowed = mechanism::uses(spec)
        .iter()
        .filter_map(|m| MechanismType::try_from(*m).ok())
        .collect();
    [
        Attribute::AllowedMechanisms(allowed),
        Attribute::Id(id.0.to_vec()),
        Attribute::Label(label.as_bytes().to_vec()),
        Attribute::Copyable(false),
        Attribute::Modifiable(false),
    ]
}

/// `CKA_EC_PARAMS` of a key on a curve.
pub(super) fn curve(spec: KeySpec) -> Option<Attribute> {
    let oid = match spec {
        KeySpec::Ec(Curve::P256) => P256,
        KeySpec::Ec(Curve::P384) => P384,
        KeySpec::Ed25519 => ED25519,
        _ => return None,
    };
    Some(Attribute::EcParams(oid.to_vec()))
}

/// `CKA_EC_PARAMS`: the object identifiers of RFC 5480 §2.1.1.1 and RFC 8410 §3.
const P256: &[u8] = b"\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07";
const P384: &[u8] = b"\x06\x05\x2b\x81\x04\x00\x22";
const ED25519: &[u8] = b"\x06\x03\x2b\x65\x70";

pub(super) fn key_type(spec: KeySpec) -> KeyType {
    match spec {
        KeySpec::Aes256 => KeyType::AES,
        KeySpec::Hmac(_) => KeyType::GENERIC_SECRET,
        KeySpec::Ec(_) => KeyType::EC,
        KeySpec::Ed25519 => KeyType::EC_EDWARDS,
        KeySpec::RsaSign(_) | KeySpec::RsaDecrypt(_) => KeyType::RSA,
    }
}

/// How our keys are found: by CKA_ID, class and type; never by label.
pub(crate) fn by_id(spec: KeySpec, id: ObjectId) -> [Attribute; 3] {
    let class = if spec.is_pair() {
        ObjectClass::PRIVATE_KEY
    } else {
        ObjectClass::SECRET_KEY
    };
    [
        Attribute::Class(class),
        Attribute::KeyType(key_type(spec)),
        Attribute::Id(id.0.to_vec()),
    ]
}

/// The public half beside a private key.
pub(crate) fn public_by_id(id: ObjectId) -> [Attribute; 2] {
    [
        Attribute::Class(ObjectClass::PUBLIC_KEY),
        Attribute::Id(id.0.to_vec()),
    ]
}

/// Every key the session can see that could be ours.
pub(crate) fn inner_keys() -> [[Attribute; 1]; 2] {
    [
        [Attribute::Class(ObjectClass::SECRET_KEY)],
        [Attribute::Class(ObjectClass::PRIVATE_KEY)],
    ]
}

/// `CKA_APPLICATION` of the data objects that are ours.
pub(crate) const APPLICATION: &str = "keywright";

/// How our data is found, of one label or all. What is not private is not ours: it can
/// be made without the PIN.
pub(crate) fn our_data(label: Option<&str>) -> Vec<Attribute> {
    let mut template = vec![
        Attribute::Class(ObjectClass::DATA),
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Application(APPLICATION.as_bytes().to_vec()),
    ];
    template.extend(label.map(|l| Attribute::Label(l.as_bytes().to_vec())));
    template
}

/// Template of a data object: replaced as a whole, never changed.
pub(crate) fn data(object: &DataObject) -> Vec<Attribute> {
    let mut template = our_data(Some(&object.label));
    template.push(Attribute::Modifiable(false));
    template.push(Attribute::Value(object.value.clone()));
    template
}

/// The public key of a public object. Tokens differ in how they write a point: bare, or
/// as an OCTET STRING in DER (what PKCS#11 says).
pub(crate) fn public_key(
    session: &Session,
    handle: ObjectHandle,
    spec: KeySpec,
) -> Result<PublicKey> {
    let wanted = [
        AttributeType::EcPoint,
        AttributeType::Modulus,
        AttributeType::PublicExponent,
    ];
    let (mut point, mut n, mut e) = (Vec::new(), Vec::new(), Vec::new());
    let read = session
        .get_attributes(handle, &wanted)
        .map_err(|e| classify::from_cryptoki(&e))?;
    for attribute in read {
        match attribute {
            Attribute::EcPoint(bytes) => point = bytes,
            Attribute::Modulus(bytes) => n = bytes,
            Attribute::PublicExponent(bytes) => e = bytes,
            _ => {}
        }
    }
    match spec {
        KeySpec::RsaSign(_) | KeySpec::RsaDecrypt(_) => PublicKey::from_modulus(spec, &n, &e),
        _ => PublicKey::from_point(spec, bare_point(spec, &point)),
    }
}

fn bare_point(spec: KeySpec, bytes: &[u8]) -> &[u8] {
    let len = match spec {
        KeySpec::Ec(curve) => 1 + 2 * curve.field_len(),
        _ => 32,
    };
    match bytes {
        // OCTET STRING, short form of the length: 97 bytes are the longest we have.
        [4, n, point @ ..] if usize::from(*n) == len && point.len() == len => point,
        bare => bare,
    }
}

/// Reads the attributes back. Each is asked for alone: tokens differ in what they do
/// when one of many is unknown to them.
pub(crate) fn evidence(
    raw: &Raw,
    session: &Session,
    handle: ObjectHandle,
    id: ObjectId,
    spec: KeySpec,
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
        spec,
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
