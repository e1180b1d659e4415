//! The attack suite N1 to N14 (`docs/attacks.md`): what somebody with the PIN would
//! try to get a key out of the token. Each must fail with no key material coming out.
//!
//! [`all`] runs everything against throw-away keys made from the same template code
//! as real ones, when the daemon starts. [`in_place`] runs the part that needs no
//! second key against every new real key, before it is given a name.
//!
//! Background: Clulow 2003; Delaune, Kremer, Steel; Bortolozzo et al. 2010 (Tookan).

use cryptoki::{
    context::Pkcs11,
    error::Error as CkError,
    mechanism::Mechanism,
    object::{Attribute, KeyType, ObjectClass, ObjectHandle},
    session::Session,
    slot::Slot,
};
use cryptoki_sys as ck;
use cryptoki_sys::CK_RV;

use super::{
    classify,
    mechanism::{self, plausible_params},
    params::Params,
    raw::{Listed, Raw},
    template::{self, Fit, Victim},
};
use crate::{
    AttackResult, KeySpec, ObjectId, Result,
    error::{Error, Kind},
};

/// Label of the throw-away key, so that an operator who finds one after a crash
/// knows what it is.
pub(crate) const LABEL: &str = "keywright probe (safe to destroy)";

/// Everything, against a throw-away token key. The last attack logs out, to see what a
/// stranger sees; `log_in` brings the login back.
pub(crate) fn all(
    raw: &Raw,
    module: &Pkcs11,
    slot: Slot,
    fit: &Fit,
    Victim { id, handle: victim }: Victim,
    log_in: &dyn Fn(&Session) -> Result<()>,
) -> Result<Vec<AttackResult>> {
    let listed = raw.mechanisms(slot).unwrap_or_default();
    let fresh = || {
        module
            .open_rw_session(slot)
            .map_err(|e| classify::from_cryptoki(&e))
    };
    let session = fresh()?;
    let mut results = in_place(raw, &session, victim, KeySpec::Aes256);
    results.push(wrap_under_aes(raw, &session, victim, &listed));
    results.push(wrap_under_rsa(raw, &session, victim));
    results.push(derive(raw, &session, victim, &listed));
    // Each of these may leave an operation open on its session.
    results.push(forbidden_mechanism(raw, &fresh()?, victim, fit));
    results.push(digest(raw, &fresh, victim, &listed));
    results.push(operation_state(raw, &fresh()?, victim));
    let copies = fresh()?.find_objects(&template::by_id(KeySpec::Aes256, id));
    if copies.as_ref().is_ok_and(Vec::is_empty) {
        // A key that is not there proves nothing, for the token or against it.
        let text = "the token lost the throw-away key while it was attacked";
        return Err(Error::new(Kind::Gone, text));
    }
    results.push(unique(copies));
    results.push(public_session(&session, id));
    log_in(&session)?;
    // The handle died with the login.
    for handle in session
        .find_objects(&template::by_id(KeySpec::Aes256, id))
        .unwrap_or_default()
    {
        let _ = session.destroy_object(handle);
    }
    results.sort_by_key(|r| r.id.trim_start_matches('N').parse::<u8>().unwrap_or(0));
    Ok(results)
}

/// N1 and N4 to N8, against one key.
pub(crate) fn in_place(
    raw: &Raw,
    session: &Session,
    key: ObjectHandle,
    spec: KeySpec,
) -> Vec<AttackResult> {
    let set = |attribute: Attribute| session.update_attributes(key, &[attribute]);
    vec![
        read_value(raw, session, key, spec),
        verdict(
            "N4",
            "wrap the key with itself",
            wrap_with_itself(raw, session, key),
        ),
        verdict(
            "N5",
            "set CKA_EXTRACTABLE",
            refused(set(Attribute::Extractable(true))),
        ),
        verdict(
            "N6",
            "clear CKA_SENSITIVE",
            refused(set(Attribute::Sensitive(false))),
        ),
        verdict(
            "N7",
            "gain another right: wrap, unwrap, derive, and sign or decrypt",
            all_refused(
                [
                    Attribute::Wrap(true),
                    Attribute::Unwrap(true),
                    Attribute::Derive(true),
                    // The one it has not.
                    match spec {
                        KeySpec::Aes256 | KeySpec::RsaDecrypt(_) => Attribute::Sign(true),
                        _ => Attribute::Decrypt(true),
                    },
                ]
                .into_iter()
                .map(|a| refused(set(a))),
            ),
        ),
        verdict(
            "N8",
            "copy the key, also with weaker attributes",
            copy(session, key),
        ),
    ]
}

