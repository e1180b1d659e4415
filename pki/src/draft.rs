//! A certificate that is not signed: the `TBSCertificate` that a plan and an issuer make
//! (RFC 5280 §4.1). Nothing is decided here, only written.

use std::borrow::Cow;

use crate::{
    Algorithm, Findings, IssuerCert, Plan, Unsigned,
    certificate::Certificate,
    extension, lint,
    plan::NO_EXPIRY,
    wire::{Writer, tag},
};

/// The bytes of a `TBSCertificate`, with what they were made from. They cannot be signed
/// until [`lint`](Self::lint) has read them.
#[derive(Debug)]
pub struct Draft<'a> {
    plan: Plan,
    issuer: Cow<'a, IssuerCert>,
    self_signed: bool,
    tbs: Vec<u8>,
}

/// The plan says something that a certificate cannot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DraftError {
    /// After the year 9999.
    #[error("a time of the certificate is after 9999-12-31T23:59:59Z; shorten its validity")]
    Time,
}

impl<'a> Draft<'a> {
    /// A certificate from an issuer.
    ///
    /// # Errors
    /// What cannot be written.
    pub fn new(plan: Plan, issuer: &'a IssuerCert) -> Result<Self, DraftError> {
        Self::write(plan, Cow::Borrowed(issuer), false)
    }

    /// A root: its issuer is itself.
    ///
    /// # Errors
    /// What cannot be written.
    pub fn self_signed(plan: Plan, algorithm: Algorithm) -> Result<Self, DraftError> {
        let issuer = IssuerCert::of_root(&plan, algorithm);
        Self::write(plan, Cow::Owned(issuer), true)
    }

    fn write(
        plan: Plan,
        issuer: Cow<'a, IssuerCert>,
        self_signed: bool,
    ) -> Result<Self, DraftError> {
        if plan.not_before.max(plan.not_after) > NO_EXPIRY {
            return Err(DraftError::Time);
        }
        let tbs = tbs(&plan, &issuer);
        Ok(Self {
            plan,
            issuer,
            self_signed,
            tbs,
        })
    }

    /// The bytes, to be shown before a ceremony.
    #[must_use]
    pub fn tbs(&self) -> &[u8] {
        &self.tbs
    }

    /// Reads the bytes again with another parser and compares them with the plan, the
    /// issuer and the rules. `now` is in Unix seconds.
    ///
    /// # Errors
    /// Everything that was found; then nothing can be signed.
    pub fn lint(self, now: u64) -> Result<Unsigned<Certificate>, Findings> {
        lint::certificate(&self.tbs, &self.plan, &self.issuer, self.self_signed, now)?;
        Ok(Unsigned::new(
            self.tbs,
            self.issuer.algorithm(),
            self.issuer.key().clone(),
            self.plan.serial,
        ))
    }
}

/// `TBSCertificate` (RFC 5280 §4.1).
fn tbs(plan: &Plan, issuer: &IssuerCert) -> Vec<u8> {
    let mut writer = Writer::with_capacity(1024);
    writer.nest(tag::SEQUENCE, |w| {
        w.nest(tag::constructed(0), |w| w.put(tag::INTEGER, &[V3]));
        w.put(tag::INTEGER, plan.serial.as_bytes());
        w.raw(issuer.algorithm().der());
        w.raw(issuer.subject_der());
        w.nest(tag::SEQUENCE, |w| {
            w.time(plan.not_before);
            w.time(plan.not_after);
        });
        w.raw(plan.subject.as_der());
        w.raw(plan.key.spki());
        w.nest(tag::constructed(3), |w| {
            w.nest(tag::SEQUENCE, |w| {
                extension::certificate(w, plan, issuer.ski())
            });
        });
    });
    writer.finish()
}

/// `Version ::= v3(2)`.
const V3: u8 = 2;

#[cfg(test)]
mod tests {
    use crate::{
        Draft, DraftError, IssuerCert, NO_EXPIRY, SubjectKey,
        testing::{ca_plan, leaf_plan},
    };

    /// The keys of RFC 8032 §7.1, tests 1 and 2, as RFC 8410 writes them.
    const KEYS: [&[u8]; 2] = [
        b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00\xd7\x5a\x98\x01\x82\xb1\x0a\xb7\xd5\x4b\xfe\xd3\xc9\x64\x07\x3a\x0e\xe1\x72\xf3\xda\xa6\x23\x25\xaf\x02\x1a\x68\xf7\x07\x51\x1a",
        b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00\x3d\x40\x17\xc3\xe8\x43\x89\x5a\x92\xb7\x0a\xa7\x4d\x1b\x7e\xbc\x9c\x98\x2c\xcf\x2e\xc4\x96\x8c\xc0\xcd\x55\xf1\x2a\xf4\x66\x0c",
    ];

    /// These bytes were read with `openssl asn1parse`; a change of them is a change of
    /// every certificate.
    #[test]
    fn a_leaf_is_these_bytes() {
        let [root, leaf] = KEYS.map(|spki| SubjectKey::from_spki(spki).unwrap());
        let algorithm = crate::Algorithm::for_key(root.kind());
        let issuer = IssuerCert::of_root(&ca_plan(root, None), algorithm);
        let draft = Draft::new(leaf_plan(leaf), &issuer).unwrap();
        let hex: String = draft.tbs().iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, include_str!("draft/leaf.hex").replace('\n', ""));
    }

    #[test]
    fn the_year_10000_is_refused() {
        let [root, leaf] = KEYS.map(|spki| SubjectKey::from_spki(spki).unwrap());
        let issuer = IssuerCert::of_root(&ca_plan(root, None), crate::Algorithm::Ed25519);
        let mut plan = leaf_plan(leaf);
        plan.not_after = NO_EXPIRY + 1;
        assert_eq!(Draft::new(plan, &issuer).unwrap_err(), DraftError::Time);
    }
}
