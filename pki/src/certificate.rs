//! A certificate that this crate has checked end to end.

use crate::{
    Serial, pem,
    unsigned::{Document, Sealed},
};

/// Signed, verified and read again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    der: Vec<u8>,
    serial: Serial,
}

impl Certificate {
    /// The DER.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// `-----BEGIN CERTIFICATE-----` (RFC 7468 §5).
    #[must_use]
    pub fn pem(&self) -> String {
        pem::encode("CERTIFICATE", &self.der)
    }

    /// Its number.
    #[must_use]
    pub fn serial(&self) -> Serial {
        self.serial
    }
}

impl Sealed for Certificate {}

impl Document for Certificate {
    type Rest = Serial;

    fn finish(der: Vec<u8>, serial: Serial) -> Option<Self> {
        Some(Self { der, serial })
    }

    fn signed(&self) -> Option<&[u8]> {
        Some(&self.der)
    }
}
