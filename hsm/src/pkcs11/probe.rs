//! What really works. Mechanism lists and flags are only a filter: a mechanism
//! counts when a round trip and its negative tests pass on a throw-away session key.

use cryptoki::{
    context::Pkcs11,
    mechanism::{Mechanism, MechanismType},
    object::Attribute,
    slot::Slot,
};

use super::{classify, mechanism, raw::Raw};
use crate::{
    Dek, ObjectId, Result, WrappedDek,
    error::{Error, Kind},
    key::os_random,
};

/// AES-256-GCM through C_Encrypt with our IV, 56 bytes of AAD and a 128-bit tag, made
/// on one session and opened on another.
pub(crate) fn aes_gcm(raw: &Raw, module: &Pkcs11, slot: Slot) -> Result<()> {
    let unusable = |why: String| {
        Error::new(
            Kind::Unsupported,
            format!("this token cannot wrap DEKs with CKM_AES_GCM: {why}"),
        )
    };
    let by_cryptoki = |e: cryptoki::error::Error| unusable(classify::from_cryptoki(&e).to_string());
    let writer = module.open_ro_session(slot).map_err(by_cryptoki)?;
    let reader = module.open_ro_session(slot).map_err(by_cryptoki)?;
    // Only what the round trip needs; the full template is fitted afterwards.
    let key = writer
        .generate_key(
            &Mechanism::AesKeyGen,
            &[
                Attribute::ValueLen(32.into()),
                Attribute::Token(false),
                Attribute::Encrypt(true),
                Attribute::Decrypt(true),
                Attribute::Id(ObjectId::random()?.0.to_vec()),
            ],
        )
        .map_err(by_cryptoki)?;

    let mut iv = [0; WrappedDek::IV_LEN];
    let mut dek = [0; Dek::LEN];
    os_random(&mut iv)?;
    os_random(&mut dek)?;
    let aad = [7; 56];
    let mut sealed = [0; 128];
    let n = raw
        .gcm_encrypt(&writer, key, &iv, &aad, &dek, &mut sealed)
        .map_err(|rv| unusable(answer("C_Encrypt", rv)))?;
    let sealed = sealed.get(..n).unwrap_or_default().to_vec();
    if n != Dek::LEN + WrappedDek::TAG_LEN {
        return Err(unusable(format!("32 bytes became {n} instead of 48")));
    }
    let open = |iv: &[u8; 12], aad: &[u8], sealed: &[u8]| {
        let mut out = [0; 128];
        raw.gcm_decrypt(&reader, key, iv, aad, sealed, &mut out)
            .map(|n| out.get(..n).unwrap_or_default().to_vec())
    };
    match open(&iv, &aad, &sealed) {
        Ok(plain) if plain == dek => {}
        Ok(_) => return Err(unusable("another value came back".into())),
        Err(rv) => return Err(unusable(answer("C_Decrypt", rv))),
    }
    negative(&open, iv, aad, &sealed).map_err(unusable)?;
    let _ = writer.destroy_object(key);
    Ok(())
}

/// IV, AAD, ciphertext and tag to plaintext.
type Open<'a> = dyn Fn(&[u8; 12], &[u8], &[u8]) -> Result<Vec<u8>, cryptoki_sys::CK_RV> + 'a;

/// Each of these must be refused.
fn negative(
    open: &Open<'_>,
    mut iv: [u8; 12],
    mut aad: [u8; 56],
    sealed: &[u8],
) -> Result<(), String> {
    let accepted = |what: &str| Err(format!("it accepted {what}"));
    if let Some(short) = sealed.get(..sealed.len().saturating_sub(1))
        && open(&iv, &aad, short).is_ok()
    {
        return accepted("a shortened ciphertext");
    }
    for at in [0, Dek::LEN, sealed.len().saturating_sub(1)] {
        let mut flipped = sealed.to_vec();
        if let Some(b) = flipped.get_mut(at) {
            *b ^= 1;
        }
        if open(&iv, &aad, &flipped).is_ok() {
            return accepted("a changed ciphertext");
        }
    }
    aad[0] ^= 1;
    if open(&iv, &aad, sealed).is_ok() {
        return accepted("another AAD");
    }
    aad[0] ^= 1;
    iv[0] ^= 1;
    if open(&iv, &aad, sealed).is_ok() {
        return accepted("another IV");
    }
    Ok(())
}

fn answer(function: &str, rv: cryptoki_sys::CK_RV) -> String {
    let rv = classify::from_number(rv).map_or_else(|| "CKR_OK".into(), classify::name);
    format!(
        "{function} with {} answered {rv}",
        mechanism::name(*MechanismType::AES_GCM)
    )
}