/// Ok: how the token refused. Err: what came out.
type Outcome = std::result::Result<String, String>;

fn verdict(id: &'static str, attempt: &'static str, outcome: Outcome) -> AttackResult {
    let resisted = outcome.is_ok();
    let (Ok(outcome) | Err(outcome)) = outcome;
    AttackResult {
        id,
        attempt,
        outcome,
        resisted,
    }
}

fn refused<T>(result: std::result::Result<T, CkError>) -> Outcome {
    match result {
        Ok(_) => Err("the token allowed it".into()),
        Err(CkError::Pkcs11(rv, _)) => Ok(format!("refused with {}", classify::name(rv))),
        Err(CkError::NullFunctionPointer) => Ok("the module does not offer it".into()),
        Err(e) => Ok(format!("refused: {e}")),
    }
}

fn refused_raw<T>(result: std::result::Result<T, CK_RV>) -> Outcome {
    match result {
        Ok(_) => Err("the token allowed it".into()),
        Err(rv) => Ok(format!(
            "refused with {}",
            classify::from_number(rv).map_or_else(String::new, classify::name)
        )),
    }
}

/// Refused only if every attempt was; the first refusal speaks for the rest.
fn all_refused(outcomes: impl IntoIterator<Item = Outcome>) -> Outcome {
    let mut first = None;
    for outcome in outcomes {
        let text = outcome?;
        first.get_or_insert(text);
    }
    Ok(first.unwrap_or_else(|| "the token offers nothing of the kind".into()))
}

/// N1: everything a key of this kind keeps to itself.
fn read_value(raw: &Raw, session: &Session, key: ObjectHandle, spec: KeySpec) -> AttackResult {
    let secrets: &[ck::CK_ATTRIBUTE_TYPE] = match spec {
        KeySpec::RsaSign(_) | KeySpec::RsaDecrypt(_) => &[
            ck::CKA_PRIVATE_EXPONENT,
            ck::CKA_PRIME_1,
            ck::CKA_PRIME_2,
            ck::CKA_EXPONENT_1,
            ck::CKA_EXPONENT_2,
            ck::CKA_COEFFICIENT,
        ],
        _ => &[ck::CKA_VALUE],
    };
    let outcome = all_refused(secrets.iter().map(|secret| {
        let (rv, len, buffer) = raw.read_attribute(session, key, *secret);
        if buffer.iter().any(|b| *b != 0) {
            Err("bytes were written into the buffer".into())
        } else if rv == ck::CKR_OK && len != ck::CK_UNAVAILABLE_INFORMATION && len != 0 {
            Err(format!("CKR_OK with a length of {len}"))
        } else {
            Ok(match classify::from_number(rv) {
                Some(rv) => format!("refused with {}", classify::name(rv)),
                None => "answered with nothing".into(),
            })
        }
    }));
    verdict("N1", "read the secret attributes", outcome)
}

fn wrap_with_itself(raw: &Raw, session: &Session, key: ObjectHandle) -> Outcome {
    all_refused(
        [
            ck::CKM_AES_KEY_WRAP,
            ck::CKM_AES_KEY_WRAP_PAD,
            ck::CKM_AES_GCM,
        ]
        .map(|m| refused_raw(raw.wrap_key(session, m, &plausible_params(m), key, key))),
    )
}

/// N2: every mechanism the slot lists for wrapping, under a fresh AES key that may wrap.
fn wrap_under_aes(
    raw: &Raw,
    session: &Session,
    victim: ObjectHandle,
    listed: &[Listed],
) -> AttackResult {
    let id = "N2";
    let attempt = "C_WrapKey under a fresh AES key, every listed mechanism";
    let wrapper = session.generate_key(
        &Mechanism::AesKeyGen,
        &[
            Attribute::ValueLen(32.into()),
            Attribute::Token(false),
            Attribute::Wrap(true),
            Attribute::Encrypt(true),
        ],
    );
    let Ok(wrapper) = wrapper else {
        return verdict(id, attempt, Ok("the token makes no wrapping key".into()));
    };
    let outcome = all_refused(with_flag(listed, ck::CKF_WRAP).map(|m| {
        refused_raw(raw.wrap_key(session, m, &plausible_params(m), wrapper, victim))
            .map_err(|e| format!("{}: {e}", mechanism::name(m)))
    }));
    let _ = session.destroy_object(wrapper);
    verdict(id, attempt, outcome)
}

