//! Textual encoding (RFC 7468 §2): a label, base64 in lines of 64.

use base64::{Engine, prelude::BASE64_STANDARD};

/// `-----BEGIN CERTIFICATE-----`, lines of 64.
#[must_use]
pub fn certificate_to_pem(der: &[u8]) -> String {
    encode("CERTIFICATE", der)
}

pub(crate) fn encode(label: &str, der: &[u8]) -> String {
    let mut text = format!("-----BEGIN {label}-----\n");
    for line in BASE64_STANDARD.encode(der).as_bytes().chunks(64) {
        // Base64 is ASCII.
        text.push_str(&String::from_utf8_lossy(line));
        text.push('\n');
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}
