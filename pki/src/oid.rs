//! Object identifiers that we write: content octets of the OBJECT IDENTIFIER.

/// id-ce, 2.5.29 (RFC 5280 §4.2.1, §5.2, §5.3).
const fn ce(arc: u8) -> [u8; 3] {
    [0x55, 0x1d, arc]
}

pub(crate) const SUBJECT_KEY_ID: [u8; 3] = ce(14);
pub(crate) const KEY_USAGE: [u8; 3] = ce(15);
pub(crate) const SUBJECT_ALT_NAME: [u8; 3] = ce(17);
pub(crate) const BASIC_CONSTRAINTS: [u8; 3] = ce(19);
pub(crate) const CRL_NUMBER: [u8; 3] = ce(20);
pub(crate) const REASON_CODE: [u8; 3] = ce(21);
pub(crate) const INVALIDITY_DATE: [u8; 3] = ce(24);
/// x509-cert 0.3.0 gives its type the number of subjectInfoAccess; this is the right one.
pub(crate) const ISSUING_DISTRIBUTION_POINT: [u8; 3] = ce(28);
pub(crate) const NAME_CONSTRAINTS: [u8; 3] = ce(30);
pub(crate) const CRL_DISTRIBUTION_POINTS: [u8; 3] = ce(31);
pub(crate) const CERTIFICATE_POLICIES: [u8; 3] = ce(32);
pub(crate) const AUTHORITY_KEY_ID: [u8; 3] = ce(35);
pub(crate) const EXT_KEY_USAGE: [u8; 3] = ce(37);
/// RFC 9608 §2.
pub(crate) const NO_REV_AVAIL: [u8; 3] = ce(56);

/// id-pkix, 1.3.6.1.5.5.7.
const fn pkix(a: u8, b: u8) -> [u8; 8] {
    [0x2b, 6, 1, 5, 5, 7, a, b]
}

/// id-pe-authorityInfoAccess.
pub(crate) const AUTHORITY_INFO_ACCESS: [u8; 8] = pkix(1, 1);
/// id-ad-ocsp.
pub(crate) const AD_OCSP: [u8; 8] = pkix(48, 1);
/// id-ad-caIssuers.
pub(crate) const AD_CA_ISSUERS: [u8; 8] = pkix(48, 2);
/// id-pkix-ocsp-basic (RFC 6960 §4.2.1).
pub(crate) const OCSP_BASIC: [u8; 9] = [0x2b, 6, 1, 5, 5, 7, 48, 1, 1];
/// id-pkix-ocsp-nonce (RFC 9654 §2.1).
pub(crate) const OCSP_NONCE: [u8; 9] = [0x2b, 6, 1, 5, 5, 7, 48, 1, 2];
/// id-pkix-ocsp-nocheck (RFC 6960 §4.2.2.2.1).
pub(crate) const OCSP_NO_CHECK: [u8; 9] = [0x2b, 6, 1, 5, 5, 7, 48, 1, 5];
/// pkcs-9-at-extensionRequest (RFC 2985 §5.4.2).
pub(crate) const EXTENSION_REQUEST: [u8; 9] = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 14];
/// id-kp-OCSPSigning: last arc below id-kp.
pub(crate) const KP_OCSP_SIGNING: u8 = 9;

/// id-kp below it (RFC 5280 §4.2.1.12).
pub(crate) const fn kp(arc: u8) -> [u8; 8] {
    pkix(3, arc)
}
