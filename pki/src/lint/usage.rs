//! Rules on what a certificate may be used for.

use super::{Verdict, ensure, reading::Reading};
use crate::{Eku, Kind};

/// Bits as x509-parser numbers them: the first of the standard is the lowest here.
mod bit {
    pub(super) const DIGITAL_SIGNATURE: u16 = 1;
    pub(super) const KEY_ENCIPHERMENT: u16 = 1 << 2;
    pub(super) const KEY_AGREEMENT: u16 = 1 << 4;
    pub(super) const KEY_CERT_SIGN: u16 = 1 << 5;
    pub(super) const CRL_SIGN: u16 = 1 << 6;
}

/// The octets of one OBJECT IDENTIFIER below id-kp, with its header.
const KP_LEN: usize = 10;

/// The longest life of a delegated OCSP signer: 14 days, in seconds (R9).
const MAX_RESPONDER_S: u64 = 14 * 86_400;

/// C13: critical, exactly the planned bits, and such as the key can do.
pub(super) fn key_usage(r: &Reading<'_>) -> Verdict {
    let usage = r.key_usage.as_ref().ok_or("it has no key usage")?;
    ensure(usage.critical, "the key usage is not critical")?;
    let kind = r.plan.key.kind();
    let expected = match &r.plan.kind {
        Kind::Ca { .. } => bit::KEY_CERT_SIGN | bit::CRL_SIGN,
        Kind::OcspResponder => bit::DIGITAL_SIGNATURE,
        Kind::Leaf { key_usage, .. } => {
            let may = kind.is_rsa() || !key_usage.key_encipherment;
            ensure(may, "keyEncipherment is for RSA keys only")?;
            let may = kind.is_ec() || !key_usage.key_agreement;
            ensure(may, "keyAgreement is for EC keys only")?;
            bit::DIGITAL_SIGNATURE
                + u16::from(key_usage.key_encipherment) * bit::KEY_ENCIPHERMENT
                + u16::from(key_usage.key_agreement) * bit::KEY_AGREEMENT
        }
    };
    ensure(
        usage.parsed.flags == expected,
        "the key usage is not the planned one",
    )
}

/// C17: on every end entity, never on a CA; exactly the planned ones; never any.
pub(super) fn ext_key_usage(r: &Reading<'_>) -> Verdict {
    if r.plan.kind.is_ca() {
        return ensure(r.eku.is_none(), "a CA has no extended key usage");
    }
    let eku = r.eku.as_ref().ok_or("it has no extended key usage")?;
    ensure(!eku.critical, "the extended key usage is critical")?;
    let planned: &[Eku] = match &r.plan.kind {
        Kind::Leaf { ext_key_usage, .. } => ext_key_usage,
        _ => &[],
    };
    let responder = r.plan.kind == Kind::OcspResponder;
    ensure(
        responder || !planned.is_empty(),
        "a leaf needs at least one extended key usage",
    )?;
    let has = |eku| planned.contains(&eku);
    let same = !eku.parsed.any
        && !eku.parsed.time_stamping
        && eku.parsed.other.is_empty()
        && eku.parsed.ocsp_signing == responder
        && eku.parsed.server_auth == has(Eku::ServerAuth)
        && eku.parsed.client_auth == has(Eku::ClientAuth)
        && eku.parsed.code_signing == has(Eku::CodeSigning)
        && eku.parsed.email_protection == has(Eku::EmailProtection);
    ensure(same, "the extended key usage is not the planned one")?;
    // The parser forgets how often each is there.
    let all = [
        Eku::ServerAuth,
        Eku::ClientAuth,
        Eku::CodeSigning,
        Eku::EmailProtection,
    ];
    let distinct = all.into_iter().filter(|eku| has(*eku)).count() + usize::from(responder);
    let once = eku.value.len() == 2 + KP_LEN * distinct;
    ensure(once, "an extended key usage is there twice")
}

/// R9: a delegated OCSP signer lives at most 14 days and is not asked about itself.
pub(super) fn ocsp_responder(r: &Reading<'_>) -> Verdict {
    let responder = r.plan.kind == Kind::OcspResponder;
    ensure(
        r.no_check.is_some() == responder,
        "nocheck is for OCSP responders, and for each",
    )?;
    if let Some(no_check) = &r.no_check {
        ensure(!no_check.critical, "nocheck is critical")?;
    }
    let life = r.plan.not_after.saturating_sub(r.plan.not_before);
    ensure(
        !responder || life < MAX_RESPONDER_S,
        "an OCSP responder's certificate lasts over 14 days",
    )
}