/// N3: under an RSA public key. The key is imported, so nobody need know the private
/// half; nobody does.
fn wrap_under_rsa(raw: &Raw, session: &Session, victim: ObjectHandle) -> AttackResult {
    let id = "N3";
    let attempt = "C_WrapKey under an RSA public key, OAEP and PKCS#1";
    let wrapper = session.create_object(&[
        Attribute::Class(ObjectClass::PUBLIC_KEY),
        Attribute::KeyType(KeyType::RSA),
        Attribute::Token(false),
        Attribute::Wrap(true),
        Attribute::Encrypt(true),
        Attribute::Modulus(rsa_modulus()),
        Attribute::PublicExponent(vec![1, 0, 1]),
    ]);
    let Ok(wrapper) = wrapper else {
        return verdict(
            id,
            attempt,
            Ok("the token takes no foreign public key".into()),
        );
    };
    let outcome = all_refused([ck::CKM_RSA_PKCS_OAEP, ck::CKM_RSA_PKCS].map(|m| {
        refused_raw(raw.wrap_key(session, m, &plausible_params(m), wrapper, victim))
            .map_err(|e| format!("{}: {e}", mechanism::name(m)))
    }));
    let _ = session.destroy_object(wrapper);
    verdict(id, attempt, outcome)
}

fn copy(session: &Session, key: ObjectHandle) -> Outcome {
    let weaker: [&[Attribute]; 6] = [
        &[Attribute::Token(false)],
        &[Attribute::Token(false), Attribute::Extractable(true)],
        &[Attribute::Token(false), Attribute::Sensitive(false)],
        &[Attribute::Token(false), Attribute::Wrap(true)],
        &[Attribute::Token(false), Attribute::Modifiable(true)],
        &[Attribute::Token(false), Attribute::Copyable(true)],
    ];
    all_refused(
        weaker.map(|template| match session.copy_object(key, template) {
            Ok(copy) => {
                let _ = session.destroy_object(copy);
                Err(format!("copied with {template:?}"))
            }
            refusal => refused(refusal),
        }),
    )
}

/// N9: derive a readable key.
fn derive(raw: &Raw, session: &Session, victim: ObjectHandle, listed: &[Listed]) -> AttackResult {
    let outcome = all_refused(with_flag(listed, ck::CKF_DERIVE).map(|m| {
        refused_raw(raw.derive_readable(session, m, &plausible_params(m), victim))
            .map_err(|e| format!("{}: {e}", mechanism::name(m)))
    }));
    verdict("N9", "C_DeriveKey, every listed mechanism", outcome)
}

/// N10: ECB would run key unwrapping backwards by hand.
fn forbidden_mechanism(
    raw: &Raw,
    session: &Session,
    victim: ObjectHandle,
    fit: &Fit,
) -> AttackResult {
    let id = "N10";
    let attempt = "encrypt with a mechanism outside CKA_ALLOWED_MECHANISMS";
    if fit
        .not_supported()
        .iter()
        .any(|n| n == "CKA_ALLOWED_MECHANISMS")
    {
        let outcome = "not applicable: the token does not know the attribute; no WRAP and no UNWRAP right bars the way";
        return verdict(id, attempt, Ok(outcome.into()));
    }
    let outcome = all_refused([ck::CKM_AES_ECB, ck::CKM_AES_CBC].map(|m| {
        let params = match m {
            ck::CKM_AES_ECB => Params::None,
            other => plausible_params(other),
        };
        refused_raw(raw.encrypt(session, m, &params, victim, &[0; 16]))
            .map_err(|e| format!("{}: {e}", mechanism::name(m)))
    }));
    verdict(id, attempt, outcome)
}

/// N11: C_DigestKey. A preimage-resistant hash of 256 random bits gives nothing away
/// (SoftHSM allows SHA-1 and SHA-2 and refuses MD5); anything weaker would.
fn digest(
    raw: &Raw,
    fresh: &dyn Fn() -> Result<Session>,
    victim: ObjectHandle,
    listed: &[Listed],
) -> AttackResult {
    let mut one_way = 0;
    let outcome = all_refused(with_flag(listed, ck::CKF_DIGEST).map(|m| {
        // A refused C_DigestKey leaves the digest running: a session for each.
        let session = fresh().map_err(|e| e.to_string())?;
        match raw.digest_key(&session, m, victim) {
            Ok(_) if mechanism::preimage_resistant(m) => {
                one_way += 1;
                Ok("allowed for one-way SHA digests only".into())
            }
            other => refused_raw(other).map_err(|e| format!("{}: {e}", mechanism::name(m))),
        }
    }));
    let outcome = outcome.map(|text| match one_way {
        0 => text,
        n => format!("{n} one-way SHA digests came out, the key did not"),
    });
    verdict("N11", "C_DigestKey, every listed mechanism", outcome)
}

/// N12: the saved state of a running operation could hold the key schedule.
fn operation_state(raw: &Raw, session: &Session, victim: ObjectHandle) -> AttackResult {
    let mut iv = [1; 12];
    let started = cryptoki::mechanism::aead::GcmParams::new(&mut iv, &[], 128.into())
        .and_then(|params| session.encrypt_init(&Mechanism::AesGcm(params), victim));
    let outcome = match started {
        Err(e) => Ok(format!(
            "no operation could be started: {}",
            classify::from_cryptoki(&e)
        )),
        Ok(()) => match raw.operation_state(session) {
            Ok(state) if state.is_empty() => Ok("answered with nothing".into()),
            other => refused_raw(other),
        },
    };
    verdict("N12", "C_GetOperationState during an operation", outcome)
}

/// N13: without login the key must not even be visible.
fn public_session(session: &Session, id: ObjectId) -> AttackResult {
    let outcome = match session.logout() {
        Err(e) => Err(format!(
            "the token does not log out: {}",
            classify::from_cryptoki(&e)
        )),
        Ok(()) => match session.find_objects(&template::by_id(KeySpec::Aes256, id)) {
            Ok(found) if found.is_empty() => Ok("the key is not visible".into()),
            Ok(_) => Err("the key is visible without login".into()),
            Err(e) => refused::<()>(Err(e)),
        },
    };
    verdict("N13", "look for the key without login", outcome)
}

/// N14: a second object with the same id would make every look-up a gamble.
fn unique(found: std::result::Result<Vec<ObjectHandle>, CkError>) -> AttackResult {
    let outcome = match found {
        Ok(found) if found.len() == 1 => Ok("exactly one object".into()),
        Ok(found) => Err(format!("{} objects", found.len())),
        Err(e) => Err(classify::from_cryptoki(&e).to_string()),
    };
    verdict("N14", "count the objects with the key's CKA_ID", outcome)
}

fn with_flag(listed: &[Listed], flag: u64) -> impl Iterator<Item = ck::CK_MECHANISM_TYPE> + '_ {
    listed
        .iter()
        .filter(move |l| l.flags & flag != 0)
        .map(|l| l.mechanism)
}

/// Modulus of an RSA-2048 key whose private half was never kept.
fn rsa_modulus() -> Vec<u8> {
    const MODULUS: &str = "\
        b01519693c7ecba316b0af8f19ce032e51d61b1e63affc49caad87376bd371194965fea61830d1af\
        72f1e84bb7cbb053166affa13261d868db3972a1a57cbfa5c806453521cb13d9d9a6e53b3412b618\
        8fdf77bcc53694fd81fc8bc2ec5c098daaa89916d4a1ce85be17641b91599777f5335b677d3ff83d\
        7c3e92c150178c81ee4a27fb7e63060b376fe3bf83dbd26616c4d6723384f108981d70066019fa16\
        50a3498d439ddc2332d701784a8e485a6d2291e9322622a00254fc9671dd6503f25a40f308f55a9c\
        da961cbf82e1889e7fc527cb927f9589a8b19a74679e61e3473d9f3c40de59f71cb9f4f58ce0a0f3\
        488e1fc681374353a4be3c22911a2bcf";
    hex::decode(MODULUS).unwrap_or_default()
}
